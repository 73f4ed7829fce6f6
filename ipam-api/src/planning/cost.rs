//! What planning may cost, as an ordinary test.
//!
//! Other work on the machine only ever adds to a measured time, so each side is
//! the least of many rounds, taken in turn, and rounds go on while a bound is not met.

use super::{
    BlockShape, FreeMap, PoolDemand, PoolShare, SubnetSupply, Supplies,
    naive::{extent, shape},
    plan,
};
use crate::{
    line::{Extent, Line, Offset},
    names::SubnetPath,
    wire::{Alignment, Contiguity},
};
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;

/// As many holes as blocks, of sizes 1 to 64.
fn fragmented(blocks: u64, _: &BlockShape) -> FreeMap {
    FreeMap::from_extents(
        (0..blocks).filter_map(|i| Extent::sized(Offset(i * 128), 1 + i.wrapping_mul(2_654_435_761) % 64)),
    )
}

/// Blocks one behind the other, as a large pool leaves them.
fn packed(blocks: u64, shape: &BlockShape) -> FreeMap {
    let mut map = FreeMap::from_extents([extent(0, 1 << 40)]);
    for _ in 0..blocks {
        map.place(shape).unwrap();
    }
    map
}

/// The time of some placings, each undone again.
fn placings(map: &mut FreeMap, shape: &BlockShape) -> Duration {
    let start = Instant::now();
    for _ in 0..500 {
        for extent in map.place(shape).unwrap() {
            map.give_back(extent).unwrap();
        }
    }
    start.elapsed()
}

#[test]
fn one_block_among_100_000_costs_at_most_3_times_one_among_1_000() {
    for alignment in [Alignment::Exact, Alignment::Prefix] {
        let shape = shape(30, alignment, Contiguity::Required);
        for (name, make) in
            [("fragmented", fragmented as fn(u64, &BlockShape) -> FreeMap), ("packed", packed)]
        {
            let (mut few, mut many) = (make(1_000, &shape), make(100_000, &shape));
            let (mut least_few, mut least_many) = (Duration::MAX, Duration::MAX);
            for round in 0..ROUNDS {
                least_few = least_few.min(placings(&mut few, &shape));
                least_many = least_many.min(placings(&mut many, &shape));
                if round >= 10 && least_many <= 3 * least_few {
                    break;
                }
            }
            assert!(
                least_many <= 3 * least_few,
                "{alignment:?}, {name}: {least_many:?} among 100,000, {least_few:?} among 1,000"
            );
        }
    }
}

#[test]
fn a_pool_of_5_000_nodes_with_250_pods_is_planned_in_under_100_ms() {
    let subnet: SubnetPath = "prod/nodes".parse().unwrap();
    let line = Line::of(&["10.0.0.0/8".parse().unwrap()]).unwrap();
    for alignment in [Alignment::Exact, Alignment::Prefix] {
        let pool = PoolDemand {
            name: "workers".parse().unwrap(),
            shape: shape(250, alignment, Contiguity::Required),
            nodes: 5_000.try_into().unwrap(),
            surge: 1.try_into().unwrap(),
            shares: vec![PoolShare::new(subnet.clone(), None)],
        };
        let mut least = Duration::MAX;
        for _ in 0..ROUNDS {
            let supplies = Supplies::from([(subnet.clone(), SubnetSupply::empty(line))]);
            let start = Instant::now();
            let done = plan(supplies, std::slice::from_ref(&pool)).unwrap();
            least = least.min(start.elapsed());
            assert_eq!(done.pools[0].shares[0].take.len(), 5_001);
            if least < Duration::from_millis(100) {
                break;
            }
        }
        assert!(least < Duration::from_millis(100), "{alignment:?}: {least:?}");
    }
}
