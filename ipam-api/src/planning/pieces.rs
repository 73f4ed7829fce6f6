//! Intervals as aligned powers of two.

use std::collections::BTreeSet;

/// The interval from `first` to before `next` as the fewest aligned powers of
/// two, in order, each as (order, first offset). At most 2 for each bit.
pub(super) fn pieces(first: u64, next: u64) -> impl Iterator<Item = (u32, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        let left = next.checked_sub(at).filter(|&left| left > 0)?;
        // An offset is aligned to its lowest set bit; 0 to everything.
        let order = at.trailing_zeros().min(left.ilog2());
        let piece = (order, at);
        at += 1 << order;
        Some(piece)
    })
}

/// Pieces of many intervals, by order: a tree for each, since a search for
/// large pieces has no business among the many small ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PieceIndex {
    /// First offsets of the pieces of each order.
    by_order: Vec<BTreeSet<u64>>,
    /// A bit for each order that has pieces.
    orders: u64,
}

impl Default for PieceIndex {
    fn default() -> Self {
        Self { by_order: vec![BTreeSet::new(); 64], orders: 0 }
    }
}

impl PieceIndex {
    pub(super) fn insert(&mut self, (order, first): (u32, u64)) {
        self.by_order[order as usize].insert(first);
        self.orders |= 1 << order;
    }

    pub(super) fn remove(&mut self, (order, first): (u32, u64)) {
        let pieces = &mut self.by_order[order as usize];
        pieces.remove(&first);
        if pieces.is_empty() {
            self.orders &= !(1 << order);
        }
    }

    /// The first offset of the smallest piece of this order or more, the lowest of equals.
    pub(super) fn smallest_from(&self, order: u32) -> Option<u64> {
        let enough = self.orders & (u64::MAX << order);
        let pieces = self.by_order.get(enough.trailing_zeros() as usize)?;
        pieces.first().copied()
    }

    /// The order of the largest piece.
    pub(super) fn largest(&self) -> Option<u32> {
        self.orders.checked_ilog2()
    }

    /// How many aligned slots of this order the pieces have.
    pub(super) fn slots(&self, order: u32) -> u64 {
        let enough = self.by_order.iter().zip(0u32..).skip(order as usize);
        enough.map(|(pieces, larger)| (pieces.len() as u64) << (larger - order)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_of_a_crooked_interval() {
        assert_eq!(pieces(3, 13).collect::<Vec<_>>(), [(0, 3), (2, 4), (2, 8), (0, 12)]);
        assert_eq!(pieces(0, 1 << 48).collect::<Vec<_>>(), [(48, 0)]);
        assert_eq!(pieces(5, 5).count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_interval_and_are_maximal(first in 0u64..1 << 48, size in 1u64..1 << 48) {
            let next = first + size;
            let mut at = first;
            for (order, start) in pieces(first, next) {
                prop_assert_eq!(start, at);
                prop_assert_eq!(start % (1 << order), 0);
                // The next larger aligned power of two around it would stick out.
                let larger = start >> (order + 1) << (order + 1);
                prop_assert!(larger < first || larger + (2 << order) > next);
                at += 1 << order;
            }
            prop_assert_eq!(at, next);
        }
    }
}
