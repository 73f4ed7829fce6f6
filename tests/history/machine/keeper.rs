use super::{End, Machine, Make, Power, Process, process::Mortality};
use crate::{
    history::{Ask, Heard},
    link::{Link, Reply},
    network::Cut,
    seed::{Chance, Seed},
    world::World,
};
use anyhow::Result;
use cni_shim::journal::Outcome;
use ipam_api::{
    client::{Answer, ETag, NodeDeletion, VmFate, Write},
    wire::{Allocator, Node, NodeSpec},
};
use std::{
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

/// How often a node is asked to be heard when all faults are over: the machine may be slow.
const TRIES: usize = 5;

/// Who starts and ends the VMs of a name, and syncs.
#[derive(Debug)]
pub(crate) struct Keeper<'a> {
    machine: &'a Machine,
    link: &'a Link,
    seed: Seed,
    stage: Stage,
}

/// Where the VM of the name is in its life, as its keeper knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The last one is gone for good, and may still have the claim.
    Gone,
    /// The same, and the next one is to take its place.
    Succeeded,
    /// It runs and is not registered.
    Started,
    /// It runs, registered.
    Lives,
    /// It is to end.
    Leaves,
}

/// Where a VM registers.
#[derive(Debug)]
enum Place {
    /// Where nobody is.
    New,
    /// In the place of the VM that had it in this version, and is gone.
    Of(ETag),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Rest,
    Sync,
    Examine,
    CutOff,
    Reboot,
    LoseJournal,
    LoseData,
    Leave,
    Destroy,
}

impl<'a> Keeper<'a> {
    /// The keeper of a name under which no VM runs.
    pub(crate) fn new(machine: &'a Machine, seed: Seed) -> Self {
        Self { machine, link: &machine.links()[0], seed, stage: Stage::Gone }
    }

    /// Lives and deaths until all is over.
    pub(crate) fn run(mut self, world: &World) {
        for step in 0.. {
            if world.is_over() {
                return;
            }
            match self.step(self.seed.chance(self.link.actor(), step)) {
                Ok(()) | Err(End::Died) => {}
                Err(End::Failed(_)) => thread::sleep(Duration::from_millis(2)),
                Err(End::Broken(error)) => world.fails(error),
            }
        }
    }

    fn step(&mut self, chance: Chance) -> Result<(), End> {
        match self.stage {
            Stage::Gone => self.bury(chance),
            Stage::Succeeded => self.succeed(),
            Stage::Started => self.register(),
            Stage::Lives => self.live(chance),
            Stage::Leaves => self.leave(chance),
        }
    }

    fn live(&mut self, mut chance: Chance) -> Result<(), End> {
        let step = chance.weighted(&[
            (300, Step::Rest),
            (420, Step::Sync),
            (120, Step::Examine),
            (40, Step::CutOff),
            (30, Step::Reboot),
            (15, Step::LoseJournal),
            (10, Step::LoseData),
            (18, Step::Leave),
            (17, Step::Destroy),
        ]);
        match step {
            Step::Rest => thread::sleep(Duration::from_millis(chance.within(1, 12))),
            Step::Sync => drop(self.process(chance)?.sync()?),
            Step::Examine => {
                let replays = chance.within(1, 6);
                let _quiet = self.machine.quiet.write().unwrap_or_else(PoisonError::into_inner);
                self.process(chance)?.examine(replays)?;
            }
            Step::CutOff => {
                self.machine.cut(Cut::Off);
                thread::sleep(Duration::from_millis(chance.within(5, 60)));
                self.machine.cut(Cut::Joined);
            }
            Step::Reboot => self.machine.reboot()?,
            Step::LoseJournal => self.machine.lose_journal()?,
            Step::LoseData => self.machine.lose_data()?,
            Step::Leave => {
                self.machine.leaving.store(true, Ordering::SeqCst);
                self.stage = Stage::Leaves;
            }
            Step::Destroy => {
                self.machine.destroy();
                self.stage = if chance.per_mille(500) { Stage::Gone } else { Stage::Succeeded };
            }
        }
        Ok(())
    }

