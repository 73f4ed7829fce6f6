use super::{End, Process, Sent, host_end};
use crate::link::Reply;
use cni_shim::journal::{
    ClaimFile, Conflict, Entry, JournalError, Readiness, Standing, Uptime,
    pick::{past, pick},
};
use ipam_api::{
    names::Attachment,
    wire::{Allocation, AllocationState, EntryState, ProblemType},
};

/// How many addresses an ADD tries.
const TRIES: usize = 4;

enum Attempt {
    Added,
    Conflict,
}

struct Picked {
    claim: ClaimFile,
    entry: Entry,
}

/// When the service hears that an address is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    Now,
    /// By the next sync.
    Later,
}

/// What stands in the way of a pick.
enum NoPick {
    Changed,
    Exhausted,
    Second,
}

impl Process<'_> {
    /// ADD: intent first, then the service and the wire in either order.
    pub(super) fn add(&mut self, attachment: &Attachment) -> Result<(), End> {
        let claim = self.usable()?;
        if claim.forgotten.is_some() {
            // What rests is known to the service alone; if it is silent the pod starts all the same.
            match self.sync() {
                Ok(_) | Err(End::Failed(_)) => {}
                Err(end) => return Err(end),
            }
            self.usable()?;
        }
        for _ in 0..TRIES {
            if matches!(self.attempt(attachment)?, Attempt::Added) {
                return Ok(());
            }
        }
        Err(End::Failed("addresses turned out to be in use".to_owned()))
    }

    fn attempt(&mut self, attachment: &Attachment) -> Result<Attempt, End> {
        self.may_die()?;
        let picked = match self.pick(attachment)? {
            Ok(picked) => picked,
            Err(NoPick::Changed) => return Err(End::Failed("the journal changed at this moment".to_owned())),
            Err(NoPick::Exhausted) => return Err(End::Failed("the block is exhausted".to_owned())),
            Err(NoPick::Second) => return Err(End::Failed("it is attached".to_owned())),
        };
        self.may_die()?;
        // Both go on at once in the shim: whichever comes first here is the last moment of the other.
        let wires_first = self.chance.per_mille(500);
        let fails = self.chance.per_mille(30);
        // Cut off a moment ago: the shim does not ask again so soon.
        let asks = !self.chance.per_mille(40);
        if wires_first && !fails {
            self.wire(&picked.entry)?;
            self.may_die()?;
        }
        let reply = if asks { self.tell_held(&picked) } else { Reply::Else(None) };
        self.may_die()?;
        if let Reply::Refused(problem) = reply {
            return self.refused(&picked, problem.kind, &problem.detail);
        }
        if fails {
            let tell = if matches!(reply, Reply::Done(_)) { Tell::Now } else { Tell::Later };
            self.undo(&picked, None, tell)?;
            return Err(End::Failed("the kernel could not".to_owned()));
        }
        if !wires_first {
            self.wire(&picked.entry)?;
            self.may_die()?;
        }
        let held = matches!(&reply, Reply::Done(answer) if answer.value.state == AllocationState::Held
            && answer.value.addresses.iter().any(|held| held.address == picked.entry.address));
        if !self.note_wired(&picked, held)? {
            self.undo(&picked, None, Tell::Later)?;
            return Err(End::Failed("the entry vanished".to_owned()));
        }
        self.may_die()?;
        if matches!(reply, Reply::Done(_)) && !held {
            self.catch_up()?;
        }
        Ok(Attempt::Added)
    }

    fn pick(&self, attachment: &Attachment) -> Result<Result<Picked, NoPick>, End> {
        let name = &self.machine.name;
        self.act(|vm| {
            let mut locked = vm.journal.lock()?;
            let Readiness::Ready(claim) = locked.ready(name, &vm.boot_id)? else {
                return Ok(Err(NoPick::Changed));
            };
            if claim.standing != Standing::Active {
                return Ok(Err(NoPick::Changed));
            }
            let picture = locked.picture()?;
            if !picture.live(attachment).is_empty() {
                return Ok(Err(NoPick::Second));
            }
            let (line, now) = (claim.line()?, Uptime::now());
            let past = past(&claim, line, &picture.entries, [], now);
            let Some(picked) = pick(&claim.block(line)?, &past, now) else {
                return Ok(Err(NoPick::Exhausted));
            };
            let seq = locked.draw()?;
            let addresses = line.addresses_at(picked.offset);
            let nowhere = || JournalError::Node("an offset without an address".to_owned());
            let entry =
                Entry::intent(attachment, addresses, host_end(attachment), seq, now).ok_or_else(nowhere)?;
            locked.create(&entry)?;
            Ok(Ok(Picked { claim: *claim, entry }))
        })
    }

    /// Something answers for the address from now on.
    fn wire(&self, entry: &Entry) -> Result<(), End> {
        self.act(|vm| {
            let life = self.machine.recorder.wires(
                &format!("{} of {}", self.machine.name, vm.boot_id),
                entry.address,
                &entry.attachment(),
            );
            vm.wires(|wires| wires.entry(entry.attachment()).or_default().push((entry.address, life)));
            Ok(())
        })
    }

    fn tell_held(&self, picked: &Picked) -> Reply<Allocation> {
        let stamp = self.stamp(&picked.claim, picked.entry.seq);
        let (holder, address) = (picked.entry.attachment(), picked.entry.address);
        self.machine.remember(Sent::Hold(holder.clone(), stamp.clone(), address));
        self.ask_hold(&holder, &stamp, address)
    }

    fn refused(&mut self, picked: &Picked, kind: ProblemType, detail: &str) -> Result<Attempt, End> {
        match kind {
            ProblemType::AddressTaken => {
                self.undo(picked, Some(detail), Tell::Now)?;
                Ok(Attempt::Conflict)
            }
            ProblemType::StaleClaim => {
                self.undo(picked, None, Tell::Later)?;
                self.stale(&picked.claim, detail)?;
                Err(End::Failed(detail.to_owned()))
            }
            _ => {
                self.undo(picked, None, Tell::Now)?;
                Err(End::Failed(detail.to_owned()))
            }
        }
    }

    fn note_wired(&self, picked: &Picked, held: bool) -> Result<bool, End> {
        let entry = &picked.entry;
        self.act(|vm| {
            let mut locked = vm.journal.lock()?;
            let held = held && locked.is_current(&picked.claim)?;
            let mut ours = false;
            locked.change(entry.address, &entry.attachment(), |now| {
                ours = matches!(now.state, EntryState::Intent | EntryState::Wired);
                if ours {
                    if held {
                        now.ack(EntryState::Intent, entry.seq);
                    }
                    now.wired(Uptime::now());
                }
            })?;
            Ok(ours)
        })
    }

    /// Takes back what this ADD made; its entry stays, as released.
    fn undo(&mut self, picked: &Picked, conflict: Option<&str>, tell: Tell) -> Result<(), End> {
        let entry = &picked.entry;
        self.unwire(&entry.attachment(), entry.address)?;
        self.may_die()?;
        let released = self.act(|vm| {
            let mut locked = vm.journal.lock()?;
            let seq = locked.draw()?;
            locked.change(entry.address, &entry.attachment(), |entry| {
                entry.released(seq, Uptime::now());
                entry.conflict =
                    conflict.map(|reason| Conflict { reason: reason.to_owned(), since: Uptime::now() });
            })
        })?;
        self.may_die()?;
        if let Some(released) = released.filter(|_| tell == Tell::Now) {
            self.tell_released(&picked.claim, &released)?;
        }
        Ok(())
    }
}
