//! The whole journal as the service is told it (P3), and what its answer changes here. Each is one moment under
//! the node's lock; the request between them is not.

use super::{ClaimFile, JournalError, Locked, Readiness, Standing, Uptime};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{EntryResult, SyncAnswer, SyncEntry, SyncOutcome, SyncRequest},
};
use serde::Serialize;
use std::net::IpAddr;

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

/// The journal as sent.
#[derive(Debug, Clone)]
pub struct Listing {
    /// In whose name.
    pub claim: ClaimFile,
    /// What is sent.
    pub request: SyncRequest,
    /// Entries that hold an address.
    pub live: usize,
}

/// What there is to send.
#[derive(Debug, Clone)]
pub enum Listed {
    /// The journal.
    Ready(Box<Listing>),
    /// Nothing: no claim is known.
    NoClaim,
    /// Nothing: the journal is lost, and is to be rebuilt first.
    Lost,
}

/// What an answer has brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// How the sync ended; `None`: something is new since, which is to be said.
    pub outcome: Option<Outcome>,
    /// How many entries the service had not acknowledged before.
    pub acknowledged: usize,
    /// What it refuses.
    pub refused: Vec<Refusal>,
}

impl Locked<'_> {
    /// The journal to send. `asOfSeq` is drawn and the entries are read under one
    /// lock: what is made later has a higher number, what was made before is listed.
    ///
    /// # Errors
    /// Files cannot be read or written, or belong to another node or configuration.
    pub fn list(&mut self, node: &NodeName, boot_id: &str) -> Result<Listed, JournalError> {
        let mut claim = match self.ready(node, boot_id)? {
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
        let conflicts = self.journal().strangers(&claim).to_sync(now);
        let request = SyncRequest { as_of_seq, entries, conflicts, deletion };
        Ok(Listed::Ready(Box::new(Listing { claim, request, live })))
    }

    /// Takes the answer to a listing in.
    ///
    /// # Errors
    /// It is no answer to what was sent, or files cannot be read or written.
    pub fn settle(&mut self, listing: &Listing, answer: SyncAnswer) -> Result<Settled, JournalError> {
        let now = Uptime::now();
        let mut settled = Settled::default();
        if !self.is_current(&listing.claim)? {
            // Another process took over another claim meanwhile: this answer is to the old one.
            return Ok(settled);
        }
        if answer.node.is_none() && listing.request.deletion.is_some() {
            self.end()?;
            settled.outcome = Some(Outcome::Ended);
            return Ok(settled);
        }
        let sent = &listing.request.entries;
        if answer.items.len() != sent.len() {
            let (sent, answered) = (sent.len(), answer.items.len());
            return Err(JournalError::Answer(format!(
                "in part: {sent} entries were sent and {answered} answered"
            )));
        }
        let mut again = false;
        for (sent, item) in sent.iter().zip(&answer.items) {
            again |= self.settle_entry(sent, item, &mut settled)?;
        }
        let Some(node) = answer.node else {
            return Err(JournalError::Answer("without this node".to_owned()));
        };
        let Some(mut claim) = self.claim()? else { return Ok(settled) };
        if claim.refresh(node, listing.request.as_of_seq, now) {
            let entries = self.entries()?;
            claim.take_up_block(&entries)?;
            self.save_claim(&claim)?;
            // Known only now: the next listing, in the name of the smaller block, confirms that it is enough.
            let told = listing.claim.node.block.version;
            again |= claim.node.block.version != told && claim.can_confirm_block(&entries)?;
        }
        let outcome = match &claim.standing {
            // Known only now: the next listing, made while no ADD begins any more, confirms it if it is empty.
            Standing::Deleting { .. } if listing.live == 0 => None,
            Standing::Deleting { .. } => Some(Outcome::Deleting),
            _ => Some(Outcome::Synced),
        };
        settled.outcome = outcome.filter(|_| !again);
        Ok(settled)
    }

    /// Takes the service's word on one entry, as far as the entry still says what was sent; whether it is to be said
    /// again.
    fn settle_entry(
        &mut self,
        sent: &SyncEntry,
        item: &EntryResult,
        settled: &mut Settled,
    ) -> Result<bool, JournalError> {
        let attachment = Attachment {
            network: sent.network.clone(),
            container_id: sent.container_id.clone(),
            if_name: sent.if_name.clone(),
        };
        if item.address != sent.address {
            return Err(JournalError::Answer("in another order than it was sent".to_owned()));
        }
        let agreed = match item.result {
            SyncOutcome::Kept => sent.state.is_live(),
            SyncOutcome::Released => !sent.state.is_live(),
            SyncOutcome::Refused => {
                let reason =
                    item.problem.as_ref().map_or("no reason given", |problem| problem.detail.as_str());
                self.change(sent.address, &attachment, |entry| {
                    if entry.seq == sent.seq {
                        entry.refused = Some(reason.to_owned());
                    }
                })?;
                settled.refused.push(Refusal {
                    address: sent.address,
                    attachment: attachment.to_string(),
                    reason: reason.to_owned(),
                });
                return Ok(false);
            }
        };
        let (mut acknowledged, mut due) = (false, false);
        self.change(sent.address, &attachment, |entry| {
            if agreed {
                acknowledged = !entry.acked && entry.ack(sent.state, sent.seq);
            } else {
                due = entry.seq == sent.seq && entry.is_live() == sent.state.is_live();
            }
        })?;
        settled.acknowledged += usize::from(acknowledged);
        if due {
            // The ledger has something newer of this address than its one writer knows,
            // as after the loss of a journal: the node decides, so it says it as new.
            let seq = self.draw()?;
            self.change(sent.address, &attachment, |entry| entry.renew(seq))?;
        }
        Ok(due)
    }
}
