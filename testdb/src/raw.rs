//! SQL by hand, past the store.

use sqlx::{
    AssertSqlSafe, Connection, Decode, PgConnection, Postgres, Row, Sqlite, SqliteConnection, Type,
    sqlite::SqliteConnectOptions,
};
use std::path::Path;

/// A connection to a database of either make.
#[derive(Debug)]
pub enum Raw {
    /// With foreign keys, as every connection has to have them.
    Sqlite(SqliteConnection),
    /// As the owner of the tables.
    Postgres(PgConnection),
}

impl Raw {
    /// A connection to a file of SQLite.
    ///
    /// # Panics
    /// It cannot be opened.
    pub async fn sqlite(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file).foreign_keys(true);
        Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
    }

    pub(crate) async fn postgres(url: &str) -> Self {
        Self::Postgres(PgConnection::connect(url).await.unwrap())
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// The database refuses it.
    pub async fn execute(&mut self, sql: &str) -> Result<u64, sqlx::Error> {
        let query = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query(query).execute(connection).await?.rows_affected(),
            Self::Postgres(connection) => sqlx::query(query).execute(connection).await?.rows_affected(),
        })
    }

    /// The first column of all rows.
    ///
    /// # Panics
    /// The database refuses the query.
    pub async fn column<T>(&mut self, sql: &str) -> Vec<T>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let query = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let rows = sqlx::query(query).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query(query).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// The number that a query answers.
    ///
    /// # Panics
    /// It answers none.
    pub async fn number(&mut self, sql: &str) -> i64 {
        self.column(sql).await.swap_remove(0)
    }
}
