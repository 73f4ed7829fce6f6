//! Telling the service of the whole journal at once (P3), and hearing from it
//! what became of the node: a new claim, a deletion, a withdrawn one.

use super::{NodeContext, failure};
use crate::{
    cni::{CniError, Code},
    fault,
    journal::{ClaimFile, Locked, Readiness, Standing, Uptime},
    log,
    service::{Heard, Service},
};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{BootSeq, Claim, EntryResult, ProblemType, Seq, SyncAnswer, SyncEntry, SyncOutcome, SyncRequest},
};
use serde::Serialize;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// How a sync ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Journal and ledger agree.
    #[default]
    Synced,
    /// The node is being deleted; pods still live on it.
    Deleting,
    /// The node is deleted and nothing lives on it: its claim is forgotten here too.
    Ended,
}

/// An entry that the service refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub attachment: String,
    /// Why.
    pub reason: String,
}

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The node.
    pub node: NodeName,
    /// Its claim, the new one if it changed.
    pub claim: Option<Claim>,
    /// The number of this boot.
    pub boot: Option<BootSeq>,
    /// How it ended.
    pub outcome: Outcome,
    /// Entries that hold an address.
    pub live: usize,
    /// Entries of addresses that were given back.
    pub released: usize,
    /// Entries that the service had not acknowledged before.
    pub acknowledged: usize,
    /// Entries that the service refuses.
    pub refused: Vec<Refusal>,
    /// Entries rebuilt from the host, where the journal was lost.
    pub rebuilt: Option<usize>,
    /// Whether another claim was taken over.
    pub adopted: bool,
}

/// The journal as sent.
struct Listing {
    claim: ClaimFile,
    request: SyncRequest,
    live: usize,
}

/// Rebuild, recognise, adopt, send, renew, confirm: each at most once, and one in reserve.
const ROUNDS: usize = 7;

/// Sends the journal until journal and ledger agree: at most a few rounds.
///
/// # Errors
/// Code 11 if the service cannot be reached, the host not read, or they do not agree in the end, 101 if the
/// service knows no claim of this node, 100 for other refusals, 103 for the journal.
pub fn sync(context: &NodeContext<'_>, service: &Service) -> Result<Summary, CniError> {
    let mut summary = Summary {
        node: context.conf.name.clone(),
        claim: None,
        boot: None,
        outcome: Outcome::Synced,
        live: 0,
        released: 0,
        acknowledged: 0,
        refused: Vec::new(),
        rebuilt: None,
        adopted: false,
    };
    for _ in 0..ROUNDS {
        // A statement of its own: the lock must be gone before anything else is done.
        let listed = context.journal.lock()?.list(context)?;
        let listing = match listed {
            Listed::NoClaim => {
                context.fetch(service)?;
                continue;
            }
            Listed::Lost => {
                summary.rebuilt = Some(context.rebuild()?);
                continue;
            }
            Listed::Ready(listing) => listing,
        };
        if let Standing::Stale { reason } = &listing.claim.standing
            && !summary.adopted
        {
            // What was withdrawn comes back only by another adoption.
            if readopt(context, service, &listing, reason)? {
                summary.outcome = Outcome::Ended;
                return Ok(summary);
            }
            summary.adopted = true;
            continue;
        }
        if !listing.claim.knows_host() {
            context.recognise(&listing.claim)?;
            continue;
        }
        fault::at(fault::Point::SyncAfterListing);
        summary.claim = Some(listing.claim.node.claim);
        summary.boot = Some(listing.claim.boot.seq);
        summary.live = listing.live;
        summary.released = listing.request.entries.len() - listing.live;
        match service.sync(&context.stamp(&listing.claim, listing.request.as_of_seq), &listing.request) {
            Heard::Unreachable { reason, .. } => {
                return Err(CniError::new(Code::TryAgain, "the service cannot be reached").details(reason));
            }
            Heard::Refused(problem) if problem.kind == ProblemType::StaleClaim => {
                if summary.adopted {
                    context.journal.lock()?.stale(&listing.claim, &problem.detail)?;
                    return Err(context.stale(&problem.detail));
                }
                if readopt(context, service, &listing, &problem.detail)? {
                    summary.outcome = Outcome::Ended;
                    return Ok(summary);
                }
                summary.adopted = true;
            }
            Heard::Refused(problem) => return Err(failure::refused(&problem)),
            Heard::Done(answer) => {
                fault::at(fault::Point::SyncAfterAnswer);
                if settle(context, &listing, answer, &mut summary)? == Next::Done {
                    return Ok(summary);
                }
            }
        }
    }
    Err(CniError::new(Code::TryAgain, "journal and ledger do not agree yet")
        .details(format!("each of {ROUNDS} rounds had something new to say; the next sync goes on")))
}

