//! The document and its offline page, and the parts of it that many operations share.

use super::{
    Service,
    answer::Answer,
    extract::{NoQuery, Query},
    problem::ApiError,
};
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use ipam_api::wire::ProblemType;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};
use utoipa::{
    IntoParams, IntoResponses,
    openapi::{
        HeaderBuilder, ObjectBuilder, RefOr, ResponseBuilder, response::Response as Documented, schema::Type,
    },
};
use utoipa_swagger_ui::Config;

/// `If-None-Match` of a read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the documentation alone")]
pub(crate) struct IfNoneMatch {
    /// Answer 304 if the thing is still in one of these versions (`ETag`s).
    #[param(rename = "If-None-Match", example = "\"3\"")]
    if_none_match: Option<String>,
}

/// The reader has the thing in this version already.
pub(crate) struct NotModified;

impl IntoResponses for NotModified {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let tag = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .description(Some("Its version"))
            .build();
        let response =
            ResponseBuilder::new().description("It is still in that version").header("ETag", tag).build();
        BTreeMap::from([("304".to_owned(), RefOr::T(response))])
    }
}

/// The account of every operation, for programs.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "service",
    responses((status = 200, description = "This document", body = serde_json::Value, content_type = "application/json"))
)]
pub(crate) async fn document(State(service): State<Service>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], service.document.as_bytes().to_vec()).into_response()
}

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["/openapi.json"])
        // The page's own badge would ask a validator on the Internet.
        .validator_url("none")
        .try_it_out_enabled(true)
        .display_operation_id(true)
        .display_request_duration(true);
    Arc::new(config)
});

fn file(name: &str) -> Answer {
    let missing = || ApiError::new(ProblemType::NotFound, "the documentation has no such file: open /docs/");
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&PAGE)).map_err(|error| {
        tracing::error!(%error, "the documentation page could not be made");
        ApiError::internal()
    })?;
    let file = file.ok_or_else(missing)?;
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned())
        .into_response();
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, axum::http::HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// The page and its files; not in the document, which is for programs.
pub(crate) fn page() -> Router<Service> {
    Router::new()
        .route("/docs", get(|_: Query<NoQuery>| async { Redirect::to("/docs/") }))
        .route("/docs/", get(|| async { file("index.html") }))
        .route("/docs/{*file}", get(|Path(name): Path<String>| async move { file(&name) }))
}
