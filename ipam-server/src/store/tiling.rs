//! The chain of extents of a subnet, changed by difference.
//!
//! A change reads only the tiles it touches and their neighbours, computes the
//! new ones purely, deletes what goes and inserts what comes. The chain is whole
//! again when the transaction commits; the database checks that it is. A tile
//! that stays as it is is never written, for allocations hang on it.

use super::{
    Result,
    db::{Sql, Tx, Value, args, column, over, rows, statements},
    mutation::corrupt,
};
use ipam_api::{
    ledger::{Footprint, Leaving},
    line::{Extent, Offset},
    planning::joined,
    wire::BlockVersion,
};
use std::collections::HashSet;

/// What a tile is used for, and by whom (row ids).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Free,
    Reservation(i64),
    Node(i64),
    Block(i64),
    /// A block has given it up; its node has not confirmed that nothing lives there.
    Leaving {
        block: i64,
        /// The first version of the block without it.
        since: BlockVersion,
    },
}

/// One extent of a subnet and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub(super) extent: Extent,
    pub(super) usage: Use,
}

impl Tile {
    pub(super) fn new(extent: Extent, usage: Use) -> Self {
        Self { extent, usage }
    }
}

#[derive(Debug, sqlx::FromRow)]
struct TileRow {
    first: i64,
    next: i64,
    kind: String,
    reservation: Option<i64>,
    node: Option<i64>,
    block: Option<i64>,
    leaving: Option<i64>,
}

impl TryFrom<TileRow> for Tile {
    type Error = super::StoreError;

    fn try_from(row: TileRow) -> Result<Self> {
        let usage = match (row.kind.as_str(), row.reservation, row.node, row.block, row.leaving) {
            ("free", None, None, None, None) => Use::Free,
            ("reserved", Some(id), None, None, None) => Use::Reservation(id),
            ("reserved", None, Some(id), None, None) => Use::Node(id),
            ("block", None, None, Some(id), None) => Use::Block(id),
            ("block", None, None, Some(block), Some(since)) => {
                Use::Leaving { block, since: BlockVersion(since.cast_unsigned()) }
            }
            _ => return Err(corrupt(format!("extent of kind {} without its owner", row.kind))),
        };
        Ok(Self { extent: extent(row.first, row.next)?, usage })
    }
}

/// An extent as the database has it.
pub(super) fn extent(first: i64, next: i64) -> Result<Extent> {
    Extent::new(Offset(first.cast_unsigned()), Offset(next.cast_unsigned()))
        .ok_or_else(|| corrupt(format!("empty extent at {first}")))
}

const START: &str = "INSERT INTO extent (subnet, first, next, kind)
    VALUES ($1, 0, $2, 'free'), ($1, $2, NULL, 'end')";

// The windows lead (on SQLite CROSS JOIN keeps the order): each reads its own tiles by the index, however
// many the subnet has.
const AROUND: Sql = over!(
    "SELECT DISTINCT e.first, e.next, e.kind, e.reservation, e.node, e.block, e.leaving
    FROM ",
    "$2",
    " AS w CROSS JOIN extent AS e
    WHERE e.subnet = $1 AND e.kind <> 'end'
      AND e.first >= COALESCE(
         (SELECT MAX(l.first) FROM extent AS l
          WHERE l.subnet = $1 AND l.first < CAST(w.value ->> 0 AS BIGINT)), 0)
      AND e.first <= CAST(w.value ->> 1 AS BIGINT)
    ORDER BY e.first"
);

const INSIDE: &str = "SELECT e.first, e.next, e.kind, e.reservation, e.node, e.block, e.leaving
    FROM extent AS e
    WHERE e.subnet = $1 AND e.kind <> 'end' AND e.first < $3
      AND e.first >= COALESCE((SELECT MAX(l.first) FROM extent AS l WHERE l.subnet = $1 AND l.first <= $2), 0)
    ORDER BY e.first";

const FREE: &str =
    "SELECT e.first, e.next FROM extent AS e WHERE e.subnet = $1 AND e.kind = 'free' ORDER BY e.first";

const OF_BLOCK: &str = "SELECT e.first, e.next, e.leaving FROM extent AS e WHERE e.block = $1
    ORDER BY e.first";

const DELETE: Sql = over!(
    "DELETE FROM extent WHERE subnet = $1 AND first IN (SELECT CAST(value ->> 0 AS BIGINT) FROM ",
    "$2",
    ")"
);

