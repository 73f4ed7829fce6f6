//! `…/subnets/{subnet}/extents`: the tiles of a subnet, for maps.

use super::{
    Service,
    answer::{self, Answer},
    extract::{PageQuery, Path, Query},
    problem::{ANY, NAMED, problems},
    subnets::SubnetNames,
};
use axum::extract::State;
use ipam_api::wire::{ExtentInfo, Listing};

problems! {
    ListProblems: ANY, NAMED;
}

/// Lists the extents of a subnet in order; together they are the whole subnet.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}/subnets/{subnet}/extents", operation_id = "listExtents", tag = "subnets",
    params(SubnetNames, PageQuery),
    responses((status = 200, description = "A page of extents", body = Listing<ExtentInfo>), ListProblems)
)]
pub(crate) async fn list(
    State(service): State<Service>,
    Path(names): Path<SubnetNames>,
    Query(query): Query<PageQuery>,
) -> Answer {
    answer::list(service.store.extents(&names.path(), &query.page()).await?)
}
