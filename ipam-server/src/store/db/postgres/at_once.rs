//! Statements that are transactions of their own, in one round trip each.

use super::{
    super::{sql::bound, trouble::has_ended},
    ABANDONED, BATCHES, CONNECT, Patience, Purpose, Value, admit, answered, silent,
};
use crate::store::Result;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How their sessions differ from those that say how they begin.
pub(super) const SETTINGS: [(&str, &str); 3] = [
    // They rely on what is locked being looked at in its newest version.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    // The best way is the same whatever the values are; to look for it each time takes longer than to go it.
    ("plan_cache_mode", "force_generic_plan"),
];

/// Connections for them. sqlx's pool asks every connection that it gets back whether it is well, which is a round trip
/// more; whoever takes one of these finds out by what it came for.
#[derive(Debug, Clone)]
pub(super) struct AtOnce {
    options: Arc<PgConnectOptions>,
    purpose: Purpose,
    idle: Arc<Mutex<Vec<PgConnection>>>,
    /// A permit for every connection that there may be, held while it is used.
    places: Arc<Semaphore>,
}

impl AtOnce {
    pub(super) fn new(options: PgConnectOptions, purpose: Purpose) -> Self {
        Self {
            options: Arc::new(options.options(SETTINGS)),
            purpose,
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(BATCHES as usize)),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a statement. Where its connection had ended while it lay idle it runs again: it must be one that does not mind
    /// to have been done before.
    ///
    /// Whoever waits for an answer waits no longer than for any other statement. The connection keeps its place for
    /// longer: its server may be there, and wait for a standby, and another connection would wait as well.
    pub(super) async fn run(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<PgRow>> {
        let places = Arc::clone(&self.places);
        let place =
            answered(
                CONNECT,
                async move { places.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed) },
            );
        let mut answer = Box::pin(self.clone().answer(place.await?, sql, args));
        match tokio::time::timeout(Patience::Usual.statement(), &mut answer).await {
            Ok(rows) => Ok(rows?),
            Err(_) => {
                tokio::spawn(tokio::time::timeout(ABANDONED, answer));
                Err(silent("it has not said whether a statement was done").into())
            }
        }
    }

    async fn answer(
        self,
        _place: OwnedSemaphorePermit,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        loop {
            let idle = self.idle().pop();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => answered(CONNECT, self.connect()).await?,
            };
            match bound(sql, args.clone()).fetch_all(&mut connection).await {
                Err(error) if has_ended(&error) && was_idle => {}
                Err(error) if has_ended(&error) => return Err(error),
                // One that was refused is of a server that is well.
                outcome => {
                    self.idle().push(connection);
                    return outcome;
                }
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        admit(&mut connection, self.purpose).await?;
        Ok(connection)
    }

    pub(super) async fn close(&self) {
        let connections = std::mem::take(&mut *self.idle());
        for connection in connections {
            // It ends with the program otherwise.
            let _ = connection.close().await;
        }
    }
}
