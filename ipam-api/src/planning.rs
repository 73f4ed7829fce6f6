//! One pure function answers the dry run and does the real thing.
//!
//! * [`FreeMap`]: the free extents of one line; places one block in O(log n).
//! * [`BlockShape`]: how large a block is and how it may lie.
//! * [`plan`]: what a set of pools takes from a set of subnets, or what is missing.
//! * [`Resize`], [`grow`]: what claimed blocks give up or take when their pool changes their size.
//! * [`what_if`]: the same as an answer of the API, which `ipamctl plan` gives offline too.
//! * [`smallest_v4`]: the smallest subnet that holds a set of pools.
//!
//! # Nodes' own addresses
//!
//! A node needs its block *and* one address of its own in the same subnet. Which
//! one is not known before the node registers, so the plan only counts: after
//! a plan, every unclaimed block of a subnet must still find an own address, first
//! among those that `forNodes` reservations have left, then among the addresses
//! left free. A plan that would break this is refused as exhausted even though its
//! blocks have room. It is checked where blocks are added; giving back is always possible.
//!
//! # Which subnet gets how many blocks
//!
//! A pool wants `nodes` + surge blocks. A subnet with a number has that many. The
//! rest, surge included, is spread evenly over the subnets without a number, or over
//! all (on top of their numbers) if every one has one; a full subnet passes its share
//! on to the others. Blocks that are there stay where they are: more nodes add
//! blocks where the pool has fewest, fewer nodes give back unclaimed blocks where it has
//! most. Claimed blocks always stay and count towards the total wherever they are,
//! so a pool has more blocks than it wants only while nodes hold them or numbers ask for them.

mod answer;
#[cfg(test)]
mod cost;
mod demand;
mod free_map;
#[cfg(test)]
mod naive;
mod pieces;
mod plan;
mod resize;
mod shape;
mod sizing;
mod targets;

pub use answer::what_if;
pub use demand::{PoolDemand, PoolShare, Quota, SubnetSupply, Supplies};
pub use free_map::{FreeMap, FreeMapError, Misfit};
pub use plan::{
    InvalidDemand, Plan, PlanError, PoolPlan, SharePlan, Shortage, ShortageKind, Shortfall, plan,
};
pub use resize::{GrowthShortage, Resize, grow, joined};
pub use shape::BlockShape;
pub use sizing::{Proposal, smallest_v4};
