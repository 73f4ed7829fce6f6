//! What a node told by its last sync, kept to compare the ledger with it.

use super::{
    Result,
    book::Holder,
    db::{Tx, args, statements},
};
use ipam_api::ledger::{Listing, SyncDecision, Verdict};
use jiff::Timestamp;

const NOTE: &str = "INSERT INTO last_sync (node, at, claim, boot_seq, as_of, block_version, live, refused)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (node) DO UPDATE SET at = excluded.at, claim = excluded.claim, boot_seq = excluded.boot_seq,
        as_of = excluded.as_of, block_version = excluded.block_version, live = excluded.live,
        refused = excluded.refused";

statements!(NOTE);

/// Notes a listing that was newer than the last one.
pub(super) async fn note(
    tx: &mut Tx,
    holder: &Holder,
    listing: &Listing,
    decision: &SyncDecision,
    now: Timestamp,
) -> Result<()> {
    let live = listing.entries.iter().filter(|entry| entry.state.is_live()).count() as u64;
    let refused =
        decision.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refused(_))).count() as u64;
    let args = args![
        holder.id,
        now.as_millisecond(),
        holder.ledger.claim.0,
        holder.ledger.boot.0,
        listing.as_of.0,
        listing.block.0,
        live,
        refused,
    ];
    tx.execute(NOTE, args).await.map(|_| ())
}
