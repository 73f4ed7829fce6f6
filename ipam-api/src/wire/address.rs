use super::{Allocation, Conflict, ExtentInfo};
use crate::names::{NodeName, SubnetPath};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// What an address is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AddressUse {
    /// Nothing.
    Free,
    /// Kept out of planning.
    Reserved,
    /// A node's own address.
    Node,
    /// In a block, held by no pod.
    Block,
    /// Held by a pod.
    Pod,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressInfo {
    /// The address asked for.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The subnet it lies in.
    pub subnet: SubnetPath,
    /// All addresses of its offset, IPv4 first.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// What it is used for.
    #[serde(rename = "use")]
    pub usage: AddressUse,
    /// The extent around it.
    pub extent: ExtentInfo,
    /// The node whose own address it is, or whose block it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The allocation that holds it, or the last one that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// The stranger that answers for it, where the node whose block it lies in has heard one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
}
