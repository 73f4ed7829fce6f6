//! `/v1/nodes`: VMs that claim blocks.

use super::{
    Service,
    access::forbidden,
    answer::{self, Answer},
    caller::Caller,
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, DeletionQuery, NoQuery, NodesQuery, Path, Query,
        RequestBody, mac_address, text_length,
    },
    problem::{ANY, ApiError, BODY, NAMED, SHORTAGE, problems},
};
use crate::store::{Departure, NodeFilter, VmState};
use axum::{
    extract::State,
    http::{StatusCode, Uri},
};
use ipam_api::{
    names::NodeName,
    wire::{FieldError, Listing, Node, NodeSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A node by its name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct NodePath {
    /// The node.
    #[param(inline)]
    pub(crate) node: NodeName,
}

impl RequestBody for NodeSpec {
    fn check(&self) -> Vec<FieldError> {
        let uid = self.uid.as_deref().and_then(|uid| text_length("/uid", uid, 1..=256));
        let mac = self.mac.as_deref().and_then(|mac| mac_address("/mac", mac));
        let addresses = (self.addresses.len() > 2).then(|| FieldError {
            pointer: "/addresses".to_owned(),
            detail: "has more than two addresses: give one a family".to_owned(),
        });
        uid.into_iter().chain(mac).chain(addresses).collect()
    }
}

problems! {
    ListProblems: ANY;
    GetProblems: ANY, NAMED, [StaleClaim];
    PutProblems: ANY, BODY, NAMED, SHORTAGE, [Overlap, InUse, Exists, AddressTaken, StaleClaim, PreconditionFailed];
    DeleteProblems: ANY, NAMED, [InUse, StaleClaim, PreconditionFailed];
}

/// Lists nodes by name.
#[utoipa::path(
    get, path = "/v1/nodes", operation_id = "listNodes", tag = "nodes",
    params(NodesQuery),
    responses((status = 200, description = "A page of nodes", body = Listing<Node>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<NodesQuery>) -> Answer {
    let page = query.page();
    answer::list(service.store.nodes(&NodeFilter { pool: query.pool }, &page).await?)
}

/// Reads a node.
#[utoipa::path(
    get, path = "/v1/nodes/{node}", operation_id = "getNode", tag = "nodes",
    params(NodePath),
    responses(
        (status = 200, description = "The node", body = Node, headers(("ETag" = String, description = "Its version"))),
        GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::live(&service.store.node(&path.node).await?)
}

/// Registers a node: claims a block in the subnet of its address, or answers the claim it has.
///
/// With `replace` and the uid of a new VM, that VM takes the place of one that is gone: what the old one held is
/// released, the block stays, the claim rises. Its own addresses may be others of the same subnet; the old ones
/// are given up then. A VM that was this node before, replaced or deleted, does not come back by a request that is
/// late: its uid is refused for a year; where the node is deleted and that VM is there again, `replace` says so.
#[utoipa::path(
    put, path = "/v1/nodes/{node}", operation_id = "putNode", tag = "nodes",
    params(NodePath, ChangeQuery, ConditionHeaders), request_body = NodeSpec,
    responses(
        (status = 200, description = "The node, as it was claimed", body = Node, headers(
            ("ETag" = String, description = "Its version")
        )),
        (status = 201, description = "The node, newly claimed", body = Node, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<NodePath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    Body(spec): Body<NodeSpec>,
) -> Answer {
    check_own(&caller, &spec)?;
    let change = caller.change(&conditions, query.commit())?;
    answer::put(&service.store.put_node(&path.node, &spec, &change).await?, &uri)
}

/// What a node may not say of itself: that another VM is gone, and that it is in another pool than its token is for.
fn check_own(caller: &Caller, spec: &NodeSpec) -> Result<(), ApiError> {
    let Some((node, pool)) = caller.node() else { return Ok(()) };
    if spec.replace {
        return Err(forbidden(
            caller,
            &format!(
                "node {node} cannot say that its predecessor is gone: an admin registers it with replace"
            ),
        ));
    }
    match pool {
        Some(pool) if *pool != spec.pool => Err(forbidden(
            caller,
            &format!(
                "the token of node {node} is for pool {pool}: register in that, or ask for another token"
            ),
        )),
        _ => Ok(()),
    }
}

/// Ends a node's claim: now, or once the node confirms that its block is empty.
///
/// Until then the node is `deleting` and its block stays with it. `vmGone=true` is for those who know that the
/// VM is gone, so that nothing answers for its addresses any more.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}", operation_id = "deleteNode", tag = "nodes",
    params(NodePath, DeletionQuery, ConditionHeaders),
    responses(
        (status = 202, description = "It is deleting until it confirms", body = Node),
        (status = 204, description = "It is gone and its block is free"),
        DeleteProblems
    )
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(query): Query<DeletionQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    if caller.node().is_some() && query.vm() == VmState::Gone {
        return Err(forbidden(
            &caller,
            "a node that asks is not gone: leave vmGone out, and confirm the end by a sync with an empty journal",
        ));
    }
    let change = caller.change(&conditions, query.commit())?;
    match service.store.delete_node(&path.node, query.vm(), &change).await? {
        Departure::Freed => answer::no_content(),
        Departure::Waiting(node) => answer::json(StatusCode::ACCEPTED, &node),
    }
}
