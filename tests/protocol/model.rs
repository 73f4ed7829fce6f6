//! The model: its state, what may happen next, and what must always hold.

mod config;
mod network;
mod node;
mod properties;
mod service;
mod shim;

pub(crate) use config::{Config, Rules, Start};
pub(crate) use properties::{ACKNOWLEDGED, ADDRESS_ONCE, INSIDE, NOT_LEAKED, RUNNING, STAYS_AWAY};

use ipam_api::line::Offset;
use network::{Reply, Request};
use node::Vm;
use service::Service;
use stateright::{Model, Property};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// An attachment: four to a VM, odd and even ones on two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pod(pub(crate) u8);

impl Pod {
    /// The VM it is to run on.
    pub(crate) fn vm(self) -> usize {
        usize::from(self.0 / 4)
    }

    /// The CNI network it is on.
    pub(crate) fn network(self) -> u8 {
        self.0 % 2
    }
}

/// Everything there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    vms: Vec<Arc<Vm>>,
    service: Arc<Service>,
    /// Everything ever sent to the service. A message may arrive now, later,
    /// again, or never; that it stays here is loss, delay, doubling and
    /// reordering in one.
    requests: Arc<BTreeSet<Request>>,
    /// Answers that a waiting shim could still act on.
    replies: BTreeSet<Reply>,
    left: Budget,
}

/// How often each thing may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// ADDs of pods on the first VM.
    pub(crate) adds: u8,
    /// ADDs of pods on the second VM.
    pub(crate) second_adds: u8,
    /// Journals sent, the first one of a claim included.
    pub(crate) syncs: u8,
    /// ADDs that fail by themselves and are undone.
    pub(crate) failures: u8,
    /// Shims killed on the way.
    pub(crate) crashes: u8,
    /// Reboots of the first VM.
    pub(crate) reboots: u8,
    /// Losses of `stateDir` under running pods.
    pub(crate) journal_losses: u8,
    /// Losses of `dataDir`.
    pub(crate) data_losses: u8,
    /// GCs.
    pub(crate) gcs: u8,
    /// Registrations of a VM without a claim.
    pub(crate) registrations: u8,
    /// Deletions of a node.
    pub(crate) deletions: u8,
    /// VMs destroyed for good.
    pub(crate) losses: u8,
    /// Times that the block gives its last address up.
    pub(crate) shrinks: u8,
    /// Times that the block gets an address more.
    pub(crate) grows: u8,
}

/// Something that shows that a search got somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request was refused as stale.
    Stale,
    /// A pod ran on an address that another one had before.
    Reused,
    /// A pod ran whose address the ledger did not know.
    CutOff,
    /// A journal with pods in it was rebuilt.
    Rebuilt,
    /// A journal was lost while a killed shim's DEL was owed.
    KilledThenLost,
    /// The VM rebooted while a killed shim's DEL was owed.
    KilledThenRebooted,
    /// A GC took a leftover away.
    Collected,
    /// A deletion was confirmed.
    Confirmed,
    /// A claim nobody had taken up ended at once.
    Dropped,
    /// A claim was replaced.
    Replaced,
    /// A sync arrived after a later one.
    LateSync,
    /// A node confirmed that nothing lives in what its block gave up.
    GivenUp,
    /// A block took back what was leaving.
    TakenBack,
    /// A block grew by an address that it had given up for good.
    GrownAnew,
}

/// Which events a search has met. Kept beside the states, not in them, so that
/// two ways to the same state stay one state.
#[derive(Debug, Default)]
pub(crate) struct Seen(AtomicU32);

impl Seen {
    fn insert(&self, event: Event) {
        self.0.fetch_or(1 << event as u32, Ordering::Relaxed);
    }

    /// Whether it happened.
    pub(crate) fn contains(&self, event: Event) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << event as u32) != 0
    }
}

/// One step of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A request arrives: the n-th of those sent.
    Request(usize),
    /// An answer arrives: the n-th of those under way.
    Reply(usize),
    /// ADD picks an address, writes the intent and sends its request.
    Add(Pod, Offset),
    /// ADD wires the pod.
    Wire(Pod),
    /// ADD succeeds.
    Added(Pod),
    /// ADD fails by itself.
    Fail(Pod),
    /// DEL marks the entry.
    Del(Pod),
    /// DEL or an undo takes the interface away.
    Unwire(Pod),
    /// DEL or an undo marks the entry released and sends its request.
    Deleted(Pod),
    /// The shim of this pod is killed.
    Crash(Pod),
    /// An unacknowledged entry is sent again.
    Resend(usize, Offset),
    /// A released and acknowledged entry is dropped.
    Prune(usize, Offset),
    /// The lock is taken and `asOfSeq` drawn.
    SyncBegin(usize),
    /// The journal is listed and sent.
    SyncSend(usize),
    /// The node is fetched and the claim's first sync sent.
    TakeUp(usize),
    /// A lost journal is rebuilt from the host.
    Rebuild(usize),
    /// `stateDir` is lost.
    LoseJournal(usize),
    /// `dataDir` is lost.
    LoseData(usize),
    /// The VM reboots.
    Reboot(usize),
    /// The VM is destroyed.
    Destroy(usize),
    /// A GC of a network begins.
    GcBegin(usize, u8),
    /// The GC takes up a leftover.
    GcPod(Pod),
    /// The GC ends.
    GcEnd(usize),
    /// Somebody registers the VM.
    Register(usize),
    /// Somebody registers the VM under the name of the destroyed one.
    Replace(usize),
    /// Somebody deletes the node.
    DeleteNode,
    /// Somebody says that the node's VM is gone.
    VmGone,
    /// Somebody makes the pool's blocks smaller.
    Shrink,
    /// Somebody makes them larger.
    Grow,
}

