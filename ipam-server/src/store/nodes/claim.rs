//! The beginning of a claim.

use super::{
    super::{
        Result, StoreError,
        db::{Tx, args, statements},
        mutation::{changed, corrupt},
        pools::{self, KnownPool, StoredPool},
        recovery,
        subnets::{self, SubnetRow},
    },
    former,
    own::{self, Own},
};
use ipam_api::{
    names::NodeName,
    planning::Quota,
    wire::{Allocator, NodeAddress, NodeSpec, SubnetShortage},
};

const NEXT_CLAIM: &str = "UPDATE counter SET value = value + 1 WHERE name = 'claim' RETURNING value";
const INSERT: &str = "INSERT INTO node
        (name, pool, subnet, own4, own6, uid, mac, allocator, state, claim, claimed_at, version)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, (SELECT value FROM counter WHERE name = 'change'))
    RETURNING id";
const UNCLAIMED: &str =
    "SELECT id FROM block WHERE pool = $1 AND subnet = $2 AND node IS NULL ORDER BY id LIMIT $3";
const CLAIM: &str = "UPDATE block SET node = $2 WHERE id = $1 AND node IS NULL";

statements!(INSERT, UNCLAIMED, CLAIM);

/// A number no claim has had.
pub(super) async fn next_claim(tx: &mut Tx) -> Result<i64> {
    let (claim,): (i64,) = tx.fetch_one(NEXT_CLAIM, args![]).await?;
    Ok(claim)
}

pub(super) fn allocator(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Node => "node",
        Allocator::Service => "service",
    }
}

/// Where a node's life begins: the service needs no first sync of its own.
pub(super) fn first_state(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Node => "planned",
        Allocator::Service => "active",
    }
}

/// Where a block for a node is.
enum Planned {
    /// In its subnet.
    Here(i64),
    /// Not there; what the pool has before the node is one of its own.
    Elsewhere(Box<StoredPool>),
}

/// Registers a node of a name that is not there.
pub(super) async fn claim(tx: &mut Tx, name: &NodeName, spec: &NodeSpec, now: i64) -> Result<()> {
    recovery::refuse(tx).await?;
    match &spec.uid {
        Some(uid) if spec.replace => former::returns(tx, name.as_str(), uid).await?,
        Some(uid) => former::refuse(tx, name.as_str(), uid, now, "is registered with replace").await?,
        None => {}
    }
    let pool = pools::known(tx, &spec.pool).await?.ok_or_else(|| {
        StoreError::invalid("/pool", format!("there is no pool {}: create it or name another", spec.pool))
    })?;
    let (subnet, own) = match (spec.addresses.is_empty(), pool.spec.node_address) {
        (false, _) => own::locate(tx, &pool, &spec.addresses).await?,
        (true, NodeAddress::Assigned) => assign(tx, &pool).await?,
        (true, NodeAddress::External) => {
            return Err(StoreError::invalid(
                "/addresses",
                format!(
                    "addresses is empty and pool {} has nodeAddress external: name the VM's own address, or set the pool's nodeAddress to assigned",
                    pool.name
                ),
            ));
        }
    };
    let entry = own::admit(tx, &subnet, own, name.as_str()).await?;
    let planned = match unclaimed(tx, &pool, subnet.id, 1).await?.pop() {
        Some(block) => Planned::Here(block),
        None => Planned::Elsewhere(Box::new(pools::get(tx, &spec.pool).await?)),
    };
    // One node less to come, one address less for those to come: nothing to count.
    let lacked = match planned {
        Planned::Here(_) if entry.is_set_aside() => None,
        _ => Some(pools::own_need(tx, subnet.id).await?),
    };
    let claim = next_claim(tx).await?;
    let args = args![
        name.as_str(),
        pool.id,
        subnet.id,
        own.v4.map(|offset| offset.0),
        own.v6.map(|offset| offset.0),
        spec.uid.clone(),
        spec.mac.clone(),
        allocator(spec.allocator),
        first_state(spec.allocator),
        claim,
        now,
    ];
    let (node,): (i64,) = tx.fetch_one(INSERT, args).await?;
    own::settle_in(tx, &subnet, &entry, node).await?;
    let block = match planned {
        Planned::Here(block) => block,
        Planned::Elsewhere(pool) => bring_one(tx, &pool, &subnet).await?,
    };
    if tx.execute(CLAIM, args![block, node]).await? != 1 {
        return Err(corrupt(format!("block {block} was claimed meanwhile")));
    }
    if let Some(lacked) = lacked {
        own::check_lack(tx, &subnet, lacked).await?;
    }
    changed(tx).await
}

