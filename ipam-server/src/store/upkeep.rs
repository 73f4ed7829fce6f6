//! What one replica does for all: rows past their time go, counts are compared. It has the turn while its connection
//! lasts, or, in a database that one process has, always.

use super::{
    Result, Store,
    db::{Scope, Turn},
    events,
    measures::Kept,
    nodes, tokens, usage,
};
use jiff::SignedDuration;

/// Rows that go in one transaction: it is over before anybody notices.
const BATCH: u64 = 500;

impl Store {
    /// The turn, unless another replica has it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take_turn(&self) -> Result<Option<Turn>> {
        self.db.take_turn().await
    }

    /// Puts the counts of used addresses right where they are wrong, as a replica of an earlier version leaves them that
    /// worked beside others; how many were.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn recount(&self) -> Result<u64> {
        if !usage::is_wrong(&mut self.db.survey().await?.patient()).await? {
            return Ok(0);
        }
        // One at a time, or what was wrong would be put right twice.
        let mut tx = self.db.write(Scope::Plan).await?.patient();
        let wrong = usage::correct(&mut tx).await?;
        tx.commit().await?;
        Ok(wrong)
    }

    /// Takes away events that are older than this, and what is remembered of tokens and VMs that ended more than a year
    /// ago. It stops where the turn ends; whoever has it then goes on.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn prune(&self, turn: &mut Turn, keep_events: SignedDuration) -> Result<()> {
        let now = self.now();
        for rows in [Kept::Events, Kept::FormerTokens, Kept::FormerVms] {
            while turn.lasts().await {
                let mut tx = self.db.write(Scope::Nodes).await?;
                let gone = match rows {
                    Kept::Events => {
                        let before =
                            now.saturating_sub(i64::try_from(keep_events.as_millis()).unwrap_or(i64::MAX));
                        events::forget(&mut tx, before, BATCH).await?
                    }
                    Kept::FormerTokens => tokens::forget_former(&mut tx, now, BATCH).await?,
                    Kept::FormerVms => nodes::forget_former(&mut tx, now, BATCH).await?,
                };
                tx.commit().await?;
                self.db.measures().pruned(rows, gone);
                if gone < BATCH {
                    break;
                }
            }
        }
        Ok(())
    }
}
