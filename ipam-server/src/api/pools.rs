//! `/v1/pools`: classes of nodes and the blocks reserved for them.

use super::{
    Service,
    answer::{self, Answer, Editable},
    caller::Caller,
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, MergePatch, NoQuery, PageQuery, Path, Query,
        RequestBody,
    },
    problem::{ANY, BODY, NAMED, SHORTAGE, problems},
};
use crate::store::{Change, Result, Store, Versioned, Written};
use axum::{extract::State, http::Uri};
use ipam_api::{
    names::PoolName,
    wire::{FieldError, Listing, Pool, PoolPatch, PoolSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A pool by its name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct PoolPath {
    /// The pool.
    #[param(inline)]
    pool: PoolName,
}

impl RequestBody for PoolSpec {
    fn check(&self) -> Vec<FieldError> {
        super::extract::not_empty("/subnets", &self.subnets).into_iter().collect()
    }
}
impl RequestBody for PoolPatch {}

impl Editable for PoolPath {
    type Spec = PoolSpec;
    type View = Pool;

    fn spec(view: Pool) -> PoolSpec {
        view.spec
    }

    async fn read(&self, store: &Store) -> Result<Versioned<Pool>> {
        store.pool(&self.pool).await
    }

    async fn write(
        &self,
        store: &Store,
        spec: &PoolSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Pool>>> {
        store.put_pool(&self.pool, spec, change).await
    }
}

problems! {
    ListProblems: ANY;
    GetProblems: ANY, NAMED;
    PutProblems: ANY, BODY, NAMED, SHORTAGE, [Overlap, InUse, Exists, PreconditionFailed];
    DeleteProblems: ANY, NAMED, [InUse, PreconditionFailed];
}

/// Lists pools by name.
#[utoipa::path(
    get, path = "/v1/pools", operation_id = "listPools", tag = "pools",
    params(PageQuery),
    responses((status = 200, description = "A page of pools", body = Listing<Pool>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<PageQuery>) -> Answer {
    answer::list(service.store.pools(&query.page()).await?)
}

/// Reads a pool.
#[utoipa::path(
    get, path = "/v1/pools/{pool}", operation_id = "getPool", tag = "pools",
    params(PoolPath),
    responses(
        (status = 200, description = "The pool", body = Pool, headers(("ETag" = String, description = "Its version"))),
        GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(path): Path<PoolPath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::live(&service.store.pool(&path.pool).await?)
}

/// Makes a pool and reserves all its blocks, or changes it; all at once or not at all.
///
/// Raising `nodes` reserves more and moves nothing; lowering gives unclaimed blocks back and, below what is
/// claimed, leaves the pool over its plan until nodes leave. Blocks that nodes have claimed follow `maxPods` and
/// `headroom`, as with PATCH. A pool has at most 262,144 blocks (nodes and surge).
#[utoipa::path(
    put, path = "/v1/pools/{pool}", operation_id = "putPool", tag = "pools",
    params(PoolPath, ChangeQuery, ConditionHeaders), request_body = PoolSpec,
    responses(
        (status = 200, description = "The pool, changed", body = Pool, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "The pool, made", body = Pool, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Where it is")
        )),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<PoolPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    Body(spec): Body<PoolSpec>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::put(&service.store.put_pool(&path.pool, &spec, &change).await?, &uri)
}

/// Edits a pool: scales it, for one.
///
/// `maxPods` and `headroom` change the blocks that nodes have claimed as well. They grow in this request, all of
/// them or none: where they lie if the next addresses are free, else by another range, which
/// `contiguous: required` and `alignment: prefix` do not allow. When they shrink they keep their lowest addresses; the
/// others are shown as `leaving` until each node has confirmed that no pod is left there. Addresses that the service itself
/// picked (`allocator: service`) have to be given back first. Nodes being deleted keep the block they have.
#[utoipa::path(
    patch, path = "/v1/pools/{pool}", operation_id = "patchPool", tag = "pools",
    params(PoolPath, ChangeQuery, ConditionHeaders),
    request_body(content((PoolPatch = "application/merge-patch+json"), (PoolPatch = "application/json"))),
    responses(
        (status = 200, description = "The pool, changed", body = Pool, headers(("ETag" = String, description = "Its version"))),
        PutProblems
    )
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    uri: Uri,
    Path(path): Path<PoolPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
    edit: MergePatch<PoolPatch>,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    answer::patch(&path, &service.store, &edit, &change, &uri).await
}

/// Deletes a pool without nodes and gives its blocks back.
#[utoipa::path(
    delete, path = "/v1/pools/{pool}", operation_id = "deletePool", tag = "pools",
    params(PoolPath, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It is gone"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<PoolPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.delete_pool(&path.pool, &change).await?;
    answer::no_content()
}
