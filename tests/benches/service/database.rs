use anyhow::{Context, Result};
use std::path::PathBuf;
use tempfile::TempDir;
use testdb::{Cluster, Durability, Raw};

/// A database, durable as in production.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(TempDir),
    Postgres(Cluster),
}

/// What makes a database.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Make {
    Sqlite,
    Postgres,
}

impl Make {
    /// A new one.
    pub(crate) async fn database(self) -> Result<Database> {
        match self {
            Self::Sqlite => Database::sqlite(),
            Self::Postgres => Ok(Database::postgres().await),
        }
    }
}

/// Settings that a server of this machine's size would have; what makes it durable is as PostgreSQL has it.
const SETTINGS: [&str; 3] = ["shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=15min"];
const NAME: &str = "ipam";

impl Database {
    /// A file in a new directory.
    pub(crate) fn sqlite() -> Result<Self> {
        Ok(Self::Sqlite(TempDir::new().context("a directory for the database")?))
    }

    /// A server of its own.
    pub(crate) async fn postgres() -> Self {
        let cluster = Cluster::start(Durability::Fsync, &SETTINGS).await;
        cluster.create(NAME, "template0").await;
        Self::Postgres(cluster)
    }

    /// As the service is told of it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("sqlite://{}", self.file().display()),
            Self::Postgres(cluster) => cluster.url(NAME),
        }
    }

    /// A connection past the service.
    pub(crate) async fn connect(&self) -> Raw {
        match self {
            Self::Sqlite(_) => Raw::sqlite(&self.file()).await,
            Self::Postgres(cluster) => cluster.connect(NAME).await,
        }
    }

    /// Does what the database does by itself some minutes after it was filled: PostgreSQL counts what there is for its
    /// planner, SQLite never does.
    pub(crate) async fn settle(&self) -> Result<()> {
        let sql = match self {
            Self::Sqlite(_) => "DELETE FROM sqlite_stat1",
            Self::Postgres(_) => "VACUUM (ANALYZE)",
        };
        self.connect().await.execute(sql).await?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite(dir) => dir.path().join("ipam.db"),
            Self::Postgres(cluster) => cluster.directory().to_owned(),
        }
    }
}