enum Listed {
    Ready(Box<Listing>),
    NoClaim,
    Lost,
}

impl Locked<'_> {
    /// The journal to send. `asOfSeq` is drawn and the entries are read under one
    /// lock: what is made later has a higher number, what was made before is listed.
    fn list(&mut self, context: &NodeContext<'_>) -> Result<Listed, CniError> {
        let mut claim = match self.ready(&context.conf.name, &context.boot_id)? {
            Readiness::Ready(claim) => *claim,
            Readiness::NoClaim => return Ok(Listed::NoClaim),
            Readiness::Lost(_) => return Ok(Listed::Lost),
        };
        let as_of_seq = self.draw()?;
        let entries = self.entries()?;
        if claim.take_up_block(&entries)? {
            self.save_claim(&claim)?;
        }
        let live = entries.iter().filter(|entry| entry.is_live()).count();
        // The deletion stops ADD since it is in claim.json: an empty journal stays empty.
        let deletion = match &claim.standing {
            Standing::Deleting { deletion } if live == 0 => deletion.clone(),
            _ => None,
        };
        let now = Uptime::now();
        let entries = entries.iter().map(|entry| entry.to_sync(now)).collect();
        let conflicts = context.journal.strangers(&claim).to_sync(now);
        let request = SyncRequest { as_of_seq, entries, conflicts, deletion };
        Ok(Listed::Ready(Box::new(Listing { claim, request, live })))
    }
}

