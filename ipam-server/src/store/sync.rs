use super::{NodeCall, Result, Store};
use ipam_api::wire::{SyncAnswer, SyncRequest};

impl Store {
    /// Brings the ledger in step with a node's journal (P3), and confirms its deletion (P6).
    pub async fn sync(&self, call: &NodeCall, request: &SyncRequest) -> Result<SyncAnswer> {
        todo!()
    }
}
