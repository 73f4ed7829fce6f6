//! The service: the ledger's real rules around a block and its rows.

use super::{
    Config, Event, Pod, Rules, Seen,
    network::{Answer, Body, BootIds, Reply, Request},
};
use ipam_api::{
    ledger::{self, BootChange, Ending, Hold, Listing, NodeLedger, Refusal, Release, Row, Slot},
    line::{Extent, Offset},
    wire::{AllocationState, BlockVersion, Claim, NodeState, Stamp},
};
use std::collections::BTreeMap;

/// What the service has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Service {
    /// Who has the block, and the claim.
    pub(super) claim: Option<(usize, NodeLedger)>,
    last_claim: u64,
    pub(super) rows: BTreeMap<Offset, Row<Pod>>,
    /// Whether a write met one of the database's unique constraints.
    pub(super) constraint_hit: bool,
    /// Only under [`Rules::KeyedByAttachment`].
    by_attachment: BTreeMap<Pod, Stamp>,
}

impl Service {
    pub(super) fn register(&mut self, vm: usize) {
        self.last_claim += 1;
        self.claim = Some((vm, NodeLedger::claimed(Claim(self.last_claim), BlockVersion(1))));
    }

    pub(super) fn delete(&mut self, rules: Rules, seen: &Seen) -> Option<()> {
        let (_, node) = self.claim.as_mut()?;
        match node.ending() {
            Ending::Now => {
                seen.insert(Event::Dropped);
                self.end_claim();
            }
            Ending::OnConfirmation if rules == Rules::ReclaimAfterTime => self.end_claim(),
            Ending::OnConfirmation => {
                node.state = NodeState::Deleting;
                node.deletion = Some(node.claim.to_string());
            }
        }
        Some(())
    }

    /// The block is nobody's: what the claim held ends.
    pub(super) fn end_claim(&mut self) {
        self.claim = None;
        self.rows.values_mut().for_each(|row| row.state = AllocationState::Released);
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (Offset, &Row<Pod>)> {
        self.rows.iter().filter(|(_, row)| row.is_held()).map(|(&at, row)| (at, row))
    }

    /// Takes a request in one transaction and answers it.
    pub(super) fn receive(&mut self, config: &Config, request: &Request, seen: &Seen) -> Reply {
        let body = self.decide(config, request, seen);
        if matches!(body, Answer::Stale(_)) {
            seen.insert(Event::Stale);
        }
        Reply { to: request.from, claim: request.claim, boot: request.boot, seq: request.seq, body }
    }

    fn decide(&mut self, config: &Config, request: &Request, seen: &Seen) -> Answer {
        let stale = match &request.body {
            Body::Hold(_, at) => Answer::Stale(Some(*at)),
            Body::Release(..) | Body::Sync { .. } => Answer::Stale(None),
        };
        let ids = if config.rules == Rules::BootWithoutId { BootIds::Absent } else { BootIds::Sent };
        let header = request.stamp(ids);
        let Some((owner, node)) = &self.claim else { return stale };
        let Ok(admission) = node.admit(&header) else { return stale };
        let owner = *owner;
        if admission.boot == BootChange::Newer {
            self.rows.values_mut().for_each(|row| row.state = AllocationState::Released);
        }
        let node = admission.node;
        self.claim = Some((owner, node.clone()));
        match &request.body {
            Body::Hold(pod, at) if config.rules == Rules::KeyedByAttachment => {
                self.hold_by_attachment(header.stamp, *pod, *at)
            }
            Body::Release(pod, at) if config.rules == Rules::KeyedByAttachment => {
                self.release_by_attachment(header.stamp, *pod, *at)
            }
            Body::Hold(pod, at) => {
                self.hold(config, &node, header.stamp, *pod, *at).unwrap_or_else(|refusal| match refusal {
                    Refusal::Stale(_) => stale,
                    Refusal::Taken(_) => Answer::Taken(*pod, *at),
                })
            }
            Body::Release(pod, at) => {
                let slot = self.slot(config, *at);
                if ledger::release(&node, header.stamp, &slot) == Release::Record {
                    let state = AllocationState::Released;
                    self.rows.insert(*at, Row { attachment: *pod, stamp: header.stamp, state });
                }
                Answer::Released(*at)
            }
            Body::Sync { entries, deletion } => {
                let listing = Listing {
                    as_of: request.seq,
                    entries: entries.iter().map(|entry| entry.entry()).collect(),
                    deletion: deletion.map(|claim| claim.to_string()),
                };
                if listing.as_of < node.floor {
                    seen.insert(Event::LateSync);
                }
                let decision = ledger::sync(&node, &config.block(), &self.rows, &listing);
                for at in &decision.ends {
                    if let Some(row) = self.rows.get_mut(at) {
                        row.state = AllocationState::Released;
                    }
                }
                for (at, row) in decision.writes {
                    self.write(at, row);
                }
                let deletion = decision.node.deletion.is_some().then_some(decision.node.claim);
                self.claim = Some((owner, decision.node));
                if decision.confirms_deletion {
                    seen.insert(Event::Confirmed);
                    self.end_claim();
                }
                let words = decision.verdicts.into_iter().map(Into::into);
                Answer::Synced { words: entries.iter().copied().zip(words).collect(), deletion }
            }
        }
    }

    fn slot(&self, config: &Config, at: Offset) -> Slot<'_, Pod> {
        if at.0 < config.addresses { Slot::InBlock(self.rows.get(&at)) } else { Slot::Outside }
    }