const INSERT: Sql = over!(
    "INSERT INTO extent (subnet, first, next, kind, reservation, node, block, leaving)
    SELECT $1, CAST(value ->> 0 AS BIGINT), CAST(value ->> 1 AS BIGINT), value ->> 2,
           CAST(value ->> 3 AS BIGINT), CAST(value ->> 4 AS BIGINT), CAST(value ->> 5 AS BIGINT),
           CAST(value ->> 6 AS BIGINT)
    FROM ",
    "$2",
    ""
);

statements!(AROUND, INSIDE, FREE, OF_BLOCK, DELETE, INSERT);

/// Makes the chain of a new subnet: free from end to end.
pub(super) async fn start(tx: &mut Tx, subnet: i64, length: u64) -> Result<()> {
    tx.execute(START, args![subnet, length]).await.map(|_| ())
}

/// The tiles that share an offset with an extent.
pub(super) async fn inside(tx: &mut Tx, subnet: i64, extent: Extent) -> Result<Vec<Tile>> {
    let args = args![subnet, extent.first().0, extent.next().0];
    tx.fetch_all::<TileRow>(INSIDE, args).await?.into_iter().map(Tile::try_from).collect()
}

/// The tile around an offset of the line.
pub(super) async fn at(tx: &mut Tx, subnet: i64, offset: Offset) -> Result<Tile> {
    let tiles = inside(tx, subnet, Extent::single(offset)).await?;
    tiles.into_iter().next().ok_or_else(|| corrupt(format!("no extent around offset {offset}")))
}

/// The free extents of a subnet in order.
pub(super) async fn free(tx: &mut Tx, subnet: i64) -> Result<Vec<Extent>> {
    extents(tx, FREE, args![subnet]).await
}

/// Where a block lies.
pub(super) async fn of_block(tx: &mut Tx, block: i64) -> Result<Footprint> {
    let mut found = Footprint::default();
    for (first, next, leaving) in tx.fetch_all(OF_BLOCK, args![block]).await? {
        add(&mut found, first, next, leaving)?;
    }
    Ok(found)
}

/// Adds a tile of a block to where it lies.
pub(super) fn add(found: &mut Footprint, first: i64, next: i64, leaving: Option<i64>) -> Result<()> {
    let extent = extent(first, next)?;
    match leaving {
        None => found.stays.push(extent),
        Some(since) => {
            found.leaves.push(Leaving { extent, since: BlockVersion(since.cast_unsigned()) });
        }
    }
    Ok(())
}

/// Gives up what a block was leaving and joins its tiles: nobody holds an address there any more.
pub(super) async fn settle(tx: &mut Tx, subnet: i64, block: i64) -> Result<()> {
    let found = of_block(tx, block).await?;
    let free = found.leaves.iter().map(|leaving| Tile::new(leaving.extent, Use::Free));
    let whole = joined(found.stays.clone()).into_iter().map(|extent| Tile::new(extent, Use::Block(block)));
    retile(tx, subnet, free.chain(whole).collect()).await
}

/// Frees what a block was leaving, and only that: pods hold addresses in what stays.
pub(super) async fn let_go(tx: &mut Tx, subnet: i64, block: i64) -> Result<()> {
    let found = of_block(tx, block).await?;
    let free = found.leaves.iter().map(|leaving| Tile::new(leaving.extent, Use::Free));
    retile(tx, subnet, free.collect()).await
}

async fn extents(tx: &mut Tx, sql: &'static str, args: Vec<Value>) -> Result<Vec<Extent>> {
    let rows: Vec<(i64, i64)> = tx.fetch_all(sql, args).await?;
    rows.into_iter().map(|(first, next)| extent(first, next)).collect()
}

/// Gives extents of a subnet new uses. They may come in any order and must not overlap.
pub(super) async fn retile(tx: &mut Tx, subnet: i64, mut edits: Vec<Tile>) -> Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    edits.sort_unstable_by_key(|tile| tile.extent);
    let mut windows: Vec<(u64, u64)> = Vec::new();
    for Tile { extent, .. } in &edits {
        match windows.last_mut() {
            Some((_, next)) if *next == extent.first().0 => *next = extent.next().0,
            _ => windows.push((extent.first().0, extent.next().0)),
        }
    }
    let found: Vec<TileRow> = tx.fetch_all(AROUND, args![subnet, rows(&windows)?]).await?;
    let old = found.into_iter().map(Tile::try_from).collect::<Result<Vec<_>>>()?;
    let new = overlaid(&old, &edits);

    let (was, is): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    let gone: Vec<_> = old.iter().filter(|t| !is.contains(t)).map(|t| t.extent.first().0).collect();
    let come: Vec<_> = new.iter().filter(|t| !was.contains(t)).map(record).collect();
    if !gone.is_empty() {
        tx.execute(DELETE, args![subnet, column(gone)?]).await?;
    }
    if !come.is_empty() {
        tx.execute(INSERT, args![subnet, rows(&come)?]).await?;
    }
    Ok(())
}

