use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What was done to the plan or to credentials, by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Rises from event to event.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: the name of a token, `node:NAME`, `uid:NUMBER` at a unix socket, `anonymous` without credentials, or
    /// `service` itself.
    pub actor: String,
    /// The token's id, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// From where: address and port of the peer, or the socket.
    pub source: String,
    /// The request's `x-request-id`, as the log has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What was done: `create`, `update`, `delete`, or `free` where a deleted node confirmed its end.
    #[schema(example = "update")]
    pub action: String,
    /// What it was done to, kind first.
    #[schema(example = "pool/workers")]
    pub subject: String,
    /// The thing before; absent where it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The thing after; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}
