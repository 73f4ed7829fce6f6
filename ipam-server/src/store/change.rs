use ipam_api::names::TokenId;
use std::ops::Deref;

/// Who asks for a change: what its event says of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name of a token, `node:NAME`, `uid:NUMBER`, `anonymous` or `service`.
    pub name: String,
    /// The token, where there was one.
    pub token: Option<TokenId>,
    /// Address and port of the peer, or the socket.
    pub source: String,
    /// The request's id.
    pub request_id: Option<String>,
}

impl Default for Actor {
    /// The service itself.
    fn default() -> Self {
        Self { name: "service".to_owned(), token: None, source: "service".to_owned(), request_id: None }
    }
}

/// What must be true of a thing before it is changed (RFC 9110, section 13).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It exists in one of these versions (`If-Match: "3"`).
    Version(Vec<u64>),
    /// It exists (`If-Match: *`).
    Exists,
    /// It does not exist (`If-None-Match: *`).
    Absent,
}

/// Whether a change is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Commit {
    /// It is.
    #[default]
    Keep,
    /// It is tried in a transaction that is rolled back (`dryRun=true`).
    DryRun,
}

/// How a change is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What must be true before.
    pub precondition: Precondition,
    /// Whether it is kept.
    pub commit: Commit,
    /// Who asks for it.
    pub by: Actor,
}

/// A thing with its version, which its `ETag` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The thing.
    pub value: T,
    /// Rises with every change.
    pub version: u64,
}

impl<T> Deref for Versioned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// What a PUT did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written<T> {
    /// It made the thing (201).
    Created(T),
    /// The thing was there and is as asked for now (200).
    Updated(T),
}

impl<T> Written<T> {
    /// The thing, however it came.
    pub fn into_inner(self) -> T {
        match self {
            Self::Created(value) | Self::Updated(value) => value,
        }
    }
}

/// What the caller of a node's deletion knows of its VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VmState {
    /// Nothing: the node itself must confirm that its block is empty (P6).
    #[default]
    Unknown,
    /// It is gone: nothing answers for its addresses any more.
    Gone,
}

/// What a node's deletion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure<T> {
    /// Its block is back (204).
    Freed,
    /// It is deleting until it confirms (202).
    Waiting(T),
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Most items, 1 to 1000.
    pub limit: u32,
    /// `next` of the page before: the opaque key of its last item.
    pub after: Option<String>,
}
