//! How many addresses are held, by subnet and pool: counted as they are taken and given back, in the same transaction.
//!
//! The count is kept in several rows ("slots") of which only the sum means anything. On PostgreSQL whoever writes picks
//! one by its connection, so that those who write at the same time do not wait for each other.

use super::{
    Result,
    db::{Sql, Tx, args, rows, statements},
};
use std::collections::BTreeMap;

/// The slot of a connection to PostgreSQL.
macro_rules! slot {
    () => {
        "pg_backend_pid() % 64"
    };
}
pub(super) use slot;

/// A change is added to what is there.
macro_rules! added {
    () => {
        "ON CONFLICT (subnet, pool, slot) DO UPDATE SET used = usage.used + excluded.used"
    };
}
pub(super) use added;

/// Addresses that are used in one subnet by one pool.
pub(super) const USED: &str =
    "SELECT subnet, pool, CAST(SUM(used) AS BIGINT) FROM usage GROUP BY subnet, pool ORDER BY subnet, pool";

// Rows are locked in the order of all who write them.
macro_rules! note {
    ($list:literal, $slot:expr) => {
        concat!(
            "INSERT INTO usage (subnet, pool, slot, used)
            SELECT block.subnet, block.pool, ",
            $slot,
            ", CAST(SUM(CAST(change.value ->> 1 AS BIGINT)) AS BIGINT)
            FROM ",
            $list,
            " AS change CROSS JOIN block WHERE block.id = CAST(change.value ->> 0 AS BIGINT)
            GROUP BY block.subnet, block.pool ORDER BY block.subnet, block.pool
            ",
            added!()
        )
    };
}

const NOTE: Sql =
    Sql { sqlite: note!("json_each($1)", "0"), postgres: note!("jsonb_array_elements($1::jsonb)", slot!()) };

/// By how much a count is wrong: what is counted, less what is held, in one snapshot. By blocks first, in the order of
/// their index: nothing as long as the ledger is sorted.
macro_rules! off {
    () => {
        "(SELECT counted.subnet, counted.pool, CAST(SUM(counted.used) AS BIGINT) AS off
          FROM (SELECT subnet, pool, used FROM usage
                UNION ALL
                SELECT block.subnet, block.pool, -held.count AS used
                FROM (SELECT allocation.block, COUNT(*) AS count FROM allocation
                      WHERE allocation.block IS NOT NULL GROUP BY allocation.block) AS held
                JOIN block ON block.id = held.block) AS counted
          GROUP BY counted.subnet, counted.pool HAVING SUM(counted.used) <> 0) AS wrong"
    };
}
pub(super) use off;

const WRONG: &str = concat!("SELECT COUNT(*) FROM ", off!());

macro_rules! correct {
    ($slot:expr) => {
        concat!(
            "INSERT INTO usage (subnet, pool, slot, used)
            SELECT wrong.subnet, wrong.pool, ",
            $slot,
            ", -wrong.off FROM ",
            off!(),
            " WHERE true ORDER BY wrong.subnet, wrong.pool
            ",
            added!()
        )
    };
}

const CORRECT: Sql = Sql { sqlite: correct!("0"), postgres: correct!(slot!()) };

statements!(NOTE, USED);

/// How many more addresses each block has in use (fewer: below zero), by its row id.
pub(super) type Changes = BTreeMap<i64, i64>;

/// Counts what a transaction changes.
pub(super) async fn note(tx: &mut Tx, changes: &Changes) -> Result<()> {
    let changes: Vec<(i64, i64)> =
        changes.iter().filter(|(_, more)| **more != 0).map(|(block, more)| (*block, *more)).collect();
    if changes.is_empty() {
        return Ok(());
    }
    tx.execute(NOTE, args![rows(&changes)?]).await.map(|_| ())
}

/// Whether there is a count that is not what is held.
pub(super) async fn is_wrong(tx: &mut Tx) -> Result<bool> {
    let (wrong,): (i64,) = tx.fetch_one(WRONG, args![]).await?;
    Ok(wrong > 0)
}

/// Counts what is held and puts right what was counted wrong; how many counts that were. Nobody else must plan meanwhile,
/// or two would do it.
pub(super) async fn correct(tx: &mut Tx) -> Result<u64> {
    tx.execute(CORRECT, args![]).await
}
