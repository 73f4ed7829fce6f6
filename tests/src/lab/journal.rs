use super::Node;
use anyhow::{Context, Result};
use std::net::IpAddr;

/// One attachment in a node's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its container.
    pub container_id: String,
    /// Its address, the IPv4 one where there is one.
    pub address: IpAddr,
    /// Whether it holds the address.
    pub live: bool,
}

impl Node {
    /// The journal as `cni-shim status` tells it.
    pub fn journal(&self) -> Result<Vec<JournalEntry>> {
        let text = self.shim(&["status", "-o", "json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("status printed {text}"))?;
        let entries =
            status.get("entries").and_then(serde_json::Value::as_array).context("status without entries")?;
        entries
            .iter()
            .map(|entry| {
                let text = |key: &str| {
                    entry.get(key).and_then(serde_json::Value::as_str).context("a field is missing")
                };
                Ok(JournalEntry {
                    container_id: text("containerId")?.to_owned(),
                    address: text("address")?.parse()?,
                    live: text("state")? != "released",
                })
            })
            .collect::<Result<_>>()
            .with_context(|| format!("status printed {status}"))
    }
}
