use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the service keeps what it knows.
#[derive(Debug)]
pub(crate) enum Database {
    /// A file, which dies with the service.
    Sqlite(PathBuf),
}

impl Database {
    /// An empty one below this directory.
    pub(crate) fn sqlite(below: &Path) -> Self {
        Self::Sqlite(below.join("ipam.db"))
    }

    /// As `IPAM_DATABASE` names it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", path.display()),
        }
    }
}

/// A directory in memory where there is one: what a killed process has written is there all the same, and the run
/// does not wait for a disk.
pub(crate) fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::with_prefix_in("history-", memory) } else { TempDir::new() };
    made.context("making a directory for the run")
}
