//! SQLite: a file of this machine, written by one connection at a time.

use super::{
    Migrated, PoolUse, Value,
    sql::{bound, rows_of_each},
    steps::run,
    trouble::is_busy,
};
use crate::store::Result;
use sqlx::{
    AssertSqlSafe, Connection, Executor, Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long one waits for another that has the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection writes, others read beside it (WAL).
#[derive(Debug, Clone)]
pub(in crate::store) struct SqliteDb {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteDb {
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("cache_size", "-16384")
            // What a statement may have to undo is written beside the database otherwise, page by page.
            .pragma("temp_store", "MEMORY")
            // Pages that many transactions change are written to the database once: after 64 MiB of log.
            .pragma("wal_autocheckpoint", "16384")
            .statement_cache_capacity(256);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(10))
                // A file does not go away while nobody asks.
                .test_before_acquire(false)
                // A full disk ends a transaction behind sqlx's back; it would count it as open for ever. One that is
                // being rolled back is so by the time of another answer.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        if connection.is_in_transaction() {
                            connection.ping().await?;
                        }
                        Ok(!connection.is_in_transaction())
                    })
                })
        };
        let writer = patiently(async || pool(1).connect_with(options.clone()).await).await?;
        // Four of them; what they read again and again is little.
        // A page of a list crosses from SQLite's thread at once, not fifty rows at a time.
        let reading = options.read_only(true).pragma("cache_size", "-2048").row_buffer_size(1024);
        let readers = pool(4).connect_with(reading).await?;
        Ok(Self { writer, readers })
    }

    /// Opens a file that is there, to look at it only.
    pub(super) async fn look(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .read_only(true)
            .busy_timeout(PATIENCE)
            // All of it is read, and in another order than it lies there.
            .pragma("cache_size", "-65536");
        let readers = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
        Ok(Self { writer: readers.clone(), readers })
    }

    /// Programs that start at once wait for each other, and the first does it for all.
    pub(super) async fn migrate(&self) -> Result<Migrated, MigrateError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let migrated = run(&MIGRATIONS, &mut *tx).await?;
        tx.commit().await?;
        Ok(migrated)
    }

    /// It has the only write lock from its start.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Runs statements in a transaction of their own. To the thread that has the connection they are one job, as several
    /// statements of one text: otherwise each is two changes of threads more, which for few rows take longer than to
    /// write them.
    ///
    /// sqlx has announced that it will not take several statements in a text with values for ever
    /// (launchbadge/sqlx#3108); each is a job of its own then.
    pub(super) async fn at_once(
        &self,
        statements: Vec<(&'static str, Vec<Value>)>,
    ) -> Result<Vec<Vec<SqliteRow>>, sqlx::Error> {
        let count = statements.len();
        let (texts, args): (Vec<&str>, Vec<Vec<Value>>) = statements.into_iter().unzip();
        let text = AssertSqlSafe(format!("BEGIN IMMEDIATE; {}; COMMIT", texts.join("; ")));
        let mut job = Job { connection: Some(self.writer.acquire().await?) };
        // Nothing after its last statement means that its thread has ended, and nobody knows how far it came.
        let outcome = job.run(bound(text, args.concat())).await;
        let outcome = outcome.and_then(|each| {
            if each.len() == count + 2 { Ok(each) } else { Err(sqlx::Error::WorkerCrashed) }
        });
        match &outcome {
            Ok(_) => job.ends(),
            Err(_) => job.undo().await,
        }
        // Between the beginning and the end.
        Ok(outcome?.into_iter().skip(1).take(count).collect())
    }

    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await?)
    }

    pub(super) fn pools(&self) -> Vec<PoolUse> {
        vec![PoolUse::of("writers", &self.writer), PoolUse::of("readers", &self.readers)]
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A transaction that sqlx does not know of. Whoever drops it before its end closes the connection, and with it the
/// transaction.
struct Job {
    connection: Option<PoolConnection<Sqlite>>,
}

impl Job {
    async fn run(
        &mut self,
        query: Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<Vec<Vec<SqliteRow>>, sqlx::Error> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        rows_of_each(connection.fetch_many(query)).await
    }

    /// It has committed.
    fn ends(mut self) {
        drop(self.connection.take());
    }

    async fn undo(mut self) {
        if let Some(connection) = &mut self.connection
            && connection.execute("ROLLBACK").await.is_ok()
        {
            self.ends();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// Opens a file, and again while another program opens it too: whoever turns a new one to WAL refuses others at
/// once, whatever their busy timeout.
async fn patiently<T>(open: impl AsyncFn() -> Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        match open().await {
            Err(sqlx::Error::Database(refusal)) if is_busy(&*refusal) && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome,
        }
    }
}
