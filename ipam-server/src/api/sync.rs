//! `PUT /v1/nodes/{node}/allocations`: a node's whole journal.

use super::{
    Service,
    allocations::{for_node, required},
    answer::{self, Answer},
    caller::Caller,
    extract::{
        Body, NoQuery, NodeHeader, Path, Query, RequestBody, StampHeader, at_most, mac_address, pod_texts,
        text_length,
    },
    nodes::NodePath,
    problem::{ANY, BODY, NAMED, problems},
};
use crate::store::NodeCall;
use axum::{extract::State, http::StatusCode};
use ipam_api::wire::{FieldError, SyncAnswer, SyncRequest};

/// Two lives of each address of the largest block.
const MOST_ENTRIES: usize = 131_072;
/// What a structured-field integer can carry, so that a journal and a header speak of the same numbers.
const MOST_SEQ: u64 = 999_999_999_999_999;
/// Some 31 years; more is a defect of the sender, and would leave the calendar.
const MOST_AGE: u64 = 1_000_000_000;

impl RequestBody for SyncRequest {
    // An entry takes up to 1 KiB with the longest names that are in use; four times 65,536 of the usual size fit.
    const LIMIT: usize = 32 << 20;

    fn check(&self) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = Vec::new();
        errors.extend(at_most("/asOfSeq", self.as_of_seq.0, MOST_SEQ));
        errors.extend(at_most("/entries", self.entries.len() as u64, MOST_ENTRIES as u64));
        errors.extend(at_most("/conflicts", self.conflicts.len() as u64, MOST_ENTRIES as u64));
        errors.extend(self.deletion.as_deref().and_then(|token| text_length("/deletion", token, 1..=256)));
        for (index, entry) in self.entries.iter().enumerate() {
            errors.extend(at_most(&format!("/entries/{index}/seq"), entry.seq.0, MOST_SEQ));
            errors.extend(at_most(&format!("/entries/{index}/ageSeconds"), entry.age_seconds, MOST_AGE));
            if let Some(pod) = &entry.pod {
                errors.extend(pod_texts(&format!("/entries/{index}/pod"), pod));
            }
        }
        for (index, conflict) in self.conflicts.iter().enumerate() {
            errors.extend(mac_address(&format!("/conflicts/{index}/mac"), &conflict.mac));
            errors.extend(at_most(&format!("/conflicts/{index}/ageSeconds"), conflict.age_seconds, MOST_AGE));
        }
        // One wrong entry seldom comes alone; the first few say it all.
        errors.truncate(20);
        errors
    }
}

problems! {
    PutProblems: ANY, BODY, NAMED, [StaleClaim, AddressTaken, InUse];
}

/// Brings the ledger in step with a node's journal, and confirms the node's deletion.
///
/// What the journal does not list and `asOfSeq` is newer than is released.
#[utoipa::path(
    put, path = "/v1/nodes/{node}/allocations", operation_id = "syncNode", tag = "allocations",
    params(NodePath, NodeHeader), request_body = SyncRequest,
    responses((status = 200, description = "The ledger's word on each entry, in the order sent", body = SyncAnswer), PutProblems)
)]
pub(crate) async fn put(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(NoQuery {}): Query<NoQuery>,
    StampHeader(stamp): StampHeader,
    caller: Caller,
    Body(request): Body<SyncRequest>,
) -> Answer {
    let call = NodeCall { node: path.node, stamp: Some(required(stamp)?) };
    let answer = service.store.sync(&call, &request, &caller.actor()).await.map_err(for_node(&call))?;
    answer::json(StatusCode::OK, &answer)
}
