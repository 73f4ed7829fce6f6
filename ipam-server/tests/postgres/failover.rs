//! Trouble of the database under load: clients of two replicas hear success or 503, nothing acknowledged is lost, and no
//! address is given twice.

use crate::{
    service::{Load, Replica, recorded},
    store::{
        DATABASE, add_subnet, allocate, attachment, cluster, from, keep, number, parse, plan, register,
        stranger, until,
    },
};
use ipam_server::{
    clock::SystemClock,
    store::{DatabaseUrl, NodeCall, Store, StoreError},
};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use testdb::Cluster;

/// The place that does not change when the database moves: what users have a virtual address for is here a link to the
/// server's directory.
struct Place(TempDir);

impl Place {
    fn of(cluster: &Cluster) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.lead_to(cluster);
        place
    }

    fn link(&self) -> PathBuf {
        self.0.path().join("database")
    }

    fn lead_to(&self, cluster: &Cluster) {
        let new = self.0.path().join("new");
        symlink(cluster.directory(), &new).unwrap();
        fs::rename(new, self.link()).unwrap();
    }

    fn url(&self) -> String {
        url(&self.link())
    }
}

fn url(directory: &Path) -> String {
    format!("postgres:///{DATABASE}?host={}&user=ipam", directory.display())
}

const END: &str =
    "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'ipam-server'";

/// Connections of the service whose COMMIT waits for the standby.
const UNCONFIRMED: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'ipam-server' AND wait_event = 'SyncRep'";

/// A primary with a standby that has everything before a client hears of it.
async fn pair() -> (Cluster, Cluster) {
    let primary = cluster(&[]).await;
    let standby = primary.standby(&[]).await;
    synchronous(&primary).await;
    (primary, standby)
}

async fn synchronous(primary: &Cluster) {
    let mut admin = primary.admin().await;
    admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    until(&mut admin, "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'", 1).await;
}

async fn promote(standby: &Cluster) {
    assert_eq!(number(&mut standby.admin().await, "SELECT pg_promote()::INT::BIGINT").await, 1);
}

