use super::{Alignment, Contiguity, NodeAddress, PoolSubnet, Range, SubnetShortage};
use crate::{
    names::{PoolName, SubnetPath},
    quantity::{Headroom, MaxPods, NodeCount, Surge},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A subnet that does not exist yet, empty but for the platform's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HypotheticalSubnet {
    /// What pools of this plan call it.
    pub subnet: SubnetPath,
    /// Its CIDRs.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 2)]
    pub cidrs: Vec<IpNet>,
}

/// A pool of a plan: one that exists, as it would become, or a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolDemand {
    /// Its name.
    pub name: PoolName,
    /// Where its nodes live.
    #[schema(min_items = 1)]
    pub subnets: Vec<PoolSubnet>,
    /// Most pods a node runs.
    pub max_pods: MaxPods,
    /// Nodes planned.
    pub nodes: NodeCount,
    /// Extra nodes during an upgrade.
    #[serde(default)]
    #[schema(default = 1)]
    pub surge: Surge,
    /// Addresses a block has beyond `maxPods`.
    #[serde(default)]
    #[schema(default = 0)]
    pub headroom: Headroom,
    /// How a block lies on the line.
    #[serde(default)]
    pub alignment: Alignment,
    /// Whether a block may be several extents.
    #[serde(default)]
    pub contiguous: Contiguity,
    /// Where a node's own address comes from.
    #[serde(default)]
    pub node_address: NodeAddress,
}

/// A what-if: the extents that a set of pools would take, without taking them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// Subnets to imagine beside the ones that exist.
    #[serde(default)]
    pub subnets: Vec<HypotheticalSubnet>,
    /// The pools.
    #[schema(min_items = 1)]
    pub pools: Vec<PoolDemand>,
}

/// A pool's part in one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedShare {
    /// The subnet.
    pub subnet: SubnetPath,
    /// Blocks it would have there, those it has already included.
    pub blocks: u64,
    /// Ranges it would newly take, in order; neighbours are joined.
    pub takes: Vec<Range>,
}

/// What one pool would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPool {
    /// The pool.
    pub name: PoolName,
    /// Addresses of one block.
    pub block_size: u64,
    /// Blocks it would have: `nodes` + `surge`.
    pub blocks: u64,
    /// Addresses it would need in all: a block and the node's own for each.
    pub addresses: u64,
    /// Its part in each subnet.
    pub shares: Vec<PlannedShare>,
}

/// What would be left of one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetPlan {
    /// The subnet.
    pub subnet: SubnetPath,
    /// Addresses in free extents before.
    pub free_before: u64,
    /// Addresses in free extents after.
    pub free_after: u64,
    /// Largest free extent after.
    pub largest_free_after: u64,
}

/// Answer to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Whether all of it fits.
    pub fits: bool,
    /// What each pool would take; of a plan that does not fit, the pools that do.
    pub pools: Vec<PlannedPool>,
    /// What would be left of each subnet touched.
    pub subnets: Vec<SubnetPlan>,
    /// What is missing where it does not fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<SubnetShortage>,
}
