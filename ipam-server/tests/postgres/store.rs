//! Stores on one database, and what every test says in few words.

use ipam_api::{
    names::Attachment,
    wire::{AllocationSpec, Allocator, NodeSpec, PoolSpec},
};
use ipam_server::{
    clock::SystemClock,
    store::{Change, DatabaseUrl, NodeCall, Page, Result, Store},
};
use sqlx::{Connection, PgConnection, Row};
use std::{
    fmt::Debug,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};
use testdb::{Cluster, Durability};

pub(crate) fn parse<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn keep() -> Change {
    Change::default()
}

/// A cluster with one empty database, [`DATABASE`].
pub(crate) async fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(Durability::Unneeded, settings).await;
    cluster.create(DATABASE, "template0").await;
    cluster
}

pub(crate) const DATABASE: &str = "ipam";

/// A store of one replica.
pub(crate) async fn replica(cluster: &Cluster) -> Store {
    Store::open(&parse::<DatabaseUrl>(&cluster.url(DATABASE)), Arc::new(SystemClock)).await.unwrap()
}

/// A connection of somebody else, who may do everything.
pub(crate) async fn stranger(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url(DATABASE).replace("user=ipam", "user=postgres")).await.unwrap()
}

/// VNet `v` with a subnet `v/a` whose nodes have their own addresses behind `10.0.0.3`, and a pool `p` of nodes with
/// eight pods each.
pub(crate) async fn plan(store: &Store, nodes: u64) {
    let vnet = from(r#"{"addressSpace": ["10.0.0.0/8"]}"#);
    store.put_vnet(&parse("v"), &vnet, &keep()).await.unwrap();
    add_subnet(store, "a", "10.0.0.0/16", 254).await;
    store.put_pool(&parse("p"), &pool("v/a", nodes), &keep()).await.unwrap();
}

/// A subnet with so many addresses for nodes.
pub(crate) async fn add_subnet(store: &Store, name: &str, cidr: &str, for_nodes: u32) {
    let path = parse(&format!("v/{name}"));
    store.put_subnet(&path, &from(&format!(r#"{{"cidrs": ["{cidr}"]}}"#)), &keep()).await.unwrap();
    let (network, _) = cidr.split_once('/').unwrap();
    let first: Ipv4Addr = parse(network);
    let at = |offset: u32| Ipv4Addr::from(u32::from(first) + offset);
    let nodes = format!(
        r#"{{"first": "{}", "last": "{}", "reason": "nodes", "forNodes": true}}"#,
        at(4),
        at(3 + for_nodes)
    );
    store.put_reservation(&path, &parse("nodes"), &from(&nodes), &keep()).await.unwrap();
}

pub(crate) fn pool(subnet: &str, nodes: u64) -> PoolSpec {
    from(&format!(
        r#"{{"subnets": [{{"subnet": "{subnet}"}}], "maxPods": 8, "nodes": {nodes}, "surge": 0, "nodeAddress": "assigned"}}"#
    ))
}

pub(crate) fn from<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

/// A node for which the service picks.
pub(crate) fn node(pool: &str) -> NodeSpec {
    NodeSpec {
        pool: parse(pool),
        addresses: vec![],
        mac: None,
        uid: None,
        replace: false,
        allocator: Allocator::Service,
    }
}

pub(crate) async fn register(store: &Store, name: &str) {
    store.put_node(&parse(name), &node("p"), &keep()).await.unwrap();
}

pub(crate) fn attachment(container: &str) -> Attachment {
    Attachment { network: parse("default"), container_id: parse(container), if_name: parse("eth0") }
}

/// The address that the service picks.
pub(crate) async fn allocate(store: &Store, node: &str, container: &str) -> Result<IpAddr> {
    let call = NodeCall { node: parse(node), stamp: None };
    let held = store.allocate(&call, &attachment(container), &AllocationSpec::default()).await?;
    Ok(held.into_inner().addresses[0].address)
}

pub(crate) fn page() -> Page {
    Page { limit: 1000, after: None }
}

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
}

/// Waits until a query answers a number.
pub(crate) async fn until(connection: &mut PgConnection, sql: &'static str, wanted: i64) {
    let began = Instant::now();
    while number(connection, sql).await != wanted {
        assert!(began.elapsed() < DEADLINE, "never {wanted}: {sql}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many connections of the service wait for a lock.
pub(crate) const WAITING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'ipam-server'
    AND wait_event_type = 'Lock'";
