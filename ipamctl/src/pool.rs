//! `ipamctl pool`.

mod scale;

use crate::{
    arguments::{DryRun, one_of, pool_subnet},
    context::Context,
    failure::Failure,
    output::{
        View, age, count, joined,
        table::{Column, column, wide},
        word,
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::all_pages,
    names::PoolName,
    quantity::{Headroom, MaxPods, NodeCount, RestSeconds, Surge},
    wire::{Alignment, Contiguity, NodeAddress, Pool, PoolPatch, PoolSpec, PoolStatus, PoolSubnet},
};
use scale::Scale;

/// Words of the wire that say how a block lies.
pub(crate) const ALIGNMENTS: &[&str] = &["exact", "prefix"];
/// Words of the wire that say whether a block may be several ranges.
pub(crate) const CONTIGUITIES: &[&str] = &["preferred", "required"];
/// Words of the wire that say where nodes' own addresses come from.
pub(crate) const NODE_ADDRESSES: &[&str] = &["external", "assigned"];

const COLUMNS: &[Column<Pool>] = &[
    column("NAME", |pool| pool.name.to_string()),
    column("SUBNETS", |pool| joined(pool.spec.subnets.iter().map(subnet))),
    column("MAX PODS", |pool| pool.spec.max_pods.to_string()),
    column("NODES", |pool| pool.spec.nodes.to_string()),
    column("SURGE", |pool| pool.spec.surge.to_string()),
    column("BLOCKS", |pool| pool.status.blocks.to_string()),
    column("CLAIMED", |pool| pool.status.claimed.to_string()),
    column("OVER BY", |pool| pool.status.over_by.to_string()),
    wide("BLOCK SIZE", |pool| pool.status.block_size.to_string()),
    wide("HEADROOM", |pool| pool.spec.headroom.to_string()),
    wide("DELETING", |pool| pool.status.deleting.to_string()),
    wide("LEAVING", |pool| pool.status.leaving.to_string()),
    wide("ALIGNMENT", |pool| word(&pool.spec.alignment)),
    wide("CONTIGUOUS", |pool| word(&pool.spec.contiguous)),
    wide("NODE ADDRESS", |pool| word(&pool.spec.node_address)),
    wide("REST", |pool| format!("{}s", pool.spec.rest_seconds)),
    wide("AGE", |pool| age(pool.created_at)),
];

fn subnet(part: &PoolSubnet) -> String {
    match part.nodes {
        Some(nodes) => format!("{}={nodes}", part.subnet),
        None => part.subnet.to_string(),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Create a pool: reserve all its blocks, or none
    #[command(after_help = "\
Examples:
  ipamctl pool create workers --subnet prod/nodes --max-pods 30 --nodes 3 --surge 1
  ipamctl pool create big --subnet prod/a=10 --subnet prod/b --max-pods 250 --nodes 30 --surge 10%

Exit status 3 if it does not fit.")]
    Create(Create),
    /// List the pools
    #[command(after_help = "Example:\n  ipamctl pool list -o wide")]
    List,
    /// Show a pool
    #[command(after_help = "Example:\n  ipamctl pool show workers")]
    Show {
        /// The pool
        #[arg(value_name = "POOL")]
        name: PoolName,
    },
    /// Set how many nodes a pool plans for: reserve more blocks, or give unclaimed ones back
    #[command(after_help = "\
Examples:
  ipamctl pool scale workers --nodes 20 --dry-run
  ipamctl pool scale workers --nodes 20

Exit status 3 if it does not fit.")]
    Scale(Scale),
    /// Change a pool: what is not named stays
    #[command(after_help = "\
Examples:
  ipamctl pool update workers --surge 10%
  ipamctl pool update workers --subnet prod/nodes --subnet prod/more

Exit status 3 if it does not fit.")]
    Update(Update),
    /// Delete a pool without nodes: give its blocks back
    #[command(after_help = "Example:\n  ipamctl pool delete workers")]
    Delete {
        /// The pool
        #[arg(value_name = "POOL")]
        name: PoolName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    #[arg(value_name = "POOL")]
    name: PoolName,
    /// A subnet its nodes live in, with how many of them where that is fixed; may be given several times
    #[arg(long = "subnet", value_name = "VNET/SUBNET[=NODES]", value_parser = pool_subnet, required = true)]
    subnets: Vec<PoolSubnet>,
    /// Most pods a node runs
    #[arg(long, value_name = "PODS")]
    max_pods: MaxPods,
    /// Nodes planned
    #[arg(long)]
    nodes: NodeCount,
    /// Extra nodes during an upgrade: a count, or a share of the nodes such as 10%
    #[arg(long, default_value_t)]
    surge: Surge,
    /// Addresses a block has beyond the pods'
    #[arg(long, value_name = "ADDRESSES", default_value_t)]
    headroom: Headroom,
    /// How a block lies: exactly as large as asked, or one prefix
    #[arg(long, value_parser = one_of::<Alignment>(ALIGNMENTS), default_value = "exact")]
    alignment: Alignment,
    /// Whether a block must be one range
    #[arg(long, value_parser = one_of::<Contiguity>(CONTIGUITIES), default_value = "preferred")]
    contiguous: Contiguity,
    /// Who chooses nodes' own addresses: the VMs have them, or the service assigns them
    #[arg(long, value_parser = one_of::<NodeAddress>(NODE_ADDRESSES), default_value = "external")]
    node_address: NodeAddress,
    /// Wished rest of an address between two pods
    #[arg(long, value_name = "SECONDS", default_value_t)]
    rest_seconds: RestSeconds,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The pool
    #[arg(value_name = "POOL")]
    name: PoolName,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// All its subnets from now on; may be given several times
    #[arg(long = "subnet", value_name = "VNET/SUBNET[=NODES]", value_parser = pool_subnet)]
    subnets: Vec<PoolSubnet>,
    /// Most pods a node runs; claimed blocks grow all or not at all, and shrink as nodes confirm it
    #[arg(long, value_name = "PODS")]
    max_pods: Option<MaxPods>,
    /// Nodes planned
    #[arg(long)]
    nodes: Option<NodeCount>,
    /// Extra nodes during an upgrade: a count, or a share of the nodes such as 10%
    #[arg(long)]
    surge: Option<Surge>,
    /// Addresses a block has beyond the pods'; claimed blocks follow as with --max-pods
    #[arg(long, value_name = "ADDRESSES")]
    headroom: Option<Headroom>,
    /// Whether a block must be one range
    #[arg(long, value_parser = one_of::<Contiguity>(CONTIGUITIES))]
    contiguous: Option<Contiguity>,
    /// Who chooses nodes' own addresses: the VMs have them, or the service assigns them
    #[arg(long, value_parser = one_of::<NodeAddress>(NODE_ADDRESSES))]
    node_address: Option<NodeAddress>,
    /// Wished rest of an address between two pods
    #[arg(long, value_name = "SECONDS")]
    rest_seconds: Option<RestSeconds>,
}

impl PoolCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(context).await,
            Self::Scale(args) => args.run(context).await,
            Self::List => {
                let client = context.client()?;
                let list = all_pages(async |page| client.pools(&page).await).await?;
                context.show(&View::list(&[list], COLUMNS, "no pool yet: ipamctl pool create makes one")?)
            }
            Self::Show { name } => {
                context.show(&View::fields(&context.client()?.pool(&name).await?, COLUMNS)?)
            }
            Self::Update(Update { name, change, dry_run }) => {
                let client = context.client()?;
                let patched = client.patch_pool(&name, &change.patch(), &dry_run.write()).await;
                let answer = patched.map_err(Failure::of_plan)?;
                let waits = waits(&answer.value.status);
                context.say(format_args!("pool {name} {}{waits}", dry_run.verb("changed")));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::Delete { name, dry_run } => {
                let client = context.client()?;
                let status = client.pool(&name).await?.value.status;
                client.delete_pool(&name, &dry_run.write()).await?;
                context.say(format_args!(
                    "pool {name} {}, which gives {} ({}) back to planning",
                    dry_run.verb("deleted"),
                    count(status.blocks * status.block_size, "address", "addresses"),
                    blocks(status.blocks, status.block_size),
                ));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { name, subnets, max_pods, nodes, surge, headroom, alignment, contiguous, .. } = self;
        let Self { node_address, rest_seconds, dry_run, .. } = self;
        let spec = PoolSpec {
            subnets,
            max_pods,
            nodes,
            surge,
            headroom,
            alignment,
            contiguous,
            node_address,
            rest_seconds,
        };
        let put = context.client()?.put_pool(&name, &spec, &dry_run.write()).await;
        let answer = put.map_err(Failure::of_plan)?;
        let status = answer.value.status;
        context.say(format_args!(
            "pool {name} {}; {} {}",
            dry_run.put(answer.created()),
            blocks(status.blocks, status.block_size),
            dry_run.verb("reserved"),
        ));
        context.show(&View::row(&answer, COLUMNS)?)
    }
}

impl Change {
    fn patch(self) -> PoolPatch {
        let Self { subnets, max_pods, nodes, surge, headroom, contiguous, node_address, rest_seconds } = self;
        PoolPatch {
            subnets: (!subnets.is_empty()).then_some(subnets),
            max_pods,
            nodes,
            surge,
            headroom,
            alignment: None,
            contiguous,
            node_address,
            rest_seconds,
        }
    }
}

/// `4 blocks of 30 addresses`.
fn blocks(number: u64, size: u64) -> String {
    format!("{} of {}", count(number, "block", "blocks"), count(size, "address", "addresses"))
}

/// What blocks have given up and nodes have not confirmed, to end a sentence.
fn waits(status: &PoolStatus) -> String {
    match status.leaving {
        0 => String::new(),
        leaving => format!(
            "; {} given up by claimed blocks wait until the nodes confirm that no pod is left there",
            count(leaving, "address", "addresses")
        ),
    }
}
