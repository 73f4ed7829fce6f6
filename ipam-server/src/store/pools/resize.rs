//! Claimed blocks that follow their pool's size (P7).
//!
//! Growth is taken in the transaction of the change, for all nodes or for none. What a block gives
//! up leaves at once where no shim can have used it, else when the node confirms it. Nodes being
//! deleted keep the block they have: it ends with them, whatever its size.

use super::{
    super::{
        Result, Shortage, StoreError,
        db::{Sql, Tx, args, column, over, rows, statements},
        mutation::{SomeOf, corrupt},
        subnets::{self, SubnetRow},
        tiling::{self, Tile, Use},
    },
    row::{StoredPool, shape},
    supply,
};
use ipam_api::{
    ledger::Footprint,
    line::{Extent, Offset},
    planning::{BlockShape, GrowthShortage, Resize, ShortageKind, Supplies, grow},
    wire::{BlockVersion, PoolSpec, SubnetShortage},
};
use std::collections::{BTreeMap, HashMap};

const CLAIMED: &str = "SELECT b.id, b.subnet, b.version,
        n.name, n.allocator, n.state, e.first, e.next, e.leaving
    FROM block AS b JOIN node AS n ON n.id = b.node JOIN extent AS e ON e.block = b.id
    WHERE b.pool = $1 AND n.state <> 'deleting'
    ORDER BY b.subnet, b.id, e.first";
const HELD: Sql = over!(
    "SELECT a.block, a.node, a.at_offset FROM ",
    "$1",
    " AS wanted CROSS JOIN allocation AS a WHERE a.block = CAST(wanted.value ->> 0 AS BIGINT)
    ORDER BY a.subnet, a.at_offset"
);
const NEXT_VERSION: Sql = over!(
    "UPDATE block SET version = version + 1 WHERE id IN (SELECT CAST(value ->> 0 AS BIGINT) FROM ",
    "$1",
    ")"
);

// An extent cannot be cut under an address that is held, so the addresses let go of it and hold on to
// what becomes of it, in one transaction.
const LET_GO: Sql = over!(
    "UPDATE allocation
    SET state = 'released', node = NULL, block = NULL, extent_first = NULL, extent_next = NULL
    FROM ",
    "$1",
    " AS h
    WHERE allocation.subnet = CAST(h.value ->> 2 AS BIGINT)
        AND allocation.at_offset = CAST(h.value ->> 3 AS BIGINT)"
);
const HOLD_ON: Sql = over!(
    "UPDATE allocation
    SET state = 'held', node = CAST(h.value ->> 1 AS BIGINT), block = e.block,
        extent_first = e.first, extent_next = e.next
    FROM ",
    "$1",
    " AS h CROSS JOIN extent AS e
    WHERE e.block = CAST(h.value ->> 0 AS BIGINT)
        AND e.first <= CAST(h.value ->> 3 AS BIGINT) AND CAST(h.value ->> 3 AS BIGINT) < e.next
        AND allocation.subnet = CAST(h.value ->> 2 AS BIGINT)
        AND allocation.at_offset = CAST(h.value ->> 3 AS BIGINT)"
);

statements!(CLAIMED, HELD, NEXT_VERSION, LET_GO, HOLD_ON);

#[derive(Debug, sqlx::FromRow)]
struct ClaimedRow {
    id: i64,
    subnet: i64,
    version: i64,
    name: String,
    allocator: String,
    state: String,
    first: i64,
    next: i64,
    leaving: Option<i64>,
}

/// The block of a node that stays.
#[derive(Debug)]
struct Claimed {
    id: i64,
    version: u64,
    node: String,
    picks: Picks,
    footprint: Footprint,
    /// Addresses that are held, with the row id of the node.
    held: Vec<(i64, Offset)>,
}

/// Who may have given out addresses of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picks {
    /// Nobody: no shim has taken the claim up.
    Nobody,
    /// The node's shim, and the service may not have heard of all.
    Shim,
    /// The service, which knows all.
    Service,
}

/// A block's way to another size.
#[derive(Debug)]
struct Step {
    block: Claimed,
    own: Resize,
    /// What becomes of what it gives up.
    goes_to: Use,
    /// What it takes of what is free.
    takes: Vec<Extent>,
}

