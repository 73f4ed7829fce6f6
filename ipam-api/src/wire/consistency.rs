use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// A rule does not hold.
    Broken,
    /// No rule is broken, but somebody should look.
    Attention,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable name of what was found.
    #[schema(example = "silent-node")]
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, kind first.
    #[schema(example = "node/node-1")]
    pub object: String,
    /// What is wrong, in a sentence.
    pub detail: String,
    /// What to do about it.
    pub cure: String,
    /// Whether a repair does it, without risk that an address has two holders.
    pub repairable: bool,
}

/// The service has gone back in time by an older backup, and gives no address to anyone new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// When the backup was restored.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Nodes that have not found back into the ledger by a sync.
    pub unheard_nodes: u64,
}

/// Whether what the service holds agrees with itself and with what its nodes last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// When it was looked at.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Present while a restored backup is not looked after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// What a repair has put right; absent where nothing was repaired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Finding>,
    /// What was found and is there, the worst first; at most a hundred of each code.
    pub findings: Vec<Finding>,
}
