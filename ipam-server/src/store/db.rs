//! The database behind the store: one shape of transaction, whatever its make.
//!
//! SQL text is shared where both databases take it; a statement that differs has the words of each ([`Sql`]).

mod postgres;
mod sql;
mod sqlite;
mod steps;
mod trouble;
mod turn;
mod url;

pub(super) use sql::{Column, List, Sql, Value, args, column, over, rows, statements};
pub use steps::{Migrated, schema_version};
pub use turn::Turn;
pub use url::{DatabaseUrl, PostgresUrl};

use super::{
    Result, StoreError,
    measures::{Measures, Operation, Timer},
};
use futures::TryStreamExt;
use postgres::{Patience, PostgresDb, PostgresTx, Purpose};
use sql::bound;
use sqlite::SqliteDb;
use sqlx::{
    Database, FromRow, Pool, Row, Sqlite, Transaction, migrate::MigrateError, postgres::PgRow,
    sqlite::SqliteRow,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A row type that every supported database can fill.
pub(super) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Record for T {}

/// What a transaction that writes has to itself until it ends: what it decides on, nobody else changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything: what it decides on may lie anywhere.
    Plan,
    /// What hangs on the nodes that it loads, while nobody plans.
    Nodes,
    /// When tokens were used, while nobody plans.
    Uses,
}

/// How often a transaction is begun that the database undoes in favour of others.
const ATTEMPTS: u32 = 10;

/// Runs a transaction, and again where the database undid it in favour of another: `retried!(db, put(name))`.
macro_rules! retried {
    ($db:expr, $transaction:expr) => {{
        let mut attempt = 1;
        loop {
            let outcome = $transaction.await;
            if !$db.again(attempt, &outcome) {
                break outcome;
            }
            attempt += 1;
        }
    }};
}
pub(super) use retried;

/// The database.
#[derive(Debug, Clone)]
pub(super) struct Db {
    make: Make,
    undone: Arc<AtomicU64>,
    /// The last COMMIT did not come through.
    stuck: Arc<AtomicBool>,
    measures: Measures,
}

/// How a pool of connections is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolUse {
    pub(super) pool: &'static str,
    /// Connections that are there, used or not.
    pub(super) open: u32,
    pub(super) idle: u32,
    /// Connections that there may be.
    pub(super) most: u32,
}

impl PoolUse {
    fn of<D: Database>(name: &'static str, pool: &Pool<D>) -> Self {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        Self { pool: name, open: pool.size(), idle, most: pool.options().get_max_connections() }
    }
}

#[derive(Debug, Clone)]
enum Make {
    Sqlite(SqliteDb),
    Postgres(PostgresDb),
}

