//! What must hold in every state.

use super::{
    Config, World,
    network::{Answer, Body},
    node::{Phase, Stopped, Vm},
    service::Service,
};
use ipam_api::{ledger::NodeLedger, line::Offset};
use stateright::Property;
use std::{collections::BTreeSet, sync::Arc};

/// No address is wired to two attachments, anywhere.
pub(crate) const ADDRESS_ONCE: &str = "an address is wired once";
/// No write of the service meets a unique constraint.
pub(crate) const CONSTRAINTS: &str = "the database's constraints hold";
/// What was acknowledged to a node, the ledger has.
pub(crate) const ACKNOWLEDGED: &str = "what was acknowledged is in the ledger";
/// What the ledger holds, the node has or still has to give back.
pub(crate) const NOT_LEAKED: &str = "nothing leaks";
/// After a sync with nothing after it, ledger and journal say the same.
pub(crate) const AGREE: &str = "ledger and journal agree after a clean sync";
/// From every state, one clean sync brings that about, or ends a deletion.
pub(crate) const HEALS: &str = "a clean sync heals";
/// A pod that runs is wired and in the journal.
pub(crate) const RUNNING: &str = "a running pod keeps its address";
/// A node that has sent the confirmation of a deletion never ADDs under that claim again.
pub(crate) const STAYS_AWAY: &str = "a node that confirmed its end stays away from the block";
/// The current request of a live entry is never told that it is superseded.
pub(crate) const ANSWERED: &str = "a live entry is not called released";

/// Nothing is wired at an address that is none of the block's: another may have it.
pub(crate) const INSIDE: &str = "what a block gave up is wired nowhere";

impl Config {
    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ADDRESS_ONCE, |_, world: &World| world.address_once()),
            Property::always(INSIDE, |_, world: &World| world.wired_is_inside()),
            Property::always(CONSTRAINTS, |_, world: &World| !world.service.constraint_hit),
            Property::always(ACKNOWLEDGED, |_, world: &World| world.each_vm(Vm::acknowledged_is_held)),
            Property::always(NOT_LEAKED, |_, world: &World| world.each_vm(Vm::held_is_known)),
            Property::always(AGREE, |_, world: &World| world.each_vm(Vm::agrees_if_synced)),
            Property::always(HEALS, |config: &Self, world: &World| config.heals(world)),
            Property::always(RUNNING, |_, world: &World| world.vms.iter().all(|vm| vm.running_is_wired())),
            Property::always(STAYS_AWAY, |_, world: &World| world.confirmed_stay_away()),
            Property::always(ANSWERED, |_, world: &World| {
                !world.replies.iter().any(|reply| matches!(reply.body, Answer::Superseded(..)))
            }),
        ]
    }

    fn heals(&self, world: &World) -> bool {
        let quiet = self.unseen();
        world.vms.iter().enumerate().filter(|(_, vm)| vm.can_sync()).all(|(index, _)| {
            let mut world = World { requests: Arc::default(), replies: BTreeSet::new(), ..world.clone() };
            // The first may be refused and teach the node its number, the next bring word of a
            // deletion, the last confirm it.
            (0..3).any(|_| {
                quiet.sync_at_once(&mut world, index);
                world.vms.get(index).is_some_and(|vm| vm.is_healed(&world.service))
            })
        })
    }
}

impl World {
    fn address_once(&self) -> bool {
        let mut seen = BTreeSet::new();
        self.vms.iter().flat_map(|vm| &vm.wired).all(|(at, _)| seen.insert(*at))
    }

    fn wired_is_inside(&self) -> bool {
        self.vms.iter().flat_map(|vm| &vm.wired).all(|(at, _)| self.service.footprint.has(*at))
    }

    fn confirmed_stay_away(&self) -> bool {
        self.requests.iter().all(|request| match request.body {
            Body::Sync { deletion: Some(claim), .. } => {
                let disk = self.vms.get(request.from).and_then(|vm| vm.disk);
                disk.is_none_or(|disk| disk.claim != claim || disk.stopped != Stopped::No)
            }
            _ => true,
        })
    }

    fn each_vm(&self, holds: fn(&Vm, &Service) -> bool) -> bool {
        self.vms.iter().filter(|vm| vm.on).all(|vm| holds(vm, &self.service))
    }
}

impl Vm {
    /// The ledger's view of the claim this VM works under.
    fn node<'a>(&self, service: &'a Service) -> Option<&'a NodeLedger> {
        let (owner, node) = service.claim.as_ref()?;
        (*owner == self.index && self.disk.is_some_and(|disk| disk.claim == node.claim)).then_some(node)
    }

    /// The same, if the service has heard of this boot.
    fn node_now<'a>(&self, service: &'a Service) -> Option<&'a NodeLedger> {
        self.node(service).filter(|node| self.disk.is_some_and(|disk| disk.boot == node.boot))
    }

    fn is_healed(&self, service: &Service) -> bool {
        match self.node(service) {
            Some(node) if node.deletion.is_some() && self.live_entries().next().is_none() => false,
            Some(_) => self.agrees(service) && self.journal.iter().flatten().all(|(_, entry)| entry.acked),
            None => self.disk.is_some_and(|disk| disk.stopped != Stopped::No),
        }
    }

    fn can_sync(&self) -> bool {
        self.on && !self.is_busy() && self.disk.is_some() && self.journal.is_some() && self.syncing.is_none()
    }

    fn acknowledged_is_held(&self, service: &Service) -> bool {
        let Some(disk) = self.disk else { return true };
        let now = self.node_now(service);
        self.journal.iter().flatten().filter(|(_, entry)| entry.acked).all(|(at, entry)| {
            let row = service.rows.get(at).filter(|row| row.is_held() && row.stamp.claim == disk.claim);
            if entry.state.is_live() {
                now.is_some() && row.is_some_and(|row| row.attachment == entry.pod)
            } else {
                row.is_none()
            }
        })
    }

    fn held_is_known(&self, service: &Service) -> bool {
        let (Some(node), Some(journal)) = (self.node_now(service), &self.journal) else { return true };
        if self.rebuilt.is_some() || self.take_up.is_some() {
            return true;
        }
        service.held().filter(|(_, row)| row.stamp.claim == node.claim).all(|(at, row)| {
            journal
                .get(&at)
                .is_some_and(|entry| !entry.acked || (entry.state.is_live() && entry.pod == row.attachment))
        })
    }

    fn agrees_if_synced(&self, service: &Service) -> bool {
        match self.node_now(service) {
            Some(node) if node.floor.0 == self.clock && self.journal.is_some() => self.agrees(service),
            _ => true,
        }
    }

    fn agrees(&self, service: &Service) -> bool {
        let held: Vec<(Offset, _)> = service.held().map(|(at, row)| (at, row.attachment)).collect();
        let live: Vec<(Offset, _)> = self.live_entries().map(|(at, entry)| (at, entry.pod)).collect();
        held == live
    }

    fn running_is_wired(&self) -> bool {
        !self.gc_stopped_running
            && self.phases.iter().all(|(&pod, phase)| match phase {
                Phase::Running(at) => {
                    self.wired.contains(&(*at, pod))
                        && (self.journal.is_none() || self.live_entry(pod) == Some(*at))
                }
                _ => true,
            })
    }
}
