use super::super::problem::ApiError;
use axum::{extract::FromRequestParts, http::request::Parts};
use ipam_api::wire::{NODE_HEADER, NodeStamp};
use utoipa::IntoParams;

/// `Ipam-Node`, as the document shows it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the documentation alone")]
pub(crate) struct NodeHeader {
    /// Which of the node's lives speaks, and when: a structured-field dictionary (RFC 9651). Every request of
    /// a node's shim has it; with `allocator: service` there is none.
    #[param(rename = "Ipam-Node", example = "claim=3, boot=7, seq=918273645, block=1")]
    ipam_node: Option<String>,
}

/// The stamp of a node's request.
#[derive(Debug)]
pub(crate) struct StampHeader(pub(crate) Option<NodeStamp>);

impl<S: Send + Sync> FromRequestParts<S> for StampHeader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let invalid = |detail: String| ApiError::invalid_field(format!("header:{NODE_HEADER}"), detail);
        let mut values = parts.headers.get_all(NODE_HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        if values.next().is_some() {
            return Err(invalid("is given twice: give it once".to_owned()));
        }
        let text = value.to_str().map_err(|_| {
            invalid("has bytes that are not ASCII: write claim=3, boot=7, seq=918273645, block=1".to_owned())
        })?;
        text.parse().map(|stamp| Self(Some(stamp))).map_err(|error| invalid(format!("{error}")))
    }
}
