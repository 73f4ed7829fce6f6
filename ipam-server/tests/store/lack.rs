//! Whatever takes addresses leaves the nodes still planned an address each for themselves.

use crate::support::{World, all, dry, keep, node, parse, pool, reservation, says, subnet};
use ipam_api::wire::{NodeSpec, ReservationSpec, SubnetSpec};
use ipam_server::store::{Shortage, StoreError, VmState};

const V4: &[&str] = &["10.0.0.0/27"];

/// A subnet of 27 free addresses, 4 to 30, and a pool of so many nodes with blocks of 8, planned from 4 on.
async fn planned(cidrs: &[&str], nodes: u64) -> World {
    let world = World::with_subnets(&[("a", cidrs)]).await;
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, nodes), &keep()).await.unwrap();
    world
}

async fn reserve(world: &World, name: &str, spec: &ReservationSpec) -> Result<(), StoreError> {
    world.store.put_reservation(&parse("v/a"), &parse(name), spec, &keep()).await.map(|_| ())
}

async fn unreserve(world: &World, name: &str) {
    world.store.delete_reservation(&parse("v/a"), &parse(name), &keep()).await.unwrap();
}

fn for_nodes(first: &str, last: &str) -> ReservationSpec {
    ReservationSpec { for_nodes: true, ..reservation(first, last) }
}

async fn register(world: &World, name: &str, spec: &NodeSpec) -> Result<(), StoreError> {
    world.store.put_node(&parse(name), spec, &keep()).await.map(|_| ())
}

/// The numbers of a registration that is refused, which changed nothing.
async fn shortage(world: &World, name: &str, spec: &NodeSpec) -> Shortage {
    let before = world.dump().await;
    let tried = world.store.put_node(&parse(name), spec, &dry()).await.unwrap_err();
    let done = register(world, name, spec).await.unwrap_err();
    assert_eq!(tried.to_string(), done.to_string());
    assert_eq!(world.dump().await, before, "refused, and changed something");
    let StoreError::Exhausted(shortage) = done else { panic!("{done}") };
    *shortage
}

/// (need, have, largest free, nodes that fit), the same for the subnet.
fn numbers(shortage: &Shortage) -> (u64, u64, u64, u64) {
    let [one] = &shortage.subnets[..] else { panic!("{shortage:?}") };
    let all = (shortage.need, shortage.have, shortage.largest_free, shortage.nodes_that_fit);
    assert_eq!((one.need, one.have, one.largest_free, one.nodes_that_fit), all);
    assert_eq!(one.subnet, parse("v/a"));
    all
}

#[tokio::test]
async fn a_node_takes_no_two_addresses_where_one_is_left_for_each() {
    let world = planned(&["10.0.0.0/27", "fd00::/64"], 3).await;
    let apart = node("p", &["10.0.0.28", "fd00::1d"]);
    // With it two are still planned and one address is left.
    let refused = shortage(&world, "n1", &apart).await;
    assert_eq!(numbers(&refused), (2, 1, 1, 1));
    for word in ["v/a", "lack 1", "forNodes", "one offset for both families"] {
        assert!(refused.detail.contains(word), "{}", refused.detail);
    }
    register(&world, "n1", &node("p", &["10.0.0.28", "fd00::1c"])).await.unwrap();
    assert_eq!(numbers(&shortage(&world, "n2", &node("p", &["10.0.0.30", "fd00::1d"])).await), (1, 0, 0, 0));
    register(&world, "n2", &node("p", &["fd00::1e"])).await.unwrap();
    // For the last one nothing has to be left.
    register(&world, "n3", &node("p", &["10.0.0.29", "fd00::1d"])).await.unwrap();
    assert_eq!(world.store.subnet(&parse("v/a")).await.unwrap().free, 0);
    world.check().await;
}

