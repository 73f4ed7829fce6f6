use super::super::problem::ApiError;
use crate::store::Precondition;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use utoipa::IntoParams;

/// `If-Match` and `If-None-Match` of a change, as the document shows them.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the documentation alone")]
pub(crate) struct ConditionHeaders {
    /// Do it only if the thing is in one of these versions (`ETag`s), or, for `*`, if it exists.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
    /// `*`: do it only if the thing does not exist.
    #[param(rename = "If-None-Match", example = "*")]
    if_none_match: Option<String>,
}

/// One header's list of entity tags (RFC 9110, section 8.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    /// Those of the tags that can be a version of ours, with whether they are weak.
    Versions(Vec<(u64, bool)>),
}

/// What a request wants to be true of the thing before it is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Conditions {
    /// For a change.
    pub(crate) fn precondition(&self) -> Result<Precondition, ApiError> {
        match (&self.if_match, &self.if_none_match) {
            (Some(_), Some(_)) => Err(ApiError::invalid_field(
                "header:if-none-match",
                "cannot be asked for together with If-Match: send one of the two",
            )),
            (Some(Tags::Any), None) => Ok(Precondition::Exists),
            // If-Match compares strongly: a weak tag matches nothing.
            (Some(Tags::Versions(tags)), None) => Ok(Precondition::Version(
                tags.iter().filter(|(_, weak)| !weak).map(|(version, _)| *version).collect(),
            )),
            (None, Some(Tags::Any)) => Ok(Precondition::Absent),
            (None, Some(Tags::Versions(_))) => Err(ApiError::invalid_field(
                "header:if-none-match",
                "of a change can only be *, which asks that the thing does not exist",
            )),
            (None, None) => Ok(Precondition::None),
        }
    }

    /// Whether a reader already has this version.
    pub(crate) fn not_modified(&self, version: u64) -> bool {
        match &self.if_none_match {
            Some(Tags::Any) => true,
            Some(Tags::Versions(tags)) => tags.iter().any(|(tag, _)| *tag == version),
            None => false,
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let invalid = || {
        ApiError::invalid_field(
            format!("header:{name}"),
            "is not a list of entity tags: write * or versions in quotes, such as \"3\"",
        )
    };
    let mut seen = None;
    for value in headers.get_all(name) {
        let mut rest = value.to_str().map_err(|_| invalid())?.trim();
        if rest == "*" && seen.is_none() {
            seen = Some(Tags::Any);
            continue;
        }
        let versions = match seen.get_or_insert_with(|| Tags::Versions(Vec::new())) {
            Tags::Versions(versions) => versions,
            Tags::Any => return Err(invalid()),
        };
        loop {
            let weak = rest.strip_prefix("W/");
            let quoted = weak.unwrap_or(rest).strip_prefix('"').ok_or_else(invalid)?;
            let (tag, after) = quoted.split_once('"').ok_or_else(invalid)?;
            // The canonical form only: "03" is no tag of ours, so it matches nothing.
            if let Some(version) = tag.parse::<u64>().ok().filter(|version| version.to_string() == tag)
                && i64::try_from(version).is_ok()
            {
                versions.push((version, weak.is_some()));
            }
            rest = after.trim_start();
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(',').ok_or_else(invalid)?.trim_start();
        }
    }
    Ok(seen)
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(Self {
            if_match: tags(&parts.headers, &header::IF_MATCH)?,
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(values: &[&'static str]) -> Result<Option<Tags>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        tags(&headers, &header::IF_MATCH)
    }

    #[test]
    fn entity_tags_are_read_as_written() {
        let versions = |tags: &[(u64, bool)]| Some(Tags::Versions(tags.to_vec()));
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["*"]).unwrap(), Some(Tags::Any));
        assert_eq!(read(&["\"3\""]).unwrap(), versions(&[(3, false)]));
        assert_eq!(
            read(&["\"3\", W/\"4\"", "\"5\""]).unwrap(),
            versions(&[(3, false), (4, true), (5, false)])
        );
        assert_eq!(read(&["\"abc\", \"03\", \"99999999999999999999\""]).unwrap(), versions(&[]));
    }

    #[test]
    fn bad_entity_tags_are_refused() {
        for bad in ["", "3", "\"3", "\"3\" \"4\"", "*, \"3\"", "\"3\",", "w/\"3\""] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&["*", "\"3\""]).is_err());
    }
}
