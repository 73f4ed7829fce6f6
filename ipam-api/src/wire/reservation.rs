use crate::names::{ReservationName, SubnetPath};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A range kept out of planning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReservationSpec {
    /// Its first address, of either family.
    #[schema(value_type = String, example = "10.240.0.4")]
    pub first: IpAddr,
    /// Its last address, of the same family.
    #[schema(value_type = String, example = "10.240.0.255")]
    pub last: IpAddr,
    /// Why, for the people who meet it later.
    #[schema(min_length = 1, max_length = 256)]
    pub reason: String,
    /// Whether nodes' own addresses come from here.
    #[serde(default)]
    pub for_nodes: bool,
}

/// A reservation as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The subnet it lies in.
    pub subnet: SubnetPath,
    /// Its name inside the subnet.
    pub name: ReservationName,
    /// Its addresses.
    #[serde(flatten)]
    pub range: super::Range,
    /// How many addresses (per family).
    pub size: u64,
    /// Why.
    pub reason: String,
    /// Whether nodes' own addresses come from here.
    pub for_nodes: bool,
    /// Whether it is one of the platform's own, which come and go with the subnet's settings.
    pub platform: bool,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}
