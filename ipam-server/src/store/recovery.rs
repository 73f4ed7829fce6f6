//! After an older backup was restored: the service has gone back in time, the nodes have not.
//!
//! Between the backup and now blocks may have been claimed, grown, replaced; of these the ledger knows nothing, and
//! pods run there. So until somebody who knows says that it is over, **no address goes to anyone new**: no block is
//! claimed, taken over or grown, no reservation made, and the service picks no address. What nodes do with the blocks
//! that they had goes on.
//!
//! Numbers given since must not be given again, so all of them take a step that no service takes in its life. With a
//! block's version that does one thing more: whatever a node was told of its block since, what it is told now is
//! newer, so it adopts that, and stamps its version only when no pod of its lives elsewhere. A sync that is stamped so
//! and in which nothing was refused is its word that it has found back into the ledger.

use super::{
    Change, Kind, NodeCall, Result, Store, StoreError,
    db::{Scope, Tx, args, retried},
    dump::DumpError,
    events::Deed,
    mutation::{SomeOf, check, timestamp},
};
use ipam_api::{
    names::Attachment,
    wire::{AllocationState, Recovery},
};
use jiff::Timestamp;
use serde_json::json;
use std::sync::atomic::Ordering;

/// What numbers go forward by: more than are given in a life, and small beside what a header's number may be (10^15).
const STEP: i64 = 1_000_000_000;

const STEP_COUNTERS: &str = "UPDATE counter SET value = value + $1";
const STEP_BLOCKS: &str = "UPDATE block SET version = version + $1";
// What people edit has versions of the count 'change': each gets one that it never had.
const STEP_VERSIONS: [&str; 5] = [
    "UPDATE vnet SET version = (SELECT c.value FROM counter AS c WHERE c.name = 'change')",
    "UPDATE subnet SET version = (SELECT c.value FROM counter AS c WHERE c.name = 'change')",
    "UPDATE reservation SET version = (SELECT c.value FROM counter AS c WHERE c.name = 'change')",
    "UPDATE pool SET version = (SELECT c.value FROM counter AS c WHERE c.name = 'change')",
    "UPDATE node SET version = (SELECT c.value FROM counter AS c WHERE c.name = 'change')",
];
// A shim may have used the block since: deleted, such a node has to confirm that it is empty.
const TAKEN_UP: &str = "UPDATE node SET state = 'active' WHERE allocator = 'node' AND state = 'planned'";
const FORGET_SYNCS: &str = "DELETE FROM last_sync";
const BEGIN: &str = "INSERT INTO counter (name, value) VALUES ('recovery', $1)";
// The number of an event is a reader's cursor: what it has read must not come again as something else.
const STEP_EVENTS: &str = "INSERT INTO event (id, at, actor, source, action, subject, became)
    VALUES ((SELECT COALESCE(MAX(e.id), 0) + $1 FROM event AS e), $2, 'service', 'service', 'create', $3, $4)";
const SINCE: &str = "SELECT c.value FROM counter AS c WHERE c.name = 'recovery'";
const END: &str = "DELETE FROM counter WHERE name = 'recovery'";

macro_rules! unheard {
    ($select:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $select,
            " FROM node AS n JOIN block AS b ON b.node = n.id LEFT JOIN last_sync AS l ON l.node = n.id
                AND l.claim = n.claim AND l.block_version = b.version AND l.refused = 0
             WHERE n.allocator = 'node' AND l.node IS NULL",
            $order
        )
    };
}
const UNHEARD: &str = unheard!("COUNT(*)", "");
const SOME_UNHEARD: &str = unheard!("n.name", " ORDER BY n.name LIMIT 5");

const SUBJECT: &str = "service/recovery";

