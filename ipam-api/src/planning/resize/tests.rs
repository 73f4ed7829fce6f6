use super::{
    super::naive::{extent, shape},
    *,
};
use crate::{ledger::Leaving, wire::BlockVersion};
use proptest::prelude::*;

fn supply(free: &[Extent], own_promised: u64) -> SubnetSupply {
    SubnetSupply { line: None, free: FreeMap::from_extents(free.iter().copied()), own_spare: 0, own_promised }
}

fn path() -> SubnetPath {
    "v/a".parse().unwrap()
}

fn leaving(first: u64, next: u64) -> Leaving {
    Leaving { extent: extent(first, next), since: BlockVersion(2) }
}

#[test]
fn a_block_gives_up_its_end_and_first_takes_back_what_is_leaving() {
    let block = Footprint { stays: vec![extent(40, 44), extent(0, 8)], leaves: vec![leaving(8, 16)] };
    let smaller = Resize::of(&block, 6);
    assert_eq!(smaller.gives_up, [extent(6, 8), extent(40, 44)]);
    assert_eq!((smaller.takes_back, smaller.has), (vec![], vec![extent(0, 6)]));
    let larger = Resize::of(&block, 15);
    assert_eq!(larger.takes_back, [extent(8, 11)]);
    assert_eq!((larger.gives_up, larger.has), (vec![], vec![extent(0, 11), extent(40, 44)]));
    assert_eq!(Resize::of(&block, 30).has, [extent(0, 16), extent(40, 44)], "and the rest it lacks");
    assert_eq!(Resize::of(&block, 12).gives_up, []);
}

#[test]
fn blocks_grow_in_place_where_they_can_and_elsewhere_where_they_may() {
    let blocks = [vec![extent(0, 8)], vec![extent(8, 16)], vec![extent(20, 26), extent(30, 32)]];
    let exact = shape(10, Alignment::Exact, Contiguity::Preferred);
    let mut free = supply(&[extent(16, 19), extent(26, 28), extent(60, 90)], 0);
    let grown = grow(&path(), &mut free, &exact, &blocks).unwrap();
    // The first has a neighbour; the smallest hole that is left goes to it.
    assert_eq!(grown, [vec![extent(60, 62)], vec![extent(16, 18)], vec![extent(26, 28)]]);
    assert_eq!(free.free.free(), 29);

    let whole = shape(10, Alignment::Exact, Contiguity::Required);
    let mut free = supply(&[extent(16, 19), extent(26, 28), extent(60, 90)], 0);
    let before = free.clone();
    let short = grow(&path(), &mut free, &whole, &blocks).unwrap_err();
    assert_eq!(short.kind, ShortageKind::NoContiguous);
    let SubnetShortage { need, have, largest_free, nodes_that_fit, .. } = short.subnet;
    assert_eq!((need, have, largest_free, nodes_that_fit), (6, 35, 30, 2));
    assert_eq!(free, before);
}

#[test]
fn addresses_promised_to_nodes_are_not_grown_into() {
    let exact = shape(10, Alignment::Exact, Contiguity::Preferred);
    let blocks = [vec![extent(0, 8)], vec![extent(20, 28)]];
    let short = grow(&path(), &mut supply(&[extent(28, 34)], 3), &exact, &blocks).unwrap_err();
    assert_eq!(short.kind, ShortageKind::Exhausted);
    let SubnetShortage { need, have, largest_free, nodes_that_fit, .. } = short.subnet;
    assert_eq!((need, have, largest_free, nodes_that_fit), (4, 3, 6, 1));
    assert!(grow(&path(), &mut supply(&[extent(28, 34)], 2), &exact, &blocks).is_ok());
}

#[test]
fn a_prefix_grows_to_the_prefix_around_it_or_not_at_all() {
    let prefix = shape(16, Alignment::Prefix, Contiguity::Preferred);
    let upper = [vec![extent(24, 32)]];
    let grown = grow(&path(), &mut supply(&[extent(10, 24)], 0), &prefix, &upper).unwrap();
    assert_eq!(grown, [vec![extent(16, 24)]]);
    let four = [vec![extent(20, 24)]];
    let mut free = supply(&[extent(16, 20), extent(24, 32)], 0);
    let grown = grow(&path(), &mut free, &prefix, &four).unwrap();
    assert_eq!(grown, [vec![extent(16, 20), extent(24, 32)]]);
    let mut free = supply(&[extent(16, 20), extent(24, 31), extent(64, 128)], 0);
    let before = free.clone();
    let short = grow(&path(), &mut free, &prefix, &four).unwrap_err();
    assert_eq!((short.kind, short.subnet.nodes_that_fit), (ShortageKind::NoContiguous, 0));
    assert_eq!(free, before);
}

proptest! {
    #[test]
    fn all_grow_to_their_size_on_free_addresses_or_none_does(
        owners in prop::collection::vec(0u8..5, 48), size in 1u64..20, promised in 0u64..4, whole in any::<bool>(),
    ) {
        let extents_of = |owner: u8| joined(
            (0..48u64).filter(|&at| owners[at as usize] == owner).map(|at| extent(at, at + 1)).collect());
        let blocks: Vec<_> = (2..5).map(extents_of).collect();
        let contiguity = if whole { Contiguity::Required } else { Contiguity::Preferred };
        let shape = shape(size, Alignment::Exact, contiguity);
        let mut after = supply(&extents_of(0), promised);
        let before = after.clone();
        let need: u64 = blocks.iter().map(|block| size.saturating_sub(length(block))).sum();
        match grow(&path(), &mut after, &shape, &blocks) {
            Ok(grown) => {
                for (block, more) in blocks.iter().zip(&grown) {
                    prop_assert_eq!(length(block).max(size), length(block) + length(more));
                    prop_assert!(!whole || joined([block.clone(), more.clone()].concat()).len() <= block.len());
                }
                let mut free = before.free;
                for extent in grown.iter().flatten() {
                    prop_assert!(free.take(*extent).is_ok(), "{:?} is not free", extent);
                }
                prop_assert_eq!(&free, &after.free);
                prop_assert!(need == 0 || free.free() >= promised);
            }
            Err(short) => {
                prop_assert_eq!(&after, &before);
                prop_assert_eq!(short.subnet.need, need);
                prop_assert!(short.subnet.nodes_that_fit < 3);
                prop_assert!(whole || need > short.subnet.have);
            }
        }
    }
}
