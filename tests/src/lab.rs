//! A VNet in a box: machines in namespaces on one bridge.
//!
//! This process stays in the namespaces it was started in. Every machine is a
//! child process that holds a network, a mount and a PID namespace; what runs
//! "on" a machine is a further child that enters them. A holder lives as long
//! as a pipe to this process is open, and its PID namespace takes along all
//! that runs inside: nothing remains, however this process ends.

mod addressing;
mod agent;
mod authority;
mod binaries;
mod daemon;
mod fabric;
mod journal;
mod machine;
mod meddler;
mod netconf;
mod node;
mod ping;
mod pod;
mod run;
mod server;
mod talk;
mod wait;

pub use addressing::{Addressing, Families};
pub use agent::Agent;
pub use authority::{Authority, Identity};
pub use binaries::Binaries;
pub use fabric::Fabric;
pub use journal::JournalEntry;
pub use machine::Machine;
pub use meddler::{Fault, Meddler};
pub use netconf::Netconf;
pub use node::{CniError, Node, Reply};
pub use ping::{Echo, ping};
pub use pod::{Attachment, Pod};
pub use run::{run, run_full};
pub use server::Server;
pub use talk::{Answering, Heard, ask, ask_from};
pub use wait::until;

use anyhow::{Result, bail};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the management VM lies on the subnet's number line.
pub const MANAGEMENT: u64 = 5;
/// Where the first node lies; the others follow.
pub const FIRST_NODE: u64 = 10;
/// Where the plain VM lies.
pub const PLAIN_VM: u64 = 100;
/// Last of the range set aside for VMs; it begins behind the platform's first four addresses.
pub const LAST_VM: u64 = 255;

/// One lab at a time: first-packet figures mean little while another lab works.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no lab of this process works, and keeps others from starting while the answer lives. A
/// [`Lab`] does so by itself; this is for a test that puts the same load on the machine without one.
pub fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running VNet in a box. The ledger is empty until something fills it, [`Lab::lay_out`] for one.
#[derive(Debug)]
pub struct Lab {
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    /// A VM that runs no pods.
    pub vm: Machine,
    /// The service and the management VM it runs on.
    pub server: Server,
    /// What connects them.
    pub fabric: Fabric,
    _turn: MutexGuard<'static, ()>,
}

/// The pool that [`Lab::lay_out`] makes.
#[derive(Debug, Clone, Copy)]
pub struct PoolShape {
    /// Most pods a node runs.
    pub max_pods: u32,
    /// Seconds an address rests between two holders.
    pub rest_seconds: u64,
}

impl Default for PoolShape {
    fn default() -> Self {
        Self { max_pods: 30, rest_seconds: 130 }
    }
}

impl Lab {
    /// Starts the machines and the service, and connects them.
    pub fn boot(families: Families, nodes: u64) -> Result<Self> {
        require_root()?;
        let turn = take_turn();
        let binaries = Binaries::find()?;
        let fabric = Fabric::build(Addressing::new(families), &binaries)?;
        let management = Machine::boot("management", &binaries)?;
        fabric.plug(&management, MANAGEMENT)?;
        let mut server = Server::on(management, &fabric.addressing().addresses(MANAGEMENT))?;
        server.start()?;
        let vm = Machine::boot("vm-1", &binaries)?;
        fabric.plug(&vm, PLAIN_VM)?;
        let nodes = (0..nodes)
            .map(|index| {
                Node::boot(&format!("node-{}", index + 1), FIRST_NODE + index, &fabric, &server, &binaries)
            })
            .collect::<Result<_>>()?;
        Ok(Self { nodes, vm, server, fabric, _turn: turn })
    }

    /// Boots, then creates VNet `prod`, subnet `prod/nodes`, reservation `vms` and pool `workers`, and
    /// registers every node.
    pub fn with_ledger(families: Families, nodes: u64, pool: PoolShape) -> Result<Self> {
        let lab = Self::boot(families, nodes)?;
        lab.lay_out(pool)?;
        Ok(lab)
    }

    /// Creates VNet `prod`, subnet `prod/nodes`, reservation `vms` and pool `workers`, registers every node and lets
    /// it join.
    pub fn lay_out(&self, pool: PoolShape) -> Result<()> {
        for command in self.layout(pool) {
            self.ctl(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.nodes.iter().try_for_each(|node| self.let_join(node))
    }

    /// The same without the nodes, which register themselves then.
    pub fn lay_out_without_nodes(&self) -> Result<()> {
        let registers = |command: &&Vec<String>| command.first().is_some_and(|noun| noun == "node");
        for command in self.layout(PoolShape::default()).iter().filter(|command| !registers(command)) {
            self.ctl(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Gives a node a token of its own, by a join token for that node alone.
    pub fn let_join(&self, node: &Node) -> Result<()> {
        let token = self.ctl(&[
            "token",
            "create",
            node.name(),
            "--role",
            "join",
            "--pool",
            "workers",
            "--uses",
            "1",
        ])?;
        node.bring_join_token(token.trim())?;
        node.shim(&node.join_words())?;
        Ok(())
    }

    /// The commands of [`Lab::lay_out`], as an administrator types them after `ipamctl`.
    fn layout(&self, pool: PoolShape) -> Vec<Vec<String>> {
        let addressing = self.fabric.addressing();
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let flags = |flag: &str, values: Vec<String>| {
            values.into_iter().map(|value| format!(" {flag} {value}")).collect::<String>()
        };
        let vms = addressing.range(4, LAST_VM);
        let mut commands = vec![
            words(format!("vnet create prod{}", flags("--address-space", addressing.address_space()))),
            words(format!("subnet create prod/nodes{}", flags("--cidr", addressing.cidrs()))),
            words(format!("reservation create prod/nodes/vms --range {vms} --for-nodes --reason VMs")),
            words(format!(
                "pool create workers --subnet prod/nodes --max-pods {} --nodes {} --surge 1 --rest-seconds {}",
                pool.max_pods,
                self.nodes.len(),
                pool.rest_seconds
            )),
        ];
        for node in &self.nodes {
            let addresses = node.addresses().iter().map(ToString::to_string).collect();
            commands.push(words(format!(
                "node register {} --pool workers{}",
                node.name(),
                flags("--address", addresses)
            )));
        }
        commands
    }

    /// What `ipamctl` on the management VM prints; fails where it fails, with what it says.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        self.server.ctl(args)
    }

    /// [`Server::agrees_with`].
    pub fn agree(&self, node: &Node) -> Result<usize> {
        self.server.agrees_with(node)
    }
}

/// Fails with a clear word unless this process is root.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces, which needs root: run it with sudo");
    }
    Ok(())
}
