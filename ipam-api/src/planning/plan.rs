//! The plan: what pools take from subnets, or what is missing.

use super::{
    BlockShape, FreeMapError, PoolDemand, Quota, SubnetSupply, Supplies,
    targets::{Targets, add_evenly, targets},
};
use crate::{
    line::Extent,
    names::{PoolName, SubnetPath},
    quantity::NodeCount,
    wire::SubnetShortage,
};
use std::collections::BTreeSet;

/// Why a demand makes no sense, whatever the subnets have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDemand {
    /// The numbers of its subnets add up to more nodes than the pool plans.
    #[error(
        "pool {pool}: its subnets ask for {fixed} nodes and nodes is {nodes}: raise nodes or lower the numbers of its subnets"
    )]
    FixedAboveNodes {
        /// The pool.
        pool: PoolName,
        /// Sum of the numbers.
        fixed: u64,
        /// The pool's `nodes`.
        nodes: u64,
    },
    /// A pool with nodes has no subnet.
    #[error("pool {pool} has no subnet: give it at least one")]
    NoSubnet {
        /// The pool.
        pool: PoolName,
    },
    /// A pool names a subnet twice.
    #[error("pool {pool} names subnet {subnet} twice: name it once")]
    SubnetTwice {
        /// The pool.
        pool: PoolName,
        /// The subnet.
        subnet: SubnetPath,
    },
    /// A pool is in the plan twice.
    #[error("pool {pool} is there twice: name it once")]
    PoolTwice {
        /// The pool.
        pool: PoolName,
    },
    /// A pool names a subnet that the plan does not have.
    #[error("pool {pool} names subnet {subnet}, which does not exist")]
    UnknownSubnet {
        /// The pool.
        pool: PoolName,
        /// The subnet.
        subnet: SubnetPath,
    },
    /// A block of a pool lies over free extents: the input contradicts itself.
    #[error("pool {pool} has a block in {subnet} of which {cause}")]
    Contradiction {
        /// The pool.
        pool: PoolName,
        /// The subnet.
        subnet: SubnetPath,
        /// What does not agree.
        cause: FreeMapError,
    },
}

/// Whether addresses are missing or only large enough holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortageKind {
    /// Not enough addresses.
    Exhausted,
    /// It would fit if blocks might be several extents.
    NoContiguous,
}

/// What one pool lacks. Sums are over [`subnets`](Self::subnets).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The pool.
    pub pool: PoolName,
    /// What is missing.
    pub kind: ShortageKind,
    /// Addresses that the blocks to add need, own addresses included.
    pub need: u64,
    /// Addresses there for them.
    pub have: u64,
    /// Size of the largest free extent.
    pub largest_free: u64,
    /// Most `nodes`, with their surge on top, that the pool could have, blocks it has
    /// already included; what subnets lack of their numbers is not made up for
    /// elsewhere. 0 also where not even the surge fits.
    pub nodes_that_fit: u64,
    /// The subnets that are short of the pool's number for them, and if
    /// the rest cannot be spread, all it is spread over. Here `nodes_that_fit`
    /// counts blocks, those already there and surge included.
    pub subnets: Vec<SubnetShortage>,
}

/// A pool's part in one subnet as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharePlan {
    /// The subnet.
    pub subnet: SubnetPath,
    /// Blocks it then has there, claimed ones included.
    pub blocks: u64,
    /// New blocks to take: the extents of each, in order.
    pub take: Vec<Vec<Extent>>,
    /// Blocks to give back: indices into [`PoolShare::unclaimed`](super::PoolShare::unclaimed), rising.
    pub give_back: Vec<usize>,
}

/// What one pool takes and gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPlan {
    /// The pool.
    pub name: PoolName,
    /// Its shares in the order of the demand.
    pub shares: Vec<SharePlan>,
}

/// What a set of pools takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pools in the order of the demand.
    pub pools: Vec<PoolPlan>,
    /// The subnets as they then are.
    pub subnets: Supplies,
}

/// A plan that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// What each pool lacks that does not fit; at least one.
    pub shortages: Vec<Shortage>,
    /// What the other pools would take. Blocks that any pool gives back count as free.
    pub rest: Plan,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The demand makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidDemand),
    /// It does not fit: apply none of it.
    #[error("the plan does not fit")]
    Short(Box<Shortfall>),
}