    /// Makes sure that no former VM has the claim, then starts another.
    fn bury(&mut self, mut chance: Chance) -> Result<(), End> {
        let Some(found) = self.find()? else {
            let ways: Vec<&Make> = self.machine.makes.iter().collect();
            self.machine.renew(chance.one_of(&ways).clone()).map_err(End::Broken)?;
            self.stage = Stage::Started;
            return Ok(());
        };
        self.delete(VmFate::Gone, found.etag.as_ref()).map(drop)
    }

    /// Starts another VM and has it take the last one's place.
    fn succeed(&mut self) -> Result<(), End> {
        let Some(found) = self.find()? else {
            self.stage = Stage::Gone;
            return Ok(());
        };
        let Some(etag) = found.etag else { return Ok(()) };
        self.machine.renew(self.machine.made_as()).map_err(End::Broken)?;
        // Whether or not it is heard: who asks next finds out by the uid.
        self.stage = Stage::Started;
        self.put(Place::Of(etag));
        Ok(())
    }

    fn register(&mut self) -> Result<(), End> {
        match self.find()? {
            Some(found) if found.value.uid == Some(self.machine.uid()) => self.stage = Stage::Lives,
            Some(found) => self.take_over(&found),
            None => {
                if self.put(Place::New).is_none() {
                    // There may be no block for it now, nor soon.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(())
    }

    /// A former VM's claim, whose registration came late. This one's shim does not know its uid: it may have taken the
    /// claim up, so that "it is gone" would be said of pods that run.
    fn take_over(&mut self, found: &Answer<Node>) {
        let Make { pool, addresses } = self.machine.made_as();
        match &found.etag {
            Some(etag) if found.value.pool == pool && found.value.addresses == addresses => {
                self.put(Place::Of(etag.clone()));
            }
            // There is no taking over what is made otherwise.
            _ => {
                self.machine.destroy();
                self.stage = Stage::Gone;
            }
        }
    }

    /// Ends the VM as it should be: pods first, then its block.
    fn leave(&mut self, mut chance: Chance) -> Result<(), End> {
        if chance.per_mille(200) {
            self.delete(VmFate::Unknown, None)?;
        }
        if chance.per_mille(15) {
            // It does not live to see it.
            self.machine.destroy();
            self.goes();
            return Ok(());
        }
        if self.process(chance)?.sync()? == Outcome::Ended {
            self.machine.destroy();
            self.goes();
        }
        thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    fn goes(&mut self) {
        self.machine.leaving.store(false, Ordering::SeqCst);
        self.stage = Stage::Gone;
    }

    fn process(&self, chance: Chance) -> Result<Process<'a>, End> {
        Process::start(self.machine, self.link, chance, Mortality::Mortal).ok_or(End::Died)
    }

    /// The node as the service knows it; `None` where it says that there is none.
    fn find(&self) -> Result<Option<Answer<Node>>, End> {
        let name = &self.machine.name;
        let ask = Ask::Look(format!("nodes/{name}"));
        let tell = |node: &Node| format!("{:?} claim {} uid {:?}", node.state, node.claim, node.uid);
        match self.link.call(ask, tell, async |client| client.node(name).await) {
            Reply::Done(answer) => Ok(Some(answer)),
            reply if reply.is_not_found() => Ok(None),
            Reply::Refused(_) | Reply::Else(_) => Err(End::Failed("not reached".to_owned())),
        }
    }

    fn put(&self, place: Place) -> Option<Answer<Node>> {
        let (replace, write) = match place {
            Place::New => (false, Write::default()),
            Place::Of(etag) => (true, Write::if_unchanged(etag)),
        };
        let Make { pool, addresses } = self.machine.made_as();
        let uid = self.machine.uid();
        let spec = NodeSpec {
            pool,
            addresses,
            mac: None,
            uid: Some(uid.clone()),
            replace,
            allocator: Allocator::Node,
        };
        let node = self.machine.name.clone();
        let ask = Ask::Register { node: node.clone(), uid, replaces: condition(&write) };
        let tell = |node: &Node| format!("claim {} {:?}", node.claim, node.block.ranges);
        self.link.call(ask, tell, async |client| client.put_node(&node, &spec, &write).await).done()
    }

    fn delete(&self, fate: VmFate, etag: Option<&ETag>) -> Result<(), End> {
        let node = self.machine.name.clone();
        let write = etag.cloned().map_or_else(Write::default, Write::if_unchanged);
        let gone = (fate == VmFate::Gone).then(|| condition(&write).unwrap_or_default());
        let ask = Ask::Delete { node: node.clone(), gone };
        drop(self.link.call(
            ask,
            |told: &String| told.clone(),
            async |client| {
                let (told, etag, status) = match client.delete_node(&node, fate, &write).await? {
                    NodeDeletion::Freed => ("freed".to_owned(), None, 204),
                    NodeDeletion::Waiting(answer) => {
                        (format!("waits for {:?}", answer.value.deletion), answer.etag, answer.status)
                    }
                };
                Ok(Answer { value: told, etag, status, body: Vec::new() })
            },
        ));
        Ok(())
    }
}

fn condition(write: &Write) -> Option<String> {
    match &write.precondition {
        ipam_api::client::Precondition::Unchanged(etag) => Some(etag.as_str().to_owned()),
        ipam_api::client::Precondition::None | ipam_api::client::Precondition::Absent => None,
    }
}

impl Machine {
    /// When all faults are over: the service hears the node, and journal and ledger are looked at.
    pub(crate) fn reconcile(&self, chance: &Chance) -> Result<(), End> {
        self.cut(Cut::Joined);
        self.bury_others()?;
        let Some(mut process) = Process::start(self, &self.links()[0], chance.clone(), Mortality::Immortal)
        else {
            return Ok(());
        };
        for _ in 0..TRIES {
            match process.sync() {
                Ok(Outcome::Synced | Outcome::Deleting) => return process.look(Heard::Whole).map(drop),
                Ok(Outcome::Ended) => {
                    self.destroy();
                    return Ok(());
                }
                Err(End::Failed(_)) => {}
                Err(end) => return Err(end),
            }
        }
        // It was never registered, or the service knows it no more: what lives on it tells.
        Ok(())
    }

    /// Deletes all its pods and then the node; what is left of it then.
    pub(crate) fn wind_up(&self, chance: &Chance) -> Result<Option<String>, End> {
        let link = &self.links()[0];
        let keeper = Keeper::new(self, Seed(0));
        if let Some(mut process) = Process::start(self, link, chance.clone(), Mortality::Immortal) {
            for attachment in self.attachments()? {
                process.del(&attachment)?;
            }
            for _ in 0..TRIES {
                keeper.delete(VmFate::Unknown, None)?;
                match process.sync() {
                    Ok(Outcome::Ended) => break,
                    Ok(Outcome::Synced | Outcome::Deleting) | Err(End::Failed(_)) => {}
                    Err(end) => return Err(end),
                }
            }
            self.destroy();
        }
        let left = keeper.find()?;
        Ok(left.map(|found| {
            format!("node {} is {:?} with claim {}", self.name, found.value.state, found.value.claim)
        }))
    }

    /// Ends the claim of a VM of the name that runs no more.
    fn bury_others(&self) -> Result<(), End> {
        let mut keeper = Keeper::new(self, Seed(0));
        let Some(found) = keeper.find()? else { return Ok(()) };
        if self.read(|vm| vm.power == Power::On) {
            if found.value.uid == Some(self.uid()) {
                return Ok(());
            }
            keeper.take_over(&found);
        }
        if self.read(|vm| vm.power == Power::Off) {
            keeper.delete(VmFate::Gone, found.etag.as_ref())
        } else {
            Ok(())
        }
    }
}
