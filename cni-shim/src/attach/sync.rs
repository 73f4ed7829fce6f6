//! Telling the service of the whole journal at once (P3), and hearing from it
//! what became of the node: a new claim, a deletion, a withdrawn one.

use super::{NodeContext, failure};
use crate::{
    cni::{CniError, Code},
    fault,
    journal::{Listed, Listing, Outcome, Refusal, Standing},
    log,
    service::{Heard, Service},
};
use ipam_api::{
    names::NodeName,
    wire::{BootSeq, Claim, ProblemType, SyncAnswer},
};
use serde::Serialize;
use std::time::{Duration, Instant};

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
        let listed = context.journal.lock()?.list(&context.conf.name, &context.boot_id)?;
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
                if settle(context, &listing, answer, &mut summary)? {
                    return Ok(summary);
                }
            }
        }
    }
    Err(CniError::new(Code::TryAgain, "journal and ledger do not agree yet")
        .details(format!("each of {ROUNDS} rounds had something new to say; the next sync goes on")))
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

/// Takes the answer into the journal; whether nothing is left to say.
fn settle(
    context: &NodeContext<'_>,
    listing: &Listing,
    answer: SyncAnswer,
    summary: &mut Summary,
) -> Result<bool, CniError> {
    let settled = context.journal.lock()?.settle(listing, answer)?;
    for Refusal { address, attachment, reason } in &settled.refused {
        log::warn(format_args!("{address} of {attachment} is refused: {reason}"));
    }
    if settled.outcome == Some(Outcome::Ended) {
        log::info(format_args!("node {} is deleted: its end is confirmed", context.conf.name));
    }
    summary.acknowledged += settled.acknowledged;
    summary.refused = settled.refused;
    summary.outcome = settled.outcome.unwrap_or_default();
    Ok(settled.outcome.is_some())
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
