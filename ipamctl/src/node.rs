//! `ipamctl node`.

mod reading;

use crate::{
    arguments::{DryRun, one_of},
    context::Context,
    failure::Failure,
    output::{
        View, age, count, end, joined, optional, range, range6,
        table::{Column, column, wide},
        word,
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::{NodeDeletion, VmFate, all_pages},
    line::Line,
    names::{NodeName, PoolName},
    wire::{Allocator, Conflict, Node, NodeCredential, NodeSpec, TokenState},
};
use reading::Reading;
use std::net::IpAddr;

const ALLOCATORS: &[&str] = &["node", "service"];

const COLUMNS: &[Column<Node>] = &[
    column("NAME", |node| node.name.to_string()),
    column("POOL", |node| node.pool.to_string()),
    column("STATE", |node| word(&node.state)),
    column("ADDRESS", |node| joined(&node.addresses)),
    column("BLOCK", |node| joined(node.block.ranges.iter().map(range))),
    column("PODS", |node| format!("{}/{}", node.allocations, node.max_pods)),
    wide("SUBNET", |node| node.subnet.to_string()),
    wide("BLOCK IPV6", |node| joined(node.block.ranges.iter().filter_map(range6))),
    wide("LEAVING", |node| joined(node.block.leaving.iter().map(range))),
    wide("ALLOCATOR", |node| word(&node.allocator)),
    wide("RESTING", |node| node.resting.len().to_string()),
    wide("CONFLICTS", |node| joined(node.conflicts.iter().map(conflict))),
    wide("CLAIM", |node| node.claim.to_string()),
    wide("BOOT", |node| optional(node.boot.as_ref().map(|boot| boot.seq).as_ref())),
    wide("UID", |node| optional(node.uid.as_ref())),
    wide("MAC", |node| optional(node.mac.as_ref())),
    wide("LAST CONTACT", |node| optional(node.last_contact.map(age).as_ref())),
    wide("CREDENTIAL", |node| optional(node.credential.as_ref().map(credential).as_ref())),
    wide("CREDENTIAL USED", |node| {
        optional(node.credential.as_ref().and_then(|credential| credential.last_used_at).map(age).as_ref())
    }),
    wide("AGE", |node| age(node.claimed_at)),
];

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Register a node: claim a block for it
    #[command(after_help = "\
Examples:
  ipamctl node register node-1 --pool workers --address 10.240.0.10 --address fd00:10::a
  ipamctl node register vm-7 --pool vms --address 10.240.0.17 --allocator service")]
    Register(Register),
    /// List the nodes
    #[command(after_help = "Example:\n  ipamctl node list -o wide")]
    List,
    /// Show a node
    #[command(after_help = "Example:\n  ipamctl node show node-1")]
    Show {
        /// The node
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Delete a node; an active one keeps its block until it confirms that nothing runs there
    #[command(after_help = "\
Examples:
  ipamctl node delete node-1
  ipamctl node delete node-1 --vm-gone")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// Its name
    #[arg(value_name = "NODE")]
    name: NodeName,
    /// The pool whose block it claims
    #[arg(long)]
    pool: PoolName,
    /// Its own address, one a family
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// MAC address of its uplink
    #[arg(long)]
    mac: Option<String>,
    /// What tells this VM from another of the same name
    #[arg(long)]
    uid: Option<String>,
    /// Take the name over from a VM that is gone: what it held ends
    #[arg(long)]
    replace: bool,
    /// Who picks addresses out of the block: the node's shim, or the service
    #[arg(long, value_parser = one_of::<Allocator>(ALLOCATORS), default_value = "node")]
    allocator: Allocator,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The node
    #[arg(value_name = "NODE")]
    name: NodeName,
    /// Its VM is gone for good, and its pods with it: free the block at once. If that is not
    /// true, pods still answer on addresses that others will get
    #[arg(long)]
    vm_gone: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl NodeCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Register(args) => args.run(context).await,
            Self::List => {
                let client = context.client()?;
                let list = all_pages(async |page| client.nodes(&page).await).await?;
                context.show(&View::list(&[list], COLUMNS, "no node yet: ipamctl node register makes one")?)
            }
            Self::Show { name } => {
                context.show(&View::fields(&context.client()?.node(&name).await?, COLUMNS)?)
            }
            Self::Delete(args) => args.run(context).await,
        }
    }
}

impl Register {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { name, pool, addresses, mac, uid, replace, allocator, dry_run } = self;
        let spec = NodeSpec { pool, addresses, mac, uid, replace, allocator };
        let client = context.client()?;
        let answer = if replace {
            let reading = Reading::of(&client, &name).await?;
            match client.put_node(&name, &spec, &reading.write(&dry_run)).await {
                Ok(answer) => answer,
                Err(error) => return Err(reading.failure(&client, error).await),
            }
        } else {
            client.put_node(&name, &spec, &dry_run.write()).await?
        };
        let what = if answer.created() {
            dry_run.verb("registered")
        } else {
            format!("was registered already; {}", dry_run.verb("set as asked"))
        };
        context.say(format_args!("node {name} {what}; its block is {}", block(&answer.value)));
        context.show(&View::row(&answer, COLUMNS)?)
    }
}

impl Delete {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { name, vm_gone, dry_run } = self;
        let client = context.client()?;
        let node = client.node(&name).await?;
        let freed = block(&node.value);
        let reading = Reading::that_is(&name, node);
        let (fate, write) = match vm_gone {
            true => (VmFate::Gone, reading.write(&dry_run)),
            false => (VmFate::Unknown, dry_run.write()),
        };
        let deleted = dry_run.verb("deleted");
        let departure = match client.delete_node(&name, fate, &write).await {
            Ok(departure) => departure,
            Err(error) => return Err(reading.failure(&client, error).await),
        };
        match departure {
            NodeDeletion::Freed => {
                context.say(format_args!("node {name} {deleted}, which frees its block of {freed}"));
                Ok(())
            }
            NodeDeletion::Waiting(answer) => {
                context.say(format_args!(
                    "node {name} {deleted}, but its block of {freed} waits until the node confirms that nothing runs there: \
                     stop its pods and run `cni-shim sync` on it; if the VM is gone for good, run \
                     `ipamctl node delete {name} --vm-gone`"
                ));
                context.show(&View::row(&answer, COLUMNS)?)
            }
        }
    }
}

/// `valid, ends in 12d`, `expired, ended 3h ago`.
fn credential(credential: &NodeCredential) -> String {
    let state = word(&credential.state);
    match (credential.expires_at, credential.state) {
        (None, _) => state,
        (at @ Some(_), TokenState::Valid) => format!("{state}, ends {}", end(at)),
        (at @ Some(_), TokenState::Expired | TokenState::Spent) => format!("{state}, ended {}", end(at)),
    }
}

/// `10.240.1.7 (02:00:00:00:00:0b)`.
fn conflict(conflict: &Conflict) -> String {
    format!("{} ({})", conflict.address, conflict.mac)
}

/// `30 addresses (10.240.1.0-10.240.1.29)`.
fn block(node: &Node) -> String {
    let ranges = joined(node.block.ranges.iter().map(range));
    let line = Line::of(&node.network.cidrs).ok();
    let sizes = node.block.ranges.iter().map(|range| Some(range.extent(line?)?.size()));
    match sizes.sum::<Option<u64>>() {
        Some(size) => format!("{} ({ranges})", count(size, "address", "addresses")),
        None => ranges,
    }
}
