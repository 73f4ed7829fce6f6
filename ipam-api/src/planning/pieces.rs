//! An interval as aligned powers of two.

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
