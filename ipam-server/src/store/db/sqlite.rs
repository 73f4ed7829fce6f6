//! SQLite: a file of this machine, written by one connection at a time.

use super::{Migrated, PoolUse, steps::run, trouble::is_busy};
use crate::store::Result;
use sqlx::{
    Connection, Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
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
                // A full disk ends a transaction behind sqlx's back; it would count it as open for ever.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                })
        };
        let writer = patiently(async || pool(1).connect_with(options.clone()).await).await?;
        // Four of them; what they read again and again is little.
        // A page of a list crosses from SQLite's thread at once, not fifty rows at a time.
        let reading = options.read_only(true).pragma("cache_size", "-4096").row_buffer_size(1024);
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
