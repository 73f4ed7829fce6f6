use super::{BlockVersion, BootSeq, Claim, Conflict, Range, TokenState};
use crate::{
    names::{NodeName, PoolName, SubnetPath, TokenId},
    quantity::{MaxPods, RestSeconds},
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Who picks addresses out of a node's block: one of the two, never both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Allocator {
    /// The node's own shim.
    #[default]
    Node,
    /// The service, for VMs, containers wired by hand and API clients.
    Service,
}

/// A VM that claims a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// The pool whose block it claims.
    pub pool: PoolName,
    /// Its own addresses, one a family; needed where the pool's `nodeAddress` is `external`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 2, example = json!(["10.240.0.10", "fd00:10::10"]))]
    pub addresses: Vec<IpAddr>,
    /// MAC address of its uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]
    pub mac: Option<String>,
    /// What tells this VM from another of the same name; opaque, fixed once given. One that the name has had before is
    /// refused: a late request of a VM that has ended changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub uid: Option<String>,
    /// Take the name over from a VM that is gone: the claim generation rises and what it held ends. Where the name is not
    /// there, it says that the VM of this uid has come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Who picks addresses out of the block.
    #[serde(default)]
    pub allocator: Allocator,
}

/// Life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// Registered; its shim has not taken the claim up by a first sync.
    Planned,
    /// Its shim works, or the service allocates for it.
    Active,
    /// Deleted, its block not yet confirmed empty.
    Deleting,
}

/// The addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Rises with every change of the ranges.
    pub version: BlockVersion,
    /// Where it lies.
    pub ranges: Vec<Range>,
    /// What it has given up: still the node's, for pods that have an address there, until a sync
    /// with the block's current version shows that none is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Range>,
}

/// What a node's shim needs of the subnet and VNet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The subnet's CIDRs, IPv4 first.
    #[schema(value_type = Vec<String>)]
    pub cidrs: Vec<IpNet>,
    /// The subnet's gateways, in the order of `cidrs`.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// The VNet's CIDRs.
    #[schema(value_type = Vec<String>)]
    pub address_space: Vec<IpNet>,
}

/// The boot of a node that the service last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// The kernel's boot id.
    pub id: String,
    /// Its number; counts within one claim.
    pub seq: BootSeq,
}

/// An address of the block that rests between two holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestingAddress {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// How long ago it was released.
    pub age_seconds: u64,
}

/// The token that a node shows, by what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCredential {
    /// Its id.
    pub id: TokenId,
    /// Whether it still counts.
    pub state: TokenState,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, whether or not it counted then; to a few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// A node as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its pool.
    pub pool: PoolName,
    /// The subnet its block lies in.
    pub subnet: SubnetPath,
    /// Its own addresses, IPv4 first.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// MAC address of its uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// What tells this VM from another of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Generation of its claim: no two claims of a service share one, and later ones are higher.
    pub claim: Claim,
    /// Its block.
    pub block: Block,
    /// Its subnet and VNet.
    pub network: Network,
    /// Most pods it runs.
    pub max_pods: MaxPods,
    /// Wished rest of an address between two holders.
    pub rest_seconds: RestSeconds,
    /// Who picks addresses out of the block.
    pub allocator: Allocator,
    /// The boot last heard of; absent until its shim takes the claim up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Where it is in its life.
    pub state: NodeState,
    /// Names this deletion while the node is `deleting`: what its confirming sync must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<String>,
    /// Addresses of the block still resting, from this node or a former one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting: Vec<RestingAddress>,
    /// Addresses of the block that strangers answer for, by the node's last sync; its shim gives none of them to a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// Pods with an address.
    pub allocations: u64,
    /// When its shim was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_contact: Option<Timestamp>,
    /// The token that the node showed last, else its newest; absent where it has none (a client certificate, or no credentials at all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<NodeCredential>,
    /// When the claim was made.
    #[schema(value_type = String, format = DateTime)]
    pub claimed_at: Timestamp,
}
