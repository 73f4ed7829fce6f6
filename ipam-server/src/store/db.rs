//! The database behind the store: one shape of transaction, whatever its make.
//!
//! SQL text is shared where both databases take it; the few statements that
//! differ ask [`Db`] which one it is.

use super::{Result, StoreError};
use sqlx::{
    Connection, FromRow, Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use std::{path::PathBuf, str::FromStr, time::Duration};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            // A database in memory would be another one in every connection.
            Some(("sqlite", path)) if !path.is_empty() && !path.contains('?') && path != ":memory:" => {
                Ok(Self::Sqlite(path.into()))
            }
            _ => Err("give sqlite://PATH, for example sqlite://ipam.db or sqlite:///var/lib/ipam/ipam.db"
                .to_owned()),
        }
    }
}

/// A value bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
}

macro_rules! value_from {
    ($($from:ty => |$it:ident| $to:expr),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from($it: $from) -> Self { $to }
        })+
    };
}

value_from! {
    i64 => |it| Self::Int(Some(it)),
    Option<i64> => |it| Self::Int(it),
    // Every unsigned number of the domain is below 2^63.
    u64 => |it| Self::Int(Some(it.cast_signed())),
    Option<u64> => |it| Self::Int(it.map(u64::cast_signed)),
    u32 => |it| Self::Int(Some(it.into())),
    bool => |it| Self::Int(Some(it.into())),
    &str => |it| Self::Text(Some(it.to_owned())),
    String => |it| Self::Text(Some(it)),
    Option<String> => |it| Self::Text(it),
    Option<&str> => |it| Self::Text(it.map(str::to_owned)),
}

/// The values of a statement, in the order of its `$1`, `$2` ….
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Value::from($value)),*] };
}
pub(super) use args;

/// A row type that every supported database can fill.
pub(super) trait Record: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin> Record for T {}

/// The database.
#[derive(Debug, Clone)]
pub(super) enum Db {
    /// One connection writes, others read beside it (WAL).
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

impl Db {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self> {
        let DatabaseUrl::Sqlite(path) = url;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("cache_size", "-16384")
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
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(4).connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite { writer, readers })
    }

    pub(super) async fn migrate(&self) -> Result<()> {
        let Self::Sqlite { writer, .. } = self;
        SQLITE_MIGRATIONS.run(writer).await.map_err(|error| StoreError::Database(error.into()))
    }

    /// A transaction that may write; on SQLite it has the only write lock from its start.
    pub(super) async fn write(&self) -> Result<Tx> {
        let Self::Sqlite { writer, .. } = self;
        Ok(Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// A transaction that only reads: one snapshot for all its statements.
    pub(super) async fn read(&self) -> Result<Tx> {
        let Self::Sqlite { readers, .. } = self;
        Ok(Tx::Sqlite(readers.begin().await?))
    }

    pub(super) async fn close(&self) {
        let Self::Sqlite { writer, readers } = self;
        readers.close().await;
        writer.close().await;
    }
}

/// A transaction; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
}

fn bound(sql: &'static str, args: Vec<Value>) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
    })
}

impl Tx {
    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        let Self::Sqlite(tx) = self;
        Ok(bound(sql, args).execute(&mut **tx).await?.rows_affected())
    }

    /// All rows of a query.
    pub(super) async fn fetch_all<T: Record>(
        &mut self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<T>> {
        let Self::Sqlite(tx) = self;
        let rows = bound(sql, args).fetch_all(&mut **tx).await?;
        Ok(rows.iter().map(T::from_row).collect::<Result<_, sqlx::Error>>()?)
    }

    /// The row of a query that has at most one.
    pub(super) async fn fetch_optional<T: Record>(
        &mut self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Option<T>> {
        let Self::Sqlite(tx) = self;
        let row = bound(sql, args).fetch_optional(&mut **tx).await?;
        Ok(row.as_ref().map(T::from_row).transpose()?)
    }

    /// The row of a query that has exactly one.
    pub(super) async fn fetch_one<T: Record>(&mut self, sql: &'static str, args: Vec<Value>) -> Result<T> {
        self.fetch_optional(sql, args).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    pub(super) async fn commit(self) -> Result<()> {
        let Self::Sqlite(tx) = self;
        Ok(tx.commit().await?)
    }

    pub(super) async fn rollback(self) -> Result<()> {
        let Self::Sqlite(tx) = self;
        Ok(tx.rollback().await?)
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
        let mut tx = db.write().await.unwrap();
        tx.fetch_one::<(i64,)>(SMALL, args![]).await.unwrap();
        let refusal = loop {
            let name = new_name(&mut tx).await;
            if let Err(error) = tx.execute(WRITE, args![name]).await {
                break error;
            }
        };
        assert!(matches!(refusal, StoreError::Unavailable(_)), "{refusal:?}");
        drop(tx);

        let mut tx = db.write().await.expect("the next transaction begins afresh");
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
