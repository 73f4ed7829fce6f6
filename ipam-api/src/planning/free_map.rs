//! The free extents of one number line.

use super::{
    BlockShape,
    pieces::{PieceIndex, pieces},
};
use crate::{
    line::{Extent, Offset},
    wire::{Alignment, Contiguity},
};
use std::collections::{BTreeMap, BTreeSet};

/// Why a change to a [`FreeMap`] is not possible. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FreeMapError {
    /// Some of the extent is in use.
    #[error("{0} is not wholly free")]
    NotFree(Extent),
    /// Some of the extent is free already.
    #[error("{0} is free already, in part or as a whole")]
    AlreadyFree(Extent),
}

/// Why a block cannot be placed. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Fewer addresses are free than the block has.
    #[error("a block needs {need} addresses and {free} are free")]
    Exhausted {
        /// Addresses of the block.
        need: u64,
        /// Addresses free, in all holes.
        free: u64,
    },
    /// Enough addresses are free, but no hole holds the block in one piece.
    #[error("a block needs {need} addresses in one piece and the largest hole has {largest}")]
    NoContiguous {
        /// Addresses of the block.
        need: u64,
        /// Size of the largest hole; with prefix alignment it may be large enough yet lie across.
        largest: u64,
    },
}

/// The free extents ("holes") of one line, indexed so that placing one block
/// costs O(log n) in the number of holes.
///
/// * *Exact* blocks go to the smallest hole that holds them, the lowest of
///   equals, at its front: large holes stay whole.
/// * *Prefix* blocks are aligned slots of 2^k. A hole has such a slot exactly
///   if its decomposition into maximal aligned powers of two has a piece of
///   2^k or more, so an index of those pieces finds the smallest sufficient one.
///
/// The map is a function of the free offsets alone: how it came about does not
/// show, and the same map answers every question the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeMap {
    /// First offset to next.
    holes: BTreeMap<u64, u64>,
    /// (size, first offset) of every hole.
    by_size: BTreeSet<(u64, u64)>,
    /// Every maximal aligned piece of every hole.
    pieces: PieceIndex,
    free: u64,
}

