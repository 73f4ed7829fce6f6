//! What is reserved, claimed and held, in SQL. A method is a transaction.
//!
//! Planning mutations (VNets, subnets, reservations, pools, nodes, syncs) commit
//! alone. Allocations, and the claims of new nodes, are gathered and committed
//! in groups (`writer`, `nodes/claims`). Reads use connections of their own.

mod addresses;
mod allocations;
mod book;
mod capacity;
mod change;
mod db;
mod doctor;
mod dump;
mod error;
mod events;
mod group_commit;
mod measures;
mod mutation;
mod nodes;
mod plans;
mod pools;
mod recovery;
mod reservations;
#[cfg(test)]
mod statements;
mod subnets;
mod sync;
mod tiling;
mod tokens;
mod told;
mod upkeep;
mod usage;
mod vnets;
mod writer;

pub use allocations::{AllocationFilter, NodeCall};
pub use change::{Actor, Change, Commit, Departure, Page, Precondition, Versioned, VmState, Written};
pub use db::{DatabaseUrl, Migrated, PostgresUrl, Turn, schema_version};
pub use doctor::Diagnosis;
pub use dump::{DumpError, Dumped, Restored, Since};
pub use error::{Kind, Shortage, StoreError};
pub use events::EventFilter;
pub use nodes::NodeFilter;
pub use tokens::{Grant, Known, Swapper};

use crate::clock::Clock;
use db::Db;
use nodes::Registrar;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokens::Cache;
use writer::Writer;

/// Result of a store method.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The database behind the service.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    clock: Arc<dyn Clock>,
    writer: Writer,
    registrar: Registrar,
    cache: Cache,
    capacity: Arc<capacity::Cache>,
    /// Held by whoever compares all of the ledger.
    checking: Arc<tokio::sync::Mutex<()>>,
    /// An older backup was restored. What lasts is in the database; here it spares the question, where it is not so.
    recovering: Arc<AtomicBool>,
}

impl Store {
    /// Opens the database, creates it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// The database cannot be opened or migrated.
    pub async fn open(url: &DatabaseUrl, clock: Arc<dyn Clock>) -> Result<Self> {
        let db = Db::open(url).await?;
        db.migrate().await?;
        let writer = Writer::start(&db, &clock);
        let registrar = Registrar::start(&db, &clock);
        let store = Self {
            db,
            clock,
            writer,
            registrar,
            cache: Cache::default(),
            capacity: Arc::default(),
            checking: Arc::default(),
            recovering: Arc::default(),
        };
        store.recovering.store(store.is_recovering().await?, Ordering::Relaxed);
        Ok(store)
    }

    /// Brings the schema of a database up to date, and makes the database where it is missing. Several at once wait
    /// for each other, and one does it.
    ///
    /// # Errors
    /// The database cannot be opened or migrated, or is a later program's.
    pub async fn migrate(url: &DatabaseUrl) -> Result<Migrated> {
        let db = Db::open(url).await?;
        let migrated = db.migrate().await;
        db.close().await;
        migrated
    }

    /// Whether the database answers, and keeps what it is told.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        if !(self.writer.is_running() && self.registrar.is_running()) {
            return Err(StoreError::Unavailable("nothing is written any more".to_owned()));
        }
        self.db.check_answers().await
    }

    /// How many transactions the database undid in favour of others, and the store did again.
    pub fn undone(&self) -> u64 {
        self.db.undone()
    }

    /// Finishes what was accepted and closes the database.
    pub async fn close(&self) {
        self.writer.stop().await;
        self.registrar.stop().await;
        if let Err(error) = self.note_uses().await {
            tracing::warn!(%error, "when tokens were last used is not written down");
        }
        self.db.close().await;
    }
}
