use super::{
    Result, Store,
    db::{Tx, args},
    mutation::stored,
    pools::{self, StoredPool},
    subnets,
};
use ipam_api::{
    planning::SubnetSupply,
    quantity::NodeCount,
    wire::{Capacity, PoolCapacity, SubnetCapacity},
};
use std::collections::{HashMap, hash_map::Entry};

const SUBNETS: &str = "SELECT s.id, v.name AS vnet, s.name, s.length,
        CAST(SUM(CASE WHEN e.kind = 'free' THEN e.next - e.first ELSE 0 END) AS BIGINT) AS free,
        MAX(CASE WHEN e.kind = 'free' THEN e.next - e.first ELSE 0 END) AS largest_free,
        CAST(SUM(CASE WHEN e.kind = 'reserved' THEN e.next - e.first ELSE 0 END) AS BIGINT) AS reserved,
        CAST(SUM(CASE WHEN e.kind = 'block' AND b.node IS NULL THEN e.next - e.first ELSE 0 END) AS BIGINT)
            AS planned,
        CAST(SUM(CASE WHEN b.node IS NOT NULL THEN e.next - e.first ELSE 0 END) AS BIGINT) AS claimed,
        CAST(SUM(CASE WHEN n.state = 'deleting' THEN e.next - e.first ELSE 0 END) AS BIGINT) AS deleting,
        CAST(SUM(CASE WHEN e.leaving IS NOT NULL THEN e.next - e.first ELSE 0 END) AS BIGINT) AS leaving
    FROM subnet AS s
    JOIN vnet AS v ON v.id = s.vnet
    JOIN extent AS e ON e.subnet = s.id AND e.kind <> 'end'
    LEFT JOIN block AS b ON b.id = e.block
    LEFT JOIN node AS n ON n.id = b.node
    GROUP BY s.id, v.name, s.name, s.length
    ORDER BY v.name, s.name";
const USED: &str = "SELECT b.subnet, b.pool, COUNT(*) FROM allocation AS a JOIN block AS b ON b.id = a.block
    WHERE a.block IS NOT NULL GROUP BY b.subnet, b.pool";

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
    claimed: i64,
    deleting: i64,
    leaving: i64,
}

impl Store {
    /// Use of every subnet and pool.
    pub async fn capacity(&self) -> Result<Capacity> {
        let mut tx = self.db.read().await?;
        let (mut used_in, mut used_by) = (HashMap::<i64, u64>::new(), HashMap::<i64, u64>::new());
        for (subnet, pool, count) in tx.fetch_all::<(i64, i64, i64)>(USED, args![]).await? {
            *used_in.entry(subnet).or_default() += count.cast_unsigned();
            *used_by.entry(pool).or_default() += count.cast_unsigned();
        }
        let sums: Vec<SubnetSums> = tx.fetch_all(SUBNETS, args![]).await?;
        let subnets = sums.iter().map(|sum| subnet_capacity(sum, &used_in)).collect::<Result<_>>()?;

        let mut supplies = HashMap::new();
        let mut found = Vec::new();
        for pool in pools::all(&mut tx).await? {
            let more_nodes = more_nodes(&mut tx, &pool, &mut supplies).await?;
            found.push(PoolCapacity {
                nodes: pool.spec.nodes.get(),
                surge: pool.spec.surge.of(pool.spec.nodes),
                block_size: pools::shape(&pool.spec).size(),
                blocks: pool.blocks,
                claimed: pool.claimed,
                deleting: pool.deleting,
                over_by: pool.over_by(),
                leaving: pool.leaving,
                used: used_by.get(&pool.id).copied().unwrap_or_default(),
                more_nodes,
                pool: pool.name,
            });
        }
        Ok(Capacity { as_of: self.clock.now(), subnets, pools: found })
    }
}

fn subnet_capacity(sum: &SubnetSums, used: &HashMap<i64, u64>) -> Result<SubnetCapacity> {
    Ok(SubnetCapacity {
        subnet: stored(&format!("{}/{}", sum.vnet, sum.name))?,
        size: sum.length.cast_unsigned(),
        free: sum.free.cast_unsigned(),
        largest_free: sum.largest_free.cast_unsigned(),
        reserved: sum.reserved.cast_unsigned(),
        planned: sum.planned.cast_unsigned(),
        claimed: sum.claimed.cast_unsigned(),
        deleting: sum.deleting.cast_unsigned(),
        leaving: sum.leaving.cast_unsigned(),
        used: used.get(&sum.id).copied().unwrap_or_default(),
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
