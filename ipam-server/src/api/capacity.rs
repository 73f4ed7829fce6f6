//! `/v1/capacity` and `/v1/addresses`: what is used, and by whom.

use super::{
    Service,
    answer::{self, Answer},
    extract::{NoQuery, Path, Query},
    problem::{ANY, NAMED, problems},
};
use axum::{extract::State, http::StatusCode};
use ipam_api::wire::{AddressInfo, Capacity};
use serde::Deserialize;
use std::net::IpAddr;
use utoipa::IntoParams;

/// An address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct AddressPath {
    /// The address, of either family.
    #[param(value_type = String, example = "10.240.1.7")]
    ip: IpAddr,
}

problems! {
    CapacityProblems: ANY;
    AddressProblems: ANY, NAMED;
}

/// Says how every subnet and pool is used.
#[utoipa::path(
    get, path = "/v1/capacity", operation_id = "getCapacity", tag = "planning",
    responses((status = 200, description = "Use of everything", body = Capacity), CapacityProblems)
)]
pub(crate) async fn get(State(service): State<Service>, Query(NoQuery {}): Query<NoQuery>) -> Answer {
    answer::json(StatusCode::OK, &service.store.capacity().await?)
}

/// Says who has an address.
#[utoipa::path(
    get, path = "/v1/addresses/{ip}", operation_id = "getAddress", tag = "planning",
    params(AddressPath),
    responses((status = 200, description = "Who has it", body = AddressInfo), AddressProblems)
)]
pub(crate) async fn address(
    State(service): State<Service>,
    Path(path): Path<AddressPath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::json(StatusCode::OK, &service.store.address(path.ip).await?)
}
