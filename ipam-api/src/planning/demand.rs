//! What goes into a plan.

use super::{BlockShape, FreeMap};
use crate::{
    line::{Extent, Line},
    names::{PoolName, SubnetPath},
    quantity::{NodeCount, Surge},
};
use std::collections::BTreeMap;

/// What one subnet has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSupply {
    /// Its number line, where answers shall name addresses.
    pub line: Option<Line>,
    /// Its free extents.
    pub free: FreeMap,
    /// Addresses in its `forNodes` reservations that no node uses yet.
    pub own_spare: u64,
    /// Nodes' own addresses still to be met: one for each unclaimed block in the
    /// subnet, of every pool, those of the pools being planned included.
    pub own_promised: u64,
}

/// The subnets of a plan by name.
pub type Supplies = BTreeMap<SubnetPath, SubnetSupply>;

/// How many of a pool's nodes a subnet shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// An even part of what the numbers of other subnets leave.
    Spread,
    /// This many.
    Exactly(NodeCount),
    /// None: the subnet is no longer one of the pool's, but still has blocks of it.
    Leave,
}

/// A pool's part in one subnet as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolShare {
    /// The subnet.
    pub subnet: SubnetPath,
    /// How many nodes it shall have.
    pub quota: Quota,
    /// Blocks there that nodes have claimed, those of deleting nodes included.
    pub claimed: u64,
    /// The extents of each block there that no node has claimed. They must have
    /// the pool's shape as it shall be: give back those of another shape
    /// first (into [`SubnetSupply::free`], and off [`SubnetSupply::own_promised`]).
    pub unclaimed: Vec<Vec<Extent>>,
}

impl PoolShare {
    /// A share of which nothing is reserved yet.
    #[must_use]
    pub fn new(subnet: SubnetPath, nodes: Option<NodeCount>) -> Self {
        let quota = nodes.map_or(Quota::Spread, Quota::Exactly);
        Self { subnet, quota, claimed: 0, unclaimed: Vec::new() }
    }

    /// Blocks there now, claimed or not.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.claimed + self.unclaimed.len() as u64
    }
}

/// A pool as it shall become, with what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDemand {
    /// Its name.
    pub name: PoolName,
    /// Its blocks.
    pub shape: BlockShape,
    /// Nodes planned.
    pub nodes: NodeCount,
    /// Extra nodes during an upgrade.
    pub surge: Surge,
    /// Its subnets in the order the user gave, then those it leaves.
    pub shares: Vec<PoolShare>,
}

impl PoolDemand {
    /// Blocks it wants: `nodes` + surge.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.nodes.get() + self.surge.of(self.nodes)
    }
}
