//! How many blocks each subnet of a pool shall have: counting only, no addresses.

use super::{PoolDemand, Quota};
use std::{cmp::Reverse, collections::BinaryHeap};

/// What a pool wants of one subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// The number asked for this subnet; 0 without one. Evenness counts what is above.
    pub(super) floor: u64,
    /// Whether it takes part in the even spread.
    pub(super) spreads: bool,
    /// Blocks it has now and keeps.
    pub(super) kept: u64,
    /// Blocks it must get to meet its number.
    pub(super) must_add: u64,
}

impl Target {
    /// Blocks it has at least, once its number is met.
    pub(super) fn base(&self) -> u64 {
        self.kept + self.must_add
    }
}

/// What a pool wants of all its subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Targets {
    /// Of each, in the order of the demand.
    pub(super) each: Vec<Target>,
    /// Blocks to spread evenly on top.
    pub(super) spread: u64,
}

/// Numbers are met first; then what is too much goes where there is most, or
/// what is missing is left to be spread.
pub(super) fn targets(pool: &PoolDemand) -> Targets {
    let all_have_numbers = !pool.shares.iter().any(|share| share.quota == Quota::Spread);
    let wanted = pool.blocks();
    let mut each = Vec::with_capacity(pool.shares.len());
    let mut total = 0u64;
    // What may still go: (above its number, position), most above and last first.
    let mut surplus = BinaryHeap::new();
    let mut least = Vec::with_capacity(pool.shares.len());
    for (position, share) in pool.shares.iter().enumerate() {
        let (floor, spreads) = match share.quota {
            Quota::Spread => (0, true),
            Quota::Exactly(nodes) => (nodes.get(), all_have_numbers),
            Quota::Leave => (0, false),
        };
        let lowest = floor.max(share.claimed);
        let base = if spreads { lowest.max(share.blocks()) } else { lowest };
        let kept = base.min(share.blocks());
        each.push(Target { floor, spreads, kept, must_add: base - kept });
        least.push(lowest);
        total += base;
        if base > lowest {
            surplus.push((base - floor, position));
        }
    }
    while total > wanted {
        let Some((above, position)) = surplus.pop() else { break };
        each[position].kept -= 1;
        total -= 1;
        if each[position].kept > least[position] {
            surplus.push((above - 1, position));
        }
    }
    Targets { each, spread: wanted.saturating_sub(total) }
}

/// Spreads `count` blocks over the subnets that take part: each goes where there are
/// fewest above the subnet's number, the first of equals, at most `room` of them in each
/// on top of its base. Returns how many each gets, and how many found no room.
pub(super) fn add_evenly(targets: &Targets, count: u64, room: impl Fn(usize) -> u64) -> (Vec<u64>, u64) {
    let mut added = vec![0; targets.each.len()];
    let spreading = targets.each.iter().enumerate().filter(|(_, target)| target.spreads);
    let mut fewest: BinaryHeap<_> = spreading
        .map(|(position, target)| Reverse((target.base() - target.floor, position, room(position))))
        .filter(|Reverse((.., room))| *room > 0)
        .collect();
    let mut left = count;
    while left > 0 {
        let Some(Reverse((above, position, room))) = fewest.pop() else { break };
        added[position] += 1;
        left -= 1;
        if room > 1 {
            fewest.push(Reverse((above + 1, position, room - 1)));
        }
    }
    (added, left)
}
