//! `/v1/consistency` and `/v1/recovery`: whether what is held agrees, what is put right, and the end of a recovery.

use super::{
    Service,
    answer::{self, Answer},
    caller::Caller,
    extract::{ChangeQuery, ConditionHeaders, Conditions, NoQuery, Query},
    problem::{ANY, problems},
};
use axum::{extract::State, http::StatusCode};
use ipam_api::wire::Consistency;

problems! {
    GetProblems: ANY;
    RepairProblems: ANY;
    EndProblems: ANY, [InUse, PreconditionFailed];
}

/// Says whether what is held obeys the rules and agrees with what nodes last told.
#[utoipa::path(
    get, path = "/v1/consistency", operation_id = "getConsistency", tag = "service",
    responses((status = 200, description = "What was found", body = Consistency), GetProblems)
)]
pub(crate) async fn get(State(service): State<Service>, Query(NoQuery {}): Query<NoQuery>) -> Answer {
    answer::json(StatusCode::OK, &service.store.consistency().await?)
}

/// Puts right what can be without risk that an address gets two holders.
///
/// Nothing of it gives an address away, lets one go or frees a block. What is left names its cure.
#[utoipa::path(
    post, path = "/v1/consistency/repair", operation_id = "repair", tag = "service", params(ChangeQuery),
    responses((status = 200, description = "What was put right, and what is left", body = Consistency), RepairProblems)
)]
pub(crate) async fn repair(
    State(service): State<Service>,
    Query(query): Query<ChangeQuery>,
    caller: Caller,
) -> Answer {
    let change = caller.change(&Conditions::default(), query.commit())?;
    answer::json(StatusCode::OK, &service.store.repair(&change).await?)
}

/// Ends the recovery that a restored backup began: addresses go to new nodes and pods again.
///
/// Whoever asks knows that no VM or container made after the backup has an address any more. It is refused while nodes
/// of the ledger have not found back into it by a sync.
#[utoipa::path(
    delete, path = "/v1/recovery", operation_id = "endRecovery", tag = "service",
    params(ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "None goes on"), EndProblems)
)]
pub(crate) async fn end(
    State(service): State<Service>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.end_recovery(&change).await?;
    answer::no_content()
}
