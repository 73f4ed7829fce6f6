use crate::support::{World, dry, keep, node, parse, pool, reservation, says};
use ipam_api::{
    names::PoolName,
    quantity::{MaxPods, NodeCount},
    wire::{Alignment, Contiguity, ExtentKind, PoolSpec},
};
use ipam_server::store::{Departure, StoreError, VmState, Written};

fn name() -> PoolName {
    parse("p")
}

fn count(nodes: u64) -> NodeCount {
    nodes.try_into().unwrap()
}

async fn register(world: &World, nodes: std::ops::Range<u64>) {
    for i in nodes {
        let spec = node("p", &[&format!("10.0.0.{}", 200 + i)]);
        world.store.put_node(&parse(&format!("n{i}")), &spec, &keep()).await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_reserves_all_its_blocks_or_none() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let before = world.dump().await;
    // 251 free: 27 nodes of 8 and their own address need 243, 28 need 252.
    let error = world.store.put_pool(&name(), &pool(&["v/a"], 8, 28), &keep()).await.unwrap_err();
    let StoreError::Exhausted(shortage) = error else { panic!("{error}") };
    assert_eq!((shortage.need, shortage.have, shortage.nodes_that_fit), (252, 251, 27));
    assert_eq!(shortage.subnets[0].subnet, parse("v/a"));
    assert_eq!(world.dump().await, before);
    let tried = world.store.put_pool(&name(), &pool(&["v/a"], 8, 27), &dry()).await.unwrap();
    assert_eq!(world.dump().await, before);
    let made = world.store.put_pool(&name(), &pool(&["v/a"], 8, 27), &keep()).await.unwrap();
    assert_eq!(made, tried);
    let Written::Created(made) = made else { panic!("not new") };
    assert_eq!((made.status.blocks, made.status.claimed, made.status.block_size), (27, 0, 8));
    world.check().await;
    world.store.delete_pool(&name(), &keep()).await.unwrap();
    assert_eq!(world.tiles("v/a").await.len(), 3);
}

#[tokio::test]
async fn raising_nodes_moves_nothing_and_lowering_gives_back() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let made = world.store.put_pool(&name(), &pool(&["v/a"], 8, 3), &keep()).await.unwrap().into_inner();
    let tiles = world.tiles("v/a").await;
    let blocks =
        |tiles: &[String]| tiles.iter().filter(|tile| tile.contains(" block ")).cloned().collect::<Vec<_>>();
    let raised = world.store.put_pool(&name(), &pool(&["v/a"], 8, 5), &keep()).await.unwrap().into_inner();
    assert_eq!((raised.version, raised.status.blocks), (made.version + 1, 5));
    let more = blocks(&world.tiles("v/a").await);
    assert!(blocks(&tiles).iter().all(|block| more.contains(block)));
    let same = world.store.put_pool(&name(), &pool(&["v/a"], 8, 5), &keep()).await.unwrap().into_inner();
    assert_eq!(same, raised);
    world.store.put_pool(&name(), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
    assert_eq!(world.tiles("v/a").await, tiles);
    world.check().await;
}

#[tokio::test]
async fn below_what_is_claimed_a_pool_is_over_until_nodes_leave() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    world.store.put_pool(&name(), &pool(&["v/a"], 8, 4), &keep()).await.unwrap();
    register(&world, 0..3).await;
    let over = world.store.put_pool(&name(), &pool(&["v/a"], 8, 1), &keep()).await.unwrap().into_inner();
    assert_eq!((over.status.blocks, over.status.claimed, over.status.over_by), (3, 3, 2));
    for (i, (blocks, over_by)) in [(2, 1), (1, 0), (1, 0)].into_iter().enumerate() {
        let left = world.store.delete_node(&parse(&format!("n{i}")), VmState::Gone, &keep()).await.unwrap();
        assert_eq!(left, Departure::Freed);
        let status = world.store.pool(&name()).await.unwrap().status;
        assert_eq!((status.blocks, status.over_by), (blocks, over_by));
        world.check().await;
    }
}

