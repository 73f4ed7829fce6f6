//! Use of everything, in time whatever there is.

use super::{
    Result, Store,
    db::{Tx, args},
    mutation::{CHANGES, stored},
    pools::{self, StoredPool},
    subnets,
};
use futures::future::try_join;
use ipam_api::{
    planning::SubnetSupply,
    quantity::NodeCount,
    wire::{Capacity, PoolCapacity, SubnetCapacity},
};
use jiff::Timestamp;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::OwnedMutexGuard;

// What is claimed is the rest: a subnet is always tiled.
const SUBNETS: &str = "SELECT s.id, v.name AS vnet, s.name, s.length,
        (SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT) FROM extent AS e
         WHERE e.subnet = s.id AND e.kind = 'free') AS free,
        (SELECT COALESCE(MAX(e.next - e.first), 0) FROM extent AS e
         WHERE e.subnet = s.id AND e.kind = 'free') AS largest_free,
        (SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT) FROM extent AS e
         WHERE e.subnet = s.id AND e.kind = 'reserved') AS reserved,
        (SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT)
         FROM block AS b JOIN extent AS e ON e.block = b.id
         WHERE b.subnet = s.id AND b.node IS NULL) AS planned,
        COALESCE(ending.size, 0) AS deleting,
        COALESCE(going.size, 0) AS leaving
    FROM subnet AS s
    JOIN vnet AS v ON v.id = s.vnet
    LEFT JOIN (SELECT e.subnet, CAST(SUM(e.next - e.first) AS BIGINT) AS size
               FROM node AS n JOIN block AS b ON b.node = n.id JOIN extent AS e ON e.block = b.id
               WHERE n.state = 'deleting' GROUP BY e.subnet) AS ending ON ending.subnet = s.id
    LEFT JOIN (SELECT e.subnet, CAST(SUM(e.next - e.first) AS BIGINT) AS size
               FROM extent AS e WHERE e.leaving IS NOT NULL GROUP BY e.subnet) AS going ON going.subnet = s.id
    ORDER BY v.name, s.name";
// By blocks first, in the order of their index: nothing as long as the ledger is sorted.
const USED: &str = "SELECT b.subnet, b.pool, CAST(SUM(held.count) AS BIGINT)
    FROM (SELECT a.block, COUNT(*) AS count FROM allocation AS a WHERE a.block IS NOT NULL GROUP BY a.block) AS held
    JOIN block AS b ON b.id = held.block
    GROUP BY b.subnet, b.pool";

#[derive(Debug, sqlx::FromRow)]
struct SubnetSums {
    id: i64,
    vnet: String,
    name: String,
    length: i64,
    free: i64,
    largest_free: i64,
    reserved: i64,
    planned: i64,
    deleting: i64,
    leaving: i64,
}

/// What is used in one subnet by one pool.
type Used = HashMap<(i64, i64), u64>;

/// How old `used` may be: counting every allocation takes the longer the more there are.
const FRESH: Duration = Duration::from_secs(1);

/// When it is counted anew while it may still be shown, so that nobody waits who asks again and again.
const AGING: Duration = Duration::from_millis(500);

/// What was found out lately. Everything but `used` follows from the plan, and the plan has a version.
#[derive(Debug, Default)]
pub(super) struct Cache {
    planned: Mutex<Option<Arc<Planned>>>,
    used: Mutex<Option<Arc<Sample>>>,
    /// Held by whoever counts: others that ask meanwhile wait for the outcome.
    counting: Arc<tokio::sync::Mutex<()>>,
}

/// The plan in numbers, by row ids; nothing is used.
#[derive(Debug)]
struct Planned {
    change: i64,
    subnets: Vec<(i64, SubnetCapacity)>,
    pools: Vec<(i64, PoolCapacity)>,
}

#[derive(Debug)]
struct Sample {
    used: Used,
    at: Instant,
    as_of: Timestamp,
}

impl Cache {
    fn planned(&self) -> MutexGuard<'_, Option<Arc<Planned>>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, Option<Arc<Sample>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Arc<Sample>> {
        self.used().as_ref().filter(|sample| sample.at.elapsed() < FRESH).cloned()
    }

    fn since(&self, asked: Instant) -> Option<Arc<Sample>> {
        self.used().as_ref().filter(|sample| sample.at >= asked).cloned()
    }
}

impl Store {
    /// Use of every subnet and pool. What is reserved is exact; `used` was counted within the last second, `as_of`.
    pub async fn capacity(&self) -> Result<Capacity> {
        let (sample, planned) = try_join(self.used(), self.planned()).await?;
        let of = |wanted: &dyn Fn(&(i64, i64)) -> bool| -> u64 {
            sample.used.iter().filter(|(key, _)| wanted(key)).map(|(_, count)| count).sum()
        };
        let subnets = planned.subnets.iter().map(|(id, capacity)| SubnetCapacity {
            used: of(&|(subnet, _)| subnet == id),
            ..capacity.clone()
        });
        let pools = planned
            .pools
            .iter()
            .map(|(id, capacity)| PoolCapacity { used: of(&|(_, pool)| pool == id), ..capacity.clone() });
        Ok(Capacity { as_of: sample.as_of, subnets: subnets.collect(), pools: pools.collect() })
    }