impl FreeMap {
    /// A map of these free extents, given in any order. Neighbours are joined
    /// and what is given twice counts once.
    #[must_use]
    pub fn from_extents(extents: impl IntoIterator<Item = Extent>) -> Self {
        let mut sorted: Vec<_> = extents.into_iter().map(|e| (e.first().0, e.next().0)).collect();
        sorted.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
        for (first, next) in sorted {
            match joined.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(next),
                _ => joined.push((first, next)),
            }
        }
        let mut index = PieceIndex::default();
        joined.iter().flat_map(|&(first, next)| pieces(first, next)).for_each(|piece| index.insert(piece));
        Self {
            free: joined.iter().map(|(first, next)| next - first).sum(),
            by_size: joined.iter().map(|&(first, next)| (next - first, first)).collect(),
            pieces: index,
            holes: joined.into_iter().collect(),
        }
    }

    /// How many offsets are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Size of the largest hole; 0 if nothing is free.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.by_size.last().map_or(0, |&(size, _)| size)
    }

    /// The holes, in order; no two are neighbours.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.holes.iter().filter_map(|(&first, &next)| Extent::new(Offset(first), Offset(next)))
    }

    /// Takes an extent out of the free ones.
    ///
    /// # Errors
    /// Some of it is not free; then nothing is changed.
    pub fn take(&mut self, extent: Extent) -> Result<(), FreeMapError> {
        let (first, next) = (extent.first().0, extent.next().0);
        match self.holes.range(..=first).next_back() {
            Some((&hole_first, &hole_next)) if next <= hole_next => {
                self.replace(&[(hole_first, hole_next)], &[(hole_first, first), (next, hole_next)]);
                Ok(())
            }
            _ => Err(FreeMapError::NotFree(extent)),
        }
    }

    /// Makes an extent free, joined with the holes beside it.
    ///
    /// # Errors
    /// Some of it is free already; then nothing is changed.
    pub fn give_back(&mut self, extent: Extent) -> Result<(), FreeMapError> {
        let (first, next) = (extent.first().0, extent.next().0);
        let below = self.holes.range(..next).next_back().map(|(&first, &next)| (first, next));
        if below.is_some_and(|(_, below_next)| below_next > first) {
            return Err(FreeMapError::AlreadyFree(extent));
        }
        let left = below.filter(|&(_, below_next)| below_next == first);
        let right = self.holes.get(&next).map(|&right_next| (next, right_next));
        let joined = (left.map_or(first, |(f, _)| f), right.map_or(next, |(_, n)| n));
        let old: Vec<_> = left.into_iter().chain(right).collect();
        self.replace(&old, &[joined]);
        Ok(())
    }

    /// Places one block and takes it, in O(log n). Its extents come in order,
    /// neighbours joined; with `Contiguity::Required` there is one.
    ///
    /// Where no hole is large enough and the block may be several extents, the
    /// largest holes go first and the remainder is placed by best fit, so it has
    /// as few extents as possible; with prefix alignment the same is done with
    /// aligned powers of two.
    ///
    /// # Errors
    /// There is no place for it; then nothing is changed.
    pub fn place(&mut self, shape: &BlockShape) -> Result<Vec<Extent>, Misfit> {
        let size = shape.size();
        if size > self.free {
            return Err(Misfit::Exhausted { need: size, free: self.free });
        }
        if let Some(found) = self.slot(size, shape.alignment()) {
            self.cut(found, size);
            return Ok(Extent::sized(Offset(found.at), size).into_iter().collect());
        }
        match shape.contiguity() {
            Contiguity::Required => Err(Misfit::NoContiguous { need: size, largest: self.largest() }),
            Contiguity::Preferred => Ok(self.place_split(size, shape.alignment())),
        }
    }

    /// How many blocks of this shape [`place`](Self::place) would place one
    /// after the other, at most `limit`. O(holes) for exact blocks that must be whole, else O(1).
    #[must_use]
    pub fn fits(&self, shape: &BlockShape, limit: u64) -> u64 {
        let size = shape.size();
        let count = match (shape.contiguity(), shape.alignment()) {
            (Contiguity::Preferred, _) => self.free / size,
            (Contiguity::Required, Alignment::Prefix) => self.pieces.slots(size.ilog2()),
            (Contiguity::Required, Alignment::Exact) => {
                let mut count = 0;
                for &(hole, _) in self.by_size.range((size, 0)..).rev() {
                    count += hole / size;
                    if count >= limit {
                        break;
                    }
                }
                count
            }
        };
        count.min(limit)
    }

    /// The best place for `size` offsets in one piece.
    fn slot(&self, size: u64, alignment: Alignment) -> Option<Slot> {
        match alignment {
            Alignment::Exact => {
                let &(hole_size, first) = self.by_size.range((size, 0)..).next()?;
                Some(Slot { hole: (first, first + hole_size), at: first })
            }
            Alignment::Prefix => {
                let at = self.pieces.smallest_from(size.ilog2())?;
                let (&first, &next) = self.holes.range(..=at).next_back()?;
                Some(Slot { hole: (first, next), at })
            }
        }
    }

    /// Takes `size` offsets piecewise; as many must be free.
    fn place_split(&mut self, size: u64, alignment: Alignment) -> Vec<Extent> {
        let mut taken = Vec::new();
        let mut rest = size;
        while rest > 0 {
            let wish = match alignment {
                Alignment::Exact => rest,
                Alignment::Prefix => 1 << rest.ilog2(),
            };
            let (slot, step) = match self.slot(wish, alignment) {
                Some(slot) => (slot, wish),
                None => match self.largest_whole(alignment) {
                    Some(whole) => whole,
                    None => break,
                },
            };
            self.cut(slot, step);
            taken.push((slot.at, slot.at + step));
            rest -= step;
        }
        taken.sort_unstable();
        let mut extents: Vec<(u64, u64)> = Vec::with_capacity(taken.len());
        for (first, next) in taken {
            match extents.last_mut() {
                Some(last) if last.1 == first => last.1 = next,
                _ => extents.push((first, next)),
            }
        }
        extents.into_iter().filter_map(|(f, n)| Extent::new(Offset(f), Offset(n))).collect()
    }

    /// The largest hole, or with prefix alignment the largest aligned piece; the
    /// lowest of equals. With its size.
    fn largest_whole(&self, alignment: Alignment) -> Option<(Slot, u64)> {
        let size = match alignment {
            Alignment::Exact => self.by_size.last()?.0,
            Alignment::Prefix => 1 << self.pieces.largest()?,
        };
        Some((self.slot(size, alignment)?, size))
    }

    fn cut(&mut self, slot: Slot, size: u64) {
        let (first, next) = slot.hole;
        self.replace(&[slot.hole], &[(first, slot.at), (slot.at + size, next)]);
    }

    /// Replaces holes by others, both in order; empty ones among the new are left out.
    /// Touches only those index entries that differ.
    fn replace(&mut self, old: &[(u64, u64)], new: &[(u64, u64)]) {
        for &(first, next) in old {
            self.holes.remove(&first);
            self.by_size.remove(&(next - first, first));
            self.free -= next - first;
        }
        let new = || new.iter().copied().filter(|(first, next)| first < next);
        for (first, next) in new() {
            self.holes.insert(first, next);
            self.by_size.insert((next - first, first));
            self.free += next - first;
        }
        let mut gone = old.iter().flat_map(|&(first, next)| pieces(first, next)).peekable();
        let mut come = new().flat_map(|(first, next)| pieces(first, next)).peekable();
        loop {
            match (gone.peek().copied(), come.peek().copied()) {
                (None, None) => break,
                (Some(g), Some(c)) if g == c => {
                    gone.next();
                    come.next();
                }
                (Some(g), c) if c.is_none_or(|c| g.1 <= c.1) => {
                    self.pieces.remove(g);
                    gone.next();
                }
                (_, Some(c)) => {
                    self.pieces.insert(c);
                    come.next();
                }
                (Some(_), None) => break,
            }
        }
    }
}

/// A place for something in a hole.
#[derive(Clone, Copy)]
struct Slot {
    hole: (u64, u64),
    at: u64,
}

#[cfg(test)]
mod tests;