#[tokio::test]
async fn what_is_left_for_nodes_is_free_or_set_aside_for_them() {
    let world = planned(&["10.0.0.0/27", "fd00::/64"], 3).await;
    reserve(&world, "vms", &for_nodes("10.0.0.28", "10.0.0.28")).await.unwrap();
    // Both free addresses gone, the one set aside is left for two.
    assert_eq!(numbers(&shortage(&world, "n1", &node("p", &["10.0.0.29", "fd00::1e"])).await), (2, 1, 0, 1));
    register(&world, "n1", &node("p", &["10.0.0.28"])).await.unwrap();
    // The offset set aside counts once, whatever family of it a node has.
    assert_eq!(numbers(&shortage(&world, "n2", &node("p", &["10.0.0.29", "fd00::1e"])).await), (1, 0, 0, 0));
    register(&world, "n2", &node("p", &["10.0.0.29", "fd00::1c"])).await.unwrap();
    register(&world, "n3", &node("p", &["10.0.0.30"])).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_vm_in_anothers_place_takes_no_more_than_is_left() {
    let world = planned(&["10.0.0.0/27", "fd00::/64"], 3).await;
    register(&world, "n1", &node("p", &["10.0.0.28", "fd00::1c"])).await.unwrap();
    let other =
        |addresses: &[&str]| NodeSpec { uid: Some("u2".to_owned()), replace: true, ..node("p", addresses) };
    let refused = shortage(&world, "n1", &other(&["10.0.0.28", "fd00::1d"])).await;
    assert_eq!(numbers(&refused), (2, 1, 1, 1));
    assert_eq!(numbers(&shortage(&world, "n1", &other(&["10.0.0.29", "fd00::1e"])).await), (2, 1, 1, 1));
    // What the old one had is there for the new one.
    register(&world, "n1", &other(&["10.0.0.30", "fd00::1e"])).await.unwrap();
    let tiles = world.tiles("v/a").await;
    assert!(tiles.contains(&"10.0.0.28-10.0.0.29 free".to_owned()), "{tiles:?}");
    world.check().await;
}

#[tokio::test]
async fn a_reservation_leaves_planned_nodes_their_addresses() {
    // Free are 20 to 30, for two nodes.
    let world = planned(V4, 2).await;
    let before = world.dump().await;
    let large = reservation("10.0.0.20", "10.0.0.29");
    says(reserve(&world, "r", &large).await, &["InUse", "reservation r", "v/a", "lack 1 ", "forNodes"]);
    says(reserve(&world, "r", &reservation("10.0.0.20", "10.0.0.30")).await, &["InUse", "lack 2 "]);
    let tried = world.store.put_reservation(&parse("v/a"), &parse("r"), &large, &dry()).await;
    says(tried, &["InUse", "lack 1 "]);
    assert_eq!(world.dump().await, before);

    // It may take all but those, and not grow into them later.
    reserve(&world, "r", &reservation("10.0.0.20", "10.0.0.28")).await.unwrap();
    let before = world.dump().await;
    says(reserve(&world, "r", &large).await, &["InUse", "lack 1 "]);
    says(reserve(&world, "s", &reservation("10.0.0.30", "10.0.0.30")).await, &["InUse", "lack 1 "]);
    assert_eq!(world.dump().await, before);
    reserve(&world, "s", &for_nodes("10.0.0.29", "10.0.0.30")).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn addresses_set_aside_for_nodes_stay_so_while_nodes_need_them() {
    let world = planned(V4, 2).await;
    reserve(&world, "vms", &for_nodes("10.0.0.20", "10.0.0.30")).await.unwrap();
    let before = world.dump().await;
    says(reserve(&world, "vms", &reservation("10.0.0.20", "10.0.0.30")).await, &["InUse", "lack 2 "]);
    says(reserve(&world, "vms", &reservation("10.0.0.20", "10.0.0.29")).await, &["InUse", "lack 1 "]);
    assert_eq!(world.dump().await, before);
    // The reason is no address.
    let renamed = ReservationSpec { reason: "others".to_owned(), ..for_nodes("10.0.0.20", "10.0.0.30") };
    reserve(&world, "vms", &renamed).await.unwrap();
    // What a node has there already, no planned one gets.
    register(&world, "n1", &node("p", &["10.0.0.30"])).await.unwrap();
    says(reserve(&world, "vms", &reservation("10.0.0.20", "10.0.0.30")).await, &["InUse", "lack 1 "]);
    reserve(&world, "vms", &reservation("10.0.0.21", "10.0.0.30")).await.unwrap();
    register(&world, "n2", &node("p", &["10.0.0.20"])).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_gateway_leaves_planned_nodes_their_addresses() {
    let world = planned(V4, 3).await;
    let put = async |gateway: &str| {
        let spec = SubnetSpec { gateways: all(&[gateway]), ..subnet(V4) };
        world.store.put_subnet(&parse("v/a"), &spec, &keep()).await
    };
    let before = world.dump().await;
    says(put("10.0.0.30").await, &["InUse", "v/a", "lack 1 ", "gateway"]);
    let spec = SubnetSpec { gateways: all(&["10.0.0.30"]), ..subnet(V4) };
    says(world.store.put_subnet(&parse("v/a"), &spec, &dry()).await, &["InUse", "lack 1 "]);
    assert_eq!(world.dump().await, before);
    // Where nothing is taken.
    put("10.0.0.3").await.unwrap();
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    put("10.0.0.30").await.unwrap();
    // From one free address to another nothing is taken either.
    reserve(&world, "r", &reservation("10.0.0.20", "10.0.0.27")).await.unwrap();
    put("10.0.0.29").await.unwrap();
    assert_eq!(world.store.subnet(&parse("v/a")).await.unwrap().free, 2);
    world.check().await;
}

#[tokio::test]
async fn the_platforms_addresses_leave_planned_nodes_theirs() {
    let world = World::with_subnets(&[("a", V4)]).await;
    let put = async |reserve_platform: bool| {
        let spec = SubnetSpec { reserve_platform, ..subnet(V4) };
        world.store.put_subnet(&parse("v/a"), &spec, &keep()).await
    };
    put(false).await.unwrap();
    // So that the blocks lie behind 2 and 3, which the platform would take.
    reserve(&world, "low", &reservation("10.0.0.2", "10.0.0.3")).await.unwrap();
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
    unreserve(&world, "low").await;
    reserve(&world, "high", &reservation("10.0.0.28", "10.0.0.29")).await.unwrap();
    let before = world.dump().await;
    says(put(true).await, &["InUse", "v/a", "lack 2 ", "reservePlatform"]);
    assert_eq!(world.dump().await, before);
    unreserve(&world, "high").await;
    put(true).await.unwrap();
    assert_eq!(world.store.subnet(&parse("v/a")).await.unwrap().free, 3);
    world.check().await;
}

/// A node that leaves may leave less than is needed; that refuses what takes more, and nothing else.
#[tokio::test]
async fn a_lack_that_is_there_does_not_grow() {
    let world = planned(V4, 2).await;
    reserve(&world, "r", &reservation("10.0.0.30", "10.0.0.30")).await.unwrap();
    register(&world, "n1", &node("p", &["10.0.0.30"])).await.unwrap();
    reserve(&world, "s", &reservation("10.0.0.20", "10.0.0.28")).await.unwrap();
    world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();
    assert_eq!(world.own_lacks().await["a"], 1);
    says(reserve(&world, "t", &reservation("10.0.0.29", "10.0.0.29")).await, &["InUse", "lack 2 "]);
    reserve(&world, "s", &reservation("10.0.0.20", "10.0.0.28")).await.unwrap();
    register(&world, "n2", &node("p", &["10.0.0.29"])).await.unwrap();
    assert_eq!(world.own_lacks().await["a"], 1);
    register(&world, "n3", &node("p", &["10.0.0.30"])).await.unwrap();
    assert_eq!(world.own_lacks().await["a"], 0);
    world.check().await;
}

/// A VM in another's place gives up what that one had first; what lacked then counts, not what lacks in between.
#[tokio::test]
async fn where_addresses_lack_a_vm_still_takes_anothers_place() {
    let world = planned(V4, 3).await;
    register(&world, "n1", &node("p", &["10.0.0.30"])).await.unwrap();
    // Takes in the node's own address and stays when it leaves.
    reserve(&world, "r", &reservation("10.0.0.30", "10.0.0.30")).await.unwrap();
    register(&world, "n2", &node("p", &["10.0.0.28"])).await.unwrap();
    world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();
    assert_eq!(world.own_lacks().await["a"], 1);
    let other = NodeSpec { uid: Some("u2".to_owned()), replace: true, ..node("p", &["10.0.0.29"]) };
    register(&world, "n2", &other).await.unwrap();
    assert_eq!(world.own_lacks().await["a"], 1);
    world.check().await;
}
