use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use testdb::{Cluster, Durability, Make, Raw};
use tokio::runtime::Runtime;

/// Where the service keeps what it knows.
#[derive(Debug)]
pub(super) enum Database {
    /// A file, which dies with the service.
    Sqlite(PathBuf),
    /// A server, which dies by itself.
    Postgres(Box<Server>),
}

/// A PostgreSQL server of the run's own, which acknowledges what it would have flushed to disk.
#[derive(Debug)]
pub(super) struct Server {
    cluster: Cluster,
    runtime: Runtime,
}

/// Which connections of the service end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Those that are at work.
    Busy,
    All,
}

const NAME: &str = "ipam";

impl Database {
    /// An empty one of this make; a file is below this directory.
    pub(super) fn make(make: Make, below: &Path) -> Result<Self> {
        Ok(match make {
            Make::Sqlite => Self::Sqlite(below.join("ipam.db")),
            Make::Postgres => Self::Postgres(Box::new(Server::start()?)),
        })
    }

    /// As `IPAM_DATABASE` names it.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", path.display()),
            Self::Postgres(server) => server.cluster.url(NAME),
        }
    }

    /// The server, where it is one.
    pub(super) fn server(&mut self) -> Option<&mut Server> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(server) => Some(server),
        }
    }
}

impl Server {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster = runtime.block_on(async {
            let cluster = Cluster::start_below(&memory(), Durability::Fsync, &[]).await;
            cluster.create(NAME, "template0").await;
            cluster
        });
        Ok(Self { cluster, runtime })
    }

    /// It ends at once, and what it had not acknowledged may be lost.
    pub(super) fn crash(&mut self) {
        self.cluster.stop();
    }

    /// It runs again, with what it had on disk.
    pub(super) fn run(&mut self) {
        self.runtime.block_on(self.cluster.run());
    }

    /// Ends connections of the service, in the middle of transactions too.
    pub(super) fn cut(&self, which: Cut) {
        let which = match which {
            Cut::Busy => " AND state <> 'idle'",
            Cut::All => "",
        };
        self.ask(&format!("SELECT COUNT(pg_terminate_backend(pid)) FROM ({SERVICE}{which}) AS ours"));
    }

    /// Waits until nothing is under way: what a killed service had asked for may still be done.
    pub(super) fn settle(&self, patience: Duration) -> Result<()> {
        let began = Instant::now();
        while self.ask(&format!("SELECT COUNT(*) FROM ({SERVICE} AND state <> 'idle') AS ours")) > 0 {
            if began.elapsed() > patience {
                bail!("transactions of the service do not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How often transactions waited for each other in a circle, which it had to break.
    pub(super) fn deadlocks(&self) -> usize {
        self.cluster.log().matches("deadlock detected").count()
    }

    fn ask(&self, sql: &str) -> i64 {
        self.runtime.block_on(async {
            let mut connection: Raw = self.cluster.connect(NAME).await;
            connection.number(sql).await
        })
    }
}

/// The service's connections.
const SERVICE: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ipam-server'";

/// A directory of the run.
pub(super) fn scratch() -> Result<TempDir> {
    TempDir::with_prefix_in("history-", memory()).context("making a directory for the run")
}

/// Where files are in memory, if there is such a place: what a killed process has written is there all the same, and the
/// run does not wait for a disk.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { env::temp_dir() }
}