type Record = (u64, u64, &'static str, Option<i64>, Option<i64>, Option<i64>, Option<u64>);

fn record(tile: &Tile) -> Record {
    let (kind, reservation, node, block, leaving) = match tile.usage {
        Use::Free => ("free", None, None, None, None),
        Use::Reservation(id) => ("reserved", Some(id), None, None, None),
        Use::Node(id) => ("reserved", None, Some(id), None, None),
        Use::Block(id) => ("block", None, None, Some(id), None),
        Use::Leaving { block, since } => ("block", None, None, Some(block), Some(since.0)),
    };
    (tile.extent.first().0, tile.extent.next().0, kind, reservation, node, block, leaving)
}

/// The tiles with the edits laid over them and free neighbours joined. Both are
/// in order; the tiles may have gaps where no edit is.
fn overlaid(tiles: &[Tile], edits: &[Tile]) -> Vec<Tile> {
    let mut out: Vec<Tile> = Vec::with_capacity(tiles.len() + edits.len());
    let mut edits = edits.iter().peekable();
    for tile in tiles {
        let mut at = tile.extent.first();
        while at < tile.extent.next() {
            while edits.next_if(|edit| edit.extent.next() <= at).is_some() {}
            let to = match edits.peek() {
                Some(edit) if edit.extent.first() <= at => {
                    // An edit that spans tiles is put down once, where it begins.
                    if edit.extent.first() == at {
                        put(&mut out, **edit);
                    }
                    edit.extent.next().min(tile.extent.next())
                }
                next => {
                    let to =
                        next.map_or(tile.extent.next(), |edit| edit.extent.first().min(tile.extent.next()));
                    if let Some(rest) = Extent::new(at, to) {
                        put(&mut out, Tile::new(rest, tile.usage));
                    }
                    to
                }
            };
            at = to;
        }
    }
    out
}

fn put(out: &mut Vec<Tile>, tile: Tile) {
    if let Some(last) = out.last_mut()
        && last.usage == Use::Free
        && tile.usage == Use::Free
        && last.extent.next() == tile.extent.first()
        && let Some(joined) = Extent::new(last.extent.first(), tile.extent.next())
    {
        last.extent = joined;
    } else {
        out.push(tile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTH: usize = 24;

    fn tiles(uses: &[Use]) -> Vec<Tile> {
        let mut out = Vec::new();
        let mut first = 0;
        for next in 1..=uses.len() {
            if next == uses.len() || uses[next] != uses[first] {
                let extent = Extent::new(Offset(first as u64), Offset(next as u64)).unwrap();
                out.push(Tile::new(extent, uses[first]));
                first = next;
            }
        }
        out
    }

    fn usage() -> impl Strategy<Value = Use> {
        prop_oneof![
            3 => Just(Use::Free),
            1 => Just(Use::Reservation(1)),
            1 => Just(Use::Node(1)),
            2 => (1i64..4).prop_map(Use::Block),
            1 => (1i64..4).prop_map(|block| Use::Leaving { block, since: BlockVersion(2) }),
        ]
    }

    proptest! {
        #[test]
        fn an_overlay_is_what_offsets_say(
            uses in prop::collection::vec(usage(), LENGTH),
            cuts in prop::collection::btree_set(0..LENGTH, 2..8),
            painted in prop::collection::vec(usage(), 4),
        ) {
            let mut expected = uses.clone();
            let cuts: Vec<_> = cuts.into_iter().collect();
            let mut edits = Vec::new();
            for (pair, usage) in cuts.chunks_exact(2).zip(painted) {
                expected[pair[0]..pair[1]].fill(usage);
                edits.push(Tile::new(
                    Extent::new(Offset(pair[0] as u64), Offset(pair[1] as u64)).unwrap(), usage));
            }
            let out = overlaid(&tiles(&uses), &edits);
            let mut at = 0;
            let mut seen = Vec::new();
            for tile in &out {
                prop_assert_eq!(tile.extent.first().0, at, "gap or overlap in {:?}", out);
                at = tile.extent.next().0;
                seen.resize(usize::try_from(at).unwrap(), tile.usage);
            }
            prop_assert_eq!(seen, expected);
            for pair in out.windows(2) {
                prop_assert!(pair[0].usage != Use::Free || pair[1].usage != Use::Free, "{:?}", out);
            }
        }
    }
}
