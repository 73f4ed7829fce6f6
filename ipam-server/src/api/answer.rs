//! Writing answers: the success half of every operation.

use super::{
    extract::{Conditions, MergePatch, RequestBody, opaque},
    problem::ApiError,
};
use crate::store::{Change, Precondition, Store, StoreError, Versioned, Written};
use axum::{
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use ipam_api::wire::{Listing, ProblemType};
use serde::Serialize;
use std::future::Future;

/// What every handler answers.
pub(crate) type Answer = Result<Response, ApiError>;

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ApiError::internal()
    })?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The strong entity tag of a version.
pub(crate) fn etag(version: u64) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(format!("\"{version}\"")).map_err(|_| ApiError::internal())
}

/// A thing with its version, of which more than edits changes (counts, states): always answered whole.
pub(crate) fn live<T: Serialize>(thing: &Versioned<T>) -> Answer {
    let mut response = json(StatusCode::OK, &thing.value)?;
    response.headers_mut().insert(header::ETAG, etag(thing.version)?);
    Ok(response)
}

/// A thing that only edits change, with its version; 304 where the reader has it already.
pub(crate) fn found<T: Serialize>(thing: &Versioned<T>, conditions: &Conditions) -> Answer {
    let mut response = if conditions.not_modified(thing.version) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json(StatusCode::OK, &thing.value)?
    };
    response.headers_mut().insert(header::ETAG, etag(thing.version)?);
    Ok(response)
}

/// What a PUT did: 201 with where the thing is, or 200.
pub(crate) fn put<T: Serialize>(written: &Written<Versioned<T>>, uri: &Uri) -> Answer {
    let (status, thing) = match written {
        Written::Created(thing) => (StatusCode::CREATED, thing),
        Written::Updated(thing) => (StatusCode::OK, thing),
    };
    let mut response = json(status, &thing.value)?;
    response.headers_mut().insert(header::ETAG, etag(thing.version)?);
    if status == StatusCode::CREATED {
        response.headers_mut().insert(header::LOCATION, location(uri)?);
    }
    Ok(response)
}

/// The path of the request, where the thing it made is.
pub(crate) fn location(uri: &Uri) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(uri.path()).map_err(|_| ApiError::internal())
}

/// A page of a list; the place where the next one begins leaves in its opaque form.
pub(crate) fn list<T: Serialize>(listing: Listing<T>) -> Answer {
    let next = listing.next.as_deref().map(opaque);
    json(StatusCode::OK, &Listing { items: listing.items, next })
}

/// Done, and nothing to say.
pub(crate) fn no_content() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A thing that a merge patch edits: read, merged, and put back in the version it was read in.
pub(crate) trait Editable: Sync {
    /// What people ask for.
    type Spec: RequestBody + Serialize + Sync;
    /// What the service answers.
    type View: Serialize + Send + Sync;

    /// What was asked for, out of what is there.
    fn spec(view: Self::View) -> Self::Spec;

    /// The thing as it is.
    fn read(&self, store: &Store) -> impl Future<Output = Result<Versioned<Self::View>, StoreError>> + Send;

    /// Makes it so.
    fn write(
        &self,
        store: &Store,
        spec: &Self::Spec,
        change: &Change,
    ) -> impl Future<Output = Result<Written<Versioned<Self::View>>, StoreError>> + Send;
}

/// Edits a thing by a merge patch.
pub(crate) async fn patch<T: Editable, P: RequestBody>(
    thing: &T,
    store: &Store,
    patch: &MergePatch<P>,
    asked: &Change,
    uri: &Uri,
) -> Answer {
    // Without If-Match an edit may meet another one between its read and its write; it then starts over.
    const ATTEMPTS: usize = 5;
    for _ in 0..ATTEMPTS {
        let Versioned { value, version } = thing.read(store).await?;
        let met = match &asked.precondition {
            Precondition::None | Precondition::Exists => true,
            Precondition::Version(versions) => versions.contains(&version),
            Precondition::Absent => false,
        };
        if !met {
            return Err(ApiError::new(
                ProblemType::PreconditionFailed,
                format!(
                    "it is in version \"{version}\": read it again and repeat the edit on what it is now"
                ),
            ));
        }
        let current = serde_json::to_value(T::spec(value)).map_err(|error| {
            tracing::error!(%error, "a spec could not be written");
            ApiError::internal()
        })?;
        let spec = patch.apply(current)?;
        let precondition = Precondition::Version(vec![version]);
        let change = Change { precondition, ..asked.clone() };
        match thing.write(store, &spec, &change).await {
            Err(StoreError::PreconditionFailed(_))
                if matches!(asked.precondition, Precondition::None | Precondition::Exists) => {}
            done => return put(&done?, uri),
        }
    }
    Err(ApiError::new(ProblemType::Unavailable, "others edit the same thing all the time; try again"))
}
