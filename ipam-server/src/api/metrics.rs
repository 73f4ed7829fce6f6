//! `/metrics`: the service in numbers (`OpenMetrics` text).

use super::{
    Service,
    answer::Answer,
    extract::{NoQuery, Query},
    problem::{ANY, ApiError, problems},
};
use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use ipam_api::wire::Capacity;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Media type of the exposition.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: an allocation takes about a millisecond, a plan of a large VNet some hundred.
const BOUNDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Prefix of every name.
const PREFIX: &str = "ipam";

/// One kind of answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

/// What requests have cost since the start.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    registry: Registry,
    answered: Family<Answered, Histogram, fn() -> Histogram>,
}

impl RequestMetrics {
    pub(super) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix(PREFIX);
        let answered: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BOUNDS));
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to the head of its answer",
            Unit::Seconds,
            answered.clone(),
        );
        Arc::new(Self { registry, answered })
    }

    /// A request was answered. `route` is the path as the list of routes has it, so that there are few.
    pub(super) fn answered(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // Any word may stand in a request's place for the method.
        let known = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        let labels = Answered { method: method.to_owned(), route: route.to_owned(), status: status.as_u16() };
        self.answered.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSubnet {
    subnet: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBlocks {
    pool: String,
    state: &'static str,
}

/// The plan in numbers; the states of one subnet add up to its size, those of one pool's blocks to all of them.
fn plan(capacity: &Capacity, conflicts: &BTreeMap<String, u64>) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let addresses: Family<OfSubnet, Gauge> = register(
        &mut registry,
        "subnet_addresses",
        "Addresses of a subnet: free, reserved, planned (of blocks that no node has), claimed (of nodes' blocks)",
    );
    let held: Family<OfPool, Gauge> = register(&mut registry, "addresses_used", "Addresses that pods hold");
    let blocks: Family<OfBlocks, Gauge> = register(
        &mut registry,
        "blocks",
        "Blocks of a pool: planned (no node has it), claimed, deleting (its node ends)",
    );
    let size: Family<OfPool, Gauge> = register(&mut registry, "block_addresses", "Addresses of one block");
    let leaving: Family<OfPool, Gauge> =
        register(&mut registry, "addresses_leaving", "Addresses given up and not yet confirmed empty");
    let strange: Family<OfPool, Gauge> = register(
        &mut registry,
        "addresses_in_conflict",
        "Addresses of blocks at which machines answer that have no right to them",
    );
    let more: Family<OfPool, Gauge> =
        register(&mut registry, "nodes_that_fit", "How many more nodes the pool's subnets have room for");
    let largest: Family<OfSubnetAlone, Gauge> =
        register(&mut registry, "subnet_largest_free", "Addresses of the largest hole of a subnet");

    for subnet in &capacity.subnets {
        let name = subnet.subnet.to_string();
        for (state, number) in [
            ("free", subnet.free),
            ("reserved", subnet.reserved),
            ("planned", subnet.planned),
            ("claimed", subnet.claimed),
        ] {
            addresses.get_or_create(&OfSubnet { subnet: name.clone(), state }).set(count(number));
        }
        largest.get_or_create(&OfSubnetAlone { subnet: name }).set(count(subnet.largest_free));
    }
    for pool in &capacity.pools {
        let of = OfPool { pool: pool.pool.to_string() };
        for (state, number) in [
            ("planned", pool.blocks.saturating_sub(pool.claimed)),
            ("claimed", pool.claimed.saturating_sub(pool.deleting)),
            ("deleting", pool.deleting),
        ] {
            blocks.get_or_create(&OfBlocks { pool: of.pool.clone(), state }).set(count(number));
        }
        held.get_or_create(&of).set(count(pool.used));
        size.get_or_create(&of).set(count(pool.block_size));
        leaving.get_or_create(&of).set(count(pool.leaving));
        strange.get_or_create(&of).set(count(conflicts.get(&of.pool).copied().unwrap_or_default()));
        more.get_or_create(&of).set(count(pool.more_nodes));
    }
    registry
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSubnetAlone {
    subnet: String,
}

fn register<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + Send + Sync + std::fmt::Debug + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

problems! {
    MetricsProblems: ANY;
}

/// Says how requests went and how the plan is used, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "service",
    responses(
        (status = 200, description = "OpenMetrics text", body = String,
         content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        MetricsProblems
    )
)]
pub(crate) async fn get(State(service): State<Service>, Query(NoQuery {}): Query<NoQuery>) -> Answer {
    let plan = plan(&service.store.capacity().await?, &service.store.conflicts().await?);
    let mut store = Registry::with_prefix(PREFIX);
    service.store.register_metrics(&mut store);
    exposition(&[&service.requests.registry, &store, &plan])
}

fn exposition(registries: &[&Registry]) -> Result<Response, ApiError> {
    let mut body = String::new();
    let written = registries
        .iter()
        .try_for_each(|registry| text::encode_registry(&mut body, registry))
        .and_then(|()| text::encode_eof(&mut body));
    written.map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        ApiError::internal()
    })?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response())
}
