//! A pool's plan, and its doing.

use super::{
    super::{
        Result, Shortage, StoreError,
        db::{Sql, Tx, args, column, over, statements},
        mutation::corrupt,
        subnets,
        tiling::{self, Tile, Use},
    },
    row::{self, Member, StoredPool, shape},
    supply::{self, Detail, Share},
};
use ipam_api::{
    line::Extent,
    planning::{
        self, InvalidDemand, PlanError, PoolDemand, PoolPlan, Quota, ShortageKind, Shortfall, Supplies,
    },
};

const INSERT_BLOCKS: &str =
    "WITH RECURSIVE count(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM count WHERE i < $3)
    INSERT INTO block (pool, subnet, version) SELECT $1, $2, 1 FROM count RETURNING id";
const DELETE_BLOCKS: Sql = over!(
    "DELETE FROM block WHERE id IN (SELECT CAST(value ->> 0 AS BIGINT) FROM ",
    "$1",
    ") AND node IS NULL"
);

statements!(INSERT_BLOCKS, DELETE_BLOCKS);

/// What a pool takes and gives back, with the row ids behind it.
#[derive(Debug)]
pub(in crate::store) struct Draft {
    pool: i64,
    shares: Vec<Share>,
    plan: PoolPlan,
}

impl Draft {
    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.plan.shares.iter().all(|share| share.take.is_empty() && share.give_back.is_empty())
    }
}

/// Why there is no draft.
#[derive(Debug)]
pub(in crate::store) enum NoDraft {
    Short(Box<Shortfall>),
    Invalid(InvalidDemand),
    Failed(StoreError),
}

impl From<StoreError> for NoDraft {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<NoDraft> for StoreError {
    fn from(no: NoDraft) -> Self {
        match no {
            NoDraft::Short(shortfall) => short(&shortfall),
            NoDraft::Invalid(invalid) => wrong(&invalid),
            NoDraft::Failed(error) => error,
        }
    }
}

/// A shortfall in the store's words: the first pool's.
pub(in crate::store) fn short(shortfall: &Shortfall) -> StoreError {
    let Some(first) = shortfall.shortages.first() else {
        return corrupt("a plan does not fit, but nothing is missing");
    };
    let shortage = Box::new(Shortage {
        detail: first.detail(),
        need: first.need,
        have: first.have,
        largest_free: first.largest_free,
        nodes_that_fit: first.nodes_that_fit,
        subnets: first.subnets.clone(),
    });
    match first.kind {
        ShortageKind::Exhausted => StoreError::Exhausted(shortage),
        ShortageKind::NoContiguous => StoreError::NoContiguousBlock(shortage),
    }
}

/// A demand that makes no sense, with the field of the pool that does not.
pub(in crate::store) fn wrong(invalid: &InvalidDemand) -> StoreError {
    match invalid {
        InvalidDemand::FixedAboveNodes { .. } => StoreError::invalid("/nodes", invalid.to_string()),
        InvalidDemand::NoSubnet { .. }
        | InvalidDemand::SubnetTwice { .. }
        | InvalidDemand::UnknownSubnet { .. } => StoreError::invalid("/subnets", invalid.to_string()),
        InvalidDemand::PoolTwice { .. } => StoreError::invalid("/pools", invalid.to_string()),
        InvalidDemand::Contradiction { .. } => corrupt(invalid),
    }
}

/// What a pool as stored takes and gives back. Reads where its blocks are only if some are given back.
pub(in crate::store) async fn draft(
    tx: &mut Tx,
    pool: &StoredPool,
    leaves: &[Member],
) -> Result<Draft, NoDraft> {
    match attempt(tx, pool, leaves, Detail::Counts).await {
        Ok(draft) if draft.plan.shares.iter().all(|share| share.give_back.is_empty()) => Ok(draft),
        Err(NoDraft::Failed(error)) => Err(error.into()),
        _ => attempt(tx, pool, leaves, Detail::Extents).await,
    }
}

async fn attempt(
    tx: &mut Tx,
    pool: &StoredPool,
    leaves: &[Member],
    detail: Detail,
) -> Result<Draft, NoDraft> {
    let shares = supply::shares(tx, pool, leaves, detail).await?;
    let mut supplies = Supplies::new();
    for share in &shares {
        let subnet = subnets::by_id(tx, share.subnet).await?;
        supplies.insert(share.share.subnet.clone(), supply::supply(tx, &subnet).await?);
    }
    let demand = PoolDemand {
        name: pool.name.clone(),
        shape: shape(&pool.spec),
        nodes: pool.spec.nodes,
        surge: pool.spec.surge,
        shares: shares.iter().map(|share| share.share.clone()).collect(),
    };
    match planning::plan(supplies, &[demand]) {
        Ok(plan) => {
            let plan = plan.pools.into_iter().next().ok_or_else(|| corrupt("a plan without its pool"))?;
            Ok(Draft { pool: pool.id, shares, plan })
        }
        Err(PlanError::Short(shortfall)) => Err(NoDraft::Short(shortfall)),
        Err(PlanError::Invalid(invalid)) => Err(NoDraft::Invalid(invalid)),
    }
}

/// Does what a draft says, in the transaction that made it.
pub(in crate::store) async fn apply(tx: &mut Tx, draft: &Draft) -> Result<()> {
    for (share, plan) in draft.shares.iter().zip(&draft.plan.shares) {
        let given: Vec<i64> = plan.give_back.iter().filter_map(|&i| share.blocks.get(i).copied()).collect();
        let extents: Vec<Extent> =
            plan.give_back.iter().filter_map(|&i| share.share.unclaimed.get(i)).flatten().copied().collect();
        give_back(tx, share.subnet, &given, &extents).await?;
        take(tx, draft.pool, share.subnet, &plan.take).await?;
    }
    Ok(())
}

/// Frees unclaimed blocks of one subnet.
pub(in crate::store) async fn give_back(
    tx: &mut Tx,
    subnet: i64,
    blocks: &[i64],
    extents: &[Extent],
) -> Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    tiling::retile(tx, subnet, extents.iter().map(|&extent| Tile::new(extent, Use::Free)).collect()).await?;
    tx.execute(DELETE_BLOCKS, args![column(blocks)?]).await.map(|_| ())
}

