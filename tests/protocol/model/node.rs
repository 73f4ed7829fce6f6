//! A VM: its disks, its journal, what is really wired, and the shims at work.

use super::{
    Pod, Rules,
    network::{Answer, Described, Listed, Reply},
};
use ipam_api::{
    line::Offset,
    wire::{BlockVersion, BootSeq, Claim, EntryState, Seq},
};
use std::collections::{BTreeMap, BTreeSet};

/// Where an attachment is, seen from the runtime and its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    /// Not there.
    Idle,
    /// An ADD is at work, for the entry of this number at this address.
    Adding(Offset, Seq),
    /// ADD was acknowledged to the runtime.
    Running(Offset),
    /// A DEL or the undo of an ADD is at work.
    Stopping,
    /// The shim died on the way; the runtime owes a DEL.
    Failed,
}

/// A journal entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct JournalEntry {
    pub(super) pod: Pod,
    pub(super) state: EntryState,
    pub(super) seq: Seq,
    pub(super) acked: bool,
}

/// `dataDir`: what survives a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) claim: Claim,
    pub(super) boot: BootSeq,
    pub(super) stopped: Stopped,
    /// The block as last heard of: ADD picks from it.
    pub(super) block: Described,
    /// The version that requests are sent in the name of: that one, unless pods live in what it gave up.
    pub(super) works_with: BlockVersion,
}

/// Whether the node may ADD under its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stopped {
    /// It may.
    No,
    /// The service deletes it: it may not, and confirms when nothing is left.
    Deleting,
    /// The claim is not the node's any more.
    Ended,
}

/// A fetched node whose first sync is not through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TakeUp {
    pub(super) claim: Claim,
    pub(super) boot: BootSeq,
    pub(super) as_of: Seq,
}

/// A GC at work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Gc {
    pub(super) network: u8,
    pub(super) began: Seq,
    /// What the runtime said is valid.
    pub(super) valid: BTreeSet<Pod>,
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Vm {
    pub(super) index: usize,
    pub(super) on: bool,
    /// Stands for the kernel's boot id.
    pub(super) boot_id: u8,
    /// `CLOCK_BOOTTIME`: the last sequence number drawn in this boot.
    pub(super) clock: u64,
    pub(super) disk: Option<Disk>,
    /// `stateDir`: gone with a reboot.
    pub(super) journal: Option<BTreeMap<Offset, JournalEntry>>,
    /// When the journal was rebuilt, until a later sync is acknowledged.
    pub(super) rebuilt: Option<Seq>,
    pub(super) take_up: Option<TakeUp>,
    /// `asOfSeq` of a sync that has not listed yet.
    pub(super) syncing: Option<Seq>,
    /// Only under [`Rules::ListedBeforeAsOf`].
    pub(super) listed_early: Vec<Listed>,
    pub(super) gc: Option<Gc>,
    /// Whether a GC took a running pod's address away.
    pub(super) gc_stopped_running: bool,
    /// What the host really has.
    pub(super) wired: BTreeSet<(Offset, Pod)>,
    /// Attachments that are not [`Phase::Idle`].
    pub(super) phases: BTreeMap<Pod, Phase>,
}

impl Vm {
    pub(super) fn new(index: u8) -> Self {
        Self {
            index: index.into(),
            on: true,
            boot_id: 1,
            clock: 0,
            disk: None,
            journal: Some(BTreeMap::new()),
            rebuilt: None,
            take_up: None,
            syncing: None,
            listed_early: Vec::new(),
            gc: None,
            gc_stopped_running: false,
            wired: BTreeSet::new(),
            phases: BTreeMap::new(),
        }
    }

    pub(super) fn draw(&mut self) -> Seq {
        self.clock += 1;
        Seq(self.clock)
    }

    pub(super) fn phase(&self, pod: Pod) -> Phase {
        self.phases.get(&pod).copied().unwrap_or(Phase::Idle)
    }

    pub(super) fn set_phase(&mut self, pod: Pod, phase: Phase) {
        if phase == Phase::Idle {
            self.phases.remove(&pod);
        } else {
            self.phases.insert(pod, phase);
        }
    }

    /// Whether a shim is at work on a pod.
    pub(super) fn is_busy(&self) -> bool {
        self.phases.values().any(|phase| matches!(phase, Phase::Adding(..) | Phase::Stopping))
    }

    /// Whether a shim was killed on the way and its pod not yet deleted.
    pub(super) fn owes_a_del(&self) -> bool {
        self.phases.values().any(|phase| *phase == Phase::Failed)
    }

    pub(super) fn live_entries(&self) -> impl Iterator<Item = (Offset, &JournalEntry)> {
        let entries = self.journal.iter().flatten();
        entries.filter(|(_, entry)| entry.state.is_live()).map(|(&at, entry)| (at, entry))
    }

    /// The live entry of an attachment.
    pub(super) fn live_entry(&self, pod: Pod) -> Option<Offset> {
        self.live_entries().find(|(_, entry)| entry.pod == pod).map(|(at, _)| at)
    }

