//! Which of two requests of a node wins: the service's decisions about what
//! nodes tell it, as pure functions over plain values.
//!
//! The store loads rows, asks here, and writes what the answer says; the
//! protocol model (`tests/protocol`) searches these same functions
//! exhaustively. The rules:
//!
//! * [`NodeLedger::admit`]: may this life of the node speak at all? Another
//!   claim, an older boot, another machine may not. A newer boot may, and ends
//!   what the earlier ones held.
//! * [`hold`] and [`release`]: per **address** the newest stamp wins; what is
//!   not newer changes nothing and gets the current answer. A release leaves a
//!   row even where none was, so that its overtaken `hold` finds it.
//! * [`sync`]: the node's whole journal, as of a sequence number. It is newer
//!   than every request of a lower number, whatever the row says, and raises
//!   the floor under all addresses of the node to that number.
//! * [`Footprint`]: what a block gives up stays the node's until a sync of the
//!   block's current version shows that nothing lives there.
//!
//! Stamps are compared within one claim only. A row of another claim inside
//! the node's block is a former holder's: its stamp means nothing, and while it
//! is held nobody else gets the address.
//!
//! `A` is what holds an address: [`Attachment`](crate::names::Attachment) in
//! the service, something smaller in the model.

mod footprint;
mod node;
mod row;
mod sync;

pub use footprint::{Footprint, Leaving};
pub use node::{Admission, BootChange, Ending, NodeLedger};
pub use row::{Hold, Release, Row, Slot, hold, release};
pub use sync::{Entry, Listing, SyncDecision, Verdict, sync};

use crate::wire::{BlockVersion, BootSeq, Claim};

/// Why the ledger refuses a request of a node; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The node's claim, boot, machine or block version is not the current one: `stale-claim`.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The node may not hold this address: `address-taken`.
    #[error(transparent)]
    Taken(#[from] Taken),
}

/// What about a request is stale.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Stale {
    /// It speaks for another claim.
    #[error("the request is of claim {theirs}, the node's claim is {ours}; fetch the node again")]
    Claim {
        /// The claim in the request.
        theirs: Claim,
        /// The claim that counts.
        ours: Claim,
    },
    /// It was sent by another machine of the same name.
    #[error("another machine holds this claim; register the node with replace if that one is gone")]
    Machine,
    /// It was sent before a later boot.
    #[error("the request is of boot {theirs}, the node's boot is {ours}; fetch the node again")]
    Boot {
        /// The boot in the request.
        theirs: BootSeq,
        /// The last boot heard of.
        ours: BootSeq,
    },
    /// The boot's number and its id do not go together: two boots of one number, or one of two.
    #[error("boot {theirs} is not the number of this boot id (last heard of: {ours}); fetch the node again")]
    BootId {
        /// The boot in the request.
        theirs: BootSeq,
        /// The last boot heard of.
        ours: BootSeq,
    },
    /// It works with a block version the service never gave.
    #[error(
        "the request is of block version {theirs}, the node's block has version {ours}; fetch the node again"
    )]
    Block {
        /// The version in the request.
        theirs: BlockVersion,
        /// The version that counts.
        ours: BlockVersion,
    },
    /// The node's shim has not taken the claim up: it must sync before it uses the block.
    #[error("the claim is not taken up; sync first")]
    NotTakenUp,
    /// The node is being deleted and gets nothing new.
    #[error("the node is being deleted; no address is given to it any more")]
    Deleting,
}

/// Why the node may not hold an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Taken {
    /// It is not in the node's block.
    #[error("the address is not in the node's block; take another")]
    OutsideBlock,
    /// The node's block gives it up.
    #[error("the address leaves the node's block; take another")]
    Leaving,
    /// Another claim still holds it.
    #[error("the address is held under another claim; take another")]
    OtherClaim,
}

#[cfg(test)]
mod tests;