    fn hold(
        &mut self,
        config: &Config,
        node: &NodeLedger,
        stamp: Stamp,
        pod: Pod,
        at: Offset,
    ) -> Result<Answer, Refusal> {
        let elsewhere = self.elsewhere(pod, at);
        let other = elsewhere.and_then(|other| self.rows.get(&other));
        Ok(match ledger::hold(node, stamp, &pod, &self.slot(config, at), other)? {
            Hold::Take => {
                if let Some(row) = elsewhere.and_then(|other| self.rows.get_mut(&other)) {
                    row.state = AllocationState::Released;
                }
                self.write(at, Row { attachment: pod, stamp, state: AllocationState::Held });
                Answer::Held(pod, at)
            }
            Hold::AlreadyHeld | Hold::NotNewer(AllocationState::Held) => Answer::Held(pod, at),
            Hold::NotNewer(AllocationState::Released) => Answer::Superseded(pod, at),
        })
    }

    fn elsewhere(&self, pod: Pod, at: Offset) -> Option<Offset> {
        self.held().find(|(other, row)| *other != at && row.attachment == pod).map(|(other, _)| other)
    }

    /// Writes as the database would: one held row an attachment.
    fn write(&mut self, at: Offset, row: Row<Pod>) {
        self.constraint_hit |= row.is_held() && self.elsewhere(row.attachment, at).is_some();
        self.rows.insert(at, row);
    }

    fn hold_by_attachment(&mut self, stamp: Stamp, pod: Pod, at: Offset) -> Answer {
        if self.by_attachment.get(&pod).is_some_and(|&last| last >= stamp) {
            let held = self.rows.get(&at).is_some_and(|row| row.is_held() && row.attachment == pod);
            return if held { Answer::Held(pod, at) } else { Answer::Superseded(pod, at) };
        }
        if self.rows.get(&at).is_some_and(|row| row.is_held() && row.attachment != pod) {
            return Answer::Taken(pod, at);
        }
        if let Some(row) = self.elsewhere(pod, at).and_then(|other| self.rows.get_mut(&other)) {
            row.state = AllocationState::Released;
        }
        self.by_attachment.insert(pod, stamp);
        self.write(at, Row { attachment: pod, stamp, state: AllocationState::Held });
        Answer::Held(pod, at)
    }

    fn release_by_attachment(&mut self, stamp: Stamp, pod: Pod, at: Offset) -> Answer {
        if self.by_attachment.get(&pod).is_none_or(|&last| last < stamp) {
            self.by_attachment.insert(pod, stamp);
            for row in self.rows.values_mut().filter(|row| row.attachment == pod) {
                row.state = AllocationState::Released;
            }
        }
        Answer::Released(at)
    }
}

impl Config {
    fn block(&self) -> Vec<Extent> {
        Extent::new(Offset(0), Offset(self.addresses)).into_iter().collect()
    }
}
