//! A VM under a node's name: what outlives its processes, and how it is started, stopped and lost.
//!
//! Its journal is the shim's own ([`cni_shim::journal`]); processes in here ([`process`]) are the shim's stories
//! without a kernel: what would be wired is noted as living on the wire.

mod add;
mod calls;
mod del;
mod keeper;
mod look;
mod pods;
mod process;
mod sync;

pub(crate) use keeper::Keeper;
pub(crate) use look::holder;
pub(crate) use pods::Runtime;
pub(crate) use process::{End, Process};

use crate::{
    history::{LifeId, Recorder},
    link::Link,
    network::Cut,
};
use anyhow::{Context, Result};
use cni_shim::journal::{self, Found, Journal, JournalError};
use ipam_api::{
    names::{Attachment, NodeName, PoolName},
    wire::{NodeStamp, SyncRequest},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// How many of its requests a node's successors may send again.
const REMEMBERED: usize = 300;

/// Everything under one node's name, one VM after another.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    recorder: Arc<Recorder>,
    below: PathBuf,
    vm: RwLock<Vm>,
    /// Held to read by whoever adds and deletes pods, to write by whoever wants none of it.
    pub(crate) quiet: RwLock<()>,
    /// Whether its pods are to end because the node is.
    leaving: AtomicBool,
    sent: Mutex<VecDeque<Sent>>,
    links: Vec<Link>,
    /// The ways in which its VMs are made.
    makes: Vec<Make>,
    conduct: Conduct,
}

/// How the processes of a node behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// As the shim does.
    Sound,
    /// A DEL gives the address back before it takes the interface away: what a checker must notice.
    GivesBackFirst,
}

/// One VM.
#[derive(Debug)]
struct Vm {
    /// Rises whenever everything that runs on it ends.
    epoch: u64,
    power: Power,
    number: u64,
    boots: u64,
    boot_id: String,
    pool: PoolName,
    addresses: Vec<IpAddr>,
    machine: journal::Machine,
    state: PathBuf,
    data: PathBuf,
    journal: Journal,
    wires: Mutex<BTreeMap<Attachment, Vec<(IpAddr, LifeId)>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

/// A request of the node as it was sent.
#[derive(Debug, Clone)]
enum Sent {
    Hold(Attachment, NodeStamp, IpAddr),
    Release(Attachment, NodeStamp, IpAddr),
    Sync(NodeStamp, SyncRequest),
}

/// What a VM is made as.
#[derive(Debug, Clone)]
pub(crate) struct Make {
    pub(crate) pool: PoolName,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Machine {
    /// A name under which no VM runs yet. The first link is its keeper's; there is a way to be made at least.
    pub(crate) fn new(
        name: NodeName,
        recorder: &Arc<Recorder>,
        below: &Path,
        links: Vec<Link>,
        makes: Vec<Make>,
        conduct: Conduct,
    ) -> Result<Self> {
        let below = below.join(name.as_str());
        let first = makes.first().context("a node without a way to be made")?;
        let mut vm = Vm::new(&name, &below, 0, first.clone())?;
        vm.power = Power::Off;
        Ok(Self {
            name,
            recorder: Arc::clone(recorder),
            below,
            vm: RwLock::new(vm),
            quiet: RwLock::new(()),
            leaving: AtomicBool::new(false),
            sent: Mutex::new(VecDeque::new()),
            links,
            makes,
            conduct,
        })
    }

    /// Its links, the keeper's first.
    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    fn read<T>(&self, of: impl FnOnce(&Vm) -> T) -> T {
        of(&self.vm.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Vm) -> T) -> T {
        change(&mut self.vm.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// What tells the VM from others of the name.
    fn uid(&self) -> String {
        self.read(|vm| format!("{}-{}", self.name, vm.number))
    }

    fn made_as(&self) -> Make {
        self.read(|vm| Make { pool: vm.pool.clone(), addresses: vm.addresses.clone() })
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Cuts or joins all its wires.
    fn cut(&self, cut: Cut) {
        self.links.iter().for_each(|link| link.wire().cut(cut));
    }

    fn remember(&self, sent: Sent) {
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(sent);
    }

    /// Puts another VM in the place of the one that is off.
    fn renew(&self, make: Make) -> Result<()> {
        self.write(|vm| {
            let (epoch, number) = (vm.epoch + 1, vm.number + 1);
            *vm = Vm::new(&self.name, &self.below, number, make)?;
            vm.epoch = epoch;
            Ok(())
        })
    }

    /// Everything on it ends at once, for good.
    fn destroy(&self) {
        self.write(|vm| {
            vm.stop(&self.recorder);
            vm.power = Power::Off;
        });
    }

    /// Everything on it ends at once, and it starts again.
    fn reboot(&self) -> Result<(), JournalError> {
        self.write(|vm| {
            vm.stop(&self.recorder);
            vm.boots += 1;
            vm.boot_id = format!("{}-{}-{}", self.name, vm.number, vm.boots);
            empty(&vm.state)
        })
    }

    /// The journal is gone, while processes run.
    fn lose_journal(&self) -> Result<(), JournalError> {
        self.write(|vm| {
            vm.epoch += 1;
            empty(&vm.state)
        })
    }

    /// The claim is.
    fn lose_data(&self) -> Result<(), JournalError> {
        self.write(|vm| {
            vm.epoch += 1;
            empty(&vm.data)
        })
    }
}

impl Vm {
    fn new(name: &NodeName, below: &Path, number: u64, make: Make) -> Result<Self> {
        let (state, data) = (below.join(format!("{number}/state")), below.join(format!("{number}/data")));
        fs::create_dir_all(&state)?;
        fs::create_dir_all(&data)?;
        if let Some(before) = number.checked_sub(1) {
            let _ = fs::remove_dir_all(below.join(before.to_string()));
        }
        Ok(Self {
            epoch: 0,
            power: Power::On,
            number,
            boots: 0,
            boot_id: format!("{name}-{number}-0"),
            pool: make.pool,
            addresses: make.addresses,
            machine: journal::Machine::of(format!("{name}-{number}"), None),
            journal: Journal::at(&state, &data),
            state,
            data,
            wires: Mutex::new(BTreeMap::new()),
        })
    }

    fn stop(&mut self, recorder: &Recorder) {
        self.epoch += 1;
        let wires = std::mem::take(self.wires.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (_, life) in wires.into_values().flatten() {
            recorder.unwired(life);
        }
    }

    fn wires<T>(&self, of: impl FnOnce(&mut BTreeMap<Attachment, Vec<(IpAddr, LifeId)>>) -> T) -> T {
        of(&mut self.wires.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Attachments as a survey of the host finds them.
    fn found(&self) -> Vec<Found> {
        self.wires(|wires| {
            let found =
                wires.iter().filter(|(_, lives)| !lives.is_empty()).map(|(attachment, lives)| Found {
                    attachment: attachment.clone(),
                    host_end: host_end(attachment),
                    addresses: lives.iter().map(|(address, _)| *address).collect(),
                    mac: None,
                    ports: Vec::new(),
                });
            found.collect()
        })
    }
}

fn host_end(attachment: &Attachment) -> String {
    format!("vn-{}", attachment.container_id)
}

fn empty(directory: &Path) -> Result<(), JournalError> {
    let io = |source| JournalError::Io { path: directory.to_owned(), source };
    fs::remove_dir_all(directory).map_err(io)?;
    fs::create_dir_all(directory).map_err(io)
}