#[tokio::test]
async fn what_a_pool_is_made_with_stays() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    let spec = pool(&["v/a"], 8, 4);
    let larger = PoolSpec { max_pods: MaxPods::try_from(16).unwrap(), ..spec.clone() };
    world.store.put_pool(&name(), &spec, &keep()).await.unwrap();
    let replanned = world.store.put_pool(&name(), &larger, &keep()).await.unwrap().into_inner();
    assert_eq!((replanned.status.blocks, replanned.status.block_size), (4, 16));
    world.check().await;
    world.store.put_pool(&name(), &spec, &keep()).await.unwrap();
    register(&world, 0..1).await;
    says(world.store.put_pool(&name(), &pool(&["v/b"], 8, 4), &keep()).await, &["InUse", "v/a", "n0"]);
    says(world.store.delete_pool(&name(), &keep()).await, &["InUse", "node n0"]);
    let aligned = PoolSpec { alignment: Alignment::Prefix, ..spec };
    says(world.store.put_pool(&name(), &aligned, &keep()).await, &["Exists", "alignment exact"]);
    world.check().await;
}

#[tokio::test]
async fn a_pool_that_makes_no_sense_is_pointed_at() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let put = async |spec: PoolSpec| world.store.put_pool(&name(), &spec, &keep()).await;
    says(put(pool(&["v/a", "v/x"], 8, 1)).await, &["Invalid /subnets/1/subnet", "v/x"]);
    says(put(pool(&["v/a", "v/a"], 8, 1)).await, &["Invalid /subnets/1/subnet", "twice"]);
    says(put(pool(&[], 8, 1)).await, &["Invalid /subnets"]);
    let mut spec = pool(&["v/a"], 8, 1);
    spec.subnets[0].nodes = Some(count(2));
    says(put(spec).await, &["Invalid /nodes", "2"]);
    says(world.store.pool(&name()).await, &["NotFound", "pool p"]);
}

#[tokio::test]
async fn nodes_are_spread_and_a_pool_leaves_a_subnet_without_nodes() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    let mut spec = pool(&["v/a", "v/b"], 8, 5);
    world.store.put_pool(&name(), &spec, &keep()).await.unwrap();
    let planned = async |path: &str| world.tiles(path).await.iter().filter(|t| t.contains("pool/p")).count();
    assert_eq!((planned("v/a").await, planned("v/b").await), (3, 2));
    spec.subnets[1].nodes = Some(count(4));
    world.store.put_pool(&name(), &spec, &keep()).await.unwrap();
    assert_eq!((planned("v/a").await, planned("v/b").await), (1, 4));
    world.store.put_pool(&name(), &pool(&["v/a"], 8, 5), &keep()).await.unwrap();
    assert_eq!((planned("v/a").await, planned("v/b").await), (5, 0));
    world.check().await;
}

#[tokio::test]
async fn prefixes_are_aligned_and_pieces_are_a_matter_of_wish() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/26"])]).await;
    let aligned = PoolSpec { alignment: Alignment::Prefix, ..pool(&["v/a"], 7, 2) };
    let made = world.store.put_pool(&name(), &aligned, &keep()).await.unwrap().into_inner();
    assert_eq!(made.status.block_size, 8);
    assert!(world.tiles("v/a").await.contains(&"10.0.0.8-10.0.0.15 block pool/p".to_owned()));
    // 64 - 5 - 16 are free, but not in one piece.
    let whole = PoolSpec { contiguous: Contiguity::Required, ..pool(&["v/a"], 40, 1) };
    let error = world.store.put_pool(&parse("q"), &whole, &keep()).await.unwrap_err();
    assert!(matches!(error, StoreError::NoContiguousBlock(_)), "{error}");
    world.store.put_pool(&parse("q"), &pool(&["v/a"], 40, 1), &keep()).await.unwrap();
    world.check().await;
}

