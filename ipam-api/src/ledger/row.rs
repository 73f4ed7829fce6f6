//! One address: who gets it, who gave it back.

use super::{NodeLedger, Refusal, Stale, Taken};
use crate::{
    names::Attachment,
    wire::{AllocationState, NodeState, Stamp},
};

/// What the ledger has about one address: the newest word on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row<A = Attachment> {
    /// Who holds it, or held it last.
    pub attachment: A,
    /// The request that wrote the row.
    pub stamp: Stamp,
    /// Whether it is held.
    pub state: AllocationState,
}

impl<A> Row<A> {
    /// Whether the address is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state == AllocationState::Held
    }
}

/// Where an address lies, and what the ledger has about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Slot<'a, A = Attachment> {
    /// Outside the node's block.
    Outside,
    /// In the block, with its row, of whichever claim, if it was ever held.
    InBlock(Option<&'a Row<A>>),
    /// The same, but the block gives it up, and its node knew that when it made the
    /// request: what lives there goes on, nothing new begins.
    Leaving(Option<&'a Row<A>>),
}

/// What becomes of a request to hold an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// The attachment gets it: end the attachment's row at another address, if
    /// it has one, then write the row with the request's stamp.
    Take,
    /// Nothing changes: the attachment has it from this very request.
    AlreadyHeld,
    /// Nothing changes: something newer was said; this is the allocation's state.
    NotNewer(AllocationState),
}

/// What becomes of a request to give an address back. It always succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Release {
    /// Write the row as released with the request's stamp and attachment, even where there was none.
    Record,
    /// Nothing changes: something newer was said.
    NotNewer,
    /// Nothing changes: the address is none of this claim's.
    Nothing,
}

/// Decides a request to hold an address, of a node as [admitted](NodeLedger::admit).
///
/// `elsewhere` is the row by which the same attachment holds another address
/// of this node.
///
/// # Errors
/// The address is outside the block or another claim's, or the request is
/// newer but the node gets nothing new: its claim is not taken up, it is
/// being deleted, or it knows that its block gives the address up.
pub fn hold<A: PartialEq>(
    node: &NodeLedger,
    stamp: Stamp,
    attachment: &A,
    slot: &Slot<'_, A>,
    elsewhere: Option<&Row<A>>,
) -> Result<Hold, Refusal> {
    let row = match slot {
        Slot::Outside => return Err(Taken::OutsideBlock.into()),
        Slot::InBlock(Some(row)) | Slot::Leaving(Some(row)) if row.stamp.claim != node.claim => {
            if row.is_held() {
                return Err(Taken::OtherClaim.into());
            }
            None
        }
        Slot::InBlock(row) | Slot::Leaving(row) => *row,
    };
    let theirs = row.filter(|row| row.is_held() && row.attachment == *attachment);
    if theirs.is_some_and(|row| row.stamp == stamp) {
        return Ok(Hold::AlreadyHeld);
    }
    let moved_on = elsewhere.is_some_and(|other| other.is_held() && other.stamp >= stamp);
    if moved_on || stamp <= newest(node, row) {
        let state = if theirs.is_some() { AllocationState::Held } else { AllocationState::Released };
        return Ok(Hold::NotNewer(state));
    }
    match node.state {
        NodeState::Planned => Err(Stale::NotTakenUp.into()),
        NodeState::Deleting => Err(Stale::Deleting.into()),
        NodeState::Active if matches!(slot, Slot::Leaving(_)) => Err(Taken::Leaving.into()),
        NodeState::Active => Ok(Hold::Take),
    }
}

/// Decides a request to give an address back, of a node as [admitted](NodeLedger::admit).
///
/// The row counts whoever holds it: a newer word that the address was given
/// back ends every older hold of it.
#[must_use]
pub fn release<A>(node: &NodeLedger, stamp: Stamp, slot: &Slot<'_, A>) -> Release {
    let row = match slot {
        Slot::Outside => return Release::Nothing,
        Slot::InBlock(Some(row)) | Slot::Leaving(Some(row)) if row.stamp.claim != node.claim => {
            if row.is_held() {
                return Release::Nothing;
            }
            None
        }
        Slot::InBlock(row) | Slot::Leaving(row) => *row,
    };
    if stamp <= newest(node, row) { Release::NotNewer } else { Release::Record }
}

fn newest<A>(node: &NodeLedger, row: Option<&Row<A>>) -> Stamp {
    row.map_or(node.floor(), |row| row.stamp.max(node.floor()))
}