/// Begins it, in the transaction that restores.
pub(super) async fn begin(tx: &mut Tx, of: Timestamp, now: Timestamp) -> Result<(), DumpError> {
    tx.execute(STEP_COUNTERS, args![STEP]).await?;
    tx.execute(STEP_BLOCKS, args![STEP]).await?;
    for sql in STEP_VERSIONS {
        tx.execute(sql, args![]).await?;
    }
    tx.execute(TAKEN_UP, args![]).await?;
    tx.execute(FORGET_SYNCS, args![]).await?;
    let now = now.as_millisecond();
    // A backup made while another recovery went on has a row of its own.
    tx.execute(END, args![]).await?;
    tx.execute(BEGIN, args![now]).await?;
    let became = json!({"backupOf": of, "since": timestamp(now)?});
    tx.execute(STEP_EVENTS, args![STEP, now, SUBJECT, became.to_string()]).await?;
    Ok(())
}

/// Whether it goes on.
pub(super) async fn goes_on(tx: &mut Tx) -> Result<bool> {
    Ok(since(tx).await?.is_some())
}

/// Refuses what would give an address to somebody new while it goes on.
pub(super) async fn refuse(tx: &mut Tx) -> Result<()> {
    match since(tx).await? {
        None => Ok(()),
        Some(since) => Err(StoreError::Recovering(format!(
            "an older backup was restored at {since:.0} and addresses may be in use that this service knows nothing of, so \
             nobody new gets one: ipamctl fsck says what is left to do, ipamctl recovery end ends it"
        ))),
    }
}

/// How it stands, if it goes on.
pub(super) async fn state(tx: &mut Tx) -> Result<Option<Recovery>> {
    let Some(since) = since(tx).await? else { return Ok(None) };
    let (unheard,): (i64,) = tx.fetch_one(UNHEARD, args![]).await?;
    Ok(Some(Recovery { since, unheard_nodes: unheard.cast_unsigned() }))
}

/// Since when it goes on.
async fn since(tx: &mut Tx) -> Result<Option<Timestamp>> {
    let row: Option<(i64,)> = tx.fetch_optional(SINCE, args![]).await?;
    row.map(|(since,)| timestamp(since)).transpose()
}

impl Store {
    /// Whether it goes on.
    pub(super) async fn is_recovering(&self) -> Result<bool> {
        let mut tx = self.db.read().await?;
        Ok(since(&mut tx).await?.is_some())
    }

    /// Ends it: whoever asks knows that no VM or container made after the backup has an address any more.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where nodes have not found back yet. Where it does not go on, nothing is to do.
    pub async fn end_recovery(&self, change: &Change) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            // As of a token: of one version all its life, and nothing to do where there is none.
            check(&change.precondition, &"recovery", Some(1))?;
            let Some(state) = state(&mut tx).await? else { return tx.commit().await };
            if state.unheard_nodes > 0 {
                let names: Vec<(String,)> = tx.fetch_all(SOME_UNHEARD, args![]).await?;
                let names: Vec<String> = names.into_iter().map(|(name,)| name).collect();
                return Err(StoreError::InUse(format!(
                    "not heard of since the backup was restored, or with pods outside its block: {}. Run cni-shim sync \
                     there, twice where a block had changed; delete with vmGone=true the nodes whose VMs are gone",
                    SomeOf::counted("node", &names, state.unheard_nodes)
                )));
            }
            tx.execute(END, args![]).await?;
            let deed = Deed::of(SUBJECT.to_owned(), Some(&state), None)?;
            self.finish(tx, change, &deed).await
        };
        retried!(self.db, attempt())?;
        self.recovering.store(self.is_recovering().await?, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses to pick an address for an attachment that has none, while it goes on.
    pub(super) async fn may_pick(&self, call: &NodeCall, attachment: &Attachment) -> Result<()> {
        if !self.recovering.load(Ordering::Relaxed) {
            return Ok(());
        }
        let held = match self.allocation(&call.node, attachment).await {
            Ok(allocation) => allocation.state == AllocationState::Held,
            Err(StoreError::NotFound(Kind::Allocation, _)) => false,
            // The writer says it in its own words.
            Err(StoreError::NotFound(..)) => true,
            Err(error) => return Err(error),
        };
        let mut tx = self.db.read().await?;
        if !held {
            refuse(&mut tx).await?;
            // Another replica has ended it.
            self.recovering.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
