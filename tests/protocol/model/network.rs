//! Messages between nodes and the service.

use super::Pod;
use ipam_api::{
    ledger::{Entry, Verdict},
    line::Offset,
    wire::{BlockVersion, BootSeq, Claim, EntryState, NodeStamp, Seq, Stamp},
};

/// A request of a node, with what its `Ipam-Node` header says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) from: usize,
    pub(super) claim: Claim,
    pub(super) boot: BootSeq,
    /// Stands for the kernel's boot id.
    pub(super) boot_id: u8,
    /// The version of the block that the node works with.
    pub(super) block: BlockVersion,
    /// Of a sync: its `asOfSeq`.
    pub(super) seq: Seq,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Body {
    Hold(Pod, Offset),
    Release(Pod, Offset),
    Sync { entries: Vec<Listed>, deletion: Option<Claim> },
}

/// An entry as listed: orderable, unlike the ledger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Listed {
    pub(super) at: Offset,
    pub(super) pod: Pod,
    pub(super) live: bool,
    pub(super) seq: Seq,
}

impl Listed {
    pub(super) fn entry(self) -> Entry<Pod> {
        let state = if self.live { EntryState::Wired } else { EntryState::Released };
        Entry { at: self.at, attachment: self.pod, state, seq: self.seq }
    }
}

impl Request {
    /// The header.
    pub(super) fn stamp(&self, with_boot_id: BootIds) -> NodeStamp {
        NodeStamp {
            stamp: Stamp { claim: self.claim, boot: self.boot, seq: self.seq },
            block: self.block,
            boot_id: (with_boot_id == BootIds::Sent).then(|| format!("{}-{}", self.from, self.boot_id)),
            machine: Some(self.from.to_string()),
        }
    }
}

/// Whether headers carry the kernel's boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BootIds {
    Sent,
    Absent,
}

/// A block as the service describes it: it lies at the beginning of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Described {
    pub(super) version: BlockVersion,
    pub(super) size: u64,
}

/// An answer on its way to the shim that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Reply {
    pub(super) to: usize,
    pub(super) claim: Claim,
    pub(super) boot: BootSeq,
    pub(super) seq: Seq,
    pub(super) body: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Answer {
    /// To a hold: the allocation is held, released, or refused for its address.
    Held(Pod, Offset),
    Superseded(Pod, Offset),
    Taken(Pod, Offset),
    /// To a release.
    Released(Offset),
    /// To a sync: a word on each entry, the deletion, if the node is being deleted, and its block.
    Synced {
        words: Vec<(Listed, Word)>,
        deletion: Option<Claim>,
        block: Described,
    },
    /// To anything: 409 `stale-claim`; the address if it was about one.
    Stale(Option<Offset>),
}

/// A verdict, orderable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Word {
    Kept,
    Released,
    Refused,
}

impl From<Verdict> for Word {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Kept => Self::Kept,
            Verdict::Released => Self::Released,
            Verdict::Refused(_) => Self::Refused,
        }
    }
}
