//! `/v1/plan`: what would fit, without taking it.

use super::{
    Service,
    answer::{self, Answer},
    extract::{Body, NoQuery, Query, RequestBody, not_empty},
    problem::{ANY, BODY, NAMED, SHORTAGE, problems},
};
use axum::{
    extract::State,
    http::{StatusCode, header},
};
use ipam_api::wire::{FieldError, Plan, PlanRequest};

impl RequestBody for PlanRequest {
    fn check(&self) -> Vec<FieldError> {
        let empty_pools = self
            .pools
            .iter()
            .enumerate()
            .filter_map(|(index, pool)| not_empty(&format!("/pools/{index}/subnets"), &pool.subnets));
        not_empty("/pools", &self.pools).into_iter().chain(empty_pools).collect()
    }
}

problems! {
    PostProblems: ANY, BODY, NAMED, SHORTAGE, [Overlap, InUse, Exists];
}

/// Says what a set of pools would take, without taking it.
///
/// The same function answers here and does the real thing when a pool is put. A plan that does not fit is an
/// answer like any other: `fits` is false and `shortages` say what is missing. All pools of a plan together have
/// at most 262,144 blocks (nodes and surge).
#[utoipa::path(
    post, path = "/v1/plan", operation_id = "plan", tag = "planning",
    request_body = PlanRequest,
    responses(
        (status = 200, description = "The plan", body = Plan, headers(
            ("ETag" = String, description = "Changes whenever the answer may")
        )),
        PostProblems
    )
)]
pub(crate) async fn post(
    State(service): State<Service>,
    Query(NoQuery {}): Query<NoQuery>,
    Body(request): Body<PlanRequest>,
) -> Answer {
    let plan = service.store.plan(&request).await?;
    let mut response = answer::json(StatusCode::OK, &plan.value)?;
    response.headers_mut().insert(header::ETAG, answer::etag(plan.version)?);
    Ok(response)
}
