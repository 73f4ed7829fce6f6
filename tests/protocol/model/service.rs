//! The service: the ledger's real rules around a block and its rows.

use super::{
    Config, Event, Pod, Rules, Seen,
    network::{Answer, Body, BootIds, Described, Reply, Request},
};
use ipam_api::{
    ledger::{
        self, BootChange, Ending, Footprint, Hold, Leaving, Listing, NodeLedger, Refusal, Release, Row,
    },
    line::{Extent, Offset},
    wire::{AllocationState, BlockVersion, Claim, NodeStamp, NodeState, Stamp},
};
use std::collections::BTreeMap;

/// What the service has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Service {
    /// Who has the block, and the claim.
    pub(super) claim: Option<(usize, NodeLedger)>,
    last_claim: u64,
    /// Where its block lies.
    pub(super) footprint: Footprint,
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

    /// The block gives its last address up.
    pub(super) fn shrink(&mut self, rules: Rules) -> Option<()> {
        let (_, node) = self.claim.as_mut()?;
        let last = self.footprint.stays.pop()?.last();
        self.footprint.stays.extend(Extent::new(Offset(0), last));
        node.block = BlockVersion(node.block.0 + 1);
        if rules != Rules::LeavesByTime {
            self.footprint.leaves.push(Leaving { extent: Extent::single(last), since: node.block });
        }
        Some(())
    }

    /// The block gets an address more: one that is leaving, or one that is free.
    pub(super) fn grow(&mut self, seen: &Seen) -> Option<()> {
        let (_, node) = self.claim.as_mut()?;
        let next = self.footprint.stays.pop()?.next();
        let before = self.footprint.leaves.len();
        self.footprint.leaves.retain(|leaving| leaving.extent.first() != next);
        let back = self.footprint.leaves.len() < before;
        seen.insert(if back { Event::TakenBack } else { Event::GrownAnew });
        self.footprint.stays.extend(Extent::inclusive(Offset(0), next));
        node.block = BlockVersion(node.block.0 + 1);
        Some(())
    }

    /// The block as its node hears of it.
    fn described(&self) -> Described {
        let version = self.claim.as_ref().map_or(BlockVersion(1), |(_, node)| node.block);
        Described { version, size: self.footprint.stays.iter().map(|extent| extent.size()).sum() }
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
                self.hold(&node, &header, *pod, *at).unwrap_or_else(|refusal| match refusal {
                    Refusal::Stale(_) => stale,
                    Refusal::Taken(_) => Answer::Taken(*pod, *at),
                })
            }
            Body::Release(pod, at) => {
                let slot = self.footprint.slot(header.block, *at, self.rows.get(at));
                if ledger::release(&node, header.stamp, &slot) == Release::Record {
                    let state = AllocationState::Released;
                    self.rows.insert(*at, Row { attachment: *pod, stamp: header.stamp, state });
                }
                Answer::Released(*at)
            }
            Body::Sync { entries, deletion } => {
                let listing = Listing {
                    as_of: request.seq,
                    block: if config.rules == Rules::OlderVersionConfirms {
                        node.block
                    } else {
                        header.block
                    },
                    entries: entries.iter().map(|entry| entry.entry()).collect(),
                    deletion: deletion.map(|claim| claim.to_string()),
                };
                if listing.as_of < node.floor {
                    seen.insert(Event::LateSync);
                }
                let decision = ledger::sync(&node, &self.footprint, &self.rows, &listing);
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
                if decision.confirms_shrink {
                    seen.insert(Event::GivenUp);
                    self.footprint.leaves.clear();
                }
                let block = self.described();
                let words = decision.verdicts.into_iter().map(Into::into);
                Answer::Synced { words: entries.iter().copied().zip(words).collect(), deletion, block }
            }
        }
    }

    fn hold(
        &mut self,
        node: &NodeLedger,
        header: &NodeStamp,
        pod: Pod,
        at: Offset,
    ) -> Result<Answer, Refusal> {
        let stamp = header.stamp;
        let slot = self.footprint.slot(header.block, at, self.rows.get(&at));
        let elsewhere = self.elsewhere(pod, at);
        let other = elsewhere.and_then(|other| self.rows.get(&other));
        Ok(match ledger::hold(node, stamp, &pod, &slot, other)? {
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

    /// Writes as the database would: one held row an attachment, in an extent of the block.
    fn write(&mut self, at: Offset, row: Row<Pod>) {
        let refused = self.elsewhere(row.attachment, at).is_some() || !self.footprint.has(at);
        self.constraint_hit |= row.is_held() && refused;
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
