//! What planning costs: one block among many, and a large pool at once.
//!
//! Targets: one block at 100,000 blocks costs at most 3 times one at 1,000;
//! 5,000 nodes of 250 pods are planned in under 100 ms.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipam_api::{
    line::{Extent, Line, Offset},
    planning::{BlockShape, FreeMap, PoolDemand, PoolShare, SubnetSupply, Supplies, plan},
    wire::{Alignment, Contiguity},
};
use std::hint::black_box;

const SIZES: [u64; 2] = [1_000, 100_000];

fn shape(max_pods: u64, alignment: Alignment) -> BlockShape {
    BlockShape::new(max_pods.try_into().unwrap(), 0.try_into().unwrap(), alignment, Contiguity::Required)
}

/// A line on which `blocks` blocks leave as many holes, of sizes 1 to 64.
fn fragmented(blocks: u64) -> FreeMap {
    FreeMap::from_extents(
        (0..blocks).filter_map(|i| Extent::sized(Offset(i * 128), 1 + i.wrapping_mul(2_654_435_761) % 64)),
    )
}

/// A line on which `blocks` blocks were placed one behind the other, as a large pool is.
fn packed(blocks: u64, shape: &BlockShape) -> (FreeMap, Vec<Vec<Extent>>) {
    let mut map = FreeMap::from_extents(Extent::sized(Offset(0), 1 << 40));
    let placed = (0..blocks).map(|_| map.place(shape).unwrap()).collect();
    (map, placed)
}

/// The same with every other block given back: what is freed next lies anywhere among many holes.
fn scattered(blocks: u64, shape: &BlockShape) -> (FreeMap, Vec<Vec<Extent>>) {
    let (mut map, mut placed) = packed(2 * blocks, shape);
    let mut index = 0;
    placed.retain(|block| {
        index += 1;
        let keep = index % 2 == 0;
        if !keep {
            map.give_back(block[0]).unwrap();
        }
        keep
    });
    (map, placed)
}

fn one_block(c: &mut Criterion) {
    let mut group = c.benchmark_group("one block");
    for alignment in [Alignment::Exact, Alignment::Prefix] {
        let shape = shape(30, alignment);
        for blocks in SIZES {
            for (name, mut map) in [("fragmented", fragmented(blocks)), ("packed", packed(blocks, &shape).0)]
            {
                group.bench_function(format!("{alignment:?}, {name}, {blocks} blocks"), |b| {
                    b.iter(|| {
                        let placed = map.place(black_box(&shape)).unwrap();
                        for extent in placed {
                            map.give_back(extent).unwrap();
                        }
                    });
                });
            }
            let (mut map, placed) = scattered(blocks, &shape);
            let mut at = 0;
            group.bench_function(format!("{alignment:?}, scattered, {blocks} blocks"), |b| {
                b.iter(|| {
                    // A stride that meets every block, far from the last one.
                    at = (at + 61_803) % placed.len();
                    map.give_back(placed[at][0]).unwrap();
                    let found = map.place(black_box(&shape)).unwrap();
                    // Back as it was, so that both sizes stay equally full of holes.
                    map.give_back(found[0]).unwrap();
                    map.take(placed[at][0]).unwrap();
                });
            });
        }
    }
    group.finish();
}

fn bulk(c: &mut Criterion) {
    let subnet: ipam_api::names::SubnetPath = "prod/nodes".parse().unwrap();
    let line = Line::of(&["10.0.0.0/8".parse().unwrap()]).unwrap();
    for alignment in [Alignment::Exact, Alignment::Prefix] {
        let pool = PoolDemand {
            name: "workers".parse().unwrap(),
            shape: shape(250, alignment),
            nodes: 5_000.try_into().unwrap(),
            surge: 1.try_into().unwrap(),
            shares: vec![PoolShare::new(subnet.clone(), None)],
        };
        let supplies = Supplies::from([(subnet.clone(), SubnetSupply::empty(line))]);
        c.bench_function(&format!("5,000 nodes x 250 pods, {alignment:?}"), |b| {
            b.iter_batched(
                || supplies.clone(),
                |supplies| plan(supplies, std::slice::from_ref(&pool)).unwrap(),
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, one_block, bulk);
criterion_main!(benches);
