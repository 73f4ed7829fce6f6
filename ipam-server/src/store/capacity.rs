//! Use of everything, in time whatever there is.

use super::{
    Result, Store,
    db::{Tx, args, statements},
    mutation::{CHANGES, stored},
    pools::{self, StoredPool},
    subnets,
    usage::USED,
};
use ipam_api::{
    planning::SubnetSupply,
    quantity::NodeCount,
    wire::{Capacity, PoolCapacity, SubnetCapacity},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

// What is claimed is the rest: a subnet is always tiled. What ends and what leaves is grouped by what no index is ordered by
// (CAST), or SQLite would read all extents in that order to find the few of them.
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
    LEFT JOIN (SELECT CAST(e.subnet AS BIGINT) AS subnet, CAST(SUM(e.next - e.first) AS BIGINT) AS size
               FROM node AS n JOIN block AS b ON b.node = n.id JOIN extent AS e ON e.block = b.id
               WHERE n.state = 'deleting' GROUP BY 1) AS ending ON ending.subnet = s.id
    LEFT JOIN (SELECT CAST(e.subnet AS BIGINT) AS subnet, CAST(SUM(e.next - e.first) AS BIGINT) AS size
               FROM extent AS e WHERE e.leaving IS NOT NULL GROUP BY 1) AS going ON going.subnet = s.id
    ORDER BY v.name, s.name";

statements!(SUBNETS);

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

/// What was found out last. Everything but `used` follows from the plan, and the plan has a version.
#[derive(Debug, Default)]
pub(super) struct Cache {
    planned: Mutex<Option<Arc<Planned>>>,
}

/// The plan in numbers, by row ids; nothing is used.
#[derive(Debug)]
struct Planned {
    change: i64,
    subnets: Vec<(i64, SubnetCapacity)>,
    pools: Vec<(i64, PoolCapacity)>,
}

impl Cache {
    fn planned(&self) -> MutexGuard<'_, Option<Arc<Planned>>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Use of every subnet and pool, as it is at one moment, `as_of`.
    pub async fn capacity(&self) -> Result<Capacity> {
        let mut tx = self.db.read().await?;
        let (change,): (i64,) = tx.fetch_one(CHANGES, args![]).await?;
        let known = self.capacity.planned().clone().filter(|known| known.change == change);
        let planned = match known {
            Some(known) => known,
            None => {
                // Whoever waits for another connection keeps none from those who would give it back.
                drop(tx);
                tx = self.db.survey().await?;
                self.planned(&mut tx).await?
            }
        };
        let used: Vec<(i64, i64, i64)> = tx.fetch_all(USED, args![]).await?;
        let as_of = self.clock.now();
        let of = |wanted: &dyn Fn(i64, i64) -> bool| -> u64 {
            let of = used.iter().filter(|(subnet, pool, _)| wanted(*subnet, *pool));
            of.map(|(_, _, used)| used).sum::<i64>().max(0).cast_unsigned()
        };
        let subnets = planned.subnets.iter().map(|(id, capacity)| SubnetCapacity {
            used: of(&|subnet, _| subnet == *id),
            ..capacity.clone()
        });
        let pools = planned
            .pools
            .iter()
            .map(|(id, capacity)| PoolCapacity { used: of(&|_, pool| pool == *id), ..capacity.clone() });
        Ok(Capacity { as_of, subnets: subnets.collect(), pools: pools.collect() })
    }

    async fn planned(&self, tx: &mut Tx) -> Result<Arc<Planned>> {
        let (change,): (i64,) = tx.fetch_one(CHANGES, args![]).await?;
        // Another may have found it out while this one waited for a connection.
        if let Some(known) = self.capacity.planned().clone().filter(|known| known.change == change) {
            return Ok(known);
        }
        let planned = Arc::new(planned(tx, change).await?);
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
