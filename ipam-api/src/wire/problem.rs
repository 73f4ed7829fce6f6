use crate::names::SubnetPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kinds of problem, stable for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = ProblemType)]
pub enum ProblemType {
    /// The body is not JSON, or the path or query cannot be read.
    #[serde(rename = "/problems/malformed-request")]
    MalformedRequest,
    /// Everything else wrong with the input.
    #[serde(rename = "/problems/invalid-request")]
    InvalidRequest,
    /// No credential, or none that counts.
    #[serde(rename = "/problems/unauthenticated")]
    Unauthenticated,
    /// A credential without this right.
    #[serde(rename = "/problems/forbidden")]
    Forbidden,
    /// No such thing.
    #[serde(rename = "/problems/not-found")]
    NotFound,
    /// The thing has not this method.
    #[serde(rename = "/problems/method-not-allowed")]
    MethodNotAllowed,
    /// Ranges overlap.
    #[serde(rename = "/problems/overlap")]
    Overlap,
    /// Others depend on it.
    #[serde(rename = "/problems/in-use")]
    InUse,
    /// It exists and differs in a field fixed at creation.
    #[serde(rename = "/problems/exists")]
    Exists,
    /// Another attachment holds the address, or the node may not hold it.
    #[serde(rename = "/problems/address-taken")]
    AddressTaken,
    /// The claim is not the current one.
    #[serde(rename = "/problems/stale-claim")]
    StaleClaim,
    /// It changed since it was read.
    #[serde(rename = "/problems/precondition-failed")]
    PreconditionFailed,
    /// The body is too large.
    #[serde(rename = "/problems/too-large")]
    TooLarge,
    /// The body is not of a type this takes.
    #[serde(rename = "/problems/unsupported-media-type")]
    UnsupportedMediaType,
    /// Too many requests.
    #[serde(rename = "/problems/rate-limited")]
    RateLimited,
    /// Cannot answer now; try again.
    #[serde(rename = "/problems/unavailable")]
    Unavailable,
    /// Not enough addresses.
    #[serde(rename = "/problems/exhausted")]
    Exhausted,
    /// Enough addresses, but no hole is large enough.
    #[serde(rename = "/problems/no-contiguous-block")]
    NoContiguousBlock,
    /// A defect of the service.
    #[serde(rename = "/problems/internal")]
    Internal,
}

impl ProblemType {
    /// The HTTP status it goes with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Overlap | Self::InUse | Self::Exists | Self::AddressTaken | Self::StaleClaim => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::InvalidRequest => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Exhausted | Self::NoContiguousBlock => 507,
        }
    }

    /// A short human title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::MalformedRequest => "Malformed request",
            Self::InvalidRequest => "Invalid request",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Overlap => "Ranges overlap",
            Self::InUse => "In use",
            Self::Exists => "Exists already",
            Self::AddressTaken => "Address taken",
            Self::StaleClaim => "Stale claim",
            Self::PreconditionFailed => "Precondition failed",
            Self::TooLarge => "Too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::RateLimited => "Too many requests",
            Self::Unavailable => "Unavailable",
            Self::Exhausted => "Not enough addresses",
            Self::NoContiguousBlock => "No hole is large enough",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// JSON pointer into the body (`/maxPods`), or `path:NAME`, `query:NAME`, `header:NAME`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// What one subnet lacks for a demand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetShortage {
    /// The subnet.
    pub subnet: SubnetPath,
    /// Addresses the demand needs there, nodes' own included.
    pub need: u64,
    /// Addresses there for it: free ones and, for nodes' own, those of `forNodes` reservations.
    pub have: u64,
    /// Size of the largest free extent.
    pub largest_free: u64,
    /// Most nodes of this demand that would fit there.
    pub nodes_that_fit: u64,
}

/// An error answer (RFC 9457), sent as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind, for programs.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// What kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do about it.
    pub detail: String,
    /// Each thing wrong with the input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Addresses the demand needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<u64>,
    /// Addresses there for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<u64>,
    /// Size of the largest free extent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_free: Option<u64>,
    /// Most nodes that would fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_that_fit: Option<u64>,
    /// The same per subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<SubnetShortage>,
}

impl Problem {
    /// A problem of this kind with its account of what happened and the cure.
    #[must_use]
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            errors: Vec::new(),
            need: None,
            have: None,
            largest_free: None,
            nodes_that_fit: None,
            subnets: Vec::new(),
        }
    }
}
