use super::{super::problem::ApiError, named, percent_decoded};
use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

/// The names in a path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let unreadable = || {
            ApiError::malformed(
                "path:",
                "the path is not percent-encoded UTF-8: write every other byte as % and two hex digits",
            )
        };
        if percent_decoded(parts.uri.path()).is_none() {
            return Err(unreadable());
        }
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| unreadable())?;
        let pairs = params.iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        named("path", pairs).map(Self)
    }
}
