//! Background work that one replica does for all of them, and another when that one ends.

use crate::store::{Store, Turn};
use jiff::SignedDuration;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tracing::{Instrument, trace_span};

/// How often a replica asks for the turn, or makes sure that it still has it.
const LOOK: Duration = Duration::from_secs(2);

/// How often rows past their time are looked for.
const PRUNE: Duration = Duration::from_secs(60);

/// Keeps the database in order, whenever this replica has the turn, until it is dropped.
pub(crate) async fn keep_up(store: Store, keep_events: SignedDuration) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = None;
    let mut pruned: Option<Instant> = None;
    loop {
        ticks.tick().await;
        turn = held(&store, turn).await;
        let Some(turn) = &mut turn else { continue };
        if pruned.is_none_or(|last| last.elapsed() >= PRUNE) {
            match store.prune(turn, keep_events).instrument(trace_span!("prune")).await {
                Ok(()) => pruned = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "rows past their time go later"),
            }
        }
    }
}

/// The turn that this replica has by now.
async fn held(store: &Store, turn: Option<Turn>) -> Option<Turn> {
    if let Some(mut turn) = turn
        && turn.lasts().await
    {
        return Some(turn);
    }
    match store.take_turn().await {
        Ok(turn) => {
            if turn.is_some() {
                tracing::info!("this replica does the upkeep for all");
            }
            turn
        }
        Err(error) => {
            tracing::debug!(%error, "nobody's turn can be taken");
            None
        }
    }
}
