use crate::names::{ContainerId, IfName, NetworkName, NodeName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// The pod behind an attachment, as the runtime named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodRef {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 253)]
    pub namespace: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 253)]
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 253)]
    pub uid: String,
}

/// What a node or an API client asks an address for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllocationSpec {
    /// The address picked; without it the service picks (only with `allocator: service`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The pod, for those who later ask who had the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

/// Life of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AllocationState {
    /// The attachment holds the address.
    Held,
    /// It gave it back, or something newer took its place.
    Released,
}

/// One family of an allocated offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldAddress {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Prefix length of the subnet.
    pub prefix_length: u8,
    /// Gateway of the subnet.
    #[schema(value_type = String)]
    pub gateway: IpAddr,
}

/// One offset of a block held by one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The node whose block it lies in.
    pub node: NodeName,
    /// The CNI network.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub if_name: IfName,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<HeldAddress>,
    /// Whether it is held.
    pub state: AllocationState,
    /// When that state began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}
