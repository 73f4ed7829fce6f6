use super::{Conduct, End, Process, Sent};
use crate::link::Reply;
use cni_shim::journal::{ClaimFile, Entry, Readiness, Standing, Uptime};
use ipam_api::{
    names::Attachment,
    wire::{EntryState, ProblemType},
};
use std::net::IpAddr;

impl Process<'_> {
    /// DEL: the interface goes first, then the address, then the service hears of it.
    pub(super) fn del(&mut self, attachment: &Attachment) -> Result<(), End> {
        let claim = loop {
            match self.readiness()? {
                Readiness::Ready(claim) => break Some(*claim),
                Readiness::NoClaim => break None,
                Readiness::Lost(_) => self.rebuild()?,
            }
        };
        let mut entries = self.act(|vm| vm.journal.entries())?;
        entries.retain(|entry| entry.is_live() && entry.is_of(attachment));
        for entry in &entries {
            self.act(|vm| {
                let change = |entry: &mut Entry| entry.releasing(Uptime::now());
                vm.journal.lock()?.change(entry.address, attachment, change)
            })?;
        }
        self.may_die()?;
        match self.machine.conduct {
            Conduct::Sound => {
                self.unwire_all(attachment)?;
                self.may_die()?;
                self.give_back(attachment, &entries)?;
            }
            Conduct::GivesBackFirst => {
                self.give_back(attachment, &entries)?;
                self.may_die()?;
                self.unwire_all(attachment)?;
            }
        }
        self.may_die()?;
        match claim {
            Some(claim) if !matches!(claim.standing, Standing::Stale { .. }) && claim.knows_host() => {
                self.tell_all(&claim, attachment)
            }
            _ => Ok(()),
        }
    }

    fn give_back(&self, attachment: &Attachment, entries: &[Entry]) -> Result<(), End> {
        for entry in entries {
            self.act(|vm| {
                let mut locked = vm.journal.lock()?;
                let seq = locked.draw()?;
                locked.change(entry.address, attachment, |entry| entry.released(seq, Uptime::now()))
            })?;
        }
        Ok(())
    }

    fn tell_all(&mut self, claim: &ClaimFile, attachment: &Attachment) -> Result<(), End> {
        let entries = self.act(|vm| Ok(vm.journal.picture()?.entries))?;
        let confirms = claim.can_confirm_block(&entries)?;
        let mut reached = false;
        let ours = |entry: &&Entry| entry.is_due() && !entry.is_live() && entry.is_of(attachment);
        // Cut off a moment ago: the shim does not ask again so soon.
        if self.chance.per_mille(40) {
            return Ok(());
        }
        for entry in entries.iter().filter(ours) {
            reached = self.tell_released(claim, entry)?;
        }
        if reached && confirms { self.catch_up() } else { Ok(()) }
    }

    /// Tells the service that an address was given back; whether it has heard.
    pub(super) fn tell_released(&mut self, claim: &ClaimFile, entry: &Entry) -> Result<bool, End> {
        let stamp = self.stamp(claim, entry.seq);
        let (holder, address) = (entry.attachment(), entry.address);
        self.machine.remember(Sent::Release(holder.clone(), stamp.clone(), address));
        match self.ask_release(&holder, &stamp, address) {
            Reply::Done(_) => {
                self.may_die()?;
                self.act(|vm| {
                    let mut locked = vm.journal.lock()?;
                    if locked.is_current(claim)? {
                        locked.change(address, &holder, |now| {
                            now.ack(EntryState::Released, entry.seq);
                        })?;
                    }
                    Ok(true)
                })
            }
            Reply::Refused(problem) => {
                if problem.kind == ProblemType::StaleClaim {
                    self.stale(claim, &problem.detail)?;
                }
                Ok(false)
            }
            Reply::Else(_) => Ok(false),
        }
    }

    fn unwire_all(&self, attachment: &Attachment) -> Result<(), End> {
        self.act(|vm| {
            for (_, life) in vm.wires(|wires| wires.remove(attachment)).unwrap_or_default() {
                self.machine.recorder.unwired(life);
            }
            Ok(())
        })
    }

    /// Nothing of the attachment answers for the address any more.
    pub(super) fn unwire(&self, attachment: &Attachment, address: IpAddr) -> Result<(), End> {
        self.act(|vm| {
            vm.wires(|wires| {
                let lives = wires.entry(attachment.clone()).or_default();
                for (_, life) in lives.extract_if(.., |(wired, _)| *wired == address) {
                    self.machine.recorder.unwired(life);
                }
                if lives.is_empty() {
                    wires.remove(attachment);
                }
            });
            Ok(())
        })
    }
}
