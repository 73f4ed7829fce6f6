//! Statements whose cost must not rise with the size of the ledger, and how the database goes about them.

use super::{
    addresses, allocations, book,
    db::{DatabaseUrl, Db},
    nodes, pools, reservations, tiling,
};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{collections::BTreeSet, path::Path};

/// Tables that grow with nodes and pods.
const LARGE: [&str; 4] = ["extent", "allocation", "node", "block"];

async fn migrated(path: &Path) -> SqliteConnection {
    let db = Db::open(&DatabaseUrl::Sqlite(path.to_owned())).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// The steps of a statement that read all of a large table, or all of its rows of one subnet where it
/// has no business there. What the database does for foreign keys is among the steps.
async fn scans(connection: &mut SqliteConnection, sql: &'static str) -> Vec<String> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let words: Vec<&str> = sql.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // Tables by the names that the statement gives them.
    let aliases: BTreeSet<&str> = words
        .windows(3)
        .filter(|w| LARGE.contains(&w[0]) && w[1] == "AS")
        .map(|w| w[2])
        .chain(LARGE)
        .collect();
    rows.iter()
        .map(|row| row.get::<String, _>("detail"))
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

#[tokio::test]
async fn no_statement_reads_the_whole_ledger() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut connection = migrated(&dir.path().join("ipam.db")).await;
    let statements = [
        tiling::STATEMENTS,
        &pools::statements(),
        &nodes::statements(),
        &book::statements(),
        addresses::STATEMENTS,
        reservations::STATEMENTS,
        allocations::STATEMENTS,
    ]
    .concat();
    for sql in statements {
        assert_eq!(scans(&mut connection, sql).await, [""; 0], "{sql}");
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
    ] {
        assert_ne!(scans(&mut connection, sql).await, [""; 0], "{sql}");
    }
    sqlx::query("DROP INDEX extent_by_block").execute(&mut connection).await.unwrap();
    sqlx::query("CREATE INDEX extent_by_block ON extent (block)").execute(&mut connection).await.unwrap();
    let sql = "DELETE FROM block WHERE id = $1";
    assert_ne!(scans(&mut connection, sql).await, [""; 0], "the foreign key of a deleted block");
}
