//! The HTTP API: routes and their OpenAPI document from one list.
//!
//! One file a resource, each operation with its request, its documentation and its handler side by side.
//! Requests are read by own extractors (`extract`) and errors leave through one mapping (`problem`), so
//! that no answer is undocumented.

mod allocations;
mod answer;
mod capacity;
mod docs;
mod document;
mod explain;
mod extents;
mod extract;
mod health;
mod layers;
mod nodes;
mod plan;
mod pools;
mod problem;
mod reservations;
mod strict;
mod subnets;
mod sync;
mod vnets;

use crate::store::Store;
use axum::{Router, middleware};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What every handler has at hand.
#[derive(Debug, Clone)]
pub struct Service {
    store: Store,
    stopping: Arc<AtomicBool>,
    document: Arc<str>,
}

impl Service {
    /// A service over a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, stopping: Arc::new(AtomicBool::new(false)), document: document().into() }
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
        .routes(routes!(vnets::list))
        .routes(routes!(vnets::get, vnets::put, vnets::patch, vnets::delete))
        .routes(routes!(subnets::list))
        .routes(routes!(subnets::get, subnets::put, subnets::patch, subnets::delete))
        .routes(routes!(extents::list))
        .routes(routes!(reservations::list))
        .routes(routes!(reservations::get, reservations::put, reservations::delete))
        .routes(routes!(pools::list))
        .routes(routes!(pools::get, pools::put, pools::patch, pools::delete))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::put, nodes::delete))
        .routes(routes!(allocations::list_of_node, sync::put))
        .routes(routes!(allocations::get, allocations::put, allocations::delete))
        .routes(routes!(allocations::list))
        .routes(routes!(plan::post))
        .routes(routes!(capacity::get))
        .routes(routes!(capacity::address))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(docs::document))
}

/// The OpenAPI document of every operation, as `openapi/openapi.json` has it.
#[must_use]
pub fn document() -> String {
    document::text(&operations().into_openapi())
}

/// The whole HTTP API over a service.
pub fn router(service: Service) -> Router {
    let (operations, _) = operations().split_for_parts();
    surrounded(operations.merge(docs::page())).with_state(service)
}

/// Routes with what surrounds every request.
fn surrounded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(layers::unknown_path)
        .method_not_allowed_fallback(layers::unknown_method)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(layers::observe))
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
        let router = surrounded(Router::new().route("/", get(secret)));
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
