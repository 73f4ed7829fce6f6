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

/// How often the counts of used addresses are compared with the ledger.
const RECOUNT: Duration = Duration::from_hours(1);

/// Keeps the database in order, whenever this replica has the turn, until it is dropped.
pub(crate) async fn keep_up(store: Store, keep_events: SignedDuration) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = None;
    let (mut pruned, mut counted): (Option<Instant>, Option<Instant>) = (None, None);
    let is_due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
    loop {
        ticks.tick().await;
        turn = held(&store, turn).await;
        let Some(turn) = &mut turn else { continue };
        if is_due(pruned, PRUNE) {
            match store.prune(turn, keep_events).instrument(trace_span!("prune")).await {
                Ok(()) => pruned = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "rows past their time go later"),
            }
        }
        if is_due(counted, RECOUNT) {
            match store.recount().instrument(trace_span!("recount")).await {
                Ok(wrong) => {
                    counted = Some(Instant::now());
                    if wrong > 0 {
                        tracing::warn!(wrong, "counts of used addresses were wrong and are put right");
                    }
                }
                Err(error) => tracing::warn!(%error, "used addresses are counted later"),
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
