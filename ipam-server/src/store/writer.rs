//! Group commit: waiting mutations share one transaction.

use super::db::Db;
use crate::clock::Clock;
use std::sync::Arc;

/// Gathers waiting mutations and commits them together.
#[derive(Debug, Clone)]
pub(super) struct Writer {}

impl Writer {
    pub(super) fn start(_db: Db, _clock: Arc<dyn Clock>) -> Self {
        Self {}
    }

    pub(super) async fn stop(&self) {}
}