/// What these pools take from these subnets.
///
/// First every pool gives back what it has too much of, then the pools take what
/// they lack, in the order given. All of it fits or the answer is an error. The same
/// input gets the same answer: apply the answer in the transaction that read the input.
///
/// # Errors
/// The demand makes no sense, or it does not fit.
pub fn plan(subnets: Supplies, pools: &[PoolDemand]) -> Result<Plan, PlanError> {
    check(&subnets, pools)?;
    let mut subnets = subnets;
    let mut started = Vec::with_capacity(pools.len());
    for pool in pools {
        let targets = targets(pool);
        let given = give_back(&mut subnets, pool, &targets)?;
        started.push((pool, targets, given));
    }
    let mut planned = Vec::with_capacity(pools.len());
    let mut shortages = Vec::new();
    for (pool, targets, given) in started {
        match take(&mut subnets, pool, &targets, given) {
            Ok(pool_plan) => planned.push(pool_plan),
            Err(shortage) => shortages.push(shortage),
        }
    }
    let plan = Plan { pools: planned, subnets };
    if shortages.is_empty() {
        Ok(plan)
    } else {
        Err(PlanError::Short(Box::new(Shortfall { shortages, rest: plan })))
    }
}

fn check(subnets: &Supplies, pools: &[PoolDemand]) -> Result<(), InvalidDemand> {
    let mut names = BTreeSet::new();
    for pool in pools {
        let name = || pool.name.clone();
        if !names.insert(&pool.name) {
            return Err(InvalidDemand::PoolTwice { pool: name() });
        }
        let mut paths = BTreeSet::new();
        let mut fixed = 0;
        for share in &pool.shares {
            if !subnets.contains_key(&share.subnet) {
                return Err(InvalidDemand::UnknownSubnet { pool: name(), subnet: share.subnet.clone() });
            }
            if !paths.insert(&share.subnet) {
                return Err(InvalidDemand::SubnetTwice { pool: name(), subnet: share.subnet.clone() });
            }
            if let Quota::Exactly(nodes) = share.quota {
                fixed += nodes.get();
            }
        }
        if fixed > pool.nodes.get() {
            return Err(InvalidDemand::FixedAboveNodes { pool: name(), fixed, nodes: pool.nodes.get() });
        }
        if pool.blocks() > 0 && !pool.shares.iter().any(|share| share.quota != Quota::Leave) {
            return Err(InvalidDemand::NoSubnet { pool: name() });
        }
    }
    Ok(())
}

/// Gives back what a pool has too much of and says which: blocks of several
/// extents first, then the highest, so that a plan shrinks from its end.
fn give_back(
    subnets: &mut Supplies,
    pool: &PoolDemand,
    targets: &Targets,
) -> Result<Vec<Vec<usize>>, InvalidDemand> {
    let mut given = Vec::with_capacity(pool.shares.len());
    for (share, target) in pool.shares.iter().zip(&targets.each) {
        let excess = usize::try_from(share.blocks() - target.kept).unwrap_or(usize::MAX);
        let mut order: Vec<usize> = (0..share.unclaimed.len()).collect();
        if excess > 0 {
            order.sort_by_key(|&index| {
                let block = &share.unclaimed[index];
                std::cmp::Reverse((block.len(), block.first().map(|extent| extent.first())))
            });
        }
        order.truncate(excess);
        order.sort_unstable();
        if let Some(supply) = subnets.get_mut(&share.subnet) {
            for extent in order.iter().flat_map(|&index| &share.unclaimed[index]) {
                supply.free.give_back(*extent).map_err(|cause| InvalidDemand::Contradiction {
                    pool: pool.name.clone(),
                    subnet: share.subnet.clone(),
                    cause,
                })?;
            }
            supply.own_promised = supply.own_promised.saturating_sub(order.len() as u64);
        }
        given.push(order);
    }
    Ok(given)
}

