use super::Node;
use anyhow::{Context, Result};
use ipam_api::wire::EntryState;
use serde::Deserialize;
use std::net::IpAddr;

/// One attachment in a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Its container.
    pub container_id: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Where it is in its life.
    pub state: EntryState,
}

#[derive(Deserialize)]
struct Status {
    entries: Vec<JournalEntry>,
}

impl Node {
    /// The journal as `cni-shim status` tells it.
    pub fn journal(&self) -> Result<Vec<JournalEntry>> {
        let text = self.shim(&["status", "-o", "json"])?;
        let status: Status = serde_json::from_str(&text).with_context(|| format!("status printed {text}"))?;
        Ok(status.entries)
    }
}
