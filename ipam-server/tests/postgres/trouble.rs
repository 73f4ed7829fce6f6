//! Others in the way, and connections that end.

use crate::store::{
    WAITING, allocate, cluster, from, keep, number, page, parse, plan, pool, register, replica, stranger,
    until,
};
use ipam_server::{
    clock::SystemClock,
    store::{DatabaseUrl, Store, StoreError},
};
use sqlx::Executor;
use std::sync::Arc;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_undone_is_done_again() {
    // A connection looks for a circle once, when it has waited so long: by then there is one.
    let cluster = cluster(&["deadlock_timeout=5s"]).await;
    let store = replica(&cluster).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    let (mut stranger, mut observer) = (stranger(&cluster).await, stranger(&cluster).await);

    // The other one never looks.
    stranger.execute("SET deadlock_timeout = '1h'").await.unwrap();

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
    store.put_pool(&parse("p"), &pool("v/a", 3), &keep()).await.unwrap();
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
    let clock = Arc::new(SystemClock);
    for (database, word) in [("latin", "ENCODING 'UTF8'"), ("nowhere", "nowhere")] {
        let url = parse::<DatabaseUrl>(&cluster.url(database));
        let error = Store::open(&url, clock.clone()).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
