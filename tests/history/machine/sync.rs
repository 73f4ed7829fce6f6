use super::{End, Process, Sent};
use crate::link::Reply;
use cni_shim::journal::{Entry, Listed, Listing, Outcome, Standing};
use ipam_api::wire::{ProblemType, SyncAnswer};

const ROUNDS: usize = 7;

impl Process<'_> {
    /// Sends the journal until journal and ledger agree.
    pub(super) fn sync(&mut self) -> Result<Outcome, End> {
        let mut adopted = false;
        for _ in 0..ROUNDS {
            let name = &self.machine.name;
            let listing = match self.act(|vm| vm.journal.lock()?.list(name, &vm.boot_id))? {
                Listed::NoClaim => {
                    self.fetch()?;
                    continue;
                }
                Listed::Lost => {
                    self.rebuild()?;
                    continue;
                }
                Listed::Ready(listing) => listing,
            };
            if let Standing::Stale { reason } = &listing.claim.standing
                && !adopted
            {
                if self.readopt(&listing, reason)? {
                    return Ok(Outcome::Ended);
                }
                adopted = true;
                continue;
            }
            if !listing.claim.knows_host() {
                self.recognise(&listing.claim)?;
                continue;
            }
            self.may_die()?;
            match self.send(&listing) {
                Reply::Else(_) => return Err(End::Failed("not reached".to_owned())),
                Reply::Refused(problem) if problem.kind == ProblemType::StaleClaim => {
                    if adopted {
                        self.stale(&listing.claim, &problem.detail)?;
                        return Err(End::Failed(problem.detail));
                    }
                    if self.readopt(&listing, &problem.detail)? {
                        return Ok(Outcome::Ended);
                    }
                    adopted = true;
                }
                Reply::Refused(problem) => return Err(End::Failed(problem.detail)),
                Reply::Done(answer) => {
                    self.may_die()?;
                    let settled = self.act(|vm| vm.journal.lock()?.settle(&listing, answer.value))?;
                    if let Some(outcome) = settled.outcome {
                        return Ok(outcome);
                    }
                }
            }
        }
        Err(End::Failed("journal and ledger do not agree yet".to_owned()))
    }

    /// A sync whose failure fails nothing.
    pub(super) fn catch_up(&mut self) -> Result<(), End> {
        match self.sync() {
            Ok(_) | Err(End::Failed(_)) => Ok(()),
            Err(end) => Err(end),
        }
    }

    fn send(&self, listing: &Listing) -> Reply<SyncAnswer> {
        let stamp = self.stamp(&listing.claim, listing.request.as_of_seq);
        self.machine.remember(Sent::Sync(stamp.clone(), listing.request.clone()));
        self.ask_sync(&stamp, &listing.request)
    }

    /// After a stale claim: takes over the claim that the service knows now. Whether there is none and nothing is
    /// left here either.
    fn readopt(&self, listing: &Listing, detail: &str) -> Result<bool, End> {
        let reply = self.ask_node();
        let is_stale = matches!(&reply, Reply::Refused(problem) if problem.kind == ProblemType::StaleClaim);
        if reply.is_not_found() || is_stale {
            let lives = self.act(|vm| {
                let mut locked = vm.journal.lock()?;
                let lives = locked.entries()?.iter().any(Entry::is_live);
                if lives {
                    locked.stale(&listing.claim, detail)?;
                } else {
                    locked.forget()?;
                }
                Ok(lives)
            })?;
            return if lives { Err(End::Failed(detail.to_owned())) } else { Ok(true) };
        }
        self.stale(&listing.claim, detail)?;
        match reply {
            Reply::Done(answer) => self.adopt(answer.value).map(|()| false),
            Reply::Refused(problem) => Err(End::Failed(problem.detail)),
            Reply::Else(_) => Err(End::Failed("not reached".to_owned())),
        }
    }
}
