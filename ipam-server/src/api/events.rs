//! `/v1/events`: who did what, when, from where.

use super::{
    Service,
    answer::{self, Answer},
    extract::{EventsQuery, Query},
    problem::{ANY, problems},
};
use axum::extract::State;
use ipam_api::wire::{Event, Listing};

problems! {
    ListProblems: ANY;
}

/// Lists events in the order in which they came.
///
/// Every change of the plan or of credentials has one, written with the change itself. What pods hold is not
/// among them: an allocation is its own record.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listEvents", tag = "access", params(EventsQuery),
    responses((status = 200, description = "A page of events", body = Listing<Event>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<EventsQuery>) -> Answer {
    let page = query.page();
    answer::list(service.store.events(&query.filter(), &page).await?)
}
