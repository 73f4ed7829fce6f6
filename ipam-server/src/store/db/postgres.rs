//! PostgreSQL: a server that several replicas of the service share.
//!
//! What a transaction decides on must not change under its hands. SQLite has one writer; here locks
//! do it, taken in one order: the plan, then nodes by their ids, then the counts of what is used or the uses of tokens. Whoever plans has the plan
//! alone, everybody else who writes has it together with others of its kind. So transactions of one service never
//! wait for each other in a circle, and each sees what those before it have committed (READ COMMITTED takes
//! a snapshot a statement, after the lock).

mod at_once;

use super::{Changed, Migrated, PoolUse, PostgresUrl, Scope, Value, steps::run};
use crate::store::{Result, StoreError};
use at_once::AtOnce;
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres,
    migrate::{Migrate, MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use std::{io, sync::Arc, time::Duration};

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

/// Ends a transaction that changed nothing. What it saw may have been committed here and not yet be on a synchronous
/// standby, because whoever waited for that was cut off, and who is told "it is so" counts on it: a record in the log is
/// waited for, with all that is before it.
const COMMIT_UNCHANGED: &str = "SELECT pg_logical_emit_message(true, 'ipam', ''); COMMIT";

/// The turn: a lock of its own, which lasts as long as the connection.
const TAKE_TURN: &str = "SELECT pg_try_advisory_lock(1229996365, 3)";

/// How long a connection whose caller has gone may keep its place: it waits for the standby, and another would too.
const ABANDONED: Duration = Duration::from_secs(60);

/// How long a server may take to say anything: a machine that was switched off does not even say that a connection has
/// ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Of what callers wait for.
    Usual,
    /// Of what goes through all tables.
    Long,
}

impl Patience {
    /// For a statement, which waits for locks ten seconds at most.
    fn statement(self) -> Duration {
        Duration::from_secs(match self {
            Self::Usual => 20,
            Self::Long => 3600,
        })
    }

    /// For COMMIT, which waits for the synchronous standby where there is one.
    fn commit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Usual => 10,
            Self::Long => 3600,
        })
    }
}

/// Batches of the hot path at once: while one is flushed to disk the next is decided.
pub(super) const BATCHES: u32 = 2;

/// How long a caller is kept waiting for a server that is not there.
const CONNECT: Duration = Duration::from_secs(5);

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

/// More of them for those that touch few rows of large tables: these find them by an index whatever the statistics say,
/// which lag behind tables that are being filled.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")];

/// What the database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To work with it: a standby is none to work with, for what it shows may be old, and nothing can be written.
    Work,
    /// To look at it, of which a standby is as good as any.
    Look,
}

/// Connections by what they are for, so that none of these starves another.
#[derive(Debug, Clone)]
pub(in crate::store) struct PostgresDb {
    /// Plans are made one at a time: more connections would only wait for the lock.
    planner: PgPool,
    writers: PgPool,
    readers: PgPool,
    /// For whoever goes through all tables.
    surveyors: PgPool,
    /// For statements that are transactions of their own.
    at_once: AtOnce,
}

