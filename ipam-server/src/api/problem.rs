//! Errors on their way out: one mapping to problems, and their account in the document.

use crate::store::{Shortage, StoreError};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ipam_api::wire::{FieldError, Problem, ProblemType};
use std::{any::Any, collections::BTreeMap};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder, extensions::ExtensionsBuilder,
    response::Response as DocumentedResponse, schema::Type,
};

/// Media type of every error answer (RFC 9457).
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What an operation answers instead of what it was asked for.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Problem>);

impl ApiError {
    pub(crate) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(kind, detail)))
    }

    /// Input that is readable but wrong.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|error| match error.pointer.as_str() {
                "" => error.detail.clone(),
                pointer => format!("{pointer}: {}", error.detail),
            })
            .collect::<Vec<_>>()
            .join("; ");
        let mut problem = Problem::new(ProblemType::InvalidRequest, detail);
        problem.errors = errors;
        Self(Box::new(problem))
    }

    /// One thing wrong with readable input.
    pub(crate) fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    /// Input that cannot be read; `pointer` says where it is.
    pub(crate) fn malformed(pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut problem = Problem::new(ProblemType::MalformedRequest, detail.clone());
        if !pointer.is_empty() {
            problem.errors = vec![FieldError { pointer: pointer.to_owned(), detail }];
        }
        Self(Box::new(problem))
    }

    /// A defect: the log has the account, the caller none of it.
    pub(crate) fn internal() -> Self {
        Self::new(
            ProblemType::Internal,
            "the service met a defect of its own; its log has the account under this answer's x-request-id",
        )
    }

    /// What happened and the cure.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    fn shortage(kind: ProblemType, shortage: Shortage) -> Self {
        let mut problem = Problem::new(kind, shortage.detail);
        problem.need = Some(shortage.need);
        problem.have = Some(shortage.have);
        problem.largest_free = Some(shortage.largest_free);
        problem.nodes_that_fit = Some(shortage.nodes_that_fit);
        problem.subnets = shortage.subnets;
        Self(Box::new(problem))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Invalid(errors) => return Self::invalid(errors),
            StoreError::Exhausted(shortage) => return Self::shortage(ProblemType::Exhausted, *shortage),
            StoreError::NoContiguousBlock(shortage) => {
                return Self::shortage(ProblemType::NoContiguousBlock, *shortage);
            }
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "database unavailable");
                return Self::new(ProblemType::Unavailable, "the database does not answer; try again");
            }
            StoreError::Database(_) => {
                tracing::error!(?error, "defect");
                return Self::internal();
            }
            StoreError::NotFound(..) => ProblemType::NotFound,
            StoreError::Exists(_) => ProblemType::Exists,
            StoreError::Overlap(_) => ProblemType::Overlap,
            StoreError::InUse(_) => ProblemType::InUse,
            StoreError::AddressTaken(_) => ProblemType::AddressTaken,
            StoreError::StaleClaim(_) => ProblemType::StaleClaim,
            StoreError::Forbidden(_) => ProblemType::Forbidden,
            StoreError::PreconditionFailed(_) => ProblemType::PreconditionFailed,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Serialising plain data to memory cannot fail; an empty body would still carry the status.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let extra: Option<(HeaderName, &'static str)> = match problem.kind {
            ProblemType::Unavailable => Some((header::RETRY_AFTER, "1")),
            // RFC 6750, section 3.
            ProblemType::Unauthenticated => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"ipam\"")),
            // What is left of the body is not read, so the connection cannot go on.
            ProblemType::TooLarge => Some((header::CONNECTION, "close")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The answer to a request whose handler panicked.
// The signature is what the layer calls.
#[expect(clippy::needless_pass_by_value, reason = "the panic layer hands the payload over")]
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ApiError::internal().into_response()
}

/// What every operation may answer: the path, query and headers are input too.
pub(crate) const ANY: &[ProblemType] = &[
    ProblemType::MalformedRequest,
    ProblemType::InvalidRequest,
    ProblemType::Internal,
    ProblemType::Unavailable,
];
/// What a health check may answer.
pub(crate) const HEALTH: &[ProblemType] = &[ProblemType::Internal, ProblemType::Unavailable];
/// What an operation with a request body may answer.
pub(crate) const BODY: &[ProblemType] = &[ProblemType::TooLarge, ProblemType::UnsupportedMediaType];
/// What an operation on one named thing may answer.
pub(crate) const NAMED: &[ProblemType] = &[ProblemType::NotFound];
/// What an operation that reserves addresses may answer.
pub(crate) const SHORTAGE: &[ProblemType] = &[ProblemType::Exhausted, ProblemType::NoContiguousBlock];

/// The document's account of these problems, one response a status.
pub(crate) fn documented(sets: &[&[ProblemType]]) -> BTreeMap<String, RefOr<DocumentedResponse>> {
    let mut by_status: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    for kind in sets.iter().copied().flatten().copied() {
        by_status.entry(kind.status()).or_default().push(kind);
    }
    by_status
        .into_iter()
        .map(|(status, mut kinds)| {
            kinds.sort_unstable();
            kinds.dedup();
            let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
            let mut response = ResponseBuilder::new()
                .description(titles.join("; or: "))
                .content(
                    PROBLEM_JSON,
                    ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build(),
                )
                .extensions(Some(
                    ExtensionsBuilder::new().add("x-problem-types", serde_json::json!(kinds)).build(),
                ));
            if status == 503 {
                let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
                let header = HeaderBuilder::new()
                    .schema(Some(seconds))
                    .description(Some("Seconds to wait before trying again"))
                    .build();
                response = response.header("Retry-After", header);
            }
            (status.to_string(), RefOr::T(response.build()))
        })
        .collect()
}

/// Names the problems of one operation for its documentation: sets that many share, then those of its own.
macro_rules! problems {
    ($($name:ident: $($set:ident),+ $(, [$($kind:ident),+])?;)+) => {
        $(
            struct $name;
            impl utoipa::IntoResponses for $name {
                fn responses() -> std::collections::BTreeMap<
                    String,
                    utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
                > {
                    let own = &[$($(ipam_api::wire::ProblemType::$kind),+)?];
                    $crate::api::problem::documented(&[$($set),+, own])
                }
            }
        )+
    };
}
pub(crate) use problems;
