//! Errors on their way out: one mapping to problems, and their account in the document.

use crate::store::{Shortage, StoreError};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ipam_api::{
    token::Secret,
    wire::{FieldError, Problem, ProblemType, Role},
};
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
            StoreError::Unavailable(_) | StoreError::Undone(_) => {
                tracing::warn!(%error, "database unavailable");
                return Self::new(ProblemType::Unavailable, "the database does not answer; try again");
            }
            StoreError::Database(_) | StoreError::Unfit(_) => {
                tracing::error!(?error, "defect");
                return Self::internal();
            }
            StoreError::Recovering(_) => ProblemType::Unavailable,
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
        let mut problem = *self.0;
        // Texts are quoted back, and some put a token where another belongs.
        problem.detail = without_secrets(problem.detail);
        for error in &mut problem.errors {
            error.pointer = without_secrets(std::mem::take(&mut error.pointer));
            error.detail = without_secrets(std::mem::take(&mut error.detail));
        }
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

/// A text with only the beginning of every token in it.
fn without_secrets(text: String) -> String {
    if !text.contains(Secret::PREFIX) {
        return text;
    }
    let mut parts = text.split(Secret::PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str(Secret::PREFIX);
        let role = Role::ALL
            .into_iter()
            .find(|role| part.strip_prefix(role.word()).is_some_and(|rest| rest.starts_with('_')));
        let Some(role) = role else {
            shown.push_str(part);
            continue;
        };
        let (word, random) = part.split_at(role.word().len() + 1);
        shown.push_str(word);
        let rest = random.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if rest.len() < random.len() {
            shown.push('…');
        }
        shown.push_str(rest);
    }
    shown
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_quoted_is_cut() {
        let token = Secret::new(Role::Admin, [7; 32]).expose().to_owned();
        let text = format!("{token:?} is no id, nor is x{token}, nor ipam_nodes{token}");
        let shown = without_secrets(text);
        assert_eq!(shown, "\"ipam_admin_…\" is no id, nor is xipam_admin_…, nor ipam_nodesipam_admin_…");
        for plain in
            ["", "ipam_", "it begins with ipam_, a role", "ipam_node_ and 43 more", "the table ipam_x"]
        {
            assert_eq!(without_secrets(plain.to_owned()), plain);
        }
    }
}