impl Model for Config {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend((0..world.requests.len()).map(Action::Request));
        actions.extend((0..world.replies.len()).map(Action::Reply));
        for (index, vm) in world.vms.iter().enumerate().filter(|(_, vm)| vm.on) {
            self.shim_actions(world, index, vm, actions);
            self.host_actions(world, index, vm, actions);
        }
        self.admin_actions(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        self.step(&mut next, action)?;
        if self.rules != Rules::ReplyAcksMore {
            next.drop_dead_replies();
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}

impl Config {
    fn admin_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = world.left;
        match &world.service.claim {
            None if left.registrations > 0 => actions.extend(
                world.vms.iter().enumerate().filter(|(_, vm)| vm.on).map(|(n, _)| Action::Register(n)),
            ),
            None => {}
            Some((owner, node)) => {
                let gone = world.vms.get(*owner).is_some_and(|vm| !vm.on);
                if left.deletions > 0 && node.deletion.is_none() {
                    actions.push(Action::DeleteNode);
                }
                let size: u64 = world.service.footprint.stays.iter().map(|extent| extent.size()).sum();
                if left.shrinks > 0 && size > 1 {
                    actions.push(Action::Shrink);
                }
                if left.grows > 0 && size < self.addresses {
                    actions.push(Action::Grow);
                }
                if gone {
                    actions.push(Action::VmGone);
                }
                if gone && left.registrations > 0 {
                    actions.extend(
                        world.vms.iter().enumerate().filter(|(_, vm)| vm.on).map(|(n, _)| Action::Replace(n)),
                    );
                }
            }
        }
    }

    fn host_actions(&self, world: &World, index: usize, vm: &Vm, actions: &mut Vec<Action>) {
        let left = world.left;
        // A directory that vanishes under a running shim is left out: see the crate's docs.
        if left.journal_losses > 0 && vm.journal.is_some() && !vm.is_busy() {
            actions.push(Action::LoseJournal(index));
        }
        if left.data_losses > 0 && vm.disk.is_some() {
            actions.push(Action::LoseData(index));
        }
        if left.reboots > 0 && index == 0 {
            actions.push(Action::Reboot(index));
        }
        if left.losses > 0 && index == 0 {
            actions.push(Action::Destroy(index));
        }
    }

    fn step(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Request(index) => {
                let request = world.requests.iter().nth(index)?.clone();
                let reply = world.service_mut().receive(self, &request, &self.seen);
                // A shim does not outlive its boot, nor its connections.
                if world.vms.get(request.from).is_some_and(|vm| vm.on && vm.boot_id == request.boot_id) {
                    world.replies.insert(reply);
                }
            }
            Action::Reply(index) => {
                let reply = world.replies.iter().nth(index)?.clone();
                world.replies.remove(&reply);
                self.answered(world, &reply)?;
            }
            Action::LoseJournal(vm) => {
                world.left.journal_losses -= 1;
                let vm = world.vm_mut(vm)?;
                if vm.owes_a_del() {
                    self.seen.insert(Event::KilledThenLost);
                }
                vm.lose_journal();
            }
            Action::LoseData(vm) => {
                world.left.data_losses -= 1;
                world.vm_mut(vm)?.lose_data();
            }
            Action::Reboot(vm) => {
                world.left.reboots -= 1;
                let rebooting = world.vm_mut(vm)?;
                if rebooting.owes_a_del() {
                    self.seen.insert(Event::KilledThenRebooted);
                }
                rebooting.reboot(self.rules);
                world.replies.retain(|reply| reply.to != vm);
            }
            Action::Destroy(vm) => {
                world.left.losses -= 1;
                world.vm_mut(vm)?.destroy();
                world.replies.retain(|reply| reply.to != vm);
            }
            Action::Register(vm) => {
                world.left.registrations -= 1;
                world.service_mut().register(vm);
            }
            Action::Replace(vm) => {
                world.left.registrations -= 1;
                world.service_mut().end_claim();
                world.service_mut().register(vm);
                self.seen.insert(Event::Replaced);
            }
            Action::DeleteNode => {
                world.left.deletions -= 1;
                world.service_mut().delete(self.rules, &self.seen)?;
            }
            Action::VmGone => world.service_mut().end_claim(),
            Action::Shrink => {
                world.left.shrinks -= 1;
                world.service_mut().shrink(self.rules)?;
            }
            Action::Grow => {
                world.left.grows -= 1;
                world.service_mut().grow(&self.seen)?;
            }
            _ => self.shim_step(world, action)?,
        }
        Some(())
    }
}

impl World {
    fn vm_mut(&mut self, index: usize) -> Option<&mut Vm> {
        self.vms.get_mut(index).map(Arc::make_mut)
    }

    fn service_mut(&mut self) -> &mut Service {
        Arc::make_mut(&mut self.service)
    }

    /// Forgets answers that nobody can act on any more: sequence numbers never
    /// come back, so what does not fit now never will.
    fn drop_dead_replies(&mut self) {
        let vms = &self.vms;
        self.replies.retain(|reply| vms.get(reply.to).is_some_and(|vm| vm.waits_for(reply)));
    }
}
