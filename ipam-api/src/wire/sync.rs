use super::{Node, PodRef, Problem, Seq};
use crate::names::{ContainerId, IfName, NetworkName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// State of a journal entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum EntryState {
    /// Picked; the interface is being wired.
    Intent,
    /// The pod runs with it.
    Wired,
    /// The interface is being taken away.
    Releasing,
    /// Given back; rests.
    Released,
}

impl EntryState {
    /// Whether the entry's attachment holds the address.
    #[must_use]
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Released)
    }
}

/// One entry of a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncEntry {
    /// The CNI network.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub if_name: IfName,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The entry's state.
    pub state: EntryState,
    /// The entry's sequence number.
    pub seq: Seq,
    /// How long it has been in that state.
    #[schema(maximum = 1_000_000_000)]
    pub age_seconds: u64,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

/// A stranger that answered for an address of the block: a machine that has no right to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conflict {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The stranger's MAC address.
    #[schema(pattern = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]
    pub mac: String,
    /// How long ago it answered.
    #[schema(maximum = 1_000_000_000)]
    pub age_seconds: u64,
}

/// A node's whole journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncRequest {
    /// Drawn under the journal's lock before the listing: what is older and unlisted is released.
    pub as_of_seq: Seq,
    /// Every entry of the journal.
    #[schema(max_items = 131_072)]
    pub entries: Vec<SyncEntry>,
    /// All addresses that strangers answer for, in place of those of the sync before: one that is not listed
    /// is in conflict no more. Of two at one position of the subnet the one heard last counts.
    #[serde(default)]
    #[schema(max_items = 131_072)]
    pub conflicts: Vec<Conflict>,
    /// With no live entry: the deletion this sync confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub deletion: Option<String>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SyncOutcome {
    /// The ledger has it as held by this attachment.
    Kept,
    /// The ledger has it as released.
    Released,
    /// The ledger refuses it; the problem says why.
    Refused,
}

/// The ledger's word on one entry, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryResult {
    /// The CNI network.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub if_name: IfName,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What became of it.
    pub result: SyncOutcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncAnswer {
    /// One result an entry, in the order sent.
    pub items: Vec<EntryResult>,
    /// The node as it is now; absent once a confirmed deletion gave its block back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
}
