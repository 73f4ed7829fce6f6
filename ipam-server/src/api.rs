//! The HTTP API: routes and their OpenAPI document from one list.
//!
//! One file a resource, each operation with its request, its documentation and its handler side by side.
//! Requests are read by own extractors (`extract`) and errors leave through one mapping (`problem`), so
//! that no answer is undocumented.

mod access;
mod allocations;
mod answer;
mod caller;
mod capacity;
mod consistency;
mod credential;
mod docs;
mod document;
mod events;
mod explain;
mod extents;
mod extract;
mod health;
mod layers;
mod metrics;
mod nodes;
mod plan;
mod pools;
mod problem;
mod reservations;
mod strict;
mod subnets;
mod sync;
mod tokens;
mod trace;
mod vnets;

use crate::store::Store;
use access::{ADMINS, Guarded, NEW_NODE, NODE, PLANNERS, PUBLIC, READERS, READERS_AND_NODE};
use axum::{Extension, Router, middleware};
use metrics::RequestMetrics;
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Whether those who come without a credential are asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// They are not: whoever reaches the service may do everything. A credential that is shown counts all the same.
    Unasked,
    /// They are.
    Required,
}

/// What every handler has at hand; a router clones it several times for each request.
#[derive(Debug, Clone)]
pub struct Service(Arc<Parts>);

/// What a [`Service`] is made of.
#[derive(Debug)]
pub struct Parts {
    store: Store,
    credentials: Credentials,
    stopping: AtomicBool,
    requests: Arc<RequestMetrics>,
    document: Arc<str>,
}

impl Deref for Service {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Service {
    /// A service over a store.
    #[must_use]
    pub fn new(store: Store, credentials: Credentials) -> Self {
        Self(Arc::new(Parts {
            store,
            credentials,
            stopping: AtomicBool::new(false),
            requests: RequestMetrics::new(),
            document: document().into(),
        }))
    }

    /// From now on the service says that it is not ready.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Every operation, once.
fn operations() -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(document::Base::openapi())
        .routes(routes!(vnets::list).only(READERS))
        .routes(routes!(vnets::get).only(READERS))
        .routes(routes!(vnets::put, vnets::patch, vnets::delete).only(ADMINS))
        .routes(routes!(subnets::list).only(READERS))
        .routes(routes!(subnets::get).only(READERS))
        .routes(routes!(subnets::put, subnets::patch, subnets::delete).only(ADMINS))
        .routes(routes!(extents::list).only(READERS))
        .routes(routes!(reservations::list).only(READERS))
        .routes(routes!(reservations::get).only(READERS))
        .routes(routes!(reservations::put, reservations::delete).only(ADMINS))
        .routes(routes!(pools::list).only(READERS))
        .routes(routes!(pools::get).only(READERS))
        .routes(routes!(pools::put, pools::patch, pools::delete).only(ADMINS))
        .routes(routes!(nodes::list).only(READERS))
        .routes(routes!(nodes::get).only(READERS_AND_NODE))
        .routes(routes!(nodes::put, nodes::delete).only(NODE))
        .routes(routes!(allocations::list_of_node).only(READERS_AND_NODE))
        .routes(routes!(sync::put).only(NODE))
        .routes(routes!(allocations::get).only(READERS_AND_NODE))
        .routes(routes!(allocations::put, allocations::delete).only(NODE))
        .routes(routes!(allocations::list).only(READERS))
        .routes(routes!(plan::post).only(PLANNERS))
        .routes(routes!(capacity::get).only(READERS))
        .routes(routes!(capacity::address).only(READERS))
        .routes(routes!(tokens::list, tokens::post).only(ADMINS))
        .routes(routes!(tokens::get, tokens::delete).only(ADMINS))
        .routes(routes!(credential::delete).only(ADMINS))
        .routes(routes!(credential::put).only(NEW_NODE))
        .routes(routes!(events::list).only(READERS))
        .routes(routes!(consistency::get).only(READERS))
        .routes(routes!(consistency::repair).only(ADMINS))
        .routes(routes!(consistency::end).only(ADMINS))
        .routes(routes!(metrics::get).only(READERS))
        .routes(routes!(health::livez).only(PUBLIC))
        .routes(routes!(health::readyz).only(PUBLIC))
        .routes(routes!(docs::document).only(PUBLIC))
}

/// The OpenAPI document of every operation, as `openapi/openapi.json` has it.
#[must_use]
pub fn document() -> String {
    document::text(&operations().into_openapi())
}

/// The whole HTTP API over a service.
pub fn router(service: Service) -> Router {
    let (operations, _) = operations().split_for_parts();
    // The guards of operations find the service beside the request.
    let service_of_guards = Extension(service.clone());
    let requests = Arc::clone(&service.requests);
    surrounded(operations.merge(docs::page()).layer(service_of_guards), requests).with_state(service)
}

/// Routes with what surrounds every request.
fn surrounded<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    requests: Arc<RequestMetrics>,
) -> Router<S> {
    routes
        .fallback(layers::unknown_path)
        .method_not_allowed_fallback(layers::unknown_method)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(requests, layers::observe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, extract::Request, routing::get};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_tells_nothing() {
        async fn secret() {
            panic!("the secret is 42");
        }
        let router = surrounded(Router::new().route("/", get(secret)), RequestMetrics::new());
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], problem::PROBLEM_JSON);
        assert!(response.headers().contains_key(layers::REQUEST_ID));
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: ipam_api::wire::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.kind, ipam_api::wire::ProblemType::Internal);
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }
}