    pub(super) fn entry_mut(&mut self, at: Offset) -> Option<&mut JournalEntry> {
        self.journal.as_mut()?.get_mut(&at)
    }

    /// Whether ADD may use the block.
    pub(super) fn may_add(&self) -> bool {
        self.disk.is_some_and(|disk| disk.stopped == Stopped::No) && self.journal.is_some()
    }

    /// Whether ADD may pick this address.
    pub(super) fn is_free(&self, at: Offset) -> bool {
        !self.live_entries().any(|(other, _)| other == at)
            && !self.wired.iter().any(|(other, _)| *other == at)
    }

    /// Whether an address is one of the block as last heard of.
    pub(super) fn has(&self, at: Offset) -> bool {
        self.disk.is_some_and(|disk| at.0 < disk.block.size)
    }

    /// Takes up the block as last heard of, unless pods live in what it gave up.
    pub(super) fn take_up_block(&mut self) {
        let lives = self.live_entries().any(|(at, _)| !self.has(at));
        if let Some(disk) = self.disk.as_mut().filter(|_| !lives) {
            disk.works_with = disk.block.version;
        }
    }

    pub(super) fn lose_journal(&mut self) {
        self.journal = None;
        self.syncing = None;
        self.take_up = None;
        self.gc = None;
    }

    pub(super) fn lose_data(&mut self) {
        self.disk = None;
        self.syncing = None;
    }

    /// The journal from what the host has, entries with new numbers.
    pub(super) fn rebuild(&mut self, rules: Rules) {
        let mut journal = BTreeMap::new();
        if rules != Rules::LostIsEmpty {
            for (at, pod) in self.wired.clone() {
                let seq = self.draw();
                journal.insert(at, JournalEntry { pod, state: EntryState::Wired, seq, acked: false });
            }
        }
        self.journal = Some(journal);
        self.rebuilt = Some(self.draw());
    }

    pub(super) fn reboot(&mut self, rules: Rules) {
        let disk = self.disk.map(|mut disk| {
            disk.boot = BootSeq(disk.boot.0 + 1);
            if rules == Rules::StopForgottenAtReboot {
                disk.stopped = Stopped::No;
            }
            disk
        });
        let boot_id = self.boot_id + 1;
        *self = Self { disk, boot_id, ..Self::new(0).numbered(self.index) };
    }

    fn numbered(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// The VM is gone, its disk with it.
    pub(super) fn destroy(&mut self) {
        *self = Self { on: false, boot_id: self.boot_id, ..Self::new(0).numbered(self.index) };
    }

    /// Counts in another boot number: nothing acknowledged under the old one counts.
    pub(super) fn renumber(&mut self, boot: BootSeq) {
        if let Some(disk) = self.disk.as_mut().filter(|disk| disk.boot != boot) {
            disk.boot = boot;
            for entry in self.journal.iter_mut().flat_map(BTreeMap::values_mut) {
                entry.acked = false;
            }
            self.rebuilt = Some(Seq(self.clock));
        }
    }

    pub(super) fn listing(&self) -> Vec<Listed> {
        let listed = |(&at, entry): (&Offset, &JournalEntry)| Listed {
            at,
            pod: entry.pod,
            live: entry.state.is_live(),
            seq: entry.seq,
        };
        self.journal.iter().flatten().map(listed).collect()
    }

    fn says(&self, at: Offset, seq: Seq, live: bool) -> bool {
        let entry = self.journal.as_ref().and_then(|journal| journal.get(&at));
        entry.is_some_and(|entry| entry.seq == seq && entry.state.is_live() == live)
    }

    /// Whether an answer can still change anything here.
    pub(super) fn waits_for(&self, reply: &Reply) -> bool {
        let claims = self.disk.map(|disk| disk.claim).into_iter().chain(self.take_up.map(|up| up.claim));
        if !self.on || !claims.into_iter().any(|claim| claim == reply.claim) {
            return false;
        }
        let adding = |at: Offset| {
            self.phases
                .values()
                .any(|phase| matches!(phase, Phase::Adding(of, seq) if *of == at && *seq == reply.seq))
        };
        let numbered = self.disk.is_some_and(|disk| disk.boot == reply.boot);
        match &reply.body {
            Answer::Held(_, at) | Answer::Superseded(_, at) => numbered && self.says(*at, reply.seq, true),
            Answer::Taken(_, at) => adding(*at),
            Answer::Released(at) => numbered && self.says(*at, reply.seq, false),
            Answer::Synced { .. } => {
                self.take_up.is_some_and(|up| up.as_of == reply.seq) || self.disk.is_some()
            }
            Answer::Stale(at) => {
                at.is_some_and(adding)
                    || self.take_up.is_some_and(|up| up.as_of == reply.seq)
                    || numbered && self.disk.is_some_and(|disk| disk.stopped != Stopped::Ended)
            }
        }
    }
}
