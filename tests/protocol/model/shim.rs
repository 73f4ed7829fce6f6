//! What the shims of a VM do, one lock-protected step at a time.

use super::{
    Action, Config, Event, Pod, Rules, Start, World,
    network::{Answer, Body, Described, Reply, Request, Word},
    node::{Disk, Gc, JournalEntry, Phase, Stopped, TakeUp, Vm},
};
use ipam_api::{
    line::Offset,
    wire::{BootSeq, EntryState, Seq},
};
use std::{collections::BTreeSet, sync::Arc};

impl Config {
    fn pods_of(&self, vm: usize) -> impl Iterator<Item = Pod> {
        let first = u8::try_from(vm).unwrap_or(0) * 4;
        (first..first + self.pods).map(Pod)
    }

    pub(super) fn shim_actions(&self, world: &World, index: usize, vm: &Vm, actions: &mut Vec<Action>) {
        let left = world.left;
        let adds = if index == 0 { left.adds } else { left.second_adds };
        for pod in self.pods_of(index) {
            match vm.phase(pod) {
                Phase::Idle if adds > 0 && vm.may_add() && vm.live_entry(pod).is_none() => {
                    // Pods of a network that were never used are alike, and so are addresses, but where a
                    // block gives its last ones up: the lowest stands for all of them.
                    let same = |other: &Pod| self.budget.gcs == 0 || other.network() == pod.network();
                    let alike = |other: &Pod| *other < pod && same(other);
                    if world.used(pod) || self.pods_of(index).filter(alike).all(|other| world.used(other)) {
                        let free = (0..self.addresses).map(Offset).filter(|&at| vm.has(at) && vm.is_free(at));
                        let mut unused = 0;
                        actions.extend(
                            free.filter(|&at| {
                                unused += u8::from(!world.was_sent(at));
                                unused < 2 || world.was_sent(at) || self.budget.shrinks > 0
                            })
                            .map(|at| Action::Add(pod, at)),
                        );
                    }
                }
                Phase::Idle => {}
                Phase::Adding(at, _) => {
                    let wired = vm.wired.contains(&(at, pod));
                    actions.push(if wired { Action::Added(pod) } else { Action::Wire(pod) });
                    if left.failures > 0 {
                        actions.push(Action::Fail(pod));
                    }
                }
                // The second VM is there to be hurt by the first: its pods stay.
                Phase::Running(_) | Phase::Failed if index == 0 && vm.journal.is_some() => {
                    actions.push(Action::Del(pod));
                }
                Phase::Running(_) | Phase::Failed => {}
                Phase::Stopping if vm.wired.iter().any(|(_, wired)| *wired == pod) => {
                    actions.push(Action::Unwire(pod));
                }
                Phase::Stopping => actions.push(Action::Deleted(pod)),
            }
            if left.crashes > 0 && matches!(vm.phase(pod), Phase::Adding(..) | Phase::Stopping) {
                actions.push(Action::Crash(pod));
            }
        }
        self.sync_actions(world, index, vm, actions);
        self.gc_actions(world, index, vm, actions);
        if vm.journal.is_none() {
            actions.push(Action::Rebuild(index));
        }
        for (&at, entry) in vm.journal.iter().flatten() {
            if !entry.acked && vm.disk.is_some() {
                actions.push(Action::Resend(index, at));
            }
            if self.prune && entry.acked && !entry.state.is_live() {
                actions.push(Action::Prune(index, at));
            }
        }
    }

    fn sync_actions(&self, world: &World, index: usize, vm: &Vm, actions: &mut Vec<Action>) {
        if vm.syncing.is_some() {
            actions.push(Action::SyncSend(index));
        } else if world.left.syncs > 0 && vm.journal.is_some() {
            let ours = world.service.claim.as_ref().filter(|(owner, _)| *owner == index);
            let other_claim =
                ours.is_some_and(|(_, node)| vm.disk.is_none_or(|disk| disk.claim != node.claim));
            match vm.disk {
                Some(disk) if index == 0 && disk.stopped != Stopped::Ended => {
                    actions.push(Action::SyncBegin(index));
                }
                _ => {}
            }
            if other_claim && vm.disk.is_none_or(|disk| disk.stopped != Stopped::No) && vm.take_up.is_none() {
                actions.push(Action::TakeUp(index));
            }
        }
    }

    fn gc_actions(&self, world: &World, index: usize, vm: &Vm, actions: &mut Vec<Action>) {
        match &vm.gc {
            None if world.left.gcs > 0 && vm.journal.is_some() => {
                actions.push(Action::GcBegin(index, 0));
            }
            None => {}
            Some(gc) => {
                actions.push(Action::GcEnd(index));
                for (_, entry) in vm.live_entries() {
                    let network = entry.pod.network() == gc.network || self.rules == Rules::GcOfAllNetworks;
                    let older = entry.seq <= gc.began || self.rules == Rules::GcTakesNewer;
                    let at_rest = !matches!(vm.phase(entry.pod), Phase::Adding(..) | Phase::Stopping);
                    if network && older && at_rest && !gc.valid.contains(&entry.pod) {
                        actions.push(Action::GcPod(entry.pod));
                    }
                }
            }
        }
    }