/// Takes what a pool lacks; where it does not fit, nothing.
fn take(
    subnets: &mut Supplies,
    pool: &PoolDemand,
    targets: &Targets,
    given: Vec<Vec<usize>>,
) -> Result<PoolPlan, Shortage> {
    let rooms: Vec<u64> = pool
        .shares
        .iter()
        .zip(&targets.each)
        .map(|(share, target)| {
            subnets
                .get(&share.subnet)
                .map_or(0, |supply| supply.room(&pool.shape, target.must_add + targets.spread))
        })
        .collect();
    let met = |(target, room): (&super::targets::Target, &u64)| target.must_add <= *room;
    let (added, left) =
        add_evenly(targets, targets.spread, |i| rooms[i].saturating_sub(targets.each[i].must_add));
    if left > 0 || !targets.each.iter().zip(&rooms).all(met) {
        return Err(shortage(subnets, pool, targets));
    }
    let mut shares = Vec::with_capacity(pool.shares.len());
    for (((share, target), spread), give_back) in pool.shares.iter().zip(&targets.each).zip(added).zip(given)
    {
        let count = target.must_add + spread;
        let mut take = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        if let Some(supply) = subnets.get_mut(&share.subnet) {
            for _ in 0..count {
                take.extend(supply.free.place(&pool.shape));
            }
            supply.own_promised += count;
        }
        shares.push(SharePlan { subnet: share.subnet.clone(), blocks: target.kept + count, take, give_back });
    }
    Ok(PoolPlan { name: pool.name.clone(), shares })
}

impl SubnetSupply {
    /// How many more blocks of this shape fit here with their nodes' own addresses, at most `limit`.
    #[must_use]
    pub fn room(&self, shape: &BlockShape, limit: u64) -> u64 {
        let all = (self.free.free() + self.own_spare).saturating_sub(self.own_promised);
        self.free.fits(shape, limit.min(all / shape.node_size()))
    }

    /// The same if blocks could be cut up at will.
    fn room_in_pieces(&self, shape: &BlockShape) -> u64 {
        let all = (self.free.free() + self.own_spare).saturating_sub(self.own_promised);
        (self.free.free() / shape.size()).min(all / shape.node_size())
    }

    /// Addresses there for `blocks` more blocks: free ones not promised to
    /// others, and spare ones, of which each block can use one.
    fn there_for(&self, blocks: u64) -> u64 {
        let spare = self.own_spare.saturating_sub(self.own_promised);
        let promised = self.own_promised.saturating_sub(self.own_spare);
        self.free.free().saturating_sub(promised) + spare.min(blocks)
    }
}

fn shortage(subnets: &Supplies, pool: &PoolDemand, targets: &Targets) -> Shortage {
    let wanted = pool.blocks();
    // As it would be spread if there were room everywhere.
    let (ideal, _) = add_evenly(targets, targets.spread, |_| u64::MAX);
    let mut found = Vec::new();
    let (mut in_reach, mut spread_room, mut pieces_room) = (0u64, 0u64, 0u64);
    let mut exhausted = false;
    for (((share, target), ideal), position) in pool.shares.iter().zip(&targets.each).zip(ideal).zip(0usize..)
    {
        let Some(supply) = subnets.get(&share.subnet) else { continue };
        let room = supply.room(&pool.shape, wanted);
        let pieces = supply.room_in_pieces(&pool.shape);
        let add = target.must_add + ideal;
        let short = room < target.must_add;
        exhausted |= pieces < target.must_add;
        in_reach += target.kept + room.min(target.must_add);
        if target.spreads {
            spread_room += room.saturating_sub(target.must_add);
            pieces_room += pieces.saturating_sub(target.must_add);
        }
        let line = SubnetShortage {
            subnet: share.subnet.clone(),
            need: pool.shape.demand(add),
            have: supply.there_for(add),
            largest_free: supply.free.largest(),
            nodes_that_fit: (target.kept + room).min(wanted.max(target.kept)),
        };
        found.push((position, short, target.spreads, line));
    }
    let spread_short = spread_room < targets.spread;
    in_reach += spread_room.min(targets.spread);
    exhausted |= spread_short && pieces_room < targets.spread;
    let subnets: Vec<SubnetShortage> = found
        .into_iter()
        .filter(|(_, short, spreads, _)| *short || (spread_short && *spreads))
        .map(|(.., line)| line)
        .collect();
    Shortage {
        pool: pool.name.clone(),
        kind: if exhausted { ShortageKind::Exhausted } else { ShortageKind::NoContiguous },
        need: subnets.iter().map(|line| line.need).sum(),
        have: subnets.iter().map(|line| line.have).sum(),
        largest_free: subnets.iter().map(|line| line.largest_free).max().unwrap_or(0),
        nodes_that_fit: most_nodes(pool, in_reach),
        subnets,
    }
}

/// Most nodes, at most those planned, that with their surge are no more than `blocks`.
fn most_nodes(pool: &PoolDemand, blocks: u64) -> u64 {
    let fits =
        |nodes: u64| NodeCount::try_from(nodes).is_ok_and(|count| nodes + pool.surge.of(count) <= blocks);
    let (mut low, mut high) = (0, pool.nodes.get());
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests;
