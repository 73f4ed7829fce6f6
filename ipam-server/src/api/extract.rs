//! Reading requests: own extractors, so that every refusal is a documented problem.

mod body;
mod checks;
mod conditions;
mod path;
mod query;
mod stamp;

pub(crate) use body::{Body, MergePatch, RequestBody};
pub(crate) use checks::{at_most, mac_address, not_empty, pod_texts, text_length};
pub(crate) use conditions::{ConditionHeaders, Conditions};
pub(crate) use path::Path;
pub(crate) use query::{
    AllocationsQuery, ChangeQuery, DeletionQuery, EventsQuery, NetworkQuery, NoQuery, NodesQuery, PageQuery,
    Query, ReleaseQuery, opaque,
};
pub(crate) use stamp::{NodeHeader, StampHeader};

use super::{explain, problem::ApiError};
use ipam_api::wire::FieldError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Named texts as a value of their type; `place` is where the names are (`path`, `query`).
fn named<T: DeserializeOwned>(
    place: &str,
    pairs: impl Iterator<Item = (String, String)>,
) -> Result<T, ApiError> {
    let texts: Map<String, Value> = pairs.map(|(name, text)| (name, Value::String(text))).collect();
    serde_path_to_error::deserialize(Value::Object(texts)).map_err(|error| {
        let FieldError { pointer, detail } = explain::field_error(error.path(), &error.inner().to_string());
        ApiError::invalid_field(format!("{place}:{}", pointer.trim_start_matches('/')), detail)
    })
}

/// Percent-decodes strictly; `None` for a `%` without two hex digits or bytes that are not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_is_strict() {
        assert_eq!(percent_decoded("a%2Fb%c3%bc"), Some("a/bü".to_owned()));
        for bad in ["%", "%2", "%zz", "%ff", "a%"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