impl Step {
    fn cuts(&self) -> bool {
        !(self.own.gives_up.is_empty() && self.own.takes_back.is_empty())
    }
}

/// What the claimed blocks of a pool do to come to another size, by subnet.
#[derive(Debug)]
pub(in crate::store) struct Resizing(BTreeMap<i64, Vec<Step>>);

/// Blocks of nodes that stay, by subnet.
async fn claimed(tx: &mut Tx, pool: i64) -> Result<BTreeMap<i64, Vec<Claimed>>> {
    let rows: Vec<ClaimedRow> = tx.fetch_all(CLAIMED, args![pool]).await?;
    let mut ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    ids.dedup();
    let mut held: HashMap<i64, Vec<(i64, Offset)>> = HashMap::new();
    for (block, node, at) in tx.fetch_all::<(i64, i64, i64)>(HELD, args![column(&ids)?]).await? {
        held.entry(block).or_default().push((node, Offset(at.cast_unsigned())));
    }
    let mut found: BTreeMap<i64, Vec<Claimed>> = BTreeMap::new();
    for row in rows {
        let blocks = found.entry(row.subnet).or_default();
        if blocks.last().is_none_or(|block| block.id != row.id) {
            blocks.push(Claimed {
                id: row.id,
                version: row.version.cast_unsigned(),
                picks: match (row.allocator.as_str(), row.state.as_str()) {
                    ("service", _) => Picks::Service,
                    (_, "planned") => Picks::Nobody,
                    _ => Picks::Shim,
                },
                node: row.name,
                footprint: Footprint::default(),
                held: held.remove(&row.id).unwrap_or_default(),
            });
        }
        if let Some(block) = blocks.last_mut() {
            tiling::add(&mut block.footprint, row.first, row.next, row.leaving)?;
        }
    }
    Ok(found)
}

/// Plans how the claimed blocks of a pool come to the size it is to have; what they take and give up at
/// once is taken and given in the supplies, to which their subnets are added.
pub(in crate::store) async fn resizing(
    tx: &mut Tx,
    pool: &StoredPool,
    spec: &PoolSpec,
    supplies: &mut Supplies,
) -> Result<Resizing> {
    let shape = shape(spec);
    let (mut steps, mut lacks, mut in_the_way) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (subnet, blocks) in claimed(tx, pool.id).await? {
        let row = subnets::by_id(tx, subnet).await?;
        let path = row.path()?;
        if !supplies.contains_key(&path) {
            supplies.insert(path.clone(), supply::supply(tx, &row).await?);
        }
        let Some(supply) = supplies.get_mut(&path) else { continue };
        let mut here: Vec<Step> = Vec::with_capacity(blocks.len());
        for block in blocks {
            let own = Resize::of(&block.footprint, shape.size());
            let lives: Vec<Offset> = block
                .held
                .iter()
                .map(|&(_, at)| at)
                .filter(|&at| own.gives_up.iter().any(|extent| extent.contains(at)))
                .collect();
            if block.picks == Picks::Service {
                in_the_way.extend(lives.iter().map(|&at| whose(&row, at, &block.node)));
            }
            let goes_to = match (block.picks, lives.is_empty()) {
                (Picks::Nobody | Picks::Service, true) => Use::Free,
                _ => Use::Leaving { block: block.id, since: BlockVersion(block.version + 1) },
            };
            if goes_to == Use::Free {
                for &extent in &own.gives_up {
                    supply.free.give_back(extent).map_err(corrupt)?;
                }
            }
            here.push(Step { block, own, goes_to, takes: Vec::new() });
        }
        let has: Vec<Vec<Extent>> = here.iter().map(|step| step.own.has.clone()).collect();
        match grow(&path, supply, &shape, &has) {
            Ok(taken) => here.iter_mut().zip(taken).for_each(|(step, takes)| step.takes = takes),
            Err(lack) => lacks.push(lack),
        }
        steps.insert(subnet, here);
    }
    if !in_the_way.is_empty() {
        return Err(StoreError::InUse(format!(
            "pool {} cannot have smaller blocks: their ends hold {}, which the service picked (delete those allocations first)",
            pool.name,
            SomeOf::new("allocation", &in_the_way)
        )));
    }
    if lacks.is_empty() { Ok(Resizing(steps)) } else { Err(short(pool, &shape, lacks)) }
}

