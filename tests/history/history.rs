//! What happened: calls with their answers, what was on the wire, and what the service was seen to say.

use ipam_api::{
    names::{Attachment, NodeName, SubnetPath},
    wire::{BlockVersion, BootSeq, Claim, ExtentInfo, ProblemType, Stamp},
};
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A moment. No two are the same, and what is earlier by them was earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tick(pub(crate) u64);

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// An address on a VM's wire: `from` is before anything answers for it, `until` after nothing does any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) vm: String,
    pub(crate) address: IpAddr,
    pub(crate) holder: Attachment,
    pub(crate) from: Tick,
    /// `None`: to the end.
    pub(crate) until: Option<Tick>,
}

/// What was asked of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Hold {
        node: NodeName,
        stamp: Stamp,
        block: BlockVersion,
        holder: Attachment,
        address: IpAddr,
    },
    Release {
        node: NodeName,
        stamp: Stamp,
        holder: Attachment,
        address: IpAddr,
    },
    Sync {
        node: NodeName,
        stamp: Stamp,
        block: BlockVersion,
        live: usize,
        deletion: Option<String>,
    },
    Register {
        node: NodeName,
        uid: String,
        replaces: Option<String>,
    },
    Delete {
        node: NodeName,
        gone: Option<String>,
    },
    Edit(Edit),
    /// What it is of something that people edit, by its path.
    Read(String),
    /// Anything else.
    Look(String),
}

/// A change of something that people edit, on condition that it is still as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Path of what is changed.
    pub(crate) what: String,
    /// The version that it must have; `None`: it must not be there.
    pub(crate) expects: Option<String>,
    /// What it is to be; `None`: gone.
    pub(crate) becomes: Option<String>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// Done. The version of what was edited or read, where it has one, and what it is then.
    Done { version: Option<String>, value: String },
    /// The service will not have it, and nothing has changed.
    Refused(ProblemType, String),
    /// Nobody knows whether it was done.
    Nothing(String),
    /// The service says that it is at fault itself.
    Defect(String),
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) actor: String,
    pub(crate) asked: Tick,
    pub(crate) answered: Tick,
    pub(crate) ask: Ask,
    pub(crate) said: Said,
}

/// An address in a node's own record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) address: IpAddr,
    pub(crate) holder: Attachment,
    pub(crate) live: bool,
    /// The service has answered for just this.
    pub(crate) acked: bool,
}

/// Whether a node had just been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// No: the service knows what it has acknowledged.
    InPart,
    /// It had synced, and the service agreed: the service knows all.
    Whole,
}

/// A node's journal beside its ledger, while no process of the node was at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) at: Tick,
    pub(crate) node: NodeName,
    pub(crate) claim: Claim,
    pub(crate) boot: BootSeq,
    pub(crate) heard: Heard,
    pub(crate) journal: Vec<Noted>,
    pub(crate) ledger: Vec<(IpAddr, Attachment)>,
}

/// A subnet's extents, read at once, and how many addresses it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tiles {
    pub(crate) at: Tick,
    pub(crate) subnet: SubnetPath,
    pub(crate) first: IpAddr,
    pub(crate) size: u64,
    pub(crate) extents: Vec<ExtentInfo>,
}

/// What is left when all faults are over, every node was heard, and nobody asks any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Tick,
    /// Every allocation.
    pub(crate) ledger: Vec<(IpAddr, NodeName, Attachment)>,
    /// Every block: its node, and its ranges with those that leave.
    pub(crate) blocks: Vec<(NodeName, Vec<(IpAddr, IpAddr)>)>,
    /// What is left once every pod, node and pool is taken away: none of it should be.
    pub(crate) leftovers: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) lives: Vec<Life>,
    pub(crate) calls: Vec<Call>,
    pub(crate) looks: Vec<Look>,
    pub(crate) tiles: Vec<Tiles>,
    pub(crate) end: End,
}

/// Writes a history down while it happens.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    clock: AtomicU64,
    history: Mutex<History>,
}

/// A life that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LifeId(usize);

impl Recorder {
    /// Now.
    pub(crate) fn tick(&self) -> Tick {
        Tick(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.with(|history| history.calls.len())
    }

    /// Writes something down.
    pub(crate) fn with<T>(&self, write: impl FnOnce(&mut History) -> T) -> T {
        write(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An address is about to be on a wire.
    pub(crate) fn wires(&self, vm: &str, address: IpAddr, holder: &Attachment) -> LifeId {
        self.with(|history| {
            let (vm, holder) = (vm.to_owned(), holder.clone());
            history.lives.push(Life { vm, address, holder, from: self.tick(), until: None });
            LifeId(history.lives.len() - 1)
        })
    }

    /// It is not any more.
    pub(crate) fn unwired(&self, LifeId(life): LifeId) {
        self.with(|history| history.lives[life].until = Some(self.tick()));
    }

    /// All that was written.
    pub(crate) fn into_history(self) -> History {
        self.history.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, asked, answered, ask, said } = self;
        write!(f, "{asked}..{answered} {actor}: {ask:?} -> {said:?}")
    }
}
