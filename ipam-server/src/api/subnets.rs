//! `/v1/vnets/{vnet}/subnets`: layer-2 segments of a VNet.

use super::{
    Service,
    answer::{self, Answer, Editable},
    caller::Caller,
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, MergePatch, NoQuery, PageQuery, Path, Query,
        RequestBody,
    },
    problem::{ANY, BODY, NAMED, problems},
    vnets::VnetPath,
};
use crate::store::{Change, Result, Store, Versioned, Written};
use axum::{extract::State, http::Uri};
use ipam_api::{
    names::{SubnetName, SubnetPath, VnetName},
    wire::{Listing, Subnet, SubnetPatch, SubnetSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A subnet by its names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SubnetNames {
    /// The VNet.
    #[param(inline)]
    vnet: VnetName,
    /// The subnet inside it.
    #[param(inline)]
    subnet: SubnetName,
}

impl SubnetNames {
    pub(crate) fn path(&self) -> SubnetPath {
        SubnetPath { vnet: self.vnet.clone(), subnet: self.subnet.clone() }
    }
}

impl RequestBody for SubnetSpec {}
impl RequestBody for SubnetPatch {}

impl Editable for SubnetPath {
    type Spec = SubnetSpec;
    type View = Subnet;

    fn spec(view: Subnet) -> SubnetSpec {
        SubnetSpec { cidrs: view.cidrs, gateways: view.gateways, reserve_platform: view.reserve_platform }
    }

    async fn read(&self, store: &Store) -> Result<Versioned<Subnet>> {
        store.subnet(self).await
    }

    async fn write(
        &self,
        store: &Store,
        spec: &SubnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Subnet>>> {
        store.put_subnet(self, spec, change).await
    }
}

problems! {
    ListProblems: ANY, NAMED;
    GetProblems: ANY, NAMED;
    PutProblems: ANY, BODY, NAMED, [Overlap, InUse, Exists, PreconditionFailed];
    DeleteProblems: ANY, NAMED, [InUse, PreconditionFailed];
}

/// Lists the subnets of a VNet by name.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}/subnets", operation_id = "listSubnets", tag = "subnets",
    params(VnetPath, PageQuery),
    responses((status = 200, description = "A page of subnets", body = Listing<Subnet>), ListProblems)
)]
pub(crate) async fn list(
    State(service): State<Service>,
    Path(path): Path<VnetPath>,
    Query(query): Query<PageQuery>,
) -> Answer {
    answer::list(service.store.subnets(&path.vnet, &query.page()).await?)
}

/// Reads a subnet.
#[utoipa::path(
    get, path = "/v1/vnets/{vnet}/subnets/{subnet}", operation_id = "getSubnet", tag = "subnets",
    params(SubnetNames),
    responses(
        (status = 200, description = "The subnet", body = Subnet, headers(("ETag" = String, description = "Its version"))),
        GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(names): Path<SubnetNames>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::live(&service.store.subnet(&names.path()).await?)
}

/// Makes a subnet, or changes what may change of it.
///
/// It lies in its VNet and overlaps no sibling; its CIDRs are fixed once it exists.
#[utoipa::path(
    put, path = "/v1/vnets/{vnet}/subnets/{subnet}", operation_id = "putSubnet", tag = "subnets",
    params(SubnetNames, ChangeQuery, ConditionHeaders), request_body = SubnetSpec,
    responses(
        (status = 200, description = "The subnet, changed", body = Subnet, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "The subnet, made", body = Subnet, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(names): Path<SubnetNames>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    Body(spec): Body<SubnetSpec>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::put(&service.store.put_subnet(&names.path(), &spec, &change).await?, &uri)
}

/// Edits a subnet.
#[utoipa::path(
    patch, path = "/v1/vnets/{vnet}/subnets/{subnet}", operation_id = "patchSubnet", tag = "subnets",
    params(SubnetNames, ChangeQuery, ConditionHeaders),
    request_body(content((SubnetPatch = "application/merge-patch+json"), (SubnetPatch = "application/json"))),
    responses(
        (status = 200, description = "The subnet, changed", body = Subnet, headers(("ETag" = String, description = "Its version"))),
        PutProblems
    )
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    uri: Uri,
    Path(names): Path<SubnetNames>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    edit: MergePatch<SubnetPatch>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::patch(&names.path(), &service.store, &edit, &change, &uri).await
}

/// Deletes a subnet in which nothing but the platform's addresses is reserved.
#[utoipa::path(
    delete, path = "/v1/vnets/{vnet}/subnets/{subnet}", operation_id = "deleteSubnet", tag = "subnets",
    params(SubnetNames, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It is gone"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(names): Path<SubnetNames>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.delete_subnet(&names.path(), &change).await?;
    answer::no_content()
}