fn whose(subnet: &SubnetRow, at: Offset, node: &str) -> String {
    let address = subnet.line().ok().and_then(|line| line.address_at(at));
    format!("{} of node {node}", address.map_or_else(|| at.to_string(), |address| address.to_string()))
}

/// What one subnet lacks, in the store's words.
fn short(pool: &StoredPool, shape: &BlockShape, lacks: Vec<GrowthShortage>) -> StoreError {
    let exhausted = lacks.iter().any(|lack| lack.kind == ShortageKind::Exhausted);
    let subnets: Vec<_> = lacks.into_iter().map(|lack| lack.subnet).collect();
    let sum = |of: fn(&SubnetShortage) -> u64| subnets.iter().map(of).sum::<u64>();
    let (need, have, nodes_that_fit) =
        (sum(|lack| lack.need), sum(|lack| lack.have), sum(|lack| lack.nodes_that_fit));
    let largest_free = subnets.iter().map(|lack| lack.largest_free).max().unwrap_or(0);
    let paths: Vec<String> = subnets.iter().map(|lack| lack.subnet.to_string()).collect();
    let (size, name, paths) = (shape.size(), &pool.name, paths.join(" and "));
    let detail = if exhausted {
        format!(
            "the blocks that nodes of pool {name} have claimed in {paths} lack {need} addresses to have {size} each, and {have} are free: ask for less, free some, or make another pool in a larger subnet"
        )
    } else {
        format!(
            "not all blocks that nodes of pool {name} have claimed in {paths} can grow to {size} addresses where they lie, and the pool allows nothing else: ask for less, set contiguous to preferred where alignment is exact, or make another pool and move the nodes there"
        )
    };
    let shortage = Box::new(Shortage { detail, need, have, largest_free, nodes_that_fit, subnets });
    if exhausted { StoreError::Exhausted(shortage) } else { StoreError::NoContiguousBlock(shortage) }
}

/// Brings the claimed blocks of a pool to the size it is to have: all of them or none.
pub(in crate::store) async fn resize(tx: &mut Tx, pool: &StoredPool, spec: &PoolSpec) -> Result<()> {
    let Resizing(steps) = resizing(tx, pool, spec, &mut Supplies::new()).await?;
    for (subnet, steps) in steps {
        carry_out(tx, subnet, &steps).await?;
    }
    Ok(())
}

async fn carry_out(tx: &mut Tx, subnet: i64, steps: &[Step]) -> Result<()> {
    // What only grows gets tiles beside the others; where tiles are cut, addresses change theirs.
    let moved: Vec<(i64, i64, i64, u64)> = steps
        .iter()
        .filter(|step| step.cuts())
        .flat_map(|Step { block, .. }| block.held.iter().map(|&(node, at)| (block.id, node, subnet, at.0)))
        .collect();
    let moved_json = rows(&moved)?;
    let mut edits = Vec::new();
    for Step { block, own, goes_to, takes } in steps {
        edits.extend(own.gives_up.iter().map(|&extent| Tile::new(extent, *goes_to)));
        let gets = own.takes_back.iter().chain(takes);
        edits.extend(gets.map(|&extent| Tile::new(extent, Use::Block(block.id))));
    }
    tx.execute(LET_GO, args![moved_json.clone()]).await?;
    tiling::retile(tx, subnet, edits).await?;
    let kept = tx.execute(HOLD_ON, args![moved_json]).await?;
    if kept != moved.len() as u64 {
        return Err(corrupt(format!("{} addresses were held and {kept} still are", moved.len())));
    }
    let changed: Vec<i64> =
        steps.iter().filter(|step| step.cuts() || !step.takes.is_empty()).map(|step| step.block.id).collect();
    tx.execute(NEXT_VERSION, args![column(&changed)?]).await.map(|_| ())
}
