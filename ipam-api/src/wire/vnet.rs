use crate::names::VnetName;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An address space and the ranges it must never overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VnetSpec {
    /// The VNet's own CIDRs, of either family; they overlap neither each other nor another VNet's.
    #[schema(value_type = Vec<String>, example = json!(["10.240.0.0/12", "fd00:10::/48"]), min_items = 1)]
    pub address_space: Vec<IpNet>,
    /// The cluster's service CIDRs, which no VNet may overlap.
    #[serde(default)]
    #[schema(value_type = Vec<String>, example = json!(["10.0.0.0/16"]))]
    pub service_cidrs: Vec<IpNet>,
}

/// A change to a VNet: a merge patch (RFC 7396) of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VnetPatch {
    /// The VNet's own CIDRs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub address_space: Option<Vec<IpNet>>,
    /// The cluster's service CIDRs; null for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub service_cidrs: Option<Vec<IpNet>>,
}

/// A VNet as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vnet {
    /// Its name.
    pub name: VnetName,
    /// Its own CIDRs.
    #[schema(value_type = Vec<String>)]
    pub address_space: Vec<IpNet>,
    /// The cluster's service CIDRs.
    #[schema(value_type = Vec<String>)]
    pub service_cidrs: Vec<IpNet>,
    /// How many subnets it has.
    pub subnets: u64,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}
