//! `/v1/nodes/{node}/allocations` and `/v1/allocations`: addresses held by pods.

use super::{
    Service,
    answer::{self, Answer},
    extract::{
        AllocationsQuery, Body, NetworkQuery, NodeHeader, PageQuery, Path, Query, ReleaseQuery, RequestBody,
        StampHeader, pod_texts,
    },
    nodes::NodePath,
    problem::{ANY, ApiError, BODY, NAMED, problems},
};
use crate::store::{AllocationFilter, Kind, NodeCall, StoreError, Written};
use axum::{
    extract::State,
    http::{StatusCode, Uri, header},
};
use ipam_api::{
    names::{Attachment, ContainerId, IfName, NetworkName, NodeName},
    wire::{Allocation, AllocationSpec, FieldError, Listing, NodeStamp},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// An attachment of a node by its names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachmentPath {
    /// The node.
    #[param(inline)]
    node: NodeName,
    /// The container.
    #[param(inline)]
    container_id: ContainerId,
    /// The interface inside it.
    #[param(inline)]
    if_name: IfName,
}

impl AttachmentPath {
    fn on(self, network: NetworkName) -> (NodeName, Attachment) {
        (self.node, Attachment { network, container_id: self.container_id, if_name: self.if_name })
    }
}

impl RequestBody for AllocationSpec {
    fn check(&self) -> Vec<FieldError> {
        self.pod.as_ref().map(|pod| pod_texts("/pod", pod)).unwrap_or_default()
    }
}

/// To a request of a node's shim an unknown node is a claim that ended, never a missing page (P5).
pub(crate) fn for_node(call: &NodeCall) -> impl Fn(StoreError) -> ApiError {
    let stamped = call.stamp.is_some();
    move |error| match error {
        StoreError::NotFound(Kind::Node, name) if stamped => ApiError::from(StoreError::StaleClaim(format!(
            "there is no node {name}: its claim has ended; register it again"
        ))),
        error => error.into(),
    }
}

problems! {
    ListProblems: ANY;
    ListOfNodeProblems: ANY, NAMED, [StaleClaim];
    GetProblems: ANY, NAMED, [StaleClaim];
    PutProblems: ANY, BODY, NAMED, [AddressTaken, StaleClaim, InUse, Exists, Exhausted];
    DeleteProblems: ANY, NAMED, [StaleClaim, AddressTaken];
}

/// Lists held allocations by address.
#[utoipa::path(
    get, path = "/v1/allocations", operation_id = "listAllocations", tag = "allocations",
    params(AllocationsQuery),
    responses((status = 200, description = "A page of allocations", body = Listing<Allocation>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<AllocationsQuery>) -> Answer {
    let page = query.page();
    let AllocationsQuery { node, network, pod, namespace, address, .. } = query;
    let filter = AllocationFilter { node, network, pod, namespace, address };
    answer::list(service.store.allocations(&filter, &page).await?)
}

/// Lists the held allocations of a node by address.
#[utoipa::path(
    get, path = "/v1/nodes/{node}/allocations", operation_id = "listNodeAllocations", tag = "allocations",
    params(NodePath, PageQuery, NodeHeader),
    responses((status = 200, description = "A page of allocations", body = Listing<Allocation>), ListOfNodeProblems)
)]
pub(crate) async fn list_of_node(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(query): Query<PageQuery>,
    StampHeader(stamp): StampHeader,
) -> Answer {
    let call = NodeCall { node: path.node.clone(), stamp };
    // A list of an unknown node is a missing page, not an empty one.
    current(&service, &call).await?;
    let filter = AllocationFilter { node: Some(path.node), ..AllocationFilter::default() };
    answer::list(service.store.allocations(&filter, &query.page()).await?)
}

/// Reads the allocation of an attachment: held, else the last one released.
#[utoipa::path(
    get, path = "/v1/nodes/{node}/allocations/{containerId}/{ifName}", operation_id = "getAllocation",
    tag = "allocations", params(AttachmentPath, NetworkQuery, NodeHeader),
    responses((status = 200, description = "The allocation", body = Allocation), GetProblems)
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(path): Path<AttachmentPath>,
    Query(query): Query<NetworkQuery>,
    StampHeader(stamp): StampHeader,
) -> Answer {
    let (node, attachment) = path.on(query.network);
    let call = NodeCall { node, stamp };
    current(&service, &call).await?;
    let allocation = service.store.allocation(&call.node, &attachment).await.map_err(for_node(&call))?;
    answer::json(StatusCode::OK, &allocation)
}

/// Records that an attachment holds an address of its node's block, or picks one for it.
///
/// The node's shim names the address and orders its request by `Ipam-Node`: what is not newer than the last
/// request about that address changes nothing and gets the current answer. Without an address the service picks,
/// for nodes with `allocator: service` only.
#[utoipa::path(
    put, path = "/v1/nodes/{node}/allocations/{containerId}/{ifName}", operation_id = "putAllocation",
    tag = "allocations", params(AttachmentPath, NetworkQuery, NodeHeader), request_body = AllocationSpec,
    responses(
        (status = 200, description = "What the ledger has already", body = Allocation),
        (status = 201, description = "Newly held", body = Allocation, headers(
            ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<AttachmentPath>,
    Query(query): Query<NetworkQuery>,
    StampHeader(stamp): StampHeader,
    Body(spec): Body<AllocationSpec>,
) -> Answer {
    let (node, attachment) = path.on(query.network);
    let call = NodeCall { node, stamp };
    match service.store.allocate(&call, &attachment, &spec).await.map_err(for_node(&call))? {
        Written::Updated(allocation) => answer::json(StatusCode::OK, &allocation),
        Written::Created(allocation) => {
            let mut response = answer::json(StatusCode::CREATED, &allocation)?;
            response.headers_mut().insert(header::LOCATION, answer::location(&uri)?);
            Ok(response)
        }
    }
}

/// Records that an attachment has given its address back; nothing to do is success.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}/allocations/{containerId}/{ifName}", operation_id = "deleteAllocation",
    tag = "allocations", params(AttachmentPath, ReleaseQuery, NodeHeader),
    responses((status = 204, description = "The attachment does not hold it"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<AttachmentPath>,
    Query(query): Query<ReleaseQuery>,
    StampHeader(stamp): StampHeader,
) -> Answer {
    let (node, attachment) = path.on(query.network);
    let call = NodeCall { node, stamp };
    service.store.release(&call, &attachment, query.address).await.map_err(for_node(&call))?;
    answer::no_content()
}

/// The node is there, and what a shim asks of it is asked in its present claim.
async fn current(service: &Service, call: &NodeCall) -> Result<(), ApiError> {
    let node = service.store.node(&call.node).await.map_err(for_node(call))?.value;
    match &call.stamp {
        Some(stamp) if stamp.stamp.claim != node.claim => {
            Err(ApiError::from(StoreError::StaleClaim(format!(
                "claim {} of node {} has ended, claim {} has its block: register it again",
                stamp.stamp.claim.0, node.name, node.claim.0
            ))))
        }
        _ => Ok(()),
    }
}

/// A stamp that is there; without one the operation means nothing.
pub(crate) fn required(stamp: Option<NodeStamp>) -> Result<NodeStamp, ApiError> {
    stamp.ok_or_else(|| {
        ApiError::invalid_field(
            format!("header:{}", ipam_api::wire::NODE_HEADER),
            "is required: send claim=3, boot=7, seq=918273645, block=1 with the node's own numbers",
        )
    })
}
