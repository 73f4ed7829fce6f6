//! PostgreSQL: a server that several replicas of the service share.
//!
//! What a transaction decides on must not change under its hands. SQLite has one writer; here locks
//! do it, taken in one order: the plan, then nodes by their ids, then the uses of tokens. Whoever plans has the plan
//! alone, everybody else who writes has it together with others of its kind. So transactions of one service never
//! wait for each other in a circle, and each sees what those before it have committed (READ COMMITTED takes
//! a snapshot a statement, after the lock).

use super::{Migrated, PostgresUrl, Scope, steps::run};
use crate::store::{Result, StoreError};
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres,
    migrate::{Migrate, MigrateError, Migrator},
    pool::PoolConnection,
    postgres::PgPoolOptions,
};
use std::time::Duration;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// The oldest release line that its makers still mend.
const OLDEST: i64 = 14;

// Each in one round trip with the lock that it begins with, and a statement of its own for what was committed before the
// lock was had. Advisory locks of the database: 1229996365 is "IPAM" in ASCII, so that no other program's are meant.
const PLAN_ALONE: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock(1229996365, 1)";
const PLAN_SHARED: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock_shared(1229996365, 1)";
const USES_ALONE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SELECT pg_advisory_xact_lock_shared(1229996365, 1), pg_advisory_xact_lock(1229996365, 2)";
/// One snapshot for all statements.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Batches of the hot path at once: while one is flushed to disk the next is decided.
pub(super) const BATCHES: u32 = 4;

/// Settings of every connection.
const SETTINGS: [(&str, &str); 7] = [
    // An answer is given when its transaction is on disk, whatever is usual on this server.
    ("synchronous_commit", "on"),
    // A replica that vanished without a word must not hold its locks for ever.
    ("idle_in_transaction_session_timeout", "30s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // Whoever waits longer is better told to come again.
    ("lock_timeout", "10s"),
    // Statements are short; compiling one takes longer than running it.
    ("jit", "off"),
];

/// More of them for those that write. They touch few rows of large tables, and find them by an index whatever the
/// statistics say, which lag behind tables that are being filled.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")];

/// Connections by what they are for, so that none of these starves another.
#[derive(Debug, Clone)]
pub(in crate::store) struct PostgresDb {
    /// Plans are made one at a time: more connections would only wait for the lock.
    planner: PgPool,
    writers: PgPool,
    readers: PgPool,
}

impl PostgresDb {
    pub(super) async fn open(url: &PostgresUrl) -> Result<Self> {
        let mut options = url.options()?.statement_cache_capacity(256).options(SETTINGS);
        if options.get_application_name().is_none() {
            options = options.application_name("ipam-server");
        }
        // Not by a pool, which would try until its time is up and not say why it could not.
        let mut first = PgConnection::connect_with(&options).await?;
        check(&mut first).await?;
        first.close().await?;
        let writing = options.clone().options(BY_INDEX);
        Ok(Self {
            planner: pool(1).connect_lazy_with(writing.clone()),
            writers: pool(4).connect_lazy_with(writing),
            readers: pool(8).connect_lazy_with(options),
        })
    }

    /// Replicas that start at once wait for each other (an advisory lock of sqlx's), as long as it takes.
    pub(super) async fn migrate(&self) -> Result<Migrated, MigrateError> {
        let mut connection = self.planner.acquire().await?.detach();
        connection.execute("SET lock_timeout = 0").await?;
        // Taken once more by sqlx: who has it may.
        connection.lock().await?;
        let migrated = run(&MIGRATIONS, &mut connection).await?;
        // The lock ends with the connection.
        connection.close().await?;
        Ok(migrated)
    }

    pub(super) async fn write(&self, scope: Scope) -> Result<PostgresTx> {
        let (pool, statement) = match scope {
            Scope::Plan => (&self.planner, PLAN_ALONE),
            Scope::Nodes => (&self.writers, PLAN_SHARED),
            Scope::Uses => (&self.writers, USES_ALONE),
        };
        begin(pool, statement).await
    }

    pub(super) async fn read(&self) -> Result<PostgresTx> {
        begin(&self.readers, READ).await
    }

    pub(super) async fn close(&self) {
        for pool in [&self.readers, &self.writers, &self.planner] {
            pool.close().await;
        }
    }
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        // As long as a caller is kept waiting for a server that is not there.
        .acquire_timeout(Duration::from_secs(5))
        // `begin` finds out by itself, without a round trip more.
        .test_before_acquire(false)
}

/// Begins a transaction. Connections that ended while they lay idle (the server was restarted) are
/// left behind: nothing has happened on them yet.
async fn begin(pool: &PgPool, statements: &'static str) -> Result<PostgresTx> {
    let mut idle = pool.num_idle();
    loop {
        let mut tx = PostgresTx { connection: Some(pool.acquire().await?) };
        match tx.connection()?.execute(statements).await {
            Ok(_) => return Ok(tx),
            Err(error) => match StoreError::from(error) {
                StoreError::Unavailable(_) if idle > 0 => idle -= 1,
                error => return Err(error),
            },
        }
    }
}

/// A transaction. sqlx's own begins with one statement and lock; this one takes its lock in the same round trip.
#[derive(Debug)]
pub(in crate::store) struct PostgresTx {
    /// Until it ends.
    connection: Option<PoolConnection<Postgres>>,
}

impl PostgresTx {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("COMMIT").await
    }

    pub(super) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.connection()?.execute(statement).await?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        tokio::spawn(async move {
            if connection.execute("ROLLBACK").await.is_err() {
                // What is open on it ends with it.
                connection.close_on_drop();
            }
        });
    }
}

/// Whether the server can be worked with.
async fn check(connection: &mut PgConnection) -> Result<()> {
    let sql = "SELECT current_setting('server_version_num')::BIGINT, current_setting('server_version'),
        current_setting('server_encoding')";
    let (number, version, encoding): (i64, String, String) =
        sqlx::query_as(sql).fetch_one(connection).await?;
    match fault(number, &version, &encoding) {
        None => Ok(()),
        Some(fault) => Err(StoreError::Unfit(fault)),
    }
}

/// Why a server of this version, with a database of this encoding, cannot be worked with.
fn fault(number: i64, version: &str, encoding: &str) -> Option<String> {
    if number / 10_000 < OLDEST {
        return Some(format!(
            "it is PostgreSQL {version} and {OLDEST} or later is needed: upgrade the server"
        ));
    }
    (encoding != "UTF8").then(|| {
        format!(
            "its encoding is {encoding} and UTF8 is needed: make another by CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_worked_with_is_told_with_its_cure() {
        assert_eq!(fault(140_000, "14.0", "UTF8"), None);
        assert_eq!(fault(180_001, "18.1", "UTF8"), None);
        let old = fault(130_022, "13.22 (Debian 13.22-1)", "UTF8").unwrap();
        assert!(old.contains("13.22") && old.contains("upgrade"), "{old}");
        assert!(fault(150_018, "15.18", "SQL_ASCII").unwrap().contains("ENCODING 'UTF8'"));
    }
}
