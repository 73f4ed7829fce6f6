//! What subnets have to give, and what a pool has of them.

use super::{
    super::{
        Result,
        db::{Tx, args, statements},
        subnets::SubnetRow,
        tiling,
    },
    row::{Member, StoredPool},
};
use ipam_api::{
    line::Extent,
    planning::{FreeMap, PoolShare, Quota, SubnetSupply},
};
use std::collections::HashMap;

const FOR_NODES: &str = "SELECT CAST(COALESCE(SUM(r.next - r.first), 0) AS BIGINT)
    FROM reservation AS r WHERE r.subnet = $1 AND r.for_nodes = 1";
// Each offset once, though two nodes may share one, a family each.
const FOR_NODES_USED: &str = "SELECT CAST(COALESCE(SUM(
        (SELECT COUNT(*) FROM node AS n WHERE n.subnet = $1 AND n.own4 >= r.first AND n.own4 < r.next)
        + (SELECT COUNT(*) FROM node AS n WHERE n.subnet = $1 AND n.own6 >= r.first AND n.own6 < r.next
               AND NOT EXISTS (SELECT 1 FROM node AS o WHERE o.subnet = $1 AND o.own4 = n.own6))), 0) AS BIGINT)
    FROM reservation AS r WHERE r.subnet = $1 AND r.for_nodes = 1";
const PROMISED: &str = "SELECT COUNT(*) FROM block AS b WHERE b.subnet = $1 AND b.node IS NULL";
const COUNTS: &str =
    "SELECT b.subnet, CAST(CASE WHEN b.node IS NULL THEN 0 ELSE 1 END AS BIGINT) AS claimed, COUNT(*)
    FROM block AS b WHERE b.pool = $1 GROUP BY 1, 2";
const UNCLAIMED: &str = "SELECT b.id, e.first, e.next
    FROM block AS b JOIN extent AS e ON e.block = b.id
    WHERE b.pool = $1 AND b.subnet = $2 AND b.node IS NULL
    ORDER BY b.id, e.first";

const FREE: &str = "SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT) FROM extent AS e
    WHERE e.subnet = $1 AND e.kind = 'free'";

statements!(FOR_NODES, FOR_NODES_USED, PROMISED, COUNTS, UNCLAIMED, FREE);

/// What a subnet has to give.
pub(in crate::store) async fn supply(tx: &mut Tx, subnet: &SubnetRow) -> Result<SubnetSupply> {
    let id = subnet.id;
    let (for_nodes,): (i64,) = tx.fetch_one(FOR_NODES, args![id]).await?;
    let (used,): (i64,) = tx.fetch_one(FOR_NODES_USED, args![id]).await?;
    let (promised,): (i64,) = tx.fetch_one(PROMISED, args![id]).await?;
    Ok(SubnetSupply {
        line: Some(subnet.line()?),
        free: FreeMap::from_extents(tiling::free(tx, id).await?),
        own_spare: (for_nodes - used).max(0).cast_unsigned(),
        own_promised: promised.cast_unsigned(),
    })
}

/// Addresses that the nodes still planned in a subnet need for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct OwnNeed {
    /// One a node.
    pub(in crate::store) need: u64,
    /// Free ones, and those of `forNodes` reservations that no node has.
    pub(in crate::store) have: u64,
}

impl OwnNeed {
    pub(in crate::store) fn lack(self) -> u64 {
        self.need.saturating_sub(self.have)
    }
}

/// What the nodes still planned in a subnet need for themselves, and what is there for it.
pub(in crate::store) async fn own_need(tx: &mut Tx, subnet: i64) -> Result<OwnNeed> {
    let (for_nodes,): (i64,) = tx.fetch_one(FOR_NODES, args![subnet]).await?;
    let (used,): (i64,) = tx.fetch_one(FOR_NODES_USED, args![subnet]).await?;
    let (promised,): (i64,) = tx.fetch_one(PROMISED, args![subnet]).await?;
    let (free,): (i64,) = tx.fetch_one(FREE, args![subnet]).await?;
    Ok(OwnNeed { need: promised.cast_unsigned(), have: ((for_nodes - used).max(0) + free).cast_unsigned() })
}

/// Blocks of a pool in one subnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Holding {
    pub(in crate::store) claimed: u64,
    pub(in crate::store) unclaimed: u64,
}

/// Blocks of a pool by subnet.
pub(in crate::store) async fn holdings(tx: &mut Tx, pool: i64) -> Result<HashMap<i64, Holding>> {
    let mut holdings: HashMap<i64, Holding> = HashMap::new();
    for (subnet, claimed, count) in tx.fetch_all::<(i64, i64, i64)>(COUNTS, args![pool]).await? {
        let holding = holdings.entry(subnet).or_default();
        let field = if claimed == 0 { &mut holding.unclaimed } else { &mut holding.claimed };
        *field = count.cast_unsigned();
    }
    Ok(holdings)
}

/// A block that no node has claimed.
#[derive(Debug, Clone)]
pub(in crate::store) struct Unclaimed {
    pub(in crate::store) id: i64,
    pub(in crate::store) extents: Vec<Extent>,
}

/// The blocks of a pool in a subnet that no node has claimed.
pub(in crate::store) async fn unclaimed(tx: &mut Tx, pool: i64, subnet: i64) -> Result<Vec<Unclaimed>> {
    let mut blocks: Vec<Unclaimed> = Vec::new();
    for (id, first, next) in tx.fetch_all::<(i64, i64, i64)>(UNCLAIMED, args![pool, subnet]).await? {
        let extent = tiling::extent(first, next)?;
        match blocks.last_mut() {
            Some(block) if block.id == id => block.extents.push(extent),
            _ => blocks.push(Unclaimed { id, extents: vec![extent] }),
        }
    }
    Ok(blocks)
}

/// How much of a pool's blocks a plan needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Detail {
    /// How many there are: enough where none is given back.
    Counts,
    /// Where they are.
    Extents,
}

/// A pool's part in one subnet, with the row ids behind it.
#[derive(Debug, Clone)]
pub(in crate::store) struct Share {
    pub(in crate::store) subnet: i64,
    pub(in crate::store) share: PoolShare,
    /// Of `share.unclaimed`, in its order; empty where only counts were read.
    pub(in crate::store) blocks: Vec<i64>,
}

/// A pool's parts in its subnets, then in those it leaves.
pub(in crate::store) async fn shares(
    tx: &mut Tx,
    pool: &StoredPool,
    leaves: &[Member],
    detail: Detail,
) -> Result<Vec<Share>> {
    let holdings = holdings(tx, pool.id).await?;
    let members = pool.members.iter().map(|member| (member, member.quota()));
    let leaves = leaves.iter().map(|member| (member, Quota::Leave));
    let mut shares = Vec::new();
    for (member, quota) in members.chain(leaves) {
        let holding = holdings.get(&member.subnet).copied().unwrap_or_default();
        let (blocks, unclaimed) = match detail {
            Detail::Counts => {
                let count = usize::try_from(holding.unclaimed).unwrap_or(usize::MAX);
                (Vec::new(), vec![Vec::new(); count])
            }
            Detail::Extents => {
                let blocks = unclaimed(tx, pool.id, member.subnet).await?;
                blocks.into_iter().map(|block| (block.id, block.extents)).unzip()
            }
        };
        let share =
            PoolShare { subnet: member.asked.subnet.clone(), quota, claimed: holding.claimed, unclaimed };
        shares.push(Share { subnet: member.subnet, share, blocks });
    }
    Ok(shares)
}
