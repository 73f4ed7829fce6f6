//! `ipamctl capacity`.

use crate::{
    context::Context,
    failure::Failure,
    output::{
        View,
        document::Document,
        table::{Column, Table, column, wide},
    },
};
use clap::Args;
use ipam_api::wire::{PoolCapacity, SubnetCapacity};

const SUBNETS: &[Column<SubnetCapacity>] = &[
    column("SUBNET", |subnet| subnet.subnet.to_string()),
    column("SIZE", |subnet| subnet.size.to_string()),
    column("FREE", |subnet| subnet.free.to_string()),
    column("LARGEST FREE", |subnet| subnet.largest_free.to_string()),
    column("RESERVED", |subnet| subnet.reserved.to_string()),
    column("PLANNED", |subnet| subnet.planned.to_string()),
    column("CLAIMED", |subnet| subnet.claimed.to_string()),
    column("USED", |subnet| subnet.used.to_string()),
    wide("DELETING", |subnet| subnet.deleting.to_string()),
    wide("LEAVING", |subnet| subnet.leaving.to_string()),
];

const POOLS: &[Column<PoolCapacity>] = &[
    column("POOL", |pool| pool.pool.to_string()),
    column("NODES", |pool| pool.nodes.to_string()),
    column("SURGE", |pool| pool.surge.to_string()),
    column("BLOCK SIZE", |pool| pool.block_size.to_string()),
    column("BLOCKS", |pool| pool.blocks.to_string()),
    column("CLAIMED", |pool| pool.claimed.to_string()),
    column("USED", |pool| pool.used.to_string()),
    column("MORE NODES", |pool| pool.more_nodes.to_string()),
    wide("DELETING", |pool| pool.deleting.to_string()),
    wide("LEAVING", |pool| pool.leaving.to_string()),
    wide("OVER BY", |pool| pool.over_by.to_string()),
];

/// Every number counts addresses, but nodes and blocks.
#[derive(Debug, Args)]
#[command(after_help = "\
FREE       in no reservation and no block
RESERVED   kept out of planning, nodes' own addresses included
PLANNED    in blocks that no node has claimed
CLAIMED    in blocks that nodes have claimed; USED of them by pods
LEAVING    given up by claimed blocks, until their nodes confirm that no pod is left there
MORE NODES nodes that would fit beyond the blocks reserved

Example:
  ipamctl capacity -o wide")]
pub(crate) struct CapacityArgs {}

impl CapacityArgs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = context.client()?.capacity().await?;
        let tables = vec![
            Table::rows(SUBNETS, &answer.value.subnets)
                .or_note("no subnet yet: ipamctl subnet create makes one"),
            Table::rows(POOLS, &answer.value.pools).or_note("no pool yet: ipamctl pool create makes one"),
        ];
        context.show(&View::new(Document::parse(&answer.body)?, tables))
    }
}
