//! The free map as a bitmap, by brute force: what the tests believe.

use super::{BlockShape, FreeMap};
use crate::{
    line::{Extent, Offset},
    wire::{Alignment, Contiguity},
};
use proptest::prelude::*;

/// Whether each offset of a short line is free.
#[derive(Debug, Clone)]
pub(super) struct Bitmap(pub(super) Vec<bool>);

impl Bitmap {
    pub(super) fn is(&self, extent: Extent, free: bool) -> bool {
        (extent.first().0..extent.next().0).all(|at| self.0.get(at as usize) == Some(&free))
    }

    pub(super) fn set(&mut self, extent: Extent, free: bool) {
        for at in extent.first().0..extent.next().0 {
            self.0[at as usize] = free;
        }
    }

    pub(super) fn free(&self) -> u64 {
        self.0.iter().filter(|free| **free).count() as u64
    }

    /// Maximal runs of free offsets, in order.
    pub(super) fn holes(&self) -> Vec<Extent> {
        let mut holes = Vec::new();
        let mut first = None;
        for at in 0..=self.0.len() as u64 {
            match (first, self.0.get(at as usize) == Some(&true)) {
                (None, true) => first = Some(at),
                (Some(start), false) => {
                    holes.push(extent(start, at));
                    first = None;
                }
                _ => {}
            }
        }
        holes
    }

    pub(super) fn largest(&self) -> u64 {
        self.holes().into_iter().map(Extent::size).max().unwrap_or(0)
    }

    pub(super) fn map(&self) -> FreeMap {
        FreeMap::from_extents(self.holes())
    }

    /// Every place for one extent of this shape.
    pub(super) fn places(&self, shape: &BlockShape) -> Vec<Extent> {
        let size = shape.size();
        let step = if shape.alignment() == Alignment::Prefix { size } else { 1 };
        (0..self.0.len() as u64)
            .filter(|at| at % step == 0)
            .map(|at| extent(at, at + size))
            .filter(|place| self.is(*place, true))
            .collect()
    }

    /// How much free space there is around a place: the hole, or with prefix
    /// alignment the largest aligned power of two.
    pub(super) fn around(&self, place: Extent, alignment: Alignment) -> u64 {
        match alignment {
            Alignment::Exact => {
                self.holes().into_iter().find(|hole| hole.covers(place)).map_or(0, Extent::size)
            }
            Alignment::Prefix => (0..16)
                .map(|order| 1u64 << order)
                .filter(|size| {
                    let first = place.first().0 / size * size;
                    extent(first, first + size).covers(place) && self.is(extent(first, first + size), true)
                })
                .max()
                .unwrap_or(0),
        }
    }

    /// Most blocks of this shape that any packing could have.
    pub(super) fn most(&self, shape: &BlockShape) -> u64 {
        if shape.contiguity() == Contiguity::Preferred {
            return self.free() / shape.size();
        }
        // Leftmost first is an optimal packing of equal intervals.
        let mut end = 0;
        let mut count = 0;
        for place in self.places(shape) {
            if place.first().0 >= end {
                end = place.next().0;
                count += 1;
            }
        }
        count
    }
}

pub(super) fn extent(first: u64, next: u64) -> Extent {
    Extent::new(Offset(first), Offset(next)).unwrap()
}

pub(super) fn bitmaps(longest: usize) -> impl Strategy<Value = Bitmap> {
    // Runs of equal bits, so that holes of all sizes come up.
    let runs = prop::collection::vec((any::<bool>(), 1..=24usize), 0..24);
    (0..=longest, runs).prop_map(|(length, runs)| {
        let bits = runs.into_iter().flat_map(|(free, run)| std::iter::repeat_n(free, run));
        Bitmap(bits.take(length).collect())
    })
}

pub(super) fn shape(max_pods: u64, alignment: Alignment, contiguity: Contiguity) -> BlockShape {
    BlockShape::new(max_pods.try_into().unwrap(), 0.try_into().unwrap(), alignment, contiguity)
}

pub(super) fn shapes(largest: u64) -> impl Strategy<Value = BlockShape> {
    let alignment = prop_oneof![Just(Alignment::Exact), Just(Alignment::Prefix)];
    let contiguity = prop_oneof![Just(Contiguity::Preferred), Just(Contiguity::Required)];
    (1..=largest, alignment, contiguity).prop_map(|(size, a, c)| shape(size, a, c))
}
