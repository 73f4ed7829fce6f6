use super::{Machine, Power, Vm};
use crate::{
    link::{Link, Reply},
    seed::Chance,
};
use anyhow::anyhow;
use cni_shim::journal::{ClaimFile, JournalError, Readiness, Standing, Uptime, rebuild};
use ipam_api::wire::{Node, NodeStamp, Seq};
use std::sync::PoisonError;

/// How a process ends, other than well.
#[derive(Debug)]
pub(crate) enum End {
    /// It was killed, or its VM was.
    Died,
    /// As the shim's does: whoever called it tries again later.
    Failed(String),
    /// As none may.
    Broken(anyhow::Error),
}

impl From<JournalError> for End {
    fn from(error: JournalError) -> Self {
        Self::Broken(anyhow!(error).context("a journal"))
    }
}

/// One run of the shim on a VM; it ends with it.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    pub(super) machine: &'a Machine,
    pub(super) link: &'a Link,
    pub(super) chance: Chance,
    epoch: u64,
    hash: String,
    mortal: Mortality,
}

/// Whether a process may be killed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mortality {
    Mortal,
    Immortal,
}

impl<'a> Process<'a> {
    /// Starts one, unless the VM is off.
    pub(super) fn start(
        machine: &'a Machine,
        link: &'a Link,
        chance: Chance,
        mortal: Mortality,
    ) -> Option<Self> {
        machine.read(|vm| {
            let (epoch, hash) = (vm.epoch, vm.machine.hash.clone());
            let process = Self { machine, link, chance, epoch, hash, mortal };
            (vm.power == Power::On).then_some(process)
        })
    }

    /// Does something on the VM at once: nothing there ends meanwhile.
    pub(super) fn act<T>(&self, act: impl FnOnce(&Vm) -> Result<T, JournalError>) -> Result<T, End> {
        let vm = self.machine.vm.read().unwrap_or_else(PoisonError::into_inner);
        if vm.epoch != self.epoch || vm.power == Power::Off {
            return Err(End::Died);
        }
        Ok(act(&vm)?)
    }

    /// A moment at which it may be killed.
    pub(super) fn may_die(&mut self) -> Result<(), End> {
        if self.mortal == Mortality::Mortal && self.chance.per_mille(4) {
            return Err(End::Died);
        }
        Ok(())
    }

    /// The header of a request about `seq`.
    pub(super) fn stamp(&self, claim: &ClaimFile, seq: Seq) -> NodeStamp {
        let machine = claim.machine.as_ref().map_or(self.hash.as_str(), |machine| machine.hash.as_str());
        claim.stamp(seq, Some(machine))
    }

    pub(super) fn readiness(&self) -> Result<Readiness, End> {
        let name = &self.machine.name;
        self.act(|vm| vm.journal.lock()?.ready(name, &vm.boot_id))
    }

    /// A claim that new pods may be started from: fetched, rebuilt and taken up where need be.
    pub(super) fn usable(&mut self) -> Result<ClaimFile, End> {
        for _ in 0..5 {
            match self.readiness()? {
                Readiness::NoClaim => self.fetch()?,
                Readiness::Lost(_) => self.rebuild()?,
                Readiness::Ready(claim) => match &claim.standing {
                    Standing::Planned | Standing::Active if !claim.knows_host() => self.recognise(&claim)?,
                    Standing::Active => return Ok(*claim),
                    Standing::Planned => drop(self.sync()?),
                    Standing::Deleting { .. } => return Err(End::Failed("deleting".to_owned())),
                    Standing::Stale { reason } => return Err(End::Failed(reason.clone())),
                },
            }
        }
        Err(End::Failed("the claim changes at this moment".to_owned()))
    }

    pub(super) fn fetch(&self) -> Result<(), End> {
        match self.ask_node() {
            Reply::Done(answer) => self.adopt(answer.value),
            Reply::Refused(problem) => Err(End::Failed(problem.detail)),
            Reply::Else(_) => Err(End::Failed("no claim is known, nor told".to_owned())),
        }
    }

    pub(super) fn adopt(&self, node: Node) -> Result<(), End> {
        self.act(|vm| {
            if !node.addresses.iter().any(|own| vm.addresses.contains(own)) {
                return Ok(());
            }
            let lives = !vm.found().is_empty();
            let mut locked = vm.journal.lock()?;
            let before = locked.claim()?;
            let stands = |before: &ClaimFile| matches!(before.standing, Standing::Active | Standing::Planned);
            if before.as_ref().is_some_and(|before| stands(before) && before.node.claim >= node.claim) {
                return Ok(());
            }
            let heard_of_this_boot = node.boot.as_ref().is_some_and(|boot| boot.id == vm.boot_id);
            let mut claim =
                ClaimFile::adopt(node, before.as_ref(), &vm.boot_id, vm.state.clone(), Uptime::now());
            claim.journal |= before.is_none() && (heard_of_this_boot || lives);
            claim.adopted_at = locked.draw()?;
            claim.described_as_of = claim.adopted_at;
            claim.machine = Some(vm.machine.clone());
            claim.host_known_in = Some(vm.boot_id.clone());
            locked.save_claim(&claim)
        })
    }

    pub(super) fn rebuild(&self) -> Result<(), End> {
        let name = &self.machine.name;
        self.act(|vm| {
            let found = vm.found();
            let mut locked = vm.journal.lock()?;
            let Readiness::Lost(mut claim) = locked.ready(name, &vm.boot_id)? else { return Ok(()) };
            let entries = rebuild::entries(claim.line()?, &found, Uptime::now(), || locked.draw())?;
            locked.rebuilt(&mut claim, &entries)
        })
    }

    pub(super) fn recognise(&self, claim: &ClaimFile) -> Result<(), End> {
        self.act(|vm| {
            let mut locked = vm.journal.lock()?;
            if let Some(mut now) = locked.claim()?.filter(|now| now.is_as(claim)) {
                now.machine = Some(vm.machine.clone());
                now.host_known_in = Some(vm.boot_id.clone());
                locked.save_claim(&now)?;
            }
            Ok(())
        })
    }

    /// No new pods: the service does not know this claim any more.
    pub(super) fn stale(&self, claim: &ClaimFile, reason: &str) -> Result<(), End> {
        self.act(|vm| vm.journal.lock()?.stale(claim, reason))
    }
}
