use super::ClientError;
use crate::wire::MAX_LIMIT;
use reqwest::header::HeaderValue;
use std::fmt;

/// Version of a resource, as its `ETag` header names it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// A version as a header writes it, quotes included.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As a header writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must hold for a change to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It is still of this version (`If-Match`).
    Unchanged(ETag),
    /// It does not exist (`If-None-Match: *`).
    Absent,
}

/// Whether a change is made or only tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Apply {
    /// It is made.
    #[default]
    Really,
    /// The answer is what it would be; nothing changes.
    DryRun,
}

/// How a change is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// What must hold for it.
    pub precondition: Precondition,
    /// Whether it is made.
    pub apply: Apply,
}

impl Write {
    /// Only tried.
    #[must_use]
    pub fn dry_run() -> Self {
        Self { apply: Apply::DryRun, ..Self::default() }
    }

    /// Only if the resource does not exist.
    #[must_use]
    pub fn create() -> Self {
        Self { precondition: Precondition::Absent, ..Self::default() }
    }

    /// Only if the resource is still of this version.
    #[must_use]
    pub fn if_unchanged(etag: ETag) -> Self {
        Self { precondition: Precondition::Unchanged(etag), ..Self::default() }
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Most items, 1 to [`MAX_LIMIT`]; the service's default where absent.
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

impl Page {
    /// The first page, as large as the service gives.
    #[must_use]
    pub fn largest() -> Self {
        Self { limit: Some(MAX_LIMIT), after: None }
    }

    pub(super) fn query(&self) -> impl Iterator<Item = (&'static str, String)> {
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let after = self.after.clone().map(|after| ("after", after));
        limit.into_iter().chain(after)
    }
}

/// A bearer token; its debug form does not show it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// A token as its file has it; white space around it is dropped.
    ///
    /// # Errors
    /// [`ClientError::Unsendable`] if it is empty or has characters a header cannot carry.
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ClientError::Unsendable { reason: "the token is empty".to_owned() });
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| {
            ClientError::Unsendable { reason: "the token has characters a header cannot carry".to_owned() }
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
