//! `/v1/vnets`: address spaces.

use super::{
    Service,
    answer::{self, Answer, Editable},
    caller::Caller,
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, MergePatch, NoQuery, PageQuery, Path, Query,
        RequestBody,
    },
    problem::{ANY, BODY, NAMED, problems},
};
use crate::store::{Change, Result, Store, Versioned, Written};
use axum::{extract::State, http::Uri};
use ipam_api::{
    names::VnetName,
    wire::{Listing, Vnet, VnetPatch, VnetSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A VNet by its name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct VnetPath {
    /// The VNet.
    #[param(inline)]
    pub(crate) vnet: VnetName,
}

impl RequestBody for VnetSpec {}
impl RequestBody for VnetPatch {}

impl Editable for VnetPath {
    type Spec = VnetSpec;
    type View = Vnet;

    fn spec(view: Vnet) -> VnetSpec {
        VnetSpec { address_space: view.address_space, service_cidrs: view.service_cidrs }
    }

    async fn read(&self, store: &Store) -> Result<Versioned<Vnet>> {
        store.vnet(&self.vnet).await
    }

    async fn write(
        &self,
        store: &Store,
        spec: &VnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Vnet>>> {
        store.put_vnet(&self.vnet, spec, change).await
    }
}

problems! {
    ListProblems: ANY;
    GetProblems: ANY, NAMED;
    PutProblems: ANY, BODY, [Overlap, InUse, Exists, PreconditionFailed];
    PatchProblems: ANY, BODY, NAMED, [Overlap, InUse, Exists, PreconditionFailed];
    DeleteProblems: ANY, NAMED, [InUse, PreconditionFailed];
}

/// Lists VNets by name.
#[utoipa::path(
    get, path = "/v1/vnets", operation_id = "listVnets", tag = "vnets",
    params(PageQuery),
    responses((status = 200, description = "A page of VNets", body = Listing<Vnet>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<PageQuery>) -> Answer {
    answer::list(service.store.vnets(&query.page()).await?)
}

/// Reads a VNet.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}", operation_id = "getVnet", tag = "vnets",
    params(VnetPath),
    responses(
        (status = 200, description = "The VNet", body = Vnet, headers(("ETag" = String, description = "Its version"))),
        GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(path): Path<VnetPath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::live(&service.store.vnet(&path.vnet).await?)
}

/// Makes a VNet, or changes it to what is asked for.
///
/// It refuses loopback, link-local and multicast ranges, and overlap with other VNets and service CIDRs.
#[utoipa::path(
    put, path = "/v1/vnets/{vnet}", operation_id = "putVnet", tag = "vnets",
    params(VnetPath, ChangeQuery, ConditionHeaders), request_body = VnetSpec,
    responses(
        (status = 200, description = "The VNet, changed", body = Vnet, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "The VNet, made", body = Vnet, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<VnetPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    Body(spec): Body<VnetSpec>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::put(&service.store.put_vnet(&path.vnet, &spec, &change).await?, &uri)
}

/// Edits a VNet.
#[utoipa::path(
    patch, path = "/v1/vnets/{vnet}", operation_id = "patchVnet", tag = "vnets",
    params(VnetPath, ChangeQuery, ConditionHeaders),
    request_body(content((VnetPatch = "application/merge-patch+json"), (VnetPatch = "application/json"))),
    responses(
        (status = 200, description = "The VNet, changed", body = Vnet, headers(("ETag" = String, description = "Its version"))),
        PatchProblems
    )
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<VnetPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    edit: MergePatch<VnetPatch>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::patch(&path, &service.store, &edit, &change, &uri).await
}

/// Deletes a VNet without subnets.
#[utoipa::path(
    delete, path = "/v1/vnets/{vnet}", operation_id = "deleteVnet", tag = "vnets",
    params(VnetPath, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It is gone"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<VnetPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.delete_vnet(&path.vnet, &change).await?;
    answer::no_content()
}
