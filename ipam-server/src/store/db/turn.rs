//! Whose turn it is to do what one does for all.

use super::postgres::{answered, take_turn};
use crate::store::{Result, measures::Measures};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::time::Duration;

/// A server that does not answer this long has given the turn to another, or will.
const SILENCE: Duration = Duration::from_secs(5);

/// The turn of this process; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// On a server: the lock lasts as long as the connection, however that ends.
    connection: Option<PgConnection>,
    /// Shows it.
    gauge: Gauge,
}

impl Turn {
    /// The turn in a database that this process has.
    pub(super) fn own(measures: &Measures) -> Self {
        Self::new(None, measures)
    }

    /// The turn on a server, unless another has it.
    pub(super) async fn on(options: &PgConnectOptions, measures: &Measures) -> Result<Option<Self>> {
        let taken = answered(SILENCE, take_turn(options)).await?;
        Ok(taken.map(|connection| Self::new(Some(connection), measures)))
    }

    fn new(connection: Option<PgConnection>, measures: &Measures) -> Self {
        measures.turn.set(1);
        Self { connection, gauge: measures.turn.clone() }
    }

    /// Whether it is still this process's.
    pub async fn lasts(&mut self) -> bool {
        match &mut self.connection {
            None => true,
            Some(connection) => answered(SILENCE, connection.ping()).await.is_ok(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.gauge.set(0);
    }
}
