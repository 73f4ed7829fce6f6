//! Whether the service lives and can answer.

use super::{
    Service,
    answer::{self, Answer},
    problem::{ApiError, HEALTH, problems},
};
use axum::{extract::State, http::StatusCode};
use ipam_api::wire::ProblemType;
use serde::Serialize;
use utoipa::ToSchema;

/// What a health check answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Version of the service.
    version: &'static str,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

problems! {
    ReadyProblems: HEALTH;
}

/// Says that the process runs.
#[utoipa::path(
    get, path = "/livez", operation_id = "getLivez", tag = "service",
    responses((status = 200, description = "It runs", body = Health))
)]
pub(crate) async fn livez() -> Answer {
    answer::json(StatusCode::OK, &OK)
}

/// Says whether requests can be answered: the database is there and the service is not stopping.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadyz", tag = "service",
    responses((status = 200, description = "It can answer", body = Health), ReadyProblems)
)]
pub(crate) async fn readyz(State(service): State<Service>) -> Answer {
    if service.is_stopping() {
        return Err(ApiError::new(ProblemType::Unavailable, "the service is stopping: ask another one"));
    }
    service.store.ping().await?;
    answer::json(StatusCode::OK, &OK)
}