impl PostgresDb {
    pub(super) async fn open(url: &PostgresUrl, purpose: Purpose) -> Result<Self> {
        let mut options = url.options()?.statement_cache_capacity(256).options(SETTINGS);
        if options.get_application_name().is_none() {
            options = options.application_name("ipam-server");
        }
        // Not by a pool, which would try until its time is up and not say why it could not.
        let mut first = PgConnection::connect_with(&options).await?;
        check(&mut first).await?;
        if purpose == Purpose::Work && !is_primary(&mut first).await? {
            return Err(StoreError::Unfit(
                "it is a standby, which only reads: name the primary, or an address that follows it"
                    .to_owned(),
            ));
        }
        first.close().await?;
        let by_index = options.clone().options(BY_INDEX);
        Ok(Self {
            planner: pool(1, purpose).connect_lazy_with(by_index.clone()),
            writers: pool(4, purpose).connect_lazy_with(by_index.clone()),
            readers: pool(8, purpose).connect_lazy_with(by_index.clone()),
            surveyors: pool(3, purpose).connect_lazy_with(options),
            at_once: AtOnce::new(by_index, purpose),
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

    pub(super) async fn survey(&self) -> Result<PostgresTx> {
        begin(&self.surveyors, READ).await
    }

    /// Runs a statement that is a transaction of its own ([`AtOnce::run`]).
    pub(super) async fn at_once(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<PgRow>> {
        self.at_once.run(sql, args).await
    }

    /// How connections are made.
    pub(super) fn options(&self) -> Arc<PgConnectOptions> {
        self.readers.connect_options()
    }

    pub(super) fn pools(&self) -> Vec<PoolUse> {
        let pools = [
            ("planner", &self.planner),
            ("writers", &self.writers),
            ("readers", &self.readers),
            ("surveyors", &self.surveyors),
        ];
        pools.map(|(name, pool)| PoolUse::of(name, pool)).into()
    }

    /// Whether something can be written, synchronous standby and all.
    pub(super) async fn probe(&self) -> Result<()> {
        let tx = begin(&self.writers, "BEGIN").await?;
        Ok(tx.commit(Changed::Nothing).await?)
    }

    pub(super) async fn close(&self) {
        for pool in [&self.surveyors, &self.readers, &self.writers, &self.planner] {
            pool.close().await;
        }
        self.at_once.close().await;
    }
}

/// A server that is demoted ends its connections first, so this is as true for as long as one lasts.
async fn admit(connection: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
    match purpose {
        Purpose::Look => Ok(()),
        Purpose::Work if is_primary(connection).await? => Ok(()),
        Purpose::Work => Err(silent("it is a standby")),
    }
}

fn pool(connections: u32, purpose: Purpose) -> PgPoolOptions {
    PgPoolOptions::new()
        .after_connect(move |connection, _| Box::pin(admit(connection, purpose)))
        .max_connections(connections)
        .acquire_timeout(CONNECT)
        // `begin` finds out by itself, without a round trip more.
        .test_before_acquire(false)
}

/// Begins a transaction. Connections that ended while they lay idle (the server was restarted) are
/// left behind: nothing has happened on them yet.
async fn begin(pool: &PgPool, statements: &'static str) -> Result<PostgresTx> {
    let mut idle = pool.num_idle();
    loop {
        let mut tx = PostgresTx { connection: Some(pool.acquire().await?), patience: Patience::Usual };
        match answered(tx.patience.statement(), tx.connection()?.execute(statements)).await {
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
    pub(super) patience: Patience,
}

impl PostgresTx {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// What the server answers to a statement.
    pub(super) async fn ask<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let patience = self.patience.statement();
        answered(patience, statement(self.connection()?)).await
    }

    /// Keeps what it changed; where it changed nothing, what it saw lasts once this has returned.
    pub(super) async fn commit(self, change: Changed) -> Result<(), sqlx::Error> {
        match change {
            Changed::Something => self.end("COMMIT").await,
            Changed::Nothing => self.end(COMMIT_UNCHANGED).await,
        }
    }

    pub(super) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        answered(self.patience.commit(), self.connection()?.execute(statement)).await?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        tokio::spawn(async move {
            if answered(ABANDONED, connection.execute("ROLLBACK")).await.is_err() {
                // What is open on it ends with it.
                connection.close_on_drop();
            }
        });
    }
}

/// What a server answers within a time.
pub(super) async fn answered<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(within, answer)
        .await
        .unwrap_or_else(|_| Err(silent(&format!("it said nothing for {} seconds", within.as_secs()))))
}

/// A server that is there and does not do what it is there for.
fn silent(why: &str) -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, why).into()
}

/// A connection that has the turn, unless another has it.
pub(super) async fn take_turn(options: &PgConnectOptions) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let taken = is_primary(&mut connection).await?
        && sqlx::query_scalar(TAKE_TURN).fetch_one(&mut connection).await?;
    Ok(taken.then_some(connection))
}

async fn is_primary(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT NOT pg_is_in_recovery()").fetch_one(connection).await
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
