use super::{super::problem::ApiError, named, percent_decoded};
use crate::store::{Commit, EventFilter, Page, VmState};
use axum::{extract::FromRequestParts, http::request::Parts};
use ipam_api::{
    names::{NetworkName, NodeName, PoolName},
    wire::{DEFAULT_LIMIT, MAX_LIMIT},
};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, net::IpAddr};
use utoipa::IntoParams;

/// The parameters of a query; ones that the operation does not know are refused.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut pairs = BTreeMap::new();
        for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                percent_decoded(&text.replace('+', " ")).ok_or_else(|| {
                    ApiError::malformed(
                        "query:",
                        "the query is not percent-encoded UTF-8: write every other byte as % and two hex digits",
                    )
                })
            };
            let (name, text) = (decoded(name)?, decoded(text)?);
            if pairs.insert(name.clone(), text).is_some() {
                return Err(ApiError::invalid_field(format!("query:{name}"), "is given twice: give it once"));
            }
        }
        named("query", pairs.into_iter()).map(Self)
    }
}

/// How many items a page has.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Limit(u32);

impl TryFrom<String> for Limit {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(Self(limit)),
            _ => Err(format!("{text:?} is not a page size: give a whole number from 1 to {MAX_LIMIT}")),
        }
    }
}

/// Where a page begins: the last key of the page before, in a form that invites no guessing.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Cursor(String);

impl TryFrom<String> for Cursor {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        });
        pairs
            .collect::<Option<Vec<u8>>>()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|key| !key.is_empty() && !key.contains('\0'))
            .map(Self)
            .ok_or("is not from a list of this service: pass the `next` of the page before, or leave it out")
    }
}

/// The form of a key that [`Cursor`] reads.
pub(crate) fn opaque(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A parameter that is `true` or `false`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Flag(bool);

impl TryFrom<String> for Flag {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is neither true nor false: give one of the two"))
    }
}

fn page(limit: Option<Limit>, after: Option<Cursor>) -> Page {
    Page { limit: limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit), after: after.map(|Cursor(key)| key) }
}

fn commit(dry_run: Option<Flag>) -> Commit {
    match dry_run {
        Some(Flag(true)) => Commit::DryRun,
        _ => Commit::Keep,
    }
}

/// For operations without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Most items of the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// `next` of the page before.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$")]
    after: Option<Cursor>,
}

impl PageQuery {
    pub(crate) fn page(self) -> Page {
        page(self.limit, self.after)
    }
}

/// Which nodes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct NodesQuery {
    /// Only those of this pool.
    #[param(inline)]
    pub(crate) pool: Option<PoolName>,
    /// Most items of the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// `next` of the page before.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$")]
    after: Option<Cursor>,
}

impl NodesQuery {
    pub(crate) fn page(&self) -> Page {
        page(self.limit, self.after.clone())
    }
}

/// Which allocations are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct AllocationsQuery {
    /// Only those of this node.
    #[param(inline)]
    pub(crate) node: Option<NodeName>,
    /// Only those of this network.
    #[param(inline)]
    pub(crate) network: Option<NetworkName>,
    /// Only those of pods of this name.
    pub(crate) pod: Option<String>,
    /// Only those of pods of this namespace.
    pub(crate) namespace: Option<String>,
    /// Only the one that holds this address, of either family.
    #[param(value_type = Option<String>)]
    pub(crate) address: Option<IpAddr>,
    /// Most items of the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// `next` of the page before.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$")]
    after: Option<Cursor>,
}

impl AllocationsQuery {
    pub(crate) fn page(&self) -> Page {
        page(self.limit, self.after.clone())
    }
}

/// Which events are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Only those of this thing, or of all things of a kind.
    #[param(value_type = Option<String>, example = "pool/workers")]
    subject: Option<Text>,
    /// Only those of this actor.
    #[param(value_type = Option<String>, example = "alice")]
    actor: Option<Text>,
    /// Only those of this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Time>,
    /// Only those before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Time>,
    /// Most items of the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// `next` of the page before.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$")]
    after: Option<Cursor>,
}

impl EventsQuery {
    pub(crate) fn page(&self) -> Page {
        page(self.limit, self.after.clone())
    }

    pub(crate) fn filter(self) -> EventFilter {
        let text = |text: Option<Text>| text.map(|Text(text)| text);
        EventFilter {
            subject: text(self.subject),
            actor: text(self.actor),
            since: self.since.map(|Time(time)| time),
            until: self.until.map(|Time(time)| time),
        }
    }
}

/// A text that something can have.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Text(String);

impl TryFrom<String> for Text {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        const LONGEST: usize = 512;
        if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
            return Err("is empty or too long: give 1 to 512 characters, or leave it out");
        }
        Ok(Self(text))
    }
}

/// A moment.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Time(Timestamp);

impl TryFrom<String> for Time {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is no time: write one such as 2026-01-31T12:00:00Z"))
    }
}

/// How a change is made.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangeQuery {
    /// Answer as if it were done, and change nothing.
    #[param(value_type = Option<bool>, default = false)]
    dry_run: Option<Flag>,
}

impl ChangeQuery {
    pub(crate) fn commit(&self) -> Commit {
        commit(self.dry_run)
    }
}

/// How a node is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DeletionQuery {
    /// The VM is gone for good: its block is free at once, without its confirmation.
    #[param(value_type = Option<bool>, default = false)]
    vm_gone: Option<Flag>,
    /// Answer as if it were done, and change nothing.
    #[param(value_type = Option<bool>, default = false)]
    dry_run: Option<Flag>,
}

impl DeletionQuery {
    pub(crate) fn commit(&self) -> Commit {
        commit(self.dry_run)
    }

    pub(crate) fn vm(&self) -> VmState {
        match self.vm_gone {
            Some(Flag(true)) => VmState::Gone,
            _ => VmState::Unknown,
        }
    }
}

/// Which of the node's networks an attachment belongs to.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct NetworkQuery {
    /// The CNI network.
    #[serde(default)]
    #[param(value_type = Option<String>, default = "default", pattern = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$")]
    pub(crate) network: NetworkName,
}

/// What is given back.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseQuery {
    /// The CNI network.
    #[serde(default)]
    #[param(value_type = Option<String>, default = "default", pattern = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$")]
    pub(crate) network: NetworkName,
    /// The address given back; a node's shim names it, so that an old request cannot end a new allocation.
    #[param(value_type = Option<String>)]
    pub(crate) address: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back() {
        let Cursor(key) = opaque("prod/nodes 10.0.0.1 ü").try_into().unwrap();
        assert_eq!(key, "prod/nodes 10.0.0.1 ü");
        for bad in ["", "a", "zz", "ff", "00", "+1"] {
            assert!(Cursor::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
