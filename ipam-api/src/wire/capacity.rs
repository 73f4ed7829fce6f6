use crate::names::{PoolName, SubnetPath};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Use of one subnet, in addresses (offsets of its number line).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetCapacity {
    /// The subnet.
    pub subnet: SubnetPath,
    /// Length of its number line.
    pub size: u64,
    /// In free extents.
    pub free: u64,
    /// Size of the largest free extent.
    pub largest_free: u64,
    /// In reserved extents: reservations and nodes' own addresses.
    pub reserved: u64,
    /// In blocks no node has claimed.
    pub planned: u64,
    /// In blocks that nodes have claimed.
    pub claimed: u64,
    /// In blocks of nodes being deleted (a part of `claimed`): not claimable until confirmed.
    pub deleting: u64,
    /// Given up by blocks (a part of `claimed`): free when their nodes have confirmed that no pod is left there.
    pub leaving: u64,
    /// Held by pods.
    pub used: u64,
}

/// Use of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCapacity {
    /// The pool.
    pub pool: PoolName,
    /// Nodes planned, without surge.
    pub nodes: u64,
    /// Extra nodes during an upgrade.
    pub surge: u64,
    /// Addresses of one block.
    pub block_size: u64,
    /// Blocks reserved, claimed or not.
    pub blocks: u64,
    /// Blocks that nodes have claimed.
    pub claimed: u64,
    /// Claimed blocks of nodes being deleted.
    pub deleting: u64,
    /// Claimed blocks beyond `nodes` + `surge`.
    pub over_by: u64,
    /// Addresses given up by its blocks and not yet confirmed empty.
    pub leaving: u64,
    /// Addresses held by pods.
    pub used: u64,
    /// How many more nodes would fit in its subnets beyond the blocks reserved.
    pub more_nodes: u64,
}

/// Use of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// When the figures were true.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// Per subnet.
    pub subnets: Vec<SubnetCapacity>,
    /// Per pool.
    pub pools: Vec<PoolCapacity>,
}
