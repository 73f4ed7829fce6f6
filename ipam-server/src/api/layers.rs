//! What surrounds every request: its id, its line in the log, and the answers to unknown paths and methods.

use super::{metrics::RequestMetrics, problem::ApiError, trace};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ipam_api::wire::ProblemType;
use std::{sync::Arc, time::Instant};
use tower_http::request_id::{MakeRequestId, MakeRequestUuid};
use tracing::{Instrument, field::Empty};

/// Ties a request, its answer and its lines in the log together.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own id where it can stand in a log, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    const LONGEST: usize = 128;
    request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .or_else(|| MakeRequestUuid.make_request_id(request).map(|id| id.into_header_value()))
        .unwrap_or_else(|| HeaderValue::from_static("none"))
}

/// Gives each request an id, a line in the log, a place in the metrics, and a span where it is traced.
pub(crate) async fn observe(
    State(requests): State<Arc<RequestMetrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = request_id(&request);
    // Events name it too.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let traced = trace::begin(&request, route);
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), trace_id = Empty);
    #[cfg(feature = "otel")]
    if let Some(trace) = crate::telemetry::adopt(&traced, request.headers(), &id) {
        span.record("trace_id", tracing::field::display(trace));
    }
    let mut response = next.run(request).instrument(span.clone()).instrument(traced.clone()).await;
    let took = began.elapsed();
    trace::answered(&traced, response.status());
    let path = route.unwrap_or("unknown");
    requests.answered(&method, path, response.status(), took);
    span.in_scope(|| {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(%method, path, status = response.status().as_u16(), micros, "answered");
    });
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The answer to a path that is none.
pub(crate) async fn unknown_path(uri: Uri) -> ApiError {
    const LONGEST: usize = 200;
    let path: String = uri.path().chars().take(LONGEST).collect();
    ApiError::new(
        ProblemType::NotFound,
        format!("there is nothing at {path}: GET /openapi.json lists every path"),
    )
}

/// The answer to a method that a path does not have; its `Allow` header is filled in by the router.
pub(crate) async fn unknown_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(
        ProblemType::MethodNotAllowed,
        format!("this path does not have the method {method}: use one of those in the Allow header"),
    )
    .into_response()
}