    pub(super) fn shim_step(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Add(pod, at) => self.add(world, pod, at)?,
            Action::Wire(pod) => {
                let vm = world.vm_mut(pod.vm())?;
                let Phase::Adding(at, _) = vm.phase(pod) else { return None };
                vm.wired.insert((at, pod));
            }
            Action::Added(pod) => self.added(world.vm_mut(pod.vm())?, pod)?,
            Action::Fail(pod) => {
                world.left.failures -= 1;
                world.vm_mut(pod.vm())?.set_phase(pod, Phase::Stopping);
            }
            Action::Del(pod) | Action::GcPod(pod) => {
                let vm = world.vm_mut(pod.vm())?;
                if matches!(action, Action::GcPod(_)) {
                    self.seen.insert(Event::Collected);
                    vm.gc_stopped_running |= matches!(vm.phase(pod), Phase::Running(_));
                }
                self.del(vm, pod);
            }
            Action::Unwire(pod) => world.vm_mut(pod.vm())?.wired.retain(|(_, wired)| *wired != pod),
            Action::Deleted(pod) => self.deleted(world, pod)?,
            Action::Crash(pod) => {
                world.left.crashes -= 1;
                world.vm_mut(pod.vm())?.set_phase(pod, Phase::Failed);
            }
            Action::Resend(vm, at) => world.send(vm, at)?,
            Action::Prune(vm, at) => {
                world.vm_mut(vm)?.journal.as_mut()?.remove(&at);
            }
            Action::SyncBegin(index) => {
                world.left.syncs -= 1;
                let vm = world.vm_mut(index)?;
                if self.rules == Rules::ListedBeforeAsOf {
                    vm.listed_early = vm.listing();
                }
                vm.syncing = Some(vm.draw());
                if !self.slow_sync {
                    self.sync_send(world, index)?;
                }
            }
            Action::SyncSend(vm) => self.sync_send(world, vm)?,
            Action::TakeUp(vm) => {
                world.left.syncs -= 1;
                self.take_up(world, vm)?;
            }
            Action::Rebuild(vm) => {
                let vm = world.vm_mut(vm)?;
                vm.rebuild(self.rules);
                if vm.live_entries().next().is_some() {
                    self.seen.insert(Event::Rebuilt);
                }
            }
            Action::GcBegin(vm, network) => {
                world.left.gcs -= 1;
                let vm = world.vm_mut(vm)?;
                let valid = vm.phases.iter().filter(|(pod, phase)| {
                    pod.network() == network && !matches!(phase, Phase::Failed | Phase::Idle)
                });
                let valid: BTreeSet<Pod> = valid.map(|(&pod, _)| pod).collect();
                vm.gc = Some(Gc { network, began: Seq(vm.clock), valid });
            }
            Action::GcEnd(vm) => world.vm_mut(vm)?.gc = None,
            _ => return None,
        }
        Some(())
    }

    fn add(&self, world: &mut World, pod: Pod, at: Offset) -> Option<()> {
        let index = pod.vm();
        let adds = if index == 0 { &mut world.left.adds } else { &mut world.left.second_adds };
        *adds -= 1;
        let vm = world.vm_mut(index)?;
        let seq = vm.draw();
        let before = vm
            .journal
            .as_mut()?
            .insert(at, JournalEntry { pod, state: EntryState::Intent, seq, acked: false });
        if before.is_some_and(|entry| entry.pod != pod) {
            self.seen.insert(Event::Reused);
        }
        vm.set_phase(pod, Phase::Adding(at, seq));
        world.send(index, at)
    }

    fn added(&self, vm: &mut Vm, pod: Pod) -> Option<()> {
        let Phase::Adding(at, _) = vm.phase(pod) else { return None };
        match vm.entry_mut(at).filter(|entry| entry.pod == pod && entry.state == EntryState::Intent) {
            Some(entry) => {
                entry.state = EntryState::Wired;
                if !entry.acked {
                    self.seen.insert(Event::CutOff);
                }
                vm.set_phase(pod, Phase::Running(at));
            }
            None => vm.set_phase(pod, Phase::Stopping),
        }
        Some(())
    }

    fn del(&self, vm: &mut Vm, pod: Pod) {
        let early = (self.rules == Rules::SeqBeforeUnwiring).then(|| vm.draw());
        if let Some(entry) = vm.live_entry(pod).and_then(|at| vm.entry_mut(at)) {
            entry.state = EntryState::Releasing;
            if let Some(seq) = early {
                entry.seq = seq;
            }
        }
        vm.set_phase(pod, Phase::Stopping);
    }

    fn deleted(&self, world: &mut World, pod: Pod) -> Option<()> {
        let vm = world.vm_mut(pod.vm())?;
        vm.set_phase(pod, Phase::Idle);
        let Some(at) = vm.live_entry(pod) else { return Some(()) };
        let seq = vm.clock + 1;
        let entry = vm.entry_mut(at)?;
        let undo = entry.state == EntryState::Intent;
        let early = self.rules == Rules::SeqBeforeUnwiring && !undo;
        entry.state = EntryState::Released;
        entry.acked = false;
        if !early {
            entry.seq = Seq(seq);
            vm.clock = seq;
        }
        if vm.disk.is_some() {
            world.send(pod.vm(), at)?;
        }
        if self.rules == Rules::UndoForgets && undo {
            world.vm_mut(pod.vm())?.journal.as_mut()?.remove(&at);
        }
        Some(())
    }

    fn sync_send(&self, world: &mut World, index: usize) -> Option<()> {
        let vm = world.vm_mut(index)?;
        let mut as_of = vm.syncing.take()?;
        vm.take_up_block();
        let mut entries = vm.listing();
        if self.rules == Rules::ListedBeforeAsOf {
            entries = std::mem::take(&mut vm.listed_early);
            as_of = vm.draw();
        }
        let disk = vm.disk?;
        // The confirmation is listed under the lock; drawing again stands for holding it throughout.
        let confirms = disk.stopped == Stopped::Deleting && vm.live_entries().next().is_none();
        if confirms && self.slow_sync {
            as_of = vm.draw();
        }
        let deletion = confirms.then_some(disk.claim);
        let Disk { claim, boot, works_with: block, .. } = disk;
        let (boot_id, body) = (vm.boot_id, Body::Sync { entries, deletion });
        let request = Request { from: index, claim, boot, boot_id, block, seq: as_of, body };
        Arc::make_mut(&mut world.requests).insert(request);
        Some(())
    }

    /// Fetches the node and sends the first sync of the claim, or of a new `dataDir`.
    fn take_up(&self, world: &mut World, index: usize) -> Option<()> {
        let (_, node) = world.service.claim.clone().filter(|(owner, _)| *owner == index)?;
        let vm = world.vm_mut(index)?;
        let known = node.boot_id.as_deref() == Some(&format!("{index}-{}", vm.boot_id));
        let boot = if known { node.boot } else { BootSeq(node.boot.0 + 1) };
        let claim = node.claim;
        if vm.disk.is_some() {
            // What rests from a former claim is the service's to know.
            vm.journal.as_mut()?.retain(|_, entry| entry.state.is_live());
        }
        let as_of = vm.draw();
        let entries = vm.listing();
        if self.rules == Rules::NoFirstSync {
            let block = Described { version: node.block, size: self.addresses };
            vm.disk = Some(Disk { claim, boot, stopped: Stopped::No, block, works_with: block.version });
        } else {
            vm.take_up = Some(TakeUp { claim, boot, as_of });
        }
        let (boot_id, body) = (vm.boot_id, Body::Sync { entries, deletion: None });
        let request = Request { from: index, claim, boot, boot_id, block: node.block, seq: as_of, body };
        Arc::make_mut(&mut world.requests).insert(request);
        Some(())
    }

    pub(super) fn answered(&self, world: &mut World, reply: &Reply) -> Option<()> {
        let vm = world.vm_mut(reply.to)?;
        let mut learn = false;
        match &reply.body {
            Answer::Held(_, at) => self.acknowledge(vm, *at, reply.seq, true),
            Answer::Superseded(..) => {}
            Answer::Released(at) => self.acknowledge(vm, *at, reply.seq, false),
            Answer::Taken(pod, at) => vm.undo_if(*pod, *at, reply.seq),
            Answer::Stale(at) => {
                let adding: Vec<Pod> = vm.phases.keys().copied().collect();
                for pod in adding {
                    if let Some(at) = at {
                        vm.undo_if(pod, *at, reply.seq);
                    }
                }
                vm.take_up = vm.take_up.filter(|up| up.as_of != reply.seq);
                learn = true;
            }
            Answer::Synced { words, deletion, block } => {
                if let Some(up) = vm.take_up.filter(|up| up.as_of == reply.seq && up.claim == reply.claim) {
                    let TakeUp { claim, boot, .. } = up;
                    let works_with = block.version;
                    vm.disk = Some(Disk { claim, boot, stopped: Stopped::No, block: *block, works_with });
                    vm.take_up = None;
                    vm.rebuilt = vm.rebuilt.or(Some(Seq(0)));
                }
                let disk = vm.disk.as_mut().filter(|disk| disk.claim == reply.claim)?;
                if deletion.is_none() && self.rules == Rules::LateAnswerRevives {
                    disk.stopped = Stopped::No;
                }
                if deletion.is_some() && disk.stopped == Stopped::No {
                    disk.stopped = Stopped::Deleting;
                }
                let newer = block.version > disk.block.version || self.rules == Rules::OlderBlockReturns;
                if newer && block.version != disk.block.version {
                    disk.block = *block;
                    vm.take_up_block();
                }
                if vm.disk.is_some_and(|disk| disk.boot == reply.boot) {
                    vm.rebuilt = vm.rebuilt.filter(|&since| since >= reply.seq);
                    for (listed, word) in words {
                        if *word == if listed.live { Word::Kept } else { Word::Released } {
                            self.acknowledge(vm, listed.at, listed.seq, listed.live);
                        }
                    }
                }
            }
        }
        if learn {
            self.learn(world, reply.to);
        }
        Some(())
    }

    fn acknowledge(&self, vm: &mut Vm, at: Offset, seq: Seq, live: bool) {
        let more = self.rules == Rules::ReplyAcksMore;
        if let Some(entry) = vm.entry_mut(at)
            && (more || (entry.seq == seq && entry.state.is_live() == live))
        {
            entry.acked = true;
        }
    }

    /// After a stale-claim: asks the service how the node stands.
    fn learn(&self, world: &mut World, index: usize) {
        let ours = world.service.claim.clone().filter(|(owner, _)| *owner == index).map(|(_, node)| node);
        let Some(vm) = world.vm_mut(index) else { return };
        let boot_id = format!("{index}-{}", vm.boot_id);
        let Some(disk) = vm.disk.as_mut() else { return };
        match ours.filter(|node| node.claim == disk.claim) {
            None => disk.stopped = Stopped::Ended,
            Some(node) => {
                if node.deletion.is_some() {
                    disk.stopped = Stopped::Deleting;
                }
                if node.boot_id.as_deref() == Some(&boot_id) {
                    vm.renumber(node.boot);
                } else if node.boot >= disk.boot {
                    vm.renumber(BootSeq(node.boot.0 + 1));
                }
            }
        }
    }

    /// Takes the claim up with nothing going wrong.
    pub(super) fn take_up_at_once(&self, world: &mut World, index: usize) {
        let sent = world.requests.clone();
        if self.take_up(world, index).is_some() {
            self.deliver_new(world, &sent);
        }
    }

    /// Sends the journal with nothing going wrong.
    pub(super) fn sync_at_once(&self, world: &mut World, index: usize) {
        let sent = world.requests.clone();
        let Some(vm) = world.vm_mut(index) else { return };
        vm.syncing = Some(vm.draw());
        if self.sync_send(world, index).is_some() {
            self.deliver_new(world, &sent);
        }
    }

    fn deliver_new(&self, world: &mut World, sent: &BTreeSet<Request>) {
        let new: Vec<Request> = world.requests.difference(sent).cloned().collect();
        for request in new {
            let reply = world.service_mut().receive(self, &request, &self.seen);
            self.answered(world, &reply);
        }
    }

    /// A config whose events nobody looks at.
    pub(super) fn unseen(&self) -> Self {
        Self { seen: Arc::default(), start: Start::Nothing, ..self.clone() }
    }
}

