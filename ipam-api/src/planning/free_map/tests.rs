use super::*;
use crate::planning::naive::{Bitmap, bitmaps, extent, shape, shapes};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Place(BlockShape),
    Take(u64, u64),
    GiveBack(u64, u64),
    /// Gives back the block placed that many places ago.
    Undo(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => shapes(24).prop_map(Step::Place),
        1 => (0..200u64, 1..20u64).prop_map(|(at, size)| Step::Take(at, size)),
        1 => (0..200u64, 1..20u64).prop_map(|(at, size)| Step::GiveBack(at, size)),
        3 => (0..8usize).prop_map(Step::Undo),
    ];
    prop::collection::vec(step, 1..60)
}

/// The map is that of the bitmap, down to its indexes, and its extents are
/// disjoint, joined and in order.
fn same(map: &FreeMap, bitmap: &Bitmap) -> Result<(), TestCaseError> {
    prop_assert_eq!(map.extents().collect::<Vec<_>>(), bitmap.holes());
    prop_assert_eq!(map, &bitmap.map());
    prop_assert_eq!(map.free(), bitmap.free());
    prop_assert_eq!(map.largest(), bitmap.largest());
    Ok(())
}

/// What was placed is what brute force calls best; what was refused has no place.
fn right(
    placed: &Result<Vec<Extent>, Misfit>,
    bitmap: &Bitmap,
    shape: &BlockShape,
) -> Result<(), TestCaseError> {
    let best = bitmap
        .places(shape)
        .into_iter()
        .min_by_key(|place| (bitmap.around(*place, shape.alignment()), place.first()));
    match (placed, best) {
        (Ok(extents), Some(best)) => prop_assert_eq!(extents, &vec![best]),
        (Ok(extents), None) => {
            prop_assert_eq!(shape.contiguity(), Contiguity::Preferred);
            prop_assert_eq!(extents.iter().map(|e| e.size()).sum::<u64>(), shape.size());
            prop_assert!(extents.iter().all(|extent| bitmap.is(*extent, true)));
            prop_assert!(extents.windows(2).all(|pair| pair[0].next() < pair[1].first()));
            if shape.alignment() == Alignment::Exact {
                let mut holes: Vec<u64> = bitmap.holes().into_iter().map(Extent::size).collect();
                holes.sort_unstable();
                let mut covered = 0;
                let fewest = holes
                    .iter()
                    .rev()
                    .take_while(|hole| {
                        let needed = covered < shape.size();
                        covered += **hole;
                        needed
                    })
                    .count();
                prop_assert_eq!(extents.len(), fewest);
            }
        }
        (Err(Misfit::Exhausted { need, free }), _) => {
            prop_assert_eq!((*need, *free), (shape.size(), bitmap.free()));
            prop_assert!(need > free);
        }
        (Err(Misfit::NoContiguous { need, largest }), best) => {
            prop_assert_eq!(best, None);
            prop_assert_eq!(shape.contiguity(), Contiguity::Required);
            prop_assert_eq!((*need, *largest), (shape.size(), bitmap.largest()));
            prop_assert!(*need <= bitmap.free());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_history_equals_the_bitmap(start in bitmaps(256), steps in steps()) {
        let mut bitmap = start;
        let mut map = bitmap.map();
        let mut blocks: Vec<Vec<Extent>> = Vec::new();
        for step in steps {
            match step {
                Step::Place(shape) => {
                    let placed = map.place(&shape);
                    right(&placed, &bitmap, &shape)?;
                    for extent in placed.iter().flatten() {
                        bitmap.set(*extent, false);
                    }
                    blocks.extend(placed);
                }
                Step::Take(at, size) => {
                    let wanted = extent(at, at + size);
                    let free = bitmap.is(wanted, true);
                    prop_assert_eq!(map.take(wanted), free.then_some(()).ok_or(FreeMapError::NotFree(wanted)));
                    if free {
                        bitmap.set(wanted, false);
                        blocks.push(vec![wanted]);
                    }
                }
                Step::GiveBack(at, size) => {
                    let given = extent(at, at + size);
                    // Off the line nothing was ever free: the map knows no end.
                    if given.next().0 <= bitmap.0.len() as u64 {
                        let used = bitmap.is(given, false);
                        let wish = used.then_some(()).ok_or(FreeMapError::AlreadyFree(given));
                        prop_assert_eq!(map.give_back(given), wish);
                        if used {
                            bitmap.set(given, true);
                            blocks.retain(|block| block.iter().all(|extent| !extent.overlaps(given)));
                        }
                    }
                }
                Step::Undo(back) => {
                    if let Some(index) = blocks.len().checked_sub(back + 1) {
                        for extent in blocks.remove(index) {
                            prop_assert_eq!(map.give_back(extent), Ok(()));
                            bitmap.set(extent, true);
                        }
                    }
                }
            }
            same(&map, &bitmap)?;
        }
    }

    #[test]
    fn extents_come_in_any_order_and_overlap(given in prop::collection::vec((0..200u64, 1..30u64), 0..20)) {
        let extents: Vec<_> = given.iter().map(|(at, size)| extent(*at, at + size)).collect();
        let mut bitmap = Bitmap(vec![false; 256]);
        extents.iter().for_each(|extent| bitmap.set(*extent, true));
        same(&FreeMap::from_extents(extents), &bitmap)?;
    }

    #[test]
    fn fits_is_what_is_placed_and_no_packing_has_more(start in bitmaps(256), shape in shapes(24), limit in 0..40u64) {
        let mut map = start.map();
        let (all, some) = (map.fits(&shape, u64::MAX), map.fits(&shape, limit));
        prop_assert_eq!(all, start.most(&shape));
        prop_assert_eq!(some, all.min(limit));
        let mut placed = 0;
        while map.place(&shape).is_ok() {
            placed += 1;
        }
        prop_assert_eq!(placed, all);
    }

    #[test]
    fn a_refusal_changes_nothing(start in bitmaps(128), shape in shapes(64)) {
        let before = start.map();
        let mut map = before.clone();
        if map.place(&shape).is_err() {
            prop_assert_eq!(map, before);
        }
    }
}

fn exact(size: u64) -> BlockShape {
    shape(size, Alignment::Exact, Contiguity::Required)
}

fn prefix(size: u64) -> BlockShape {
    shape(size, Alignment::Prefix, Contiguity::Required)
}

#[test]
fn neighbours_are_one_hole() {
    let map = FreeMap::from_extents([extent(5, 9), extent(0, 5)]);
    assert_eq!(map.extents().collect::<Vec<_>>(), [extent(0, 9)]);
}

#[test]
fn a_hole_of_exactly_the_size_is_filled_and_the_large_one_stays_whole() {
    let mut map = FreeMap::from_extents([extent(0, 1000), extent(2000, 2030), extent(3000, 3030)]);
    assert_eq!(map.place(&exact(30)), Ok(vec![extent(2000, 2030)]));
    assert_eq!(map.place(&exact(30)), Ok(vec![extent(3000, 3030)]));
    assert_eq!(map.place(&exact(30)), Ok(vec![extent(0, 30)]));
    assert_eq!(map.largest(), 970);
}

#[test]
fn one_address_more_than_the_hole_is_refused() {
    let mut map = FreeMap::from_extents([extent(0, 30), extent(40, 70)]);
    assert_eq!(map.place(&exact(31)), Err(Misfit::NoContiguous { need: 31, largest: 30 }));
    assert_eq!(map.place(&exact(61)), Err(Misfit::Exhausted { need: 61, free: 60 }));
    assert_eq!(map.free(), 60);
    let split = shape(31, Alignment::Exact, Contiguity::Preferred);
    assert_eq!(map.place(&split), Ok(vec![extent(0, 30), extent(40, 41)]));
}

#[test]
fn a_large_hole_that_lies_across_has_no_aligned_slot() {
    let mut map = FreeMap::from_extents([extent(1, 31)]);
    assert_eq!(map.place(&prefix(16)), Err(Misfit::NoContiguous { need: 16, largest: 30 }));
    assert_eq!(map.place(&prefix(8)), Ok(vec![extent(8, 16)]));
    assert_eq!(map.fits(&prefix(8), 9), 1);
    // In pieces: 16-24, then 4-8 and 24-28; neighbours are joined.
    let split = shape(16, Alignment::Prefix, Contiguity::Preferred);
    assert_eq!(map.place(&split), Ok(vec![extent(4, 8), extent(16, 28)]));
}

#[test]
fn the_longest_line_is_one_hole() {
    let whole = extent(0, 1 << 48);
    let mut map = FreeMap::from_extents([whole]);
    assert_eq!((map.free(), map.largest()), (1 << 48, 1 << 48));
    assert_eq!(map.fits(&exact(1), u64::MAX), 1 << 48);
    assert_eq!(map.fits(&prefix(65_536), u64::MAX), 1 << 32);
    let first = map.place(&prefix(65_536)).unwrap();
    assert_eq!(first, [extent(0, 65_536)]);
    let last = extent((1 << 48) - 1, 1 << 48);
    assert_eq!(map.take(last), Ok(()));
    assert_eq!(map.give_back(last), Ok(()));
    assert_eq!(map.give_back(first[0]), Ok(()));
    assert_eq!(map.take(whole), Ok(()));
    assert_eq!(map, FreeMap::default());
}

#[test]
fn a_block_of_one_address_fills_every_gap() {
    let mut map = FreeMap::from_extents([extent(0, 1), extent(2, 3), extent(4, 6)]);
    for at in [0, 2, 4, 5] {
        assert_eq!(map.place(&prefix(1)), Ok(vec![extent(at, at + 1)]));
    }
    assert_eq!(map.place(&exact(1)), Err(Misfit::Exhausted { need: 1, free: 0 }));
}

#[test]
fn an_unclaimed_block_moves_aside_for_an_address() {
    let mut map = FreeMap::from_extents([extent(0, 100)]);
    let block = map.place(&exact(30)).unwrap();
    for extent in block {
        map.give_back(extent).unwrap();
    }
    map.take(extent(7, 8)).unwrap();
    assert_eq!(map.place(&exact(30)), Ok(vec![extent(8, 38)]));
    assert_eq!(map.extents().collect::<Vec<_>>(), [extent(0, 7), extent(38, 100)]);
}