async fn store(url: &str) -> Store {
    Store::open(&parse::<DatabaseUrl>(url), Arc::new(SystemClock)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_has_all_that_was_acknowledged() {
    let (mut primary, standby) = pair().await;
    let place = Place::of(&primary);
    let replicas = [(); 2].map(|()| Replica::start(&place.url()));
    let load = Load::start(&replicas);
    load.go_on(100);
    primary.kill();
    for replica in &replicas {
        assert_eq!((replica.status("/livez"), replica.status("/readyz")), (200, 503));
    }
    // Whoever moves the address may be faster than whoever promotes: what only reads is no database for the service.
    place.lead_to(&standby);
    for replica in &replicas {
        assert_eq!((replica.status("/readyz"), replica.status("/v1/vnets")), (503, 503));
    }
    promote(&standby).await;
    for replica in &replicas {
        replica.until_ready(200);
    }
    load.go_on(100);
    assert_eq!(load.cut(), 0, "every request has an answer");
    let believed = load.finish();
    assert_eq!(recorded(&replicas[0].address), believed);

    // As the tables have it, whatever the service says.
    let mut connection = stranger(&standby).await;
    let held = "SELECT COUNT(*) - COUNT(DISTINCT (subnet, at_offset)) FROM allocation WHERE state = 'held'";
    assert_eq!(number(&mut connection, held).await, 0);
    assert_eq!(store(&place.url()).await.consistency().await.unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_ends_connections_or_has_none_left_is_waited_for() {
    let mut server = cluster(&["max_connections=30"]).await;
    let database = server.url(DATABASE);
    let replicas = [(); 2].map(|()| Replica::start(&database));
    let load = Load::start(&replicas);
    load.go_on(50);

    for _ in 0..2 {
        server.stop();
        assert_eq!(replicas[0].status("/readyz"), 503);
        server.run().await;
        load.go_on(50);
    }

    let mut admin = server.admin().await;
    for _ in 0..10 {
        assert!(number(&mut admin, END).await > 0);
        load.go_on(10);
    }

    // Somebody else has every connection that is left, then all of them.
    let mut others = Vec::new();
    while let Ok(connection) = PgConnection::connect(&database).await {
        others.push(connection);
    }
    number(&mut admin, END).await;
    while let Ok(connection) = PgConnection::connect(&database).await {
        others.push(connection);
    }
    assert_eq!(replicas[0].status("/livez"), 200);
    drop(others);
    for replica in &replicas {
        replica.until_ready(200);
    }
    load.go_on(100);
    assert_eq!(load.cut(), 0, "every request has an answer");
    let believed = load.finish();
    assert_eq!(recorded(&replicas[1].address), believed);
    assert_eq!(store(&database).await.consistency().await.unwrap().findings, []);
}

/// The primary keeps a transaction whose connection ends while it waits for the standby, and shows it to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_standby_may_not_have_is_not_acknowledged_when_asked_again() {
    let (primary, mut standby) = pair().await;
    let place = Place::of(&primary);
    let store = store(&place.url()).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    allocate(&store, "n", "held").await.unwrap();
    let mut admin = primary.admin().await;
    standby.stop();

    let vnet = || {
        let store = store.clone();
        tokio::spawn(async move {
            let spec = from(r#"{"addressSpace": ["192.168.0.0/16"]}"#);
            store.put_vnet(&parse("w"), &spec, &keep()).await.map(|_| ())
        })
    };
    let hold = || {
        let store = store.clone();
        tokio::spawn(async move { allocate(&store, "n", "c").await.map(|_| ()) })
    };
    let release = || {
        let store = store.clone();
        let call = NodeCall { node: parse("n"), stamp: None };
        tokio::spawn(async move { store.release(&call, &attachment("held"), None).await })
    };
    for asked in [&vnet as &dyn Fn() -> _, &hold, &release] {
        let first = asked();
        until(&mut admin, UNCONFIRMED, 1).await;
        number(&mut admin, END).await;
        assert!(matches!(first.await.unwrap(), Err(StoreError::Unavailable(_))));
        until(&mut admin, UNCONFIRMED, 0).await;
        let again = asked();
        until(&mut admin, UNCONFIRMED, 1).await;
        assert!(!again.is_finished());
        number(&mut admin, END).await;
        assert!(matches!(again.await.unwrap(), Err(StoreError::Unavailable(_))));
        until(&mut admin, UNCONFIRMED, 0).await;
    }
    // It waits while it can be read, and says so.
    let ready = {
        let store = store.clone();
        tokio::spawn(async move { store.ping().await })
    };
    assert!(matches!(ready.await.unwrap(), Err(StoreError::Unavailable(_))));
    standby.run().await;
    for asked in [&vnet as &dyn Fn() -> _, &hold, &release] {
        asked().await.unwrap().unwrap();
    }
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_server_that_only_reads_is_not_kept() {
    let (primary, standby) = pair().await;
    let place = Place::of(&primary);
    let store = store(&place.url()).await;
    plan(&store, 2).await;
    register(&store, "n").await;
    // Every connection from now on leads elsewhere.
    place.lead_to(&standby);
    let mut admin = primary.admin().await;
    assert!(number(&mut admin, END).await > 0);
    for outcome in [
        store.ping().await.err(),
        allocate(&store, "n", "c").await.err(),
        store.put_vnet(&parse("w"), &from(r#"{"addressSpace": ["192.168.0.0/16"]}"#), &keep()).await.err(),
    ] {
        assert!(matches!(outcome, Some(StoreError::Unavailable(_))), "{outcome:?}");
    }
    place.lead_to(&primary);
    store.ping().await.unwrap();
    allocate(&store, "n", "c").await.unwrap();
    add_subnet(&store, "b", "10.1.0.0/16", 4).await;
}
