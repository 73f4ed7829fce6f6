use super::super::{explain, problem::ApiError, strict::Strict};
use axum::{
    body::Body as RawBody,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use ipam_api::wire::{FieldError, ProblemType};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::marker::PhantomData;

/// What a request may bring.
pub(crate) trait RequestBody: DeserializeOwned + Send {
    /// Most bytes of its JSON.
    const LIMIT: usize = 1 << 20;

    /// Finds what is wrong with it that its types do not say; each finding names a field.
    fn check(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: RequestBody, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request, &["application/json"], T::LIMIT).await?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value: T = typed(&mut json)?;
        json.end().map_err(|error| not_json(&error))?;
        checked(value).map(Self)
    }
}

/// A merge patch (RFC 7396) whose members are those of `P`.
#[derive(Debug)]
pub(crate) struct MergePatch<P> {
    value: Value,
    members: PhantomData<fn() -> P>,
}

impl<P> MergePatch<P> {
    /// What `spec` becomes by the patch.
    pub(crate) fn apply<T: RequestBody>(&self, mut spec: Value) -> Result<T, ApiError> {
        json_patch::merge(&mut spec, &self.value);
        checked(typed(spec)?)
    }
}

impl<P: RequestBody, S: Send + Sync> FromRequest<S> for MergePatch<P> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let types = ["application/merge-patch+json", "application/json"];
        let bytes = read(request, &types, P::LIMIT).await?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        typed::<_, P>(&mut json)?;
        json.end().map_err(|error| not_json(&error))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| not_json(&error))?;
        Ok(Self { value, members: PhantomData })
    }
}

fn checked<T: RequestBody>(value: T) -> Result<T, ApiError> {
    let errors = value.check();
    if errors.is_empty() { Ok(value) } else { Err(ApiError::invalid(errors)) }
}

fn typed<'de, D, T>(json: D) -> Result<T, ApiError>
where
    D: serde::Deserializer<'de, Error = serde_json::Error>,
    T: Deserialize<'de>,
{
    serde_path_to_error::deserialize(Strict(json)).map_err(|error| {
        if error.inner().is_data() {
            ApiError::invalid(vec![explain::field_error(error.path(), &error.inner().to_string())])
        } else {
            not_json(error.inner())
        }
    })
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::malformed("", format!("the body is not JSON: {error}"))
}

/// The bytes of a body of one of these media types, and of no more than `limit`.
async fn read(request: Request, types: &[&str], limit: usize) -> Result<Vec<u8>, ApiError> {
    let (parts, body) = request.into_parts();
    expect_type(&parts.headers, types)?;
    let too_large = || {
        ApiError::new(
            ProblemType::TooLarge,
            format!("the body is larger than {limit} bytes, the most this operation takes: send less"),
        )
    };
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large());
    }
    let bytes = gather(body, limit).await?.ok_or_else(too_large)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::malformed("", "the body is empty: send a JSON object"));
    }
    Ok(bytes)
}

/// All of a body, or `None` once it is longer than `limit`.
async fn gather(body: RawBody, limit: usize) -> Result<Option<Vec<u8>>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| ApiError::malformed("", "the body ended before it was complete: send it again"))?;
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn expect_type(headers: &HeaderMap, types: &[&str]) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable"));
    let essence = given.and_then(|given| given.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| types.iter().any(|known| known.eq_ignore_ascii_case(essence))) {
        return Ok(());
    }
    let what = match given {
        Some(given) => format!("the body is of type {:?}", explain::shortened(given)),
        None => "the body's type is not given".to_owned(),
    };
    Err(ApiError::new(
        ProblemType::UnsupportedMediaType,
        format!("{what}: send it with Content-Type: {}", types.join(" or ")),
    ))
}