/// The make of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Db {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self> {
        let make = match url {
            DatabaseUrl::Sqlite(path) => Make::Sqlite(SqliteDb::open(path).await?),
            DatabaseUrl::Postgres(url) => Make::Postgres(PostgresDb::open(url, Purpose::Work).await?),
        };
        Ok(Self::of(make))
    }

    fn of(make: Make) -> Self {
        Self { make, undone: Arc::default(), stuck: Arc::default(), measures: Measures::default() }
    }

    /// Opens a database that is there, to look at it: nothing is made or brought up to date.
    pub(super) async fn look(url: &DatabaseUrl) -> Result<Self> {
        let make = match url {
            DatabaseUrl::Sqlite(path) => Make::Sqlite(SqliteDb::look(path).await?),
            DatabaseUrl::Postgres(url) => Make::Postgres(PostgresDb::open(url, Purpose::Look).await?),
        };
        Ok(Self::of(make))
    }

    /// Whether the schema is this program's.
    ///
    /// # Errors
    /// The schema is another version's.
    pub(super) async fn check_version(&self) -> Result<()> {
        let mut tx = self.read().await?;
        let (there,): (i64,) = tx.fetch_one(steps::IS_MADE, args![]).await?;
        let version = match there {
            0 => None,
            _ => Some(tx.fetch_one::<(i64,)>(steps::VERSION, args![]).await?.0),
        };
        steps::check(version)
    }

    pub(super) async fn migrate(&self) -> Result<Migrated> {
        let migrated = match &self.make {
            Make::Sqlite(db) => db.migrate().await,
            Make::Postgres(db) => db.migrate().await,
        };
        migrated.map_err(unmigrated)
    }

    /// A transaction that may write.
    pub(super) async fn write(&self, scope: Scope) -> Result<Tx> {
        let timer = self.measures.time(match scope {
            Scope::Plan => Operation::Plan,
            Scope::Nodes => Operation::Nodes,
            Scope::Uses => Operation::Uses,
        });
        let (inner, scope) = match &self.make {
            // Its one writer has everything.
            Make::Sqlite(db) => (Inner::Sqlite(db.write().await?), Scope::Plan),
            Make::Postgres(db) => (Inner::Postgres(db.write(scope).await?), scope),
        };
        Ok(Tx {
            inner,
            scope: Some(scope),
            changed: Changed::Nothing,
            stuck: Arc::clone(&self.stuck),
            _timer: timer,
        })
    }

    /// Runs statements of the scope of nodes, in the words of this make, of which each may come through without the others;
    /// SQLite does all in one transaction, PostgreSQL each in one of its own, without a round trip to begin and one to
    /// end it. Rows of each, in order. They must be such as do not mind to have been done before.
    pub(super) async fn at_once<T: Record>(
        &self,
        statements: Vec<(&'static str, Vec<Value>)>,
    ) -> Result<Vec<Vec<T>>> {
        match &self.make {
            Make::Sqlite(db) => {
                let _timer = self.measures.time(Operation::Nodes);
                Ok(db
                    .at_once(statements)
                    .await?
                    .iter()
                    .map(|rows| records(rows))
                    .collect::<Result<_, _>>()?)
            }
            Make::Postgres(db) => {
                let mut found = Vec::with_capacity(statements.len());
                for (sql, args) in statements {
                    let _timer = self.measures.time(Operation::Nodes);
                    let rows = db.at_once(sql, args).await;
                    match &rows {
                        Err(StoreError::Unavailable(_)) => self.stuck.store(true, Ordering::Relaxed),
                        // What wrote nothing has waited for nothing.
                        Ok(rows) if !rows.is_empty() => self.stuck.store(false, Ordering::Relaxed),
                        _ => {}
                    }
                    found.push(records(&rows?)?);
                }
                Ok(found)
            }
        }
    }

    /// What make the database is of.
    pub(super) fn engine(&self) -> Engine {
        match &self.make {
            Make::Sqlite(_) => Engine::Sqlite,
            Make::Postgres(_) => Engine::Postgres,
        }
    }

    /// How many batches of the hot path are written at once.
    pub(super) fn batches_at_once(&self) -> u32 {
        match &self.make {
            Make::Sqlite(_) => 1,
            Make::Postgres(_) => postgres::BATCHES,
        }
    }

    /// A transaction that only reads: one snapshot for all its statements.
    pub(super) async fn read(&self) -> Result<Tx> {
        let timer = self.measures.time(Operation::Read);
        let inner = match &self.make {
            Make::Sqlite(db) => Inner::Sqlite(db.read().await?),
            Make::Postgres(db) => Inner::Postgres(db.read().await?),
        };
        Ok(self.reading(inner, timer))
    }

    /// The same for statements that go through all tables: other ways are the best for them than for those that look for
    /// few rows.
    pub(super) async fn survey(&self) -> Result<Tx> {
        match &self.make {
            Make::Sqlite(_) => self.read().await,
            Make::Postgres(db) => {
                let timer = self.measures.time(Operation::Read);
                Ok(self.reading(Inner::Postgres(db.survey().await?), timer))
            }
        }
    }

    fn reading(&self, inner: Inner, timer: Timer) -> Tx {
        let stuck = Arc::clone(&self.stuck);
        Tx { inner, scope: None, changed: Changed::Nothing, stuck, _timer: timer }
    }

    /// Whether a transaction that ended so, at the given attempt, is to be done again; it is counted then.
    pub(super) fn again<T>(&self, attempt: u32, outcome: &Result<T>) -> bool {
        let Err(StoreError::Undone(why)) = outcome else { return false };
        if attempt < ATTEMPTS {
            self.undone.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(why, attempt, "again");
        }
        attempt < ATTEMPTS
    }

    /// What is measured.
    pub(super) fn measures(&self) -> &Measures {
        &self.measures
    }

    pub(super) fn pools(&self) -> Vec<PoolUse> {
        match &self.make {
            Make::Sqlite(db) => db.pools(),
            Make::Postgres(db) => db.pools(),
        }
    }

    /// The turn to do what one does for all, unless another process has it.
    pub(super) async fn take_turn(&self) -> Result<Option<Turn>> {
        match &self.make {
            Make::Sqlite(_) => Ok(Some(Turn::own(&self.measures))),
            Make::Postgres(db) => Turn::on(&db.options(), &self.measures).await,
        }
    }

    /// How many transactions the database undid in favour of others.
    pub(super) fn undone(&self) -> u64 {
        self.undone.load(Ordering::Relaxed)
    }

    /// Whether reads and writes are answered. Writes are only tried where the last one was not: a server whose
    /// synchronous standby is away answers whoever reads.
    ///
    /// # Errors
    /// They are not.
    pub(super) async fn check_answers(&self) -> Result<()> {
        let mut read = self.read().await?;
        read.fetch_one::<(i64,)>("SELECT CAST(1 AS BIGINT)", args![]).await?;
        match &self.make {
            Make::Postgres(db) if self.stuck.load(Ordering::Relaxed) => {
                db.probe().await?;
                self.stuck.store(false, Ordering::Relaxed);
                Ok(())
            }
            Make::Postgres(_) | Make::Sqlite(_) => Ok(()),
        }
    }

    pub(super) async fn close(&self) {
        match &self.make {
            Make::Sqlite(db) => db.close().await,
            Make::Postgres(db) => db.close().await,
        }
    }
}

