//! `…/subnets/{subnet}/reservations`: ranges kept out of planning.

use super::{
    Service,
    answer::{self, Answer},
    caller::Caller,
    docs::{IfNoneMatch, NotModified},
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, NoQuery, PageQuery, Path, Query, RequestBody,
        text_length,
    },
    problem::{ANY, BODY, NAMED, SHORTAGE, problems},
    subnets::SubnetNames,
};
use axum::{extract::State, http::Uri};
use ipam_api::{
    names::{ReservationName, SubnetName, SubnetPath, VnetName},
    wire::{FieldError, Listing, Reservation, ReservationSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A reservation by its names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ReservationNames {
    /// The VNet.
    #[param(inline)]
    vnet: VnetName,
    /// The subnet inside it.
    #[param(inline)]
    subnet: SubnetName,
    /// The reservation inside that.
    #[param(inline)]
    name: ReservationName,
}

impl ReservationNames {
    fn subnet(&self) -> SubnetPath {
        SubnetPath { vnet: self.vnet.clone(), subnet: self.subnet.clone() }
    }
}

impl RequestBody for ReservationSpec {
    fn check(&self) -> Vec<FieldError> {
        text_length("/reason", &self.reason, 1..=256).into_iter().collect()
    }
}

problems! {
    ListProblems: ANY, NAMED;
    GetProblems: ANY, NAMED;
    PutProblems: ANY, BODY, NAMED, SHORTAGE, [Overlap, InUse, Exists, PreconditionFailed];
    DeleteProblems: ANY, NAMED, [InUse, PreconditionFailed];
}

/// Lists the reservations of a subnet by name.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}/subnets/{subnet}/reservations", operation_id = "listReservations",
    tag = "reservations", params(SubnetNames, PageQuery),
    responses((status = 200, description = "A page of reservations", body = Listing<Reservation>), ListProblems)
)]
pub(crate) async fn list(
    State(service): State<Service>,
    Path(names): Path<SubnetNames>,
    Query(query): Query<PageQuery>,
) -> Answer {
    answer::list(service.store.reservations(&names.path(), &query.page()).await?)
}

/// Reads a reservation.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}/subnets/{subnet}/reservations/{name}", operation_id = "getReservation",
    tag = "reservations", params(ReservationNames, IfNoneMatch),
    responses(
        (status = 200, description = "The reservation", body = Reservation, headers(("ETag" = String, description = "Its version"))),
        NotModified, GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(names): Path<ReservationNames>,
    Query(NoQuery {}): Query<NoQuery>,
    conditions: Conditions,
) -> Answer {
    answer::found(&service.store.reservation(&names.subnet(), &names.name).await?, &conditions)
}

/// Makes a reservation, or changes it to what is asked for.
///
/// It overlaps no other reservation and no block, planned or claimed, and leaves the nodes still planned in the
/// subnet an address each. With `forNodes` its addresses are for nodes themselves.
#[utoipa::path(
    put, path = "/v1/vnets/{vnet}/subnets/{subnet}/reservations/{name}", operation_id = "putReservation",
    tag = "reservations", params(ReservationNames, ChangeQuery, ConditionHeaders), request_body = ReservationSpec,
    responses(
        (status = 200, description = "The reservation, changed", body = Reservation, headers(
            ("ETag" = String, description = "Its version")
        )),
        (status = 201, description = "The reservation, made", body = Reservation, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(names): Path<ReservationNames>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    Body(spec): Body<ReservationSpec>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::put(&service.store.put_reservation(&names.subnet(), &names.name, &spec, &change).await?, &uri)
}

/// Deletes a reservation that covers no registered node's address.
#[utoipa::path(
    delete, path = "/v1/vnets/{vnet}/subnets/{subnet}/reservations/{name}", operation_id = "deleteReservation",
    tag = "reservations", params(ReservationNames, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It is gone"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(names): Path<ReservationNames>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.delete_reservation(&names.subnet(), &names.name, &change).await?;
    answer::no_content()
}
