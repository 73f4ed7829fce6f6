//! `ipamctl pool scale`.

use super::{blocks, waits};
use crate::{
    arguments::DryRun,
    context::Context,
    failure::Failure,
    output::{
        View, count,
        document::Document,
        joined, range,
        table::{Column, Table, column, wide},
    },
};
use clap::Args;
use ipam_api::{
    client::Apply,
    names::PoolName,
    quantity::NodeCount,
    wire::{Plan, PlanRequest, PlannedShare, Pool, PoolDemand, PoolPatch, Range},
};

const COLUMNS: &[Column<Change>] = &[
    column("NAME", |change| change.before.name.to_string()),
    column("NODES", |change| arrow(change.before.spec.nodes.get(), change.after.spec.nodes.get())),
    column("BLOCKS", |change| arrow(change.before.status.blocks, change.after.status.blocks)),
    column("CLAIMED", |change| change.after.status.claimed.to_string()),
    column("OVER BY", |change| arrow(change.before.status.over_by, change.after.status.over_by)),
    column("NEW RANGES", |change| change.takes.len().to_string()),
    wide("ADDRESSES", |change| joined(change.takes.iter().map(range))),
];

/// A pool before and after.
struct Change {
    before: Pool,
    after: Pool,
    takes: Vec<Range>,
}

fn arrow(before: u64, after: u64) -> String {
    if before == after { after.to_string() } else { format!("{before} → {after}") }
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// The pool
    #[arg(value_name = "POOL")]
    name: PoolName,
    /// Nodes planned from now on
    #[arg(long)]
    nodes: NodeCount,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Scale {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { name, nodes, dry_run } = self;
        let client = context.client()?;
        let before = client.pool(&name).await?.value;
        // The plan names the ranges that the change then takes: one function answers both.
        let plan =
            client.plan(&PlanRequest { subnets: Vec::new(), pools: vec![demand(&before, nodes)] }).await?;
        let patch = PoolPatch { nodes: Some(nodes), ..PoolPatch::default() };
        let patched = client.patch_pool(&name, &patch, &dry_run.write()).await;
        let answer = patched.map_err(Failure::of_plan)?;
        let change = Change { before, after: answer.value, takes: takes(plan.value) };
        context.say(change.sentence(dry_run.write().apply));
        let document = Document::parse(&answer.body)?;
        context.show(&View::new(document, vec![Table::rows(COLUMNS, [&change])]))
    }
}

fn demand(pool: &Pool, nodes: NodeCount) -> PoolDemand {
    let spec = pool.spec.clone();
    PoolDemand {
        name: pool.name.clone(),
        subnets: spec.subnets,
        max_pods: spec.max_pods,
        nodes,
        surge: spec.surge,
        headroom: spec.headroom,
        alignment: spec.alignment,
        contiguous: spec.contiguous,
        node_address: spec.node_address,
    }
}

fn takes(plan: Plan) -> Vec<Range> {
    let shares = plan.pools.into_iter().flat_map(|pool| pool.shares);
    shares.flat_map(|PlannedShare { takes, .. }| takes).collect()
}

impl Change {
    fn sentence(&self, apply: Apply) -> String {
        let Self { before, after, takes } = self;
        let size = after.status.block_size;
        let (was, is) = (before.status.blocks, after.status.blocks);
        let would = |done: &'static str| match apply {
            Apply::Really => done.to_owned(),
            Apply::DryRun => format!("would be {done}"),
        };
        let blocks = match is.cmp(&was) {
            std::cmp::Ordering::Greater => format!(
                "{} {} in {}",
                blocks(is - was, size),
                would("reserved"),
                count(takes.len() as u64, "new range", "new ranges")
            ),
            std::cmp::Ordering::Less => format!("{} {}", blocks(was - is, size), would("given back")),
            std::cmp::Ordering::Equal => "the blocks reserved stay as they are".to_owned(),
        };
        let mut sentence = format!("pool {} {}: {blocks}", before.name, would("scaled"));
        if after.status.over_by > 0 {
            let over = count(after.status.over_by, "node", "nodes");
            sentence.push_str(&format!("; it is over by {over} until as many are deleted"));
        }
        sentence.push_str(&waits(&after.status));
        sentence
    }
}