    async fn used(&self) -> Result<Arc<Sample>> {
        if let Some(sample) = self.capacity.fresh() {
            if sample.at.elapsed() >= AGING
                && let Ok(counting) = Arc::clone(&self.capacity.counting).try_lock_owned()
            {
                let store = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = store.count(&counting).await {
                        tracing::debug!(%error, "not counted: whoever asks next does it");
                    }
                });
            }
            return Ok(sample);
        }
        let asked = Instant::now();
        let counting = Arc::clone(&self.capacity.counting).lock_owned().await;
        // However long it took: it was begun after this was asked.
        match self.capacity.since(asked) {
            Some(sample) => Ok(sample),
            None => self.count(&counting).await,
        }
    }

    async fn count(&self, _counting: &OwnedMutexGuard<()>) -> Result<Arc<Sample>> {
        let mut tx = self.db.survey().await?;
        let (at, as_of) = (Instant::now(), self.clock.now());
        let found: Vec<(i64, i64, i64)> = tx.fetch_all(USED, args![]).await?;
        let used = found.into_iter().map(|(subnet, pool, count)| ((subnet, pool), count.cast_unsigned()));
        let sample = Arc::new(Sample { used: used.collect(), at, as_of });
        *self.capacity.used() = Some(Arc::clone(&sample));
        Ok(sample)
    }

    async fn planned(&self) -> Result<Arc<Planned>> {
        let (change,): (i64,) = self.db.read().await?.fetch_one(CHANGES, args![]).await?;
        if let Some(known) = self.capacity.planned().as_ref().filter(|known| known.change == change) {
            return Ok(Arc::clone(known));
        }
        let mut tx = self.db.survey().await?;
        let (change,): (i64,) = tx.fetch_one(CHANGES, args![]).await?;
        let planned = Arc::new(planned(&mut tx, change).await?);
        let mut known = self.capacity.planned();
        // Another may have read a later plan meanwhile.
        if known.as_ref().is_none_or(|known| known.change < change) {
            *known = Some(Arc::clone(&planned));
        }
        Ok(planned)
    }
}

async fn planned(tx: &mut Tx, change: i64) -> Result<Planned> {
    let sums: Vec<SubnetSums> = tx.fetch_all(SUBNETS, args![]).await?;
    let subnets = sums.iter().map(|sum| Ok((sum.id, subnet_capacity(sum)?))).collect::<Result<_>>()?;
    let mut supplies = HashMap::new();
    let mut found = Vec::new();
    for pool in pools::all(tx).await? {
        let more_nodes = more_nodes(tx, &pool, &mut supplies).await?;
        let capacity = PoolCapacity {
            pool: pool.name.clone(),
            nodes: pool.spec.nodes.get(),
            surge: pool.spec.surge.of(pool.spec.nodes),
            block_size: pools::shape(&pool.spec).size(),
            blocks: pool.blocks,
            claimed: pool.claimed,
            deleting: pool.deleting,
            over_by: pool.over_by(),
            leaving: pool.leaving,
            used: 0,
            more_nodes,
        };
        found.push((pool.id, capacity));
    }
    Ok(Planned { change, subnets, pools: found })
}

fn subnet_capacity(sum: &SubnetSums) -> Result<SubnetCapacity> {
    Ok(SubnetCapacity {
        subnet: stored(&format!("{}/{}", sum.vnet, sum.name))?,
        size: sum.length.cast_unsigned(),
        free: sum.free.cast_unsigned(),
        largest_free: sum.largest_free.cast_unsigned(),
        reserved: sum.reserved.cast_unsigned(),
        planned: sum.planned.cast_unsigned(),
        claimed: (sum.length - sum.free - sum.reserved - sum.planned).max(0).cast_unsigned(),
        deleting: sum.deleting.cast_unsigned(),
        leaving: sum.leaving.cast_unsigned(),
        used: 0,
    })
}

/// How many more nodes the subnets have room for over which a pool spreads.
async fn more_nodes(
    tx: &mut Tx,
    pool: &StoredPool,
    supplies: &mut HashMap<i64, SubnetSupply>,
) -> Result<u64> {
    let shape = pools::shape(&pool.spec);
    let all_have_numbers = pool.members.iter().all(|member| member.asked.nodes.is_some());
    let mut sum = 0u64;
    for member in &pool.members {
        if member.asked.nodes.is_some() && !all_have_numbers {
            continue;
        }
        let supply = match supplies.entry(member.subnet) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let row = subnets::by_id(tx, member.subnet).await?;
                unknown.insert(pools::supply(tx, &row).await?)
            }
        };
        sum += supply.room(&shape, NodeCount::MAX);
    }
    Ok(sum)
}
