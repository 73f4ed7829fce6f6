//! VMs that a name has had (P9). What one asked for may arrive when it is over: it must not end its successor, and it
//! must not make a claim either. The next VM of the name would take that for its own and start pods, and whoever then
//! says, truly, that the former VM is gone would end the claim of one that lives.

use super::super::{
    Result, StoreError,
    db::{Tx, args, statements},
};

const NOTE: &str = "INSERT INTO former_vm (node, uid, ended_at) VALUES ($1, $2, $3)
    ON CONFLICT (node, uid) DO UPDATE SET ended_at = excluded.ended_at";
const IS_FORMER: &str = "SELECT ended_at FROM former_vm WHERE node = $1 AND uid = $2 AND ended_at >= $3";
const RETURNS: &str = "DELETE FROM former_vm WHERE node = $1 AND uid = $2";
const FORGET: &str = "DELETE FROM former_vm WHERE (node, uid) IN
    (SELECT f.node, f.uid FROM former_vm AS f WHERE f.ended_at < $1 ORDER BY f.ended_at LIMIT $2)";

statements!(NOTE, IS_FORMER, RETURNS, FORGET);

/// How late a request may be: a year, for clocks may be set wrong for long.
pub(super) const REMEMBERED: i64 = 365 * 86_400_000;

/// The VM of this uid is no longer the node of this name.
pub(super) async fn note(tx: &mut Tx, node: &str, uid: &str, now: i64) -> Result<()> {
    tx.execute(NOTE, args![node, uid, now]).await.map(|_| ())
}

/// Forgets some of those for whom nobody asks any more; how many.
pub(in crate::store) async fn forget(tx: &mut Tx, now: i64, most: u64) -> Result<u64> {
    tx.execute(FORGET, args![now - REMEMBERED, most]).await
}

/// Refuses what a VM asks for that was the node of this name and has ended; `cure` is for one that is there again.
///
/// # Errors
/// [`StoreError::Exists`], because it has had its claim.
pub(super) async fn refuse(tx: &mut Tx, node: &str, uid: &str, now: i64, cure: &str) -> Result<()> {
    let found: Option<(i64,)> = tx.fetch_optional(IS_FORMER, args![node, uid, now - REMEMBERED]).await?;
    if found.is_none() {
        return Ok(());
    }
    Err(StoreError::Exists(format!(
        "VM {uid} was node {node} before and has ended: this request came late and changes nothing; a VM that is really there again {cure}"
    )))
}

/// Somebody who may has said that the VM of this uid is the node again.
pub(super) async fn returns(tx: &mut Tx, node: &str, uid: &str) -> Result<()> {
    tx.execute(RETURNS, args![node, uid]).await.map(|_| ())
}