/// A subnet with a block to claim, and an address there.
async fn assign(tx: &mut Tx, pool: &KnownPool) -> Result<(SubnetRow, Own)> {
    let mut without_address = None;
    for member in &pool.members {
        if unclaimed(tx, pool, member.subnet, 1).await?.is_empty() {
            continue;
        }
        let subnet = subnets::by_id(tx, member.subnet).await?;
        if let Some(own) = own::choose(tx, &subnet).await? {
            return Ok((subnet, own));
        }
        without_address = Some(subnet);
    }
    match without_address {
        Some(subnet) => {
            let path = subnet.path()?;
            let detail = format!(
                "pool {} has a block for the node but {path} has no address left for the node itself: make a reservation with forNodes there, or free some addresses",
                pool.name
            );
            let numbers =
                SubnetShortage { subnet: path, need: 1, have: 0, largest_free: 0, nodes_that_fit: 0 };
            Err(StoreError::Exhausted(own::shortage(detail, numbers)))
        }
        None => {
            let member =
                pool.members.first().ok_or_else(|| corrupt(format!("pool {} has no subnet", pool.name)))?;
            let subnet = subnets::by_id(tx, member.subnet).await?;
            let pool = pools::get(tx, &pool.name).await?;
            Err(full(&pool, &subnet, pool.blocks)?)
        }
    }
}

/// Blocks that a pool plans in a subnet for the next nodes there, at most so many.
pub(super) async fn unclaimed(tx: &mut Tx, pool: &KnownPool, subnet: i64, most: u64) -> Result<Vec<i64>> {
    let blocks: Vec<(i64,)> = tx.fetch_all(UNCLAIMED, args![pool.id, subnet, most]).await?;
    Ok(blocks.into_iter().map(|(id,)| id).collect())
}

/// Moves a planned block here from the subnet that has most, where neither has a number of its own.
async fn bring_one(tx: &mut Tx, pool: &StoredPool, subnet: &SubnetRow) -> Result<i64> {
    let holdings = pools::holdings(tx, pool.id).await?;
    let unclaimed_in = |id: i64| holdings.get(&id).map_or(0, |holding| holding.unclaimed);
    let spreads = |id: i64| pool.members.iter().any(|m| m.subnet == id && m.quota() == Quota::Spread);
    let claimed_here = holdings.get(&subnet.id).map_or(0, |holding| holding.claimed);
    let from = pool
        .members
        .iter()
        .map(|member| member.subnet)
        .filter(|&id| id != subnet.id && spreads(id) && unclaimed_in(id) > 0)
        .max_by_key(|&id| unclaimed_in(id));
    let Some(from) = from.filter(|_| spreads(subnet.id)) else {
        return Err(full(pool, subnet, claimed_here)?);
    };
    let shape = pools::shape(&pool.spec);
    let mut supply = pools::supply(tx, subnet).await?;
    // The node's own address is settled already, so only its block counts here.
    let promised = supply.own_promised + shape.size();
    let room = promised <= supply.free.free() + supply.own_spare;
    let placed = if room { supply.free.place(&shape).ok() } else { None };
    let Some(extents) = placed else {
        let path = subnet.path()?;
        let detail = format!(
            "pool {} has its free blocks in other subnets and {path} has no room for one more of {} addresses: register the node with an address in another subnet of the pool",
            pool.name,
            shape.size()
        );
        let numbers = SubnetShortage {
            subnet: path,
            need: shape.size(),
            have: supply.free.free().saturating_sub(supply.own_promised.saturating_sub(supply.own_spare)),
            largest_free: supply.free.largest(),
            nodes_that_fit: 0,
        };
        return Err(StoreError::Exhausted(own::shortage(detail, numbers)));
    };
    let given = pools::unclaimed(tx, pool.id, from).await?;
    if let Some(last) = given.last() {
        pools::give_back(tx, from, &[last.id], &last.extents).await?;
    }
    let taken = pools::take(tx, pool.id, subnet.id, &[extents]).await?;
    taken.into_iter().next().ok_or_else(|| corrupt("no block where one was taken"))
}

/// The pool has no block left for a node in a subnet.
fn full(pool: &StoredPool, subnet: &SubnetRow, claimed: u64) -> Result<StoreError> {
    let path = subnet.path()?;
    let name = &pool.name;
    let detail = if pool.blocks > pool.claimed {
        format!(
            "all {claimed} blocks of pool {name} in {path} are claimed; its others are fixed to other subnets: raise the pool's nodes and their number in {path}, or register the node in another subnet"
        )
    } else {
        format!(
            "all {} blocks of pool {name} are claimed: raise its nodes, for example ipamctl pool scale {name} --nodes {}",
            pool.claimed,
            (pool.spec.nodes.get() + 1).max(pool.claimed)
        )
    };
    let numbers = SubnetShortage {
        subnet: path,
        need: pools::shape(&pool.spec).size(),
        have: 0,
        largest_free: subnet.largest_free.cast_unsigned(),
        nodes_that_fit: 0,
    };
    Ok(StoreError::Exhausted(own::shortage(detail, numbers)))
}