/// The sizes of the pieces of the blocks that there are.
async fn pieces(world: &World) -> Vec<u64> {
    let tiles = world.store.extents(&parse("v/a"), &crate::support::page()).await.unwrap().items;
    tiles.into_iter().filter(|tile| tile.kind == ExtentKind::Block).map(|tile| tile.size).collect()
}

/// A node `n1` that has claimed a block in two pieces, of a pool that now wants its blocks whole.
async fn in_pieces() -> (World, PoolSpec) {
    let world = World::with_subnets(&[("a", &["10.0.0.0/26"])]).await;
    for (name, first, last) in [("x", "10.0.0.10", "10.0.0.19"), ("y", "10.0.0.26", "10.0.0.62")] {
        let spec = reservation(first, last);
        world.store.put_reservation(&parse("v/a"), &parse(name), &spec, &keep()).await.unwrap();
    }
    // Free are 4 to 9 and 20 to 25.
    let spec = pool(&["v/a"], 8, 1);
    world.store.put_pool(&name(), &spec, &keep()).await.unwrap();
    assert_eq!(pieces(&world).await.len(), 2);
    world.store.put_node(&parse("n1"), &node("p", &["10.0.0.62"]), &keep()).await.unwrap();
    let whole = PoolSpec { contiguous: Contiguity::Required, ..spec };
    world.store.put_pool(&name(), &whole, &keep()).await.unwrap();
    assert_eq!(pieces(&world).await.len(), 2, "what is claimed stays");
    (world, whole)
}

async fn widen(world: &World) {
    let spec = reservation("10.0.0.40", "10.0.0.62");
    world.store.put_reservation(&parse("v/a"), &parse("y"), &spec, &keep()).await.unwrap();
}

#[tokio::test]
async fn a_block_of_a_shape_its_pool_no_longer_has_is_not_given_on() {
    let (world, _) = in_pieces().await;
    widen(&world).await;
    assert_eq!(
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap(),
        Departure::Freed
    );
    assert_eq!(pieces(&world).await, [8]);
    let status = world.store.pool(&name()).await.unwrap().status;
    assert_eq!((status.blocks, status.claimed), (1, 0));
    world.check().await;
    // One that has it is the next node's as it is.
    let tiles = world.tiles("v/a").await;
    world.store.put_node(&parse("n2"), &node("p", &["10.0.0.62"]), &keep()).await.unwrap();
    world.store.delete_node(&parse("n2"), VmState::Gone, &keep()).await.unwrap();
    assert_eq!(world.tiles("v/a").await, tiles);
}

/// The node leaves all the same; the pool is short of a block until there is room and someone asks again.
#[tokio::test]
async fn without_room_for_its_new_shape_a_pool_is_short_of_a_block() {
    let (world, whole) = in_pieces().await;
    assert_eq!(
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap(),
        Departure::Freed
    );
    assert!(pieces(&world).await.is_empty());
    assert_eq!(world.store.pool(&name()).await.unwrap().status.blocks, 0);
    world.check().await;
    let refused = world.store.put_node(&parse("n2"), &node("p", &["10.0.0.62"]), &keep()).await;
    says(refused, &["Exhausted"]);
    widen(&world).await;
    let found = world.store.put_pool(&name(), &whole, &keep()).await.unwrap().into_inner();
    assert_eq!(found.status.blocks, 1);
    assert_eq!(pieces(&world).await, [8]);
    world.check().await;
}

/// Nor does it stay where the pool has too many.
#[tokio::test]
async fn above_what_is_wanted_a_block_of_either_shape_becomes_free() {
    let (world, whole) = in_pieces().await;
    let none = PoolSpec { nodes: count(0), ..whole };
    world.store.put_pool(&name(), &none, &keep()).await.unwrap();
    widen(&world).await;
    world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();
    assert!(pieces(&world).await.is_empty());
    world.check().await;
}
