//! `ipamctl plan`.

mod offline;

use crate::{
    arguments::{cidr, one_of, pool_subnet},
    context::Context,
    failure::Failure,
    output::{
        View,
        document::Document,
        joined, range,
        table::{Column, Table, column, wide},
    },
    pool::{ALIGNMENTS, CONTIGUITIES, NODE_ADDRESSES},
};
use clap::Args;
use ipam_api::{
    names::PoolName,
    quantity::{Headroom, MaxPods, NodeCount, Surge},
    wire::{
        Alignment, Contiguity, HypotheticalSubnet, NodeAddress, Plan, PlanRequest, PlannedPool, PoolDemand,
        PoolSubnet, SubnetPlan,
    },
};
use ipnet::IpNet;
use std::{io::Read, path::PathBuf};

const POOLS: &[Column<PlannedPool>] = &[
    column("POOL", |pool| pool.name.to_string()),
    column("BLOCK SIZE", |pool| pool.block_size.to_string()),
    column("BLOCKS", |pool| pool.blocks.to_string()),
    column("ADDRESSES", |pool| pool.addresses.to_string()),
    column("SUBNETS", |pool| {
        joined(pool.shares.iter().map(|share| format!("{}={}", share.subnet, share.blocks)))
    }),
    column("NEW RANGES", |pool| pool.shares.iter().map(|share| share.takes.len()).sum::<usize>().to_string()),
    wide("TAKES", |pool| joined(pool.shares.iter().flat_map(|share| &share.takes).map(range))),
];

const SUBNETS: &[Column<SubnetPlan>] = &[
    column("SUBNET", |subnet| subnet.subnet.to_string()),
    column("FREE BEFORE", |subnet| subnet.free_before.to_string()),
    column("FREE AFTER", |subnet| subnet.free_after.to_string()),
    column("LARGEST FREE AFTER", |subnet| subnet.largest_free_after.to_string()),
];

#[derive(Debug, Args)]
#[command(after_help = "\
Without --server-side and -f no service is asked: the subnet is imagined, empty but for the
platform's addresses.

A pool takes (nodes + surge) x (1 + block) addresses: a block of max-pods + headroom for each
node, and the node's own address.

Examples:
  Does it fit into this subnet?
    ipamctl plan --cidr 10.240.0.0/22 --max-pods 30 --nodes 20 --surge 1
  Which prefix would hold it?
    ipamctl plan --max-pods 30 --nodes 50 --surge 10%
  Would the service find room for it among all there is?
    ipamctl plan --server-side --subnet prod/nodes --max-pods 30 --nodes 20
  The same for several pools at once, as POST /v1/plan takes it (JSON or YAML)
    ipamctl plan -f pools.yaml

Exit status 3 if it does not fit.")]
pub(crate) struct PlanArgs {
    /// The subnet's IPv4 CIDR, its IPv6 CIDR, or (given twice) one of each; without it, the
    /// smallest prefix that holds the plan is looked for
    #[arg(long = "cidr", value_name = "CIDR", value_parser = cidr)]
    cidrs: Vec<IpNet>,
    /// Most pods a node runs
    #[arg(long, value_name = "PODS", required_unless_present = "file")]
    max_pods: Option<MaxPods>,
    /// Nodes planned
    #[arg(long, required_unless_present = "file")]
    nodes: Option<NodeCount>,
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
    /// Ask the service, which knows what is taken
    #[arg(long, requires = "subnets")]
    server_side: bool,
    /// A subnet of the pool; with --cidr one that does not exist yet; may be given several times
    #[arg(
        long = "subnet",
        value_name = "VNET/SUBNET[=NODES]",
        value_parser = pool_subnet,
        requires = "server_side"
    )]
    subnets: Vec<PoolSubnet>,
    /// The pool: an existing one as it would become, or a new one
    #[arg(long, default_value = "new", value_name = "NAME")]
    pool: PoolName,
    /// Who chooses nodes' own addresses: the VMs have them, or the service assigns them
    #[arg(long, value_parser = one_of::<NodeAddress>(NODE_ADDRESSES), default_value = "external")]
    node_address: NodeAddress,
    /// Ask the service about the plan in this file; - reads stdin
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with_all = ["cidrs", "max_pods", "nodes", "surge", "headroom", "alignment", "contiguous",
            "server_side", "subnets", "pool", "node_address"]
    )]
    file: Option<PathBuf>,
}

impl PlanArgs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(path) = &self.file {
            return ask(context, &read(path)?).await;
        }
        let (Some(max_pods), Some(nodes)) = (self.max_pods, self.nodes) else {
            return Err(Failure::Usage("give --max-pods and --nodes, or -f FILE".to_owned()));
        };
        if self.server_side {
            return ask(context, &self.request(max_pods, nodes)?).await;
        }
        let Self { surge, headroom, alignment, contiguous, cidrs, .. } = self;
        let demand = offline::Demand { max_pods, nodes, surge, headroom, alignment, contiguous };
        offline::run(context, demand, &cidrs)
    }

    fn request(self, max_pods: MaxPods, nodes: NodeCount) -> Result<PlanRequest, Failure> {
        let imagined = match (self.cidrs.as_slice(), self.subnets.as_slice()) {
            ([], _) => Vec::new(),
            (cidrs, [one]) => {
                vec![HypotheticalSubnet { subnet: one.subnet.clone(), cidrs: cidrs.to_vec() }]
            }
            _ => {
                let sentence =
                    "--cidr imagines one subnet: give --subnet once, or write the plan to a file for -f";
                return Err(Failure::Usage(sentence.to_owned()));
            }
        };
        let Self { subnets, surge, headroom, alignment, contiguous, node_address, pool: name, .. } = self;
        let pool = PoolDemand {
            name,
            subnets,
            max_pods,
            nodes,
            surge,
            headroom,
            alignment,
            contiguous,
            node_address,
        };
        Ok(PlanRequest { subnets: imagined, pools: vec![pool] })
    }
}

/// A plan in JSON or YAML, of which JSON is a part.
fn read(path: &PathBuf) -> Result<PlanRequest, Failure> {
    let mut text = String::new();
    let shown = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| Failure::Other(format!("cannot read the plan in {shown}: {error}: check -f")))?;
    serde_norway::from_str(&text).map_err(|error| {
        Failure::Other(format!(
            "{shown} is not a plan: {error}: write pools, and subnets that do not exist yet"
        ))
    })
}

async fn ask(context: &Context, request: &PlanRequest) -> Result<(), Failure> {
    let answer = context.client()?.plan(request).await.map_err(Failure::of_plan)?;
    let Plan { fits, pools, subnets, shortages } = answer.value;
    let tables = vec![Table::rows(POOLS, &pools), Table::rows(SUBNETS, &subnets)];
    context.show(&View::new(Document::parse(&answer.body)?, tables))?;
    if fits {
        context.say("it fits; nothing was taken");
        Ok(())
    } else {
        let sentence =
            "the plan does not fit: lower nodes, surge or pods a node, or give the pool more subnets";
        Err(Failure::DoesNotFit { sentence: sentence.to_owned(), shortages })
    }
}
