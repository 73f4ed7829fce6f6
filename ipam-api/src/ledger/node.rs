//! Which life of a node may speak.

use super::Stale;
use crate::wire::{BlockVersion, BootSeq, Claim, NodeStamp, NodeState, Seq, Stamp};

/// What the service keeps about the node-wide order of a node's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeLedger {
    /// Its claim.
    pub claim: Claim,
    /// The last boot heard of within the claim; 0 before the first.
    pub boot: BootSeq,
    /// The kernel's id of that boot, where the node told it.
    pub boot_id: Option<String>,
    /// Hash that tells the machine, fixed by the first request that carries one.
    pub machine: Option<String>,
    /// `asOfSeq` of the last sync of that boot; 0 before the first. No lower request is newer.
    pub floor: Seq,
    /// Version of its block.
    pub block: BlockVersion,
    /// Where it is in its life.
    pub state: NodeState,
    /// Names the deletion while the node is `deleting`.
    pub deletion: Option<String>,
}

/// Whether a request comes from a boot the service had not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootChange {
    /// The boot last heard of, or the first one: no row ends.
    Same,
    /// A later boot: every live row of this node is of an earlier one and ends,
    /// keeping its stamp, before the request itself is decided.
    Newer,
}

/// A request that may speak for its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Admission {
    /// The node with the request's boot and machine noted: what to keep and to decide the request with.
    pub node: NodeLedger,
    /// Whether rows of earlier boots end.
    pub boot: BootChange,
}

/// When the block of a deleted node is free again, if nobody says that its VM is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// At once: its shim never took the claim up and so never used the block.
    Now,
    /// When a sync [confirms](super::SyncDecision::confirms_deletion) it: pods may run on the node
    /// that nobody here has heard of.
    OnConfirmation,
}

impl NodeLedger {
    /// A claim just made, which nobody has taken up.
    #[must_use]
    pub fn claimed(claim: Claim, block: BlockVersion) -> Self {
        Self {
            claim,
            boot: BootSeq(0),
            boot_id: None,
            machine: None,
            floor: Seq(0),
            block,
            state: NodeState::Planned,
            deletion: None,
        }
    }

    /// Whether a request may speak for the node, and what it tells about the node.
    ///
    /// A boot is known by its number *and* its id. A node that lost its
    /// `dataDir` while cut off may give a number twice; then whichever comes
    /// second is refused here, fetches the node and takes a new number.
    ///
    /// # Errors
    /// The request is stale; nothing of it counts.
    pub fn admit(&self, call: &NodeStamp) -> Result<Admission, Stale> {
        let (theirs, ours) = (call.stamp.boot, self.boot);
        if call.stamp.claim != self.claim {
            return Err(Stale::Claim { theirs: call.stamp.claim, ours: self.claim });
        }
        if differ(call.machine.as_deref(), self.machine.as_deref()) {
            return Err(Stale::Machine);
        }
        if theirs < ours {
            return Err(Stale::Boot { theirs, ours });
        }
        let misnumbered = if theirs == ours {
            differ(call.boot_id.as_deref(), self.boot_id.as_deref())
        } else {
            call.boot_id.is_some() && call.boot_id == self.boot_id
        };
        if misnumbered {
            return Err(Stale::BootId { theirs, ours });
        }
        if call.block > self.block {
            return Err(Stale::Block { theirs: call.block, ours: self.block });
        }
        let mut node = self.clone();
        node.machine = node.machine.or_else(|| call.machine.clone());
        let mut boot = BootChange::Same;
        if theirs > ours {
            node.boot = theirs;
            node.boot_id.clone_from(&call.boot_id);
            node.floor = Seq(0);
            if ours > BootSeq(0) {
                boot = BootChange::Newer;
            }
        }
        node.boot_id = node.boot_id.or_else(|| call.boot_id.clone());
        Ok(Admission { node, boot })
    }

    /// When the block is free again once somebody deletes the node.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self.state {
            NodeState::Planned => Ending::Now,
            NodeState::Active | NodeState::Deleting => Ending::OnConfirmation,
        }
    }

    /// The stamp that a request must exceed to be newer, where no row says more.
    #[must_use]
    pub fn floor(&self) -> Stamp {
        Stamp { claim: self.claim, boot: self.boot, seq: self.floor }
    }
}

/// Whether both are known and not the same.
fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}
