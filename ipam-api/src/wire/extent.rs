use crate::line::{Extent, Line};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};
use utoipa::ToSchema;

/// A run of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// Its first address: IPv4 where the subnet has it, else IPv6.
    #[schema(value_type = String, example = "10.240.1.0")]
    pub first: IpAddr,
    /// Its last address.
    #[schema(value_type = String, example = "10.240.1.29")]
    pub last: IpAddr,
    /// Its first IPv6 address in a dual-stack subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub first6: Option<Ipv6Addr>,
    /// Its last IPv6 address in a dual-stack subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last6: Option<Ipv6Addr>,
}

impl Range {
    /// The addresses of an extent; `None` where it leaves the line.
    #[must_use]
    pub fn of(line: Line, extent: Extent) -> Option<Self> {
        let dual = line.v4().is_some();
        Some(Self {
            first: line.address_at(extent.first())?,
            last: line.address_at(extent.last())?,
            first6: line.v6_at(extent.first()).filter(|_| dual),
            last6: line.v6_at(extent.last()).filter(|_| dual),
        })
    }

    /// The extent these addresses are on a line; `None` if they are not on it.
    #[must_use]
    pub fn extent(&self, line: Line) -> Option<Extent> {
        Extent::inclusive(line.offset_of(self.first).ok()?, line.offset_of(self.last).ok()?)
    }
}

/// What an extent is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExtentKind {
    /// Nothing: planning may take it.
    Free,
    /// Kept out of planning.
    Reserved,
    /// Addresses of one node, planned or claimed.
    Block,
}

/// One extent of a subnet; all of them in order tile it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtentInfo {
    /// Its addresses.
    #[serde(flatten)]
    pub range: Range,
    /// How many addresses (per family).
    pub size: u64,
    /// What it is used for.
    pub kind: ExtentKind,
    /// Who has it: `reservation/NAME`, `node/NAME`, or `pool/NAME` for a block no node has claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}
