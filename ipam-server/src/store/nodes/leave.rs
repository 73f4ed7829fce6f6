//! The end of a claim.

use super::{
    super::{
        Result,
        db::{Tx, args, statements},
        mutation::{changed, corrupt},
        pools::{self, Wish},
        tiling::{self, Tile, Use},
        tokens, usage,
    },
    former,
    row::{BY_ID, NodeRow},
};
use ipam_api::line::{Extent, Offset};
use jiff::Timestamp;

const RELEASE: &str = "UPDATE allocation
    SET state = 'released', since = $2, node = NULL, block = NULL, extent_first = NULL, extent_next = NULL
    WHERE node = $1";
const FORGET_CONFLICTS: &str = "DELETE FROM conflict WHERE node = $1";
const OWN_EXTENTS: &str = "SELECT e.first, e.next FROM extent AS e WHERE e.node = $1";
const OTHER_AT: &str =
    "SELECT n.id FROM node AS n WHERE n.subnet = $1 AND (n.own4 = $2 OR n.own6 = $2) AND n.id <> $3";
const UNCLAIM: &str = "UPDATE block SET node = NULL WHERE id = $1";
const DELETE_NODE: &str = "DELETE FROM node WHERE id = $1";

statements!(RELEASE, FORGET_CONFLICTS, OWN_EXTENTS, OTHER_AT, UNCLAIM, DELETE_NODE);

/// Ends a node: what it held is released, its own addresses are free, its block
/// goes back to the pool's plan or, where the pool has too many, becomes free.
pub(in crate::store) async fn free_node(tx: &mut Tx, node: i64, now: Timestamp) -> Result<()> {
    let row: NodeRow = tx.fetch_one(BY_ID, args![node]).await?;
    end_holdings(tx, &row, now.as_millisecond()).await?;
    let own = own_given_up(tx, &row, &[]).await?;
    tiling::retile(tx, row.subnet, own).await?;
    tx.execute(UNCLAIM, args![row.block]).await?;
    // Whoever has one could otherwise register in its name again.
    tokens::end_of_node(tx, &row.name, now.as_millisecond()).await?;
    if let Some(uid) = &row.uid {
        former::note(tx, &row.name, uid, now.as_millisecond()).await?;
    }
    tx.execute(DELETE_NODE, args![node]).await?;
    let pool = pools::by_id(tx, row.pool).await?;
    let wish = pools::wish(tx, &pool, row.subnet).await?;
    tiling::settle(tx, row.subnet, row.block).await?;
    let extents = tiling::of_block(tx, row.block).await?.stays;
    // The pool's shape may have changed while the block was claimed (contiguous), its size while
    // the node was being deleted.
    let keeps_shape = pools::keeps_shape(&extents, &pool.spec);
    if wish == Wish::Drop || !keeps_shape {
        pools::give_back(tx, row.subnet, &[row.block], &extents).await?;
    }
    if wish == Wish::Move || (wish == Wish::Keep && !keeps_shape) {
        pools::settle(tx, row.pool).await?;
    }
    changed(tx).await
}

/// Releases what a node's pods hold and forgets the strangers it met.
pub(super) async fn end_holdings(tx: &mut Tx, node: &NodeRow, now: i64) -> Result<()> {
    let released = tx.execute(RELEASE, args![node.id, now]).await?;
    usage::note(tx, &usage::Changes::from([(node.block, -released.cast_signed())])).await?;
    tx.execute(FORGET_CONFLICTS, args![node.id]).await.map(|_| ())
}

/// What becomes of a node's own extents but those it keeps: free, or another
/// node's that has the same offset in its other family.
pub(super) async fn own_given_up(tx: &mut Tx, row: &NodeRow, keep: &[Offset]) -> Result<Vec<Tile>> {
    let mut edits = Vec::new();
    for (first, next) in tx.fetch_all::<(i64, i64)>(OWN_EXTENTS, args![row.id]).await? {
        let extent = tiling::extent(first, next)?;
        if extent.size() != 1 {
            return Err(corrupt(format!("own extent {extent} of node {} is not one offset", row.name)));
        }
        if keep.contains(&extent.first()) {
            continue;
        }
        let other: Option<(i64,)> = tx.fetch_optional(OTHER_AT, args![row.subnet, first, row.id]).await?;
        edits.push(Tile::new(Extent::single(extent.first()), other.map_or(Use::Free, |(id,)| Use::Node(id))));
    }
    Ok(edits)
}
