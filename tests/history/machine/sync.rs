use super::{End, Process, Sent};
use crate::link::Reply;
use cni_shim::journal::{ClaimFile, Entry, JournalError, Locked, Readiness, Standing, Uptime};
use ipam_api::{
    names::Attachment,
    wire::{EntryResult, ProblemType, SyncAnswer, SyncEntry, SyncOutcome, SyncRequest},
};

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Journal and ledger agree.
    Synced,
    /// The node is being deleted; pods still live on it.
    Deleting,
    /// The node is deleted and nothing lives on it: its claim is forgotten here too.
    Ended,
}

struct Listing {
    claim: ClaimFile,
    request: SyncRequest,
    live: usize,
}

enum Listed {
    Ready(Box<Listing>),
    NoClaim,
    Lost,
}

/// Whether there is something left to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Done(Outcome),
    Again,
}

const ROUNDS: usize = 7;

impl Process<'_> {
    /// Sends the journal until journal and ledger agree.
    pub(super) fn sync(&mut self) -> Result<Outcome, End> {
        let mut adopted = false;
        for _ in 0..ROUNDS {
            let listing = match self.list()? {
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
                    if let Next::Done(outcome) =
                        self.act(|vm| settle(&mut vm.journal.lock()?, &listing, answer.value))?
                    {
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

    fn list(&self) -> Result<Listed, End> {
        let name = &self.machine.name;
        self.act(|vm| {
            let mut locked = vm.journal.lock()?;
            let mut claim = match locked.ready(name, &vm.boot_id)? {
                Readiness::Ready(claim) => *claim,
                Readiness::NoClaim => return Ok(Listed::NoClaim),
                Readiness::Lost(_) => return Ok(Listed::Lost),
            };
            let as_of_seq = locked.draw()?;
            let entries = locked.entries()?;
            if claim.take_up_block(&entries)? {
                locked.save_claim(&claim)?;
            }
            let live = entries.iter().filter(|entry| entry.is_live()).count();
            let deletion = match &claim.standing {
                Standing::Deleting { deletion } if live == 0 => deletion.clone(),
                _ => None,
            };
            let now = Uptime::now();
            let entries = entries.iter().map(|entry| entry.to_sync(now)).collect();
            let request = SyncRequest { as_of_seq, entries, conflicts: Vec::new(), deletion };
            Ok(Listed::Ready(Box::new(Listing { claim, request, live })))
        })
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

/// Takes the answer into the journal.
fn settle(locked: &mut Locked<'_>, listing: &Listing, answer: SyncAnswer) -> Result<Next, JournalError> {
    let now = Uptime::now();
    if !locked.is_current(&listing.claim)? {
        return Ok(Next::Again);
    }
    if answer.node.is_none() && listing.request.deletion.is_some() {
        locked.forget()?;
        return Ok(Next::Done(Outcome::Ended));
    }
    let mut again = false;
    for (sent, item) in listing.request.entries.iter().zip(&answer.items) {
        again |= settle_entry(locked, sent, item)?;
    }
    let Some(node) = answer.node else {
        return Err(JournalError::Node("the service answered a sync without this node".to_owned()));
    };
    let Some(mut claim) = locked.claim()? else { return Ok(Next::Again) };
    if claim.refresh(node, listing.request.as_of_seq, now) {
        let entries = locked.entries()?;
        claim.take_up_block(&entries)?;
        locked.save_claim(&claim)?;
        let told = listing.claim.node.block.version;
        again |= claim.node.block.version != told && claim.can_confirm_block(&entries)?;
    }
    Ok(match &claim.standing {
        Standing::Deleting { .. } if listing.live == 0 => Next::Again,
        _ if again => Next::Again,
        Standing::Deleting { .. } => Next::Done(Outcome::Deleting),
        _ => Next::Done(Outcome::Synced),
    })
}

/// Takes the service's word on one entry, as far as the entry still says what was sent; whether to say it again.
fn settle_entry(locked: &mut Locked<'_>, sent: &SyncEntry, item: &EntryResult) -> Result<bool, JournalError> {
    let attachment = Attachment {
        network: sent.network.clone(),
        container_id: sent.container_id.clone(),
        if_name: sent.if_name.clone(),
    };
    let agreed = match item.result {
        SyncOutcome::Kept => sent.state.is_live(),
        SyncOutcome::Released => !sent.state.is_live(),
        SyncOutcome::Refused => {
            let reason = item.problem.as_ref().map_or("no reason given", |problem| problem.detail.as_str());
            locked.change(sent.address, &attachment, |entry| {
                if entry.seq == sent.seq {
                    entry.refused = Some(reason.to_owned());
                }
            })?;
            return Ok(false);
        }
    };
    let mut due = false;
    locked.change(sent.address, &attachment, |entry| {
        if agreed {
            entry.ack(sent.state, sent.seq);
        } else if entry.seq == sent.seq && entry.is_live() == sent.state.is_live() {
            due = true;
        }
    })?;
    if due {
        let seq = locked.draw()?;
        locked.change(sent.address, &attachment, |entry| entry.renew(seq))?;
    }
    Ok(due)
}
