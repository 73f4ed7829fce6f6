//! Statements whose cost must not rise with the size of the ledger, and how the database goes about them.

use super::{
    Change, Store, addresses, allocations, book, capacity,
    db::{DatabaseUrl, Db, Sql},
    events, nodes, pools, reservations, tiling, tokens, told, usage,
};
use crate::clock::SystemClock;
use ipam_api::names::SubnetPath;
use serde::de::DeserializeOwned;
use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use testdb::Raw;

/// Tables that grow with nodes and pods, and with time.
const LARGE: [&str; 7] = ["extent", "allocation", "node", "block", "last_sync", "token", "event"];

/// Nodes in each pool of a filled ledger, and addresses held of each.
const NODES: i64 = 50;
const HELD: i64 = 4;

async fn migrated(path: &Path) -> SqliteConnection {
    let db = Db::open(&DatabaseUrl::Sqlite(path.to_owned())).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// How the database would go about a statement.
async fn steps(connection: &mut SqliteConnection, sql: &'static str) -> Vec<String> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| row.get("detail")).collect()
}

/// The steps of a statement that read all of a large table, or all of its rows of one subnet where it
/// has no business there. What the database does for foreign keys is among the steps.
async fn scans(connection: &mut SqliteConnection, sql: &'static str) -> Vec<String> {
    let steps = steps(connection, sql).await;
    let words: Vec<&str> = sql.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // Tables by the names that the statement gives them.
    let aliases: BTreeSet<&str> = words
        .windows(3)
        .filter(|w| LARGE.contains(&w[0]) && w[1] == "AS")
        .map(|w| w[2])
        .chain(LARGE)
        .collect();
    steps
        .into_iter()
        .filter(|step| {
            let mut words = step.split_whitespace();
            let (Some(how), Some(table)) = (words.next(), words.next()) else { return false };
            let all = how == "SCAN" && aliases.contains(table);
            // Foreign keys name the table itself, and it is theirs that must not read a subnet's every row.
            let all_of_subnet = how == "SEARCH" && LARGE.contains(&table) && step.ends_with("(subnet=?)");
            all || all_of_subnet
        })
        .collect()
}

/// Every statement whose cost must not rise.
fn all() -> Vec<Sql> {
    [
        tiling::statements(),
        pools::statements(),
        nodes::statements(),
        book::statements(),
        addresses::statements(),
        reservations::statements(),
        allocations::statements(),
        events::statements(),
        tokens::statements(),
        told::statements(),
        usage::statements(),
    ]
    .concat()
}

#[tokio::test]
async fn no_statement_reads_the_whole_ledger() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = migrated(&dir.path().join("ipam.db")).await;
    for sql in all() {
        assert_eq!(scans(&mut connection, sql.sqlite).await, [""; 0], "{}", sql.sqlite);
    }
}

/// Nor does what is summed up of every subnet read more than what is summed up.
#[tokio::test]
async fn what_is_few_is_summed_up_without_reading_the_rest() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = migrated(&dir.path().join("ipam.db")).await;
    for sql in capacity::statements() {
        let steps = steps(&mut connection, sql.sqlite).await;
        for index in ["extent_free", "extent_reserved", "extent_leaving", "node_deleting"] {
            assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:#?}");
        }
        let whole = |step: &&String| step.contains("autoindex_extent") || step.starts_with("SCAN going");
        assert_eq!(steps.iter().find(whole), None);
    }
}

