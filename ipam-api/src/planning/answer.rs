//! Plans and shortages in the words of the wire.

use super::{
    InvalidDemand, Plan, PlanError, PoolDemand, PoolPlan, Shortage, ShortageKind, Shortfall, Supplies, plan,
};
use crate::{
    line::Extent,
    names::SubnetPath,
    wire::{self, PlannedPool, PlannedShare, Problem, ProblemType, Range, SubnetPlan},
};
use std::collections::{BTreeMap, BTreeSet};

/// The answer to a what-if: [`plan`] in the words of the wire.
///
/// Subnets without a line are counted but show no ranges.
///
/// # Errors
/// The demand makes no sense. A demand that does not fit is an answer.
pub fn what_if(subnets: Supplies, pools: &[PoolDemand]) -> Result<wire::Plan, InvalidDemand> {
    let before: BTreeMap<SubnetPath, u64> =
        subnets.iter().map(|(path, supply)| (path.clone(), supply.free.free())).collect();
    let (plan, shortages) = match plan(subnets, pools) {
        Ok(plan) => (plan, Vec::new()),
        Err(PlanError::Short(shortfall)) => (shortfall.rest, shortfall.shortages),
        Err(PlanError::Invalid(invalid)) => return Err(invalid),
    };
    let touched: BTreeSet<&SubnetPath> =
        pools.iter().flat_map(|pool| &pool.shares).map(|share| &share.subnet).collect();
    let after = plan.subnets.iter().filter(|(path, _)| touched.contains(path));
    Ok(wire::Plan {
        fits: shortages.is_empty(),
        subnets: after
            .map(|(path, supply)| SubnetPlan {
                subnet: path.clone(),
                free_before: before.get(path).copied().unwrap_or_default(),
                free_after: supply.free.free(),
                largest_free_after: supply.free.largest(),
            })
            .collect(),
        pools: plan.pools.iter().filter_map(|planned| planned_pool(&plan, planned, pools)).collect(),
        shortages: shortages.into_iter().flat_map(|shortage| shortage.subnets).collect(),
    })
}

fn planned_pool(plan: &Plan, planned: &PoolPlan, pools: &[PoolDemand]) -> Option<PlannedPool> {
    let demand = pools.iter().find(|demand| demand.name == planned.name)?;
    let shares = planned.shares.iter().map(|share| PlannedShare {
        subnet: share.subnet.clone(),
        blocks: share.blocks,
        takes: plan.subnets.get(&share.subnet).and_then(|supply| supply.line).map_or_else(Vec::new, |line| {
            joined(share.take.iter().flatten())
                .into_iter()
                .filter_map(|extent| Range::of(line, extent))
                .collect()
        }),
    });
    Some(PlannedPool {
        name: demand.name.clone(),
        block_size: demand.shape.size(),
        blocks: demand.blocks(),
        addresses: demand.shape.demand(demand.blocks()),
        shares: shares.collect(),
    })
}

/// Disjoint extents in order, neighbours joined.
fn joined<'a>(extents: impl Iterator<Item = &'a Extent>) -> Vec<Extent> {
    let mut sorted: Vec<Extent> = extents.copied().collect();
    sorted.sort_unstable_by_key(|extent| extent.first());
    let mut joined: Vec<Extent> = Vec::with_capacity(sorted.len());
    for extent in sorted {
        match joined.last_mut() {
            Some(last) if last.next() == extent.first() => {
                *last = Extent::new(last.first(), extent.next()).unwrap_or(*last);
            }
            _ => joined.push(extent),
        }
    }
    joined
}

impl Shortage {
    /// One sentence on what is missing and one on what to do.
    #[must_use]
    pub fn detail(&self) -> String {
        let Self { pool, need, have, largest_free, nodes_that_fit, .. } = self;
        let places: Vec<String> = self.subnets.iter().map(|line| line.subnet.to_string()).collect();
        let places = places.join(", ");
        match self.kind {
            ShortageKind::Exhausted => format!(
                "pool {pool} needs {need} more addresses in {places} and {have} are there: {nodes_that_fit} \
                 nodes would fit. Lower nodes, surge or maxPods, or give the pool another subnet."
            ),
            ShortageKind::NoContiguous => format!(
                "pool {pool} needs {need} more addresses in {places} and {have} are there, but not in holes large \
                 enough (the largest has {largest_free}): {nodes_that_fit} nodes would fit. Set contiguous to \
                 \"preferred\", lower nodes or maxPods, or give the pool another subnet."
            ),
        }
    }
}

impl From<&Shortage> for Problem {
    fn from(shortage: &Shortage) -> Self {
        let kind = match shortage.kind {
            ShortageKind::Exhausted => ProblemType::Exhausted,
            ShortageKind::NoContiguous => ProblemType::NoContiguousBlock,
        };
        Self {
            need: Some(shortage.need),
            have: Some(shortage.have),
            largest_free: Some(shortage.largest_free),
            nodes_that_fit: Some(shortage.nodes_that_fit),
            subnets: shortage.subnets.clone(),
            ..Self::new(kind, shortage.detail())
        }
    }
}

impl From<&Shortfall> for Problem {
    /// The first shortage, with the others' account behind it.
    fn from(shortfall: &Shortfall) -> Self {
        let mut problems = shortfall.shortages.iter().map(Self::from);
        let Some(mut first) = problems.next() else {
            return Self::new(ProblemType::Internal, "a plan does not fit, but nothing is missing");
        };
        for other in problems {
            first.detail.push(' ');
            first.detail.push_str(&other.detail);
        }
        first
    }
}