/// Reserves blocks of a pool in a subnet; their row ids, in the order given.
pub(in crate::store) async fn take(
    tx: &mut Tx,
    pool: i64,
    subnet: i64,
    blocks: &[Vec<Extent>],
) -> Result<Vec<i64>> {
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64,)> = tx.fetch_all(INSERT_BLOCKS, args![pool, subnet, blocks.len() as u64]).await?;
    let mut ids: Vec<i64> = rows.into_iter().map(|(id,)| id).collect();
    ids.sort_unstable();
    let tiles = |(&id, extents): (&i64, &Vec<Extent>)| -> Vec<Tile> {
        extents.iter().map(|&extent| Tile::new(extent, Use::Block(id))).collect()
    };
    let edits: Vec<Tile> = ids.iter().zip(blocks).flat_map(tiles).collect();
    tiling::retile(tx, subnet, edits).await?;
    Ok(ids)
}

/// What the pool's plan wants of a block whose node has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Wish {
    /// It is one of those planned.
    Keep,
    /// The pool has too many.
    Drop,
    /// It is planned, but in another subnet.
    Move,
}

/// What a pool wants of the unclaimed block it has just got in a subnet.
pub(in crate::store) async fn wish(tx: &mut Tx, pool: &StoredPool, subnet: i64) -> Result<Wish> {
    let holding = supply::holdings(tx, pool.id).await?.get(&subnet).copied().unwrap_or_default();
    let here = holding.claimed + holding.unclaimed;
    let number = pool
        .members
        .iter()
        .find(|member| member.subnet == subnet)
        .map_or(0, |member| member.asked.nodes.map_or(0, ipam_api::quantity::NodeCount::get));
    let fixed = pool.members.iter().all(|member| member.subnet != subnet || member.asked.nodes.is_some());
    let some_spread = pool.members.iter().any(|member| member.quota() == Quota::Spread);
    Ok(if here > number && pool.blocks > pool.wanted() {
        Wish::Drop
    } else if here > number && fixed && some_spread {
        Wish::Move
    } else {
        Wish::Keep
    })
}

/// Brings a pool's blocks to where its plan wants them, if that fits.
pub(in crate::store) async fn settle(tx: &mut Tx, pool: i64) -> Result<()> {
    let pool = row::by_id(tx, pool).await?;
    match draft(tx, &pool, &[]).await {
        Ok(draft) => apply(tx, &draft).await,
        Err(NoDraft::Failed(error)) => Err(error),
        Err(NoDraft::Short(_) | NoDraft::Invalid(_)) => Ok(()),
    }
}
