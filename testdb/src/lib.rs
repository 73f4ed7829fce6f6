//! A database of its own for every test: a file of SQLite, or, with `IPAM_TEST_DATABASE=postgres`, a database
//! of a PostgreSQL cluster that lives as long as the test binary. So one suite shows the same on both.

#![expect(clippy::unwrap_used, reason = "a test without its database fails")]

mod cluster;
mod fill;
mod raw;

pub use cluster::{Cluster, Durability, program};
pub use fill::fill;
pub use raw::Raw;

use cluster::Lease;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Names the make that tests run on: `sqlite` (the default) or `postgres`.
pub const VARIABLE: &str = "IPAM_TEST_DATABASE";

/// What makes a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Make {
    /// The one that tests run on.
    ///
    /// # Panics
    /// The environment names another.
    pub fn wanted() -> Self {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("{VARIABLE} is {other}: set it to sqlite or postgres"),
        }
    }
}

/// A database of one test; it ends with the test.
#[derive(Debug)]
pub struct TestDatabase(Place);

#[derive(Debug)]
enum Place {
    Sqlite(TempDir),
    Postgres(Lease),
}

impl TestDatabase {
    /// A database of the make that tests run on. `migrate` makes the schema in the empty one of a URL and closes
    /// it; on PostgreSQL it is asked once, every test has a copy.
    pub async fn new(migrate: impl AsyncFnOnce(String)) -> Self {
        Self(match Make::wanted() {
            Make::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                migrate(sqlite_url(dir.path())).await;
                Place::Sqlite(dir)
            }
            Make::Postgres => Place::Postgres(Cluster::shared(migrate).await.lease().await),
        })
    }

    /// As the service is told of it.
    pub fn url(&self) -> String {
        match &self.0 {
            Place::Sqlite(dir) => sqlite_url(dir.path()),
            Place::Postgres(lease) => lease.url(),
        }
    }

    /// A connection of its own, as any other program would have it.
    pub async fn connect(&self) -> Raw {
        match &self.0 {
            Place::Sqlite(dir) => Raw::sqlite(&file(dir.path())).await,
            Place::Postgres(lease) => Raw::postgres(&lease.url()).await,
        }
    }

    /// Where its write-ahead log lies, which has everything that was ever written, lately at least.
    pub fn log_directory(&self) -> PathBuf {
        match &self.0 {
            Place::Sqlite(dir) => dir.path().to_owned(),
            Place::Postgres(lease) => lease.cluster().directory().join("data/pg_wal"),
        }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("ipam.db")
}

fn sqlite_url(dir: &Path) -> String {
    format!("sqlite://{}", file(dir).display())
}
