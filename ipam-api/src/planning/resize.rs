//! Claimed blocks that become larger or smaller (P7).
//!
//! A block keeps its lowest offsets. What it gives up leaves only when its node
//! confirms that nothing lives there, so a block that grows meanwhile first takes that back.

use super::{BlockShape, FreeMap, ShortageKind, SubnetSupply};
use crate::{
    ledger::Footprint,
    line::{Extent, Offset},
    names::SubnetPath,
    wire::{Alignment, Contiguity, SubnetShortage},
};

/// What a block does by itself to come to another size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// What it gives up: its highest offsets.
    pub gives_up: Vec<Extent>,
    /// What it takes back of what was leaving: the lowest offsets.
    pub takes_back: Vec<Extent>,
    /// What it has then, neighbours joined.
    pub has: Vec<Extent>,
}

impl Resize {
    /// How a block comes to `size` offsets, or as near as it can without [growing](grow).
    #[must_use]
    pub fn of(block: &Footprint, size: u64) -> Self {
        let (stays, gives_up) = cut(&sorted(block.stays.clone()), size);
        let lacks = size - length(&stays);
        let leaves = sorted(block.leaves.iter().map(|leaving| leaving.extent).collect());
        let (takes_back, _) = cut(&leaves, lacks);
        let has = joined(stays.iter().chain(&takes_back).copied().collect());
        Self { gives_up, takes_back, has }
    }
}

/// Blocks that cannot grow in a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowthShortage {
    /// Whether addresses are missing, or only in the right place.
    pub kind: ShortageKind,
    /// By how much; `nodes_that_fit` counts the blocks that could grow.
    pub subnet: SubnetShortage,
}

/// What each of these blocks of one subnet takes to come to the shape's size, all of them or none:
/// the addresses behind it where they are free, else other extents if the shape allows that.
/// A block that is one prefix stays one. Every block gets what lies beside it before any
/// gets other extents. Addresses that nodes still planned need for themselves are not taken.
///
/// # Errors
/// Not all of them can grow; then the supply is as it was.
pub fn grow(
    path: &SubnetPath,
    supply: &mut SubnetSupply,
    shape: &BlockShape,
    blocks: &[Vec<Extent>],
) -> Result<Vec<Vec<Extent>>, GrowthShortage> {
    let lacks: Vec<u64> = blocks.iter().map(|block| shape.size().saturating_sub(length(block))).collect();
    let need: u64 = lacks.iter().sum();
    let have = supply.free.free().saturating_sub(supply.own_promised.saturating_sub(supply.own_spare));
    let mut free = supply.free.clone();
    let mut taken: Vec<Option<Vec<Extent>>> = Vec::with_capacity(blocks.len());
    for (block, &lack) in blocks.iter().zip(&lacks) {
        taken.push(match lack {
            0 => Some(Vec::new()),
            _ => beside(&mut free, shape, block, lack),
        });
    }
    if shape.alignment() == Alignment::Exact && shape.contiguity() == Contiguity::Preferred {
        for (taken, &lack) in taken.iter_mut().zip(&lacks).filter(|(taken, _)| taken.is_none()) {
            *taken = free.place(&shape.of_size(lack)).ok();
        }
    }
    if need <= have && taken.iter().all(Option::is_some) {
        supply.free = free;
        return Ok(taken.into_iter().flatten().collect());
    }
    let mut left = have;
    let grown = taken.iter().zip(&lacks).filter(|(taken, lack)| {
        let fits = taken.is_some() && **lack <= left;
        left -= if fits { **lack } else { 0 };
        fits
    });
    let nodes_that_fit = grown.count() as u64;
    Err(GrowthShortage {
        kind: if need > have { ShortageKind::Exhausted } else { ShortageKind::NoContiguous },
        subnet: SubnetShortage {
            subnet: path.clone(),
            need,
            have,
            largest_free: supply.free.largest(),
            nodes_that_fit,
        },
    })
}

/// Takes what makes a block larger without another extent of its own.
fn beside(free: &mut FreeMap, shape: &BlockShape, block: &[Extent], lack: u64) -> Option<Vec<Extent>> {
    match shape.alignment() {
        Alignment::Exact => block.iter().rev().find_map(|extent| {
            let behind = Extent::sized(extent.next(), lack)?;
            free.take(behind).ok().map(|()| vec![behind])
        }),
        Alignment::Prefix => {
            let [extent] = block else { return None };
            let first = extent.first().0 / shape.size() * shape.size();
            let around = Extent::sized(Offset(first), shape.size())?;
            let before = Extent::new(around.first(), extent.first());
            let behind = Extent::new(extent.next(), around.next());
            let mut taken = Vec::new();
            for piece in before.into_iter().chain(behind) {
                if free.take(piece).is_err() {
                    for extent in taken {
                        // It was taken here, so it is not free.
                        let _ = free.give_back(extent);
                    }
                    return None;
                }
                taken.push(piece);
            }
            Some(taken)
        }
    }
}

fn length(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.size()).sum()
}

fn sorted(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    extents
}

/// Extents in order, neighbours joined: a block that has grown is several tiles side by side.
#[must_use]
pub fn joined(extents: Vec<Extent>) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in sorted(extents) {
        match out.last_mut() {
            Some(last) if last.next() == extent.first() => {
                *last = Extent::new(last.first(), extent.next()).unwrap_or(*last);
            }
            _ => out.push(extent),
        }
    }
    out
}

/// The first `size` offsets of extents in order, and the others.
fn cut(extents: &[Extent], size: u64) -> (Vec<Extent>, Vec<Extent>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut left = size;
    for extent in extents {
        let part = left.min(extent.size());
        left -= part;
        let middle = Offset(extent.first().0 + part);
        before.extend(Extent::new(extent.first(), middle));
        after.extend(Extent::new(middle, extent.next()));
    }
    (before, after)
}

#[cfg(test)]
mod tests;