/// A filled ledger of so many pools, in which everything is counted for the planner.
async fn filled(file: &Path, pools: i64) -> SqliteConnection {
    let store = Store::open(&DatabaseUrl::Sqlite(file.to_owned()), Arc::new(SystemClock)).await.unwrap();
    let keep = Change::default();
    let vnet = from(json!({"addressSpace": ["10.0.0.0/8"]}));
    store.put_vnet(&"v".parse().unwrap(), &vnet, &keep).await.unwrap();
    for i in 0..pools {
        let subnet = format!("v/s{i}");
        let path: SubnetPath = subnet.parse().unwrap();
        let cidrs = from(json!({"cidrs": [format!("10.{i}.0.0/20")]}));
        store.put_subnet(&path, &cidrs, &keep).await.unwrap();
        let (first, last) = (format!("10.{i}.0.4"), format!("10.{i}.0.103"));
        let own = from(json!({"first": first, "last": last, "reason": "nodes", "forNodes": true}));
        store.put_reservation(&path, &"nodes".parse().unwrap(), &own, &keep).await.unwrap();
        let nodes = NODES + 10;
        let pool = from(json!({"subnets": [{"subnet": subnet}], "maxPods": 8, "nodes": nodes, "surge": 0}));
        store.put_pool(&format!("p{i}").parse().unwrap(), &pool, &keep).await.unwrap();
    }
    store.close().await;
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(true);
    let mut raw = Raw::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
    testdb::fill(&mut raw, NODES, HELD).await;
    assert_eq!(raw.number("SELECT COUNT(*) FROM allocation").await, pools * NODES * HELD);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Nor when the database knows how much is in it. (PostgreSQL's way is in `tests/postgres/plans.rs`.)
#[tokio::test]
async fn no_statement_reads_a_filled_ledger_whole() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = filled(&dir.path().join("ipam.db"), 40).await;
    for sql in all() {
        assert_eq!(scans(&mut connection, sql.sqlite).await, [""; 0], "{}", sql.sqlite);
    }
}

/// Nor is a list read for every row of a table, which would be the way to go if the ledger were as small as it was when
/// somebody had it counted. (What changes rows by a list is not looked at, nor a list in values.)
#[tokio::test]
async fn whatever_is_asked_by_a_list_begins_with_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = filled(&dir.path().join("ipam.db"), 1).await;
    let mut wrong = Vec::new();
    for sql in all().into_iter().filter(|sql| !sql.sqlite.trim_start().starts_with("UPDATE")) {
        if !begins_with_its_list(&mut connection, sql.sqlite).await {
            wrong.push(sql.sqlite);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn begins_with_its_list(connection: &mut SqliteConnection, sql: &'static str) -> bool {
    let steps = steps(connection, sql).await;
    let is_list = |step: &String| step.contains("VIRTUAL TABLE");
    let is_loop = |step: &String| step.starts_with("SCAN") || step.starts_with("SEARCH");
    // Of two lists each has a part of its own; one that is a set is made once.
    let apart = |step: &String| step.contains("UNION") || step.contains("LIST SUBQUERY");
    !steps.iter().any(is_list)
        || steps.iter().any(apart)
        || steps.iter().find(|step| is_loop(step)).is_some_and(is_list)
}

fn from<T: DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// Events are read far from the end of their order: those of a thing or an actor without those between.
#[tokio::test]
async fn events_of_a_thing_or_an_actor_are_read_by_index() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = migrated(&dir.path().join("ipam.db")).await;
    let fill = "WITH RECURSIVE count(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM count WHERE i < 20000)
        INSERT INTO event (at, actor, source, action, subject, became)
        SELECT i, 'a' || i % 7, 's', 'create', 'node/' || i % 500, '{}' FROM count";
    sqlx::query(fill).execute(&mut connection).await.unwrap();
    for (sql, index) in events::OF_THING_AND_ACTOR {
        let steps = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let steps: Vec<String> = steps.iter().map(|row| row.get("detail")).collect();
        // In the order of the index, so that a page ends where it is full.
        assert_eq!(steps.len(), 1, "{sql}: {steps:?}");
        assert!(steps[0].contains(index), "{sql}: {steps:?}");
    }
}

#[tokio::test]
async fn a_scan_is_seen() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = migrated(&dir.path().join("ipam.db")).await;
    for sql in [
        "SELECT * FROM allocation WHERE pod_uid = $1",
        "SELECT e.first FROM extent AS e WHERE e.next = $1",
        "DELETE FROM node WHERE mac = $1",
        "SELECT * FROM token WHERE name = $1",
        "SELECT e.id FROM event AS e WHERE e.token = $1",
    ] {
        assert_ne!(scans(&mut connection, sql).await, [""; 0], "{sql}");
    }
    sqlx::query("DROP INDEX extent_by_block").execute(&mut connection).await.unwrap();
    sqlx::query("CREATE INDEX extent_by_block ON extent (block)").execute(&mut connection).await.unwrap();
    let sql = "DELETE FROM block WHERE id = $1";
    assert_ne!(scans(&mut connection, sql).await, [""; 0], "the foreign key of a deleted block");
}