impl Vm {
    /// A refusal of the very request this ADD sent: undo.
    fn undo_if(&mut self, pod: Pod, at: Offset, seq: Seq) {
        if self.phase(pod) == Phase::Adding(at, seq) {
            self.set_phase(pod, Phase::Stopping);
        }
    }
}

impl World {
    /// Whether a pod was ever added.
    fn used(&self, pod: Pod) -> bool {
        self.requests.iter().any(|request| matches!(request.body, Body::Hold(of, _) if of == pod))
    }

    /// Whether an address was ever asked for.
    fn was_sent(&self, at: Offset) -> bool {
        self.requests.iter().any(|request| matches!(request.body, Body::Hold(_, of) if of == at))
    }

    /// Sends the request of an entry, under the node's claim and boot as they are now.
    fn send(&mut self, index: usize, at: Offset) -> Option<()> {
        let vm = self.vms.get(index)?;
        let disk = vm.disk?;
        let entry = vm.journal.as_ref()?.get(&at)?;
        let body =
            if entry.state.is_live() { Body::Hold(entry.pod, at) } else { Body::Release(entry.pod, at) };
        let Disk { claim, boot, works_with: block, .. } = disk;
        let (boot_id, seq) = (vm.boot_id, entry.seq);
        let request = Request { from: index, claim, boot, boot_id, block, seq, body };
        Arc::make_mut(&mut self.requests).insert(request);
        Some(())
    }
}
