//! Others in the way, and connections that end.

use crate::store::{allocate, cluster, from, keep, parse, plan, register, replica, stranger};
use ipam_server::store::StoreError;
use sqlx::{Executor, PgConnection, Row};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use testdb::Cluster;

const DEADLINE: Duration = Duration::from_secs(60);

async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
}

/// Waits until a query answers a number.
async fn until(connection: &mut PgConnection, sql: &'static str, wanted: i64) {
    let began = Instant::now();
    while number(connection, sql).await != wanted {
        assert!(began.elapsed() < DEADLINE, "never {wanted}: {sql}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const WAITING: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'ipam-server'
    AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_migrate_once() {
    let cluster = cluster(&[]).await;
    let stores = futures::future::join_all((0..3).map(|_| replica(&cluster))).await;
    let mut stranger = stranger(&cluster).await;
    let sql = "SELECT COUNT(*) - COUNT(DISTINCT version) FROM _sqlx_migrations";
    assert_eq!(number(&mut stranger, sql).await, 0);
    plan(&stores[0], 3).await;
    for (i, store) in stores.iter().enumerate() {
        register(store, &format!("n{i}")).await;
    }
    assert_eq!(stores[2].pools(&page()).await.unwrap().items[0].status.claimed, 3);
}

fn page() -> ipam_server::store::Page {
    ipam_server::store::Page { limit: 1000, after: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_undone_is_done_again() {
    let cluster = cluster(&[]).await;
    let store = replica(&cluster).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    let (mut stranger, mut observer) = (stranger(&cluster).await, stranger(&cluster).await);

    // Somebody who takes the locks the other way round: the database ends the circle.
    stranger.execute("BEGIN; UPDATE counter SET value = value WHERE name = 'change'").await.unwrap();
    let planner = store.clone();
    let vnet = from(r#"{"addressSpace": ["172.16.0.0/16"]}"#);
    let planning = tokio::spawn(async move { planner.put_vnet(&parse("w"), &vnet, &keep()).await });
    until(&mut observer, WAITING, 1).await;
    stranger.execute("SELECT pg_advisory_xact_lock_shared(1229996365, 1)").await.unwrap();
    stranger.execute("COMMIT").await.unwrap();
    planning.await.unwrap().unwrap();
    assert_eq!(store.undone(), 1);

    // The same in the hot path.
    stranger.execute("BEGIN; SELECT id FROM block FOR UPDATE").await.unwrap();
    let holder = store.clone();
    let holding = tokio::spawn(async move { allocate(&holder, "n", "c").await });
    until(&mut observer, WAITING, 1).await;
    stranger.execute("UPDATE node SET mac = mac").await.unwrap();
    stranger.execute("COMMIT").await.unwrap();
    holding.await.unwrap().unwrap();
    assert_eq!(store.undone(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ended_idle_are_not_noticed() {
    let cluster = cluster(&[]).await;
    let store = replica(&cluster).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    let mut stranger = stranger(&cluster).await;
    let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'ipam-server'";
    for round in 0..3 {
        allocate(&store, "n", &format!("c{round}")).await.unwrap();
        assert!(number(&mut stranger, count).await > 0);
        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'ipam-server'";
        number(&mut stranger, end).await;
        until(&mut stranger, count, 0).await;
        store.ping().await.unwrap();
    }
    store.put_pool(&parse("p"), &crate::store::pool("v/a", 3), &keep()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_ends_halfway_is_an_outage_and_may_be_asked_again() {
    let cluster = cluster(&[]).await;
    let store = replica(&cluster).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    let (mut stranger, mut observer) = (stranger(&cluster).await, stranger(&cluster).await);
    stranger.execute("BEGIN; UPDATE node SET mac = mac").await.unwrap();
    let holder = store.clone();
    let holding = tokio::spawn(async move { allocate(&holder, "n", "c").await });
    until(&mut observer, WAITING, 1).await;
    let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'ipam-server' AND wait_event_type = 'Lock'";
    number(&mut observer, end).await;
    let outcome = holding.await.unwrap();
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    stranger.execute("ROLLBACK").await.unwrap();
    allocate(&store, "n", "c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_an_outage_and_comes_back() {
    let mut cluster = cluster(&[]).await;
    let store = replica(&cluster).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    let held = allocate(&store, "n", "c").await.unwrap();
    cluster.stop();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let outcome = allocate(&store, "n", "d").await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    let outcome = store.vnets(&page()).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    cluster.run().await;
    store.ping().await.unwrap();
    assert_eq!(allocate(&store, "n", "c").await.unwrap(), held, "asked again, answered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_worked_with_is_refused_at_the_start() {
    let cluster = cluster(&[]).await;
    let mut admin = cluster.admin().await;
    let latin = "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' OWNER ipam";
    admin.execute(latin).await.unwrap();
    let clock = std::sync::Arc::new(ipam_server::clock::SystemClock);
    for (database, word) in [("latin", "ENCODING 'UTF8'"), ("nowhere", "nowhere")] {
        let url = parse::<ipam_server::store::DatabaseUrl>(&cluster.url(database));
        let error = ipam_server::store::Store::open(&url, clock.clone()).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Two replicas pick for the same nodes at the same time, while both plan.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_give_no_address_twice() {
    let cluster = cluster(&[]).await;
    let (one, two) = (replica(&cluster).await, replica(&cluster).await);
    plan(&one, 8).await;
    for i in 0..4 {
        register(&one, &format!("n{i}")).await;
    }
    let mut tasks = Vec::new();
    for pod in 0..48 {
        let store = if pod % 2 == 0 { one.clone() } else { two.clone() };
        tasks.push(tokio::spawn(async move {
            allocate(&store, &format!("n{}", pod % 4), &format!("c{pod}")).await
        }));
    }
    let planners =
        [(one.clone(), "m0", 9), (two.clone(), "m1", 10), (one, "m2", 11), (two.clone(), "m3", 12)];
    let planning = planners.map(|(store, name, nodes)| {
        tokio::spawn(async move {
            store.put_pool(&parse("p"), &crate::store::pool("v/a", nodes), &keep()).await.unwrap();
            register(&store, name).await;
        })
    });
    let (mut held, mut full) = (BTreeSet::new(), 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(address) => assert!(held.insert(address), "{address} twice"),
            Err(StoreError::Exhausted(_)) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    for task in planning {
        task.await.unwrap();
    }
    assert_eq!((held.len(), full), (32, 16), "eight of each node");
    let nodes = two.nodes(&Default::default(), &page()).await.unwrap().items;
    let claims: BTreeSet<u64> = nodes.iter().map(|node| node.claim.0).collect();
    assert_eq!((nodes.len(), claims.len()), (8, 8));
    check(&cluster).await;
}

async fn check(cluster: &Cluster) {
    let mut stranger = stranger(cluster).await;
    let own = "SELECT COUNT(own4) - COUNT(DISTINCT own4) FROM node";
    assert_eq!(number(&mut stranger, own).await, 0, "own addresses twice");
    let gaps = "SELECT COUNT(*) FROM subnet s
        WHERE s.length <> (SELECT SUM(next - first) FROM extent WHERE subnet = s.id)";
    assert_eq!(number(&mut stranger, gaps).await, 0, "gaps");
}
