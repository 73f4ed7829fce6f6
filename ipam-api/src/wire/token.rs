use crate::names::{NodeName, PoolName, TokenId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Read and plan, change nothing.
    Planner,
    /// Read.
    Viewer,
    /// One node's own registration, allocations and sync.
    Node,
    /// Give a new node of one pool a token of its own.
    Join,
}

impl Role {
    /// Every role, the most powerful first.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Planner, Self::Viewer, Self::Node, Self::Join];

    /// As JSON and tokens write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Planner => "planner",
            Self::Viewer => "viewer",
            Self::Node => "node",
            Self::Join => "join",
        }
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSpec {
    /// Who or what will use it: the actor in events.
    #[schema(min_length = 1, max_length = 64, example = "alice")]
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The node; with role `node` only, and needed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The only pool its node may register in; with roles `node` and `join`, needed for `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// How many nodes may join with it; with role `join` only, and needed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub uses: Option<u64>,
    /// How long it counts; absent: until it is revoked. Needed for `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub expires_in_seconds: Option<u64>,
    /// How long the tokens count that nodes get by joining with it; absent: until they are revoked. With role `join` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub node_token_seconds: Option<u64>,
}

/// Whether a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TokenState {
    /// It does.
    Valid,
    /// Its time is over.
    Expired,
    /// All its uses are used.
    Spent,
}

/// A token by all that is known of it: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// What it is called where it must not be shown.
    pub id: TokenId,
    /// Who or what uses it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The node whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The only pool its node may register in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// How many nodes may still join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// How long the tokens count that nodes get by joining with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_token_seconds: Option<u64>,
    /// Whether it counts.
    pub state: TokenState,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends; absent: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, whether or not it counted then; to a few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// A token just made: the only answer that shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// What is known of it.
    #[serde(flatten)]
    pub token: Token,
    /// The token. It is not kept: whoever loses it needs another. Absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The token that a node made for itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialSpec {
    /// The token: `ipam_node_` and 43 characters of base64url, 256 random bits. The node makes and keeps it before
    /// it sends it, so that a lost answer loses nothing.
    #[schema(
        pattern = "^ipam_node_[A-Za-z0-9_-]{43}$",
        example = "ipam_node_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )]
    pub token: String,
}

impl std::fmt::Debug for CredentialSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialSpec(…)")
    }
}