fn records<R: Row, T: for<'r> FromRow<'r, R>>(rows: &[R]) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(T::from_row).collect()
}

/// Why a schema cannot be brought up to date.
fn unmigrated(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::Unfit(format!(
            "its schema has version {version} and this program knows {} at most: a later ipam-server was here, use \
             that one, or restore a backup from before",
            schema_version()
        )),
        error => StoreError::Database(error.into()),
    }
}

/// A transaction; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub(super) struct Tx {
    inner: Inner,
    /// Of one that writes.
    scope: Option<Scope>,
    changed: Changed,
    stuck: Arc<AtomicBool>,
    /// Until it ends.
    _timer: Timer,
}

/// What a transaction did to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Nothing,
    Something,
}

#[derive(Debug)]
enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(PostgresTx),
}

impl Tx {
    pub(super) fn engine(&self) -> Engine {
        match &self.inner {
            Inner::Sqlite(_) => Engine::Sqlite,
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// The same for statements that go through all tables and take as long as that takes.
    pub(super) fn patient(mut self) -> Self {
        if let Inner::Postgres(tx) = &mut self.inner {
            tx.patience = Patience::Long;
        }
        self
    }

    /// Whether what it plans is planned by nobody else meanwhile.
    pub(super) fn may_plan(&self) -> bool {
        self.scope == Some(Scope::Plan)
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<u64> {
        let sql = sql.into();
        let rows = match &mut self.inner {
            Inner::Sqlite(tx) => bound(sql.sqlite, args).execute(&mut **tx).await?.rows_affected(),
            Inner::Postgres(tx) => {
                let done = tx.ask(async |connection| bound(sql.postgres, args).execute(connection).await);
                done.await?.rows_affected()
            }
        };
        if rows > 0 {
            self.changed = Changed::Something;
        }
        Ok(rows)
    }

    /// All rows of a query.
    pub(super) async fn fetch_all<T: Record>(
        &mut self,
        sql: impl Into<Sql>,
        args: Vec<Value>,
    ) -> Result<Vec<T>> {
        let sql = sql.into();
        let rows: Result<_, sqlx::Error> = match &mut self.inner {
            Inner::Sqlite(tx) => {
                let rows = bound(sql.sqlite, args).fetch_all(&mut **tx).await?;
                rows.iter().map(T::from_row).collect()
            }
            Inner::Postgres(tx) => {
                let rows = tx.ask(async |connection| bound(sql.postgres, args).fetch_all(connection).await);
                rows.await?.iter().map(T::from_row).collect()
            }
        };
        Ok(rows?)
    }

    /// Hands the only column of every row, a text, to `sink`: however many rows, few are in memory.
    pub(super) async fn each_text<E: From<StoreError>>(
        &mut self,
        sql: impl Into<Sql>,
        mut sink: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = sql.into();
        let failed = |error: sqlx::Error| E::from(StoreError::from(error));
        match &mut self.inner {
            Inner::Sqlite(tx) => {
                let mut rows = bound(sql.sqlite, vec![]).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    sink(row.try_get(0).map_err(failed)?)?;
                }
            }
            Inner::Postgres(tx) => {
                let connection = tx.connection().map_err(failed)?;
                let mut rows = bound(sql.postgres, vec![]).fetch(connection);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    sink(row.try_get(0).map_err(failed)?)?;
                }
            }
        }
        Ok(())
    }

    /// The row of a query that has at most one.
    pub(super) async fn fetch_optional<T: Record>(
        &mut self,
        sql: impl Into<Sql>,
        args: Vec<Value>,
    ) -> Result<Option<T>> {
        let sql = sql.into();
        let row = match &mut self.inner {
            Inner::Sqlite(tx) => {
                let row = bound(sql.sqlite, args).fetch_optional(&mut **tx).await?;
                row.as_ref().map(T::from_row).transpose()
            }
            Inner::Postgres(tx) => {
                let row =
                    tx.ask(async |connection| bound(sql.postgres, args).fetch_optional(connection).await);
                row.await?.as_ref().map(T::from_row).transpose()
            }
        };
        Ok(row?)
    }

    /// The row of a query that has exactly one.
    pub(super) async fn fetch_one<T: Record>(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<T> {
        self.fetch_optional(sql, args).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    pub(super) async fn commit(self) -> Result<()> {
        let committed = match self.inner {
            Inner::Sqlite(tx) => tx.commit().await,
            Inner::Postgres(tx) => tx.commit(self.changed).await,
        };
        self.stuck.store(committed.is_err(), Ordering::Relaxed);
        Ok(committed?)
    }

    pub(super) async fn rollback(self) -> Result<()> {
        match self.inner {
            Inner::Sqlite(tx) => tx.rollback().await?,
            Inner::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "PRAGMA max_page_count = 100";
    const LARGE: &str = "PRAGMA max_page_count = 1000000";
    const WRITE: &str = "INSERT INTO counter (name, value) VALUES ($1, 1)";

    #[tokio::test]
    async fn a_full_disk_passes() {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&DatabaseUrl::Sqlite(directory.path().join("ipam.db"))).await.unwrap();
        db.migrate().await.unwrap();
        let mut tx = db.write(Scope::Plan).await.unwrap();
        tx.fetch_one::<(i64,)>(SMALL, args![]).await.unwrap();
        let refusal = loop {
            let name = new_name(&mut tx).await;
            if let Err(error) = tx.execute(WRITE, args![name]).await {
                break error;
            }
        };
        assert!(matches!(refusal, StoreError::Unavailable(_)), "{refusal:?}");
        drop(tx);

        let mut tx = db.write(Scope::Plan).await.expect("the next transaction begins afresh");
        tx.fetch_one::<(i64,)>(LARGE, args![]).await.unwrap();
        tx.execute(WRITE, args!["after"]).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A long name not used yet.
    async fn new_name(tx: &mut Tx) -> String {
        let (count,) = tx.fetch_one::<(i64,)>("SELECT count(*) FROM counter", args![]).await.unwrap();
        format!("{count}-{}", "x".repeat(3000))
    }
}
