use crate::{
    names::{PoolName, SubnetPath},
    quantity::{Headroom, MaxPods, NodeCount, RestSeconds, Surge},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A subnet that a pool's nodes live in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSubnet {
    /// The subnet.
    pub subnet: SubnetPath,
    /// How many of the pool's nodes live here; the rest is spread over the subnets without a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCount>,
}

/// How a block lies on the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Alignment {
    /// Exactly as many addresses as asked for, anywhere.
    #[default]
    Exact,
    /// The next power of two, aligned to it: one prefix.
    Prefix,
}

/// Whether a block may be several extents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Contiguity {
    /// One extent where a hole is large enough, else several.
    #[default]
    Preferred,
    /// One extent or none.
    Required,
}

/// Where a node's own address comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeAddress {
    /// The VM has it already and names it when it registers.
    #[default]
    External,
    /// The service chooses it when the node registers.
    Assigned,
}

/// A class of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
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
    /// Wished rest of an address between two holders.
    #[serde(default)]
    #[schema(default = 130)]
    pub rest_seconds: RestSeconds,
}

/// A change to a pool: a merge patch (RFC 7396) of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolPatch {
    /// Where its nodes live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<Vec<PoolSubnet>>,
    /// Most pods a node runs. Blocks that nodes have claimed grow at once, all of them or none;
    /// what they give up is free when each node has confirmed that no pod is left there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<MaxPods>,
    /// Nodes planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCount>,
    /// Extra nodes during an upgrade; null for 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<Surge>,
    /// Addresses a block has beyond `maxPods`; claimed blocks grow and shrink as with `maxPods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
    /// How a block lies on the line; fixed at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// Whether a block may be several extents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contiguous: Option<Contiguity>,
    /// Where a node's own address comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_address: Option<NodeAddress>,
    /// Wished rest of an address between two holders; null for 130.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_seconds: Option<RestSeconds>,
}

/// How far a pool's plan is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Addresses of one block.
    pub block_size: u64,
    /// Blocks reserved, claimed or not.
    pub blocks: u64,
    /// Blocks that nodes have claimed, those of deleting nodes included.
    pub claimed: u64,
    /// Claimed blocks whose node is being deleted and not yet given back.
    pub deleting: u64,
    /// Claimed blocks beyond `nodes` + `surge`: they stay until nodes leave.
    pub over_by: u64,
    /// Addresses that blocks have given up: free when their nodes have confirmed that no pod is left there.
    pub leaving: u64,
}

/// A pool as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// What was asked for.
    #[serde(flatten)]
    pub spec: PoolSpec,
    /// How far that is taken up.
    pub status: PoolStatus,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}
