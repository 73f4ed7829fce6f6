use crate::names::{SubnetName, VnetName};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

fn reserve_platform_by_default() -> bool {
    true
}

/// One layer-2 segment of a VNet, shared by VMs and pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubnetSpec {
    /// One IPv4 CIDR, one IPv6 CIDR, or one of each, inside the VNet.
    #[schema(value_type = Vec<String>, example = json!(["10.240.0.0/16", "fd00:10::/64"]), min_items = 1, max_items = 2)]
    pub cidrs: Vec<IpNet>,
    /// A gateway per family; offset 1 where none is given.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 2)]
    pub gateways: Vec<IpAddr>,
    /// Whether the platform's addresses (the first four and, with IPv4, the last) are kept out of planning.
    #[serde(default = "reserve_platform_by_default")]
    #[schema(default = true)]
    pub reserve_platform: bool,
}

/// A change to a subnet: a merge patch (RFC 7396) of its fields. CIDRs are fixed at creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubnetPatch {
    /// The CIDRs; may be named but not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub cidrs: Option<Vec<IpNet>>,
    /// A gateway per family; null for offset 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub gateways: Option<Vec<IpAddr>>,
    /// Whether the platform's addresses are kept out of planning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_platform: Option<bool>,
}

/// A subnet as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// Its VNet.
    pub vnet: VnetName,
    /// Its name inside the VNet.
    pub name: SubnetName,
    /// Its CIDRs, IPv4 first.
    #[schema(value_type = Vec<String>)]
    pub cidrs: Vec<IpNet>,
    /// Its gateway in each family, in the order of `cidrs`.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// Whether the platform's addresses are kept out of planning.
    pub reserve_platform: bool,
    /// Length of its number line, in addresses.
    pub size: u64,
    /// Addresses in free extents.
    pub free: u64,
    /// Size of its largest free extent, in addresses.
    pub largest_free: u64,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}