/// After a stale claim: takes over the claim that the service knows now. Whether
/// there is none and nothing is left here either.
fn readopt(
    context: &NodeContext<'_>,
    service: &Service,
    listing: &Listing,
    detail: &str,
) -> Result<bool, CniError> {
    let heard = service.node();
    // To one whose credential ended with the claim, the service says that and no more.
    let is_stale = matches!(&heard, Heard::Refused(problem) if problem.kind == ProblemType::StaleClaim);
    if heard.is_not_found() || is_stale {
        let mut locked = context.journal.lock()?;
        if locked.entries()?.iter().any(|entry| entry.is_live()) {
            locked.stale(&listing.claim, detail)?;
            return Err(context.stale(detail));
        }
        // A service that knows no such node may never have: only where an end was named is it somebody's wish.
        if is_stale || matches!(listing.claim.standing, Standing::Deleting { .. }) {
            locked.end()?;
        } else {
            locked.forget()?;
        }
        log::info(format_args!(
            "node {} is gone and nothing lives on it: its claim is forgotten",
            context.conf.name
        ));
        return Ok(true);
    }
    match heard {
        Heard::Done(node) => {
            // What is known of the old claim ends here; its boots are counted on where it is the same.
            context.journal.lock()?.stale(&listing.claim, detail)?;
            context.adopt(node)?;
            Ok(false)
        }
        Heard::Refused(problem) => Err(failure::refused(&problem)),
        Heard::Unreachable { reason, .. } => {
            context.journal.lock()?.stale(&listing.claim, detail)?;
            Err(CniError::new(Code::TryAgain, "the service cannot be reached").details(reason))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing is left to say.
    Done,
    /// Entries are new since: say them.
    Again,
}

/// Takes the answer into the journal.
fn settle(
    context: &NodeContext<'_>,
    listing: &Listing,
    answer: SyncAnswer,
    summary: &mut Summary,
) -> Result<Next, CniError> {
    let now = Uptime::now();
    let mut locked = context.journal.lock()?;
    if !locked.is_current(&listing.claim)? {
        // Another process took over another claim meanwhile: this answer is to the old one.
        return Ok(Next::Again);
    }
    if answer.node.is_none() && listing.request.deletion.is_some() {
        locked.end()?;
        summary.outcome = Outcome::Ended;
        log::info(format_args!("node {} is deleted: its end is confirmed", context.conf.name));
        return Ok(Next::Done);
    }
    if answer.items.len() != listing.request.entries.len() {
        return Err(CniError::new(Code::Refused, "the service answered a sync in part").details(format!(
            "{} entries were sent and {} answered",
            listing.request.entries.len(),
            answer.items.len()
        )));
    }
    let mut next = Next::Done;
    summary.refused.clear();
    for (sent, item) in listing.request.entries.iter().zip(&answer.items) {
        if settle_entry(&mut locked, sent, item, summary)? == Next::Again {
            next = Next::Again;
        }
    }
    let Some(node) = answer.node else {
        return Err(CniError::new(Code::Refused, "the service answered a sync without this node"));
    };
    let Some(mut claim) = locked.claim()? else { return Ok(Next::Again) };
    if claim.refresh(node, listing.request.as_of_seq, now) {
        let entries = locked.entries()?;
        claim.take_up_block(&entries)?;
        locked.save_claim(&claim)?;
        // Known only now: the next listing, in the name of the smaller block, confirms that it is enough.
        let told = listing.claim.node.block.version;
        if claim.node.block.version != told && claim.can_confirm_block(&entries)? {
            next = Next::Again;
        }
    }
    Ok(match &claim.standing {
        // Known only now: the next listing, made while no ADD begins any more, confirms it if it is empty.
        Standing::Deleting { .. } if listing.live == 0 => Next::Again,
        Standing::Deleting { .. } => {
            summary.outcome = Outcome::Deleting;
            next
        }
        _ => {
            summary.outcome = Outcome::Synced;
            next
        }
    })
}

/// Takes the service's word on one entry, as far as the entry still says what was sent.
fn settle_entry(
    locked: &mut Locked<'_>,
    sent: &SyncEntry,
    item: &EntryResult,
    summary: &mut Summary,
) -> Result<Next, CniError> {
    let attachment = Attachment {
        network: sent.network.clone(),
        container_id: sent.container_id.clone(),
        if_name: sent.if_name.clone(),
    };
    if item.address != sent.address {
        return Err(CniError::new(
            Code::Refused,
            "the service answered a sync in another order than it was sent",
        ));
    }
    let agreed = match item.result {
        SyncOutcome::Kept => sent.state.is_live(),
        SyncOutcome::Released => !sent.state.is_live(),
        SyncOutcome::Refused => {
            let reason = item.problem.as_ref().map_or("no reason given", |problem| problem.detail.as_str());
            log::warn(format_args!("{} of {attachment} is refused: {reason}", sent.address));
            let refuse = |entry: &mut crate::journal::Entry| {
                if entry.seq == sent.seq {
                    entry.refused = Some(reason.to_owned());
                }
            };
            locked.change(sent.address, &attachment, refuse)?;
            summary.refused.push(Refusal {
                address: sent.address,
                attachment: attachment.to_string(),
                reason: reason.to_owned(),
            });
            return Ok(Next::Done);
        }
    };
    let mut acknowledged = false;
    let mut due = None;
    locked.change(sent.address, &attachment, |entry| {
        if agreed {
            acknowledged = !entry.acked && entry.ack(sent.state, sent.seq);
        } else if entry.seq == sent.seq && entry.is_live() == sent.state.is_live() {
            due = Some(entry.is_live());
        }
    })?;
    summary.acknowledged += usize::from(acknowledged);
    if due.is_some() {
        // The ledger has something newer of this address than its one writer knows,
        // as after the loss of a journal: the node decides, so it says it as new.
        let seq: Seq = locked.draw()?;
        locked.change(sent.address, &attachment, |entry| entry.renew(seq))?;
        return Ok(Next::Again);
    }
    Ok(Next::Done)
}

/// Sends what the service has not heard of, after a call that got through: whoever
/// comes first after an outage does it, for all, and has ended by `end`: a runtime waits.
pub(super) fn catch_up(context: &NodeContext<'_>, service: &Service, end: Instant) {
    const TOO_LITTLE: Duration = Duration::from_millis(50);
    if end.saturating_duration_since(Instant::now()) < TOO_LITTLE {
        return;
    }
    let Ok(file) = context.journal.lock_file("sync.lock") else { return };
    if file.try_lock().is_err() {
        // Somebody is at it.
        return;
    }
    match sync(context, &service.clone().until(end)) {
        Ok(summary) => {
            log::info(format_args!("caught up with the service: {} entries", summary.acknowledged));
        }
        Err(error) => log::warn(format_args!("the service has not heard of everything yet: {error}")),
    }
}

/// Asks the service what rests, before a pod may get an address that has hardly been given back. One
/// process does it for all that start at once; the others wait for it, as long as they would have
/// waited for the service.
pub(super) fn remember(context: &NodeContext<'_>, service: &Service, end: Instant) {
    // A lock that is waited for takes no deadline.
    const PAUSE: Duration = Duration::from_millis(5);
    let Ok(file) = context.journal.lock_file("sync.lock") else { return };
    while file.try_lock().is_err() {
        if Instant::now() >= end {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    if !matches!(context.journal.claim(), Ok(Some(claim)) if claim.forgotten.is_some()) {
        return;
    }
    if let Err(error) = sync(context, service) {
        log::warn(format_args!("what rests is not known, all of the block may: {error}"));
    }
}
