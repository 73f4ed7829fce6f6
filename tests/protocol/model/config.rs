//! What a search has in it.

use super::{Budget, Seen, World, node::Vm, service::Service};
use ipam_api::{
    ledger::Footprint,
    line::{Extent, Offset},
};
use std::{collections::BTreeSet, sync::Arc};

/// The rules in force: ours, or ours with one of them broken in a known way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Rules {
    /// As designed.
    #[default]
    Ours,
    /// The ledger keeps the last stamp per attachment instead of per address.
    KeyedByAttachment,
    /// DEL draws its sequence number when it begins, before unwiring.
    SeqBeforeUnwiring,
    /// The undo of a failed ADD removes its entry instead of leaving it `released`.
    UndoForgets,
    /// A reply acknowledges whatever entry its address has by now.
    ReplyAcksMore,
    /// A deleted node's block is given to others without its confirmation.
    ReclaimAfterTime,
    /// A node forgets at a reboot that it may not ADD any more.
    StopForgottenAtReboot,
    /// A sync's answer that is older than the deletion lets the node ADD again.
    LateAnswerRevives,
    /// A node uses a block it has fetched before its first sync is through.
    NoFirstSync,
    /// A sync lists first and draws `asOfSeq` after.
    ListedBeforeAsOf,
    /// GC takes away entries made after it began.
    GcTakesNewer,
    /// GC takes away entries of other networks.
    GcOfAllNetworks,
    /// A boot is known by its number only.
    BootWithoutId,
    /// A lost journal is taken for an empty one.
    LostIsEmpty,
    /// A sync of an older block version confirms that the block's end is empty.
    OlderVersionConfirms,
    /// What a block gives up is given to others without its node's confirmation.
    LeavesByTime,
    /// An answer that is older than the block's last change brings back what it gave up.
    OlderBlockReturns,
}

/// Where a search begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// The first VM has taken its claim up.
    #[default]
    TakenUp,
    /// Nobody is registered.
    Nothing,
}

/// What a search has in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The rules in force.
    pub(crate) rules: Rules,
    /// Where it begins.
    pub(crate) start: Start,
    /// Pods of each VM: at most four.
    pub(crate) pods: u8,
    /// Addresses of the block.
    pub(crate) addresses: u64,
    /// VMs: one or two.
    pub(crate) vms: u8,
    /// Whether a sync draws `asOfSeq` and lists in two steps.
    pub(crate) slow_sync: bool,
    /// Whether released and acknowledged entries are dropped.
    pub(crate) prune: bool,
    /// Everything that may happen, and how often.
    pub(crate) budget: Budget,
    /// What the search has met.
    pub(crate) seen: Arc<Seen>,
}

impl Config {
    fn block(&self) -> Footprint {
        Footprint::whole(Extent::new(Offset(0), Offset(self.addresses)).into_iter().collect())
    }

    pub(super) fn first(&self) -> World {
        let mut world = World {
            vms: (0..self.vms).map(Vm::new).map(Arc::new).collect(),
            service: Arc::new(Service::default()),
            requests: Arc::default(),
            replies: BTreeSet::new(),
            left: self.budget,
        };
        world.service_mut().footprint = self.block();
        if self.start == Start::TakenUp {
            world.service_mut().register(0);
            self.take_up_at_once(&mut world, 0);
            world.requests = Arc::default();
        }
        world
    }
}
