//! A request as a span, by `OpenTelemetry`'s semantic conventions for HTTP servers
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). Where nobody traces it is none, and costs nothing.

use axum::{
    extract::Request,
    http::{Method, StatusCode},
};
use tracing::{Span, field::Empty, trace_span};

/// The span of a request, from its head to the head of its answer.
pub(super) fn begin(request: &Request, route: Option<&str>) -> Span {
    trace_span!(
        "http",
        otel.kind = "server",
        otel.name = name(request.method(), route),
        otel.status_code = Empty,
        http.request.method = known(request.method()).unwrap_or("_OTHER"),
        http.route = route,
        http.response.status_code = Empty,
        url.path = path(request),
        error.type = Empty,
    )
}

/// Notes the answer.
pub(super) fn answered(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "error");
    }
}

/// Few, whatever callers write.
fn name(method: &Method, route: Option<&str>) -> String {
    let method = known(method).unwrap_or("HTTP");
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// Its beginning, where it is longer than any of ours.
fn path(request: &Request) -> &str {
    const LONGEST: usize = 1024;
    let path = request.uri().path();
    &path[..path.floor_char_boundary(LONGEST)]
}

/// A method of RFC 9110 or RFC 5789: any word may stand in a request's place for it.
fn known(method: &Method) -> Option<&str> {
    const KNOWN: [Method; 9] = [
        Method::CONNECT,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    KNOWN.contains(method).then(|| method.as_str())
}
