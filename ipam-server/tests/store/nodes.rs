use crate::support::{World, dry, keep, node, page, parse, pool, reservation, says};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{AllocationSpec, Allocator, Node, NodeAddress, NodeSpec, NodeState, PoolSpec, ReservationSpec},
};
use ipam_server::store::{Departure, NodeCall, NodeFilter, Page, StoreError, VmState, Written};

fn name(text: &str) -> NodeName {
    parse(text)
}

#[tokio::test]
async fn a_node_claims_a_block_in_the_subnet_of_its_address() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"]), ("b", &["10.0.1.0/24"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a", "v/b"], 8, 4), &keep()).await.unwrap();
    let spec = node("p", &["10.0.0.200", "fd00::c9"]);
    let Written::Created(made) = store.put_node(&name("n1"), &spec, &keep()).await.unwrap() else { panic!() };
    assert_eq!(made.subnet, parse("v/a"));
    assert_eq!(made.state, NodeState::Planned);
    assert_eq!(made.network.gateways, [parse::<std::net::IpAddr>("10.0.0.1"), parse("fd00::1")]);
    assert_eq!(made.block.ranges[0].first, parse::<std::net::IpAddr>("10.0.0.4"));
    assert_eq!(made.block.ranges[0].last6, Some(parse("fd00::b")));
    assert!(world.tiles("v/a").await.contains(&"10.0.0.201-10.0.0.201 reserved node/n1".to_owned()));
    let Written::Updated(again) = store.put_node(&name("n1"), &spec, &keep()).await.unwrap() else {
        panic!()
    };
    assert_eq!(again, made);
    world.check().await;

    let other = store.put_node(&name("n2"), &node("p", &["10.0.1.9"]), &keep()).await.unwrap().into_inner();
    assert_eq!(other.subnet, parse("v/b"));
    assert!(other.claim > made.claim);
    assert_eq!(store.pool(&parse("p")).await.unwrap().status.claimed, 2);
}

#[tokio::test]
async fn a_node_leaves_everything_free_behind_it() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let store = &world.store;
    let free = world.tiles("v/a").await;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    store.put_node(&name("n1"), &node("p", &["10.0.0.100"]), &keep()).await.unwrap();
    assert_eq!(store.delete_node(&name("n1"), VmState::Unknown, &keep()).await.unwrap(), Departure::Freed);
    says(store.node(&name("n1")).await, &["NotFound", "n1"]);
    assert_eq!(store.pool(&parse("p")).await.unwrap().status.blocks, 2);
    store.delete_pool(&parse("p"), &keep()).await.unwrap();
    assert_eq!(world.tiles("v/a").await, free);
    world.check().await;
}

async fn small() -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"]), ("b", &["10.0.1.0/24"])]).await;
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
    world
}

async fn put(world: &World, node_name: &str, addresses: &[&str]) -> Result<Node, StoreError> {
    let written = world.store.put_node(&name(node_name), &node("p", addresses), &keep()).await?;
    Ok(written.into_inner().value)
}

/// Its shim's first sync, in short.
async fn activate(world: &World) {
    world.sql("UPDATE node SET state = 'active', boot_id = 'b', boot_seq = 1 WHERE allocator = 'node'").await;
}

#[tokio::test]
async fn a_node_has_an_address_that_no_one_else_can_have() {
    let world = small().await;
    put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    let before = world.dump().await;
    says(put(&world, "n2", &["10.0.0.100"]).await, &["Overlap", "own address of node n1"]);
    says(put(&world, "n2", &["10.0.0.5"]).await, &["Overlap", "block of node n1"]);
    says(put(&world, "n2", &["fd00::5"]).await, &["Overlap", "block of node n1"]);
    says(put(&world, "n2", &["10.0.0.0"]).await, &["Overlap", "platform-first"]);
    says(put(&world, "n2", &["10.0.0.255"]).await, &["Overlap", "platform-last"]);
    says(put(&world, "n2", &["10.0.1.9"]).await, &["Invalid /addresses/0", "v/a (10.0.0.0/24"]);
    says(put(&world, "n2", &["10.0.0.101", "10.0.0.102"]).await, &["Invalid /addresses/1", "family"]);
    says(put(&world, "n2", &["10.0.0.101", "fd00::1:0:0"]).await, &["Invalid /addresses/1", "beyond"]);
    says(put(&world, "n2", &[]).await, &["Invalid /addresses", "external"]);
    let bad =
        NodeSpec { mac: Some("52:54".to_owned()), uid: Some(String::new()), ..node("p", &["10.0.0.101"]) };
    says(world.store.put_node(&name("n2"), &bad, &keep()).await, &["/mac", "/uid"]);
    says(world.store.put_node(&name("n2"), &node("x", &["10.0.0.101"]), &keep()).await, &["Invalid /pool"]);
    assert_eq!(world.dump().await, before);
    world.store.put_node(&name("n2"), &node("p", &["10.0.0.101"]), &dry()).await.unwrap();
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn the_plan_moves_aside_for_a_nodes_address_or_refuses() {
    let world = small().await;
    // Blocks are planned at .4, .12 and .20.
    let node = put(&world, "n1", &["10.0.0.13"]).await.unwrap();
    assert_eq!(node.block.ranges[0].first, parse::<std::net::IpAddr>("10.0.0.4"));
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().status.blocks, 3);
    world.check().await;
    let full = World::with_subnets(&[("a", &["10.0.0.0/27"])]).await;
    // 27 free: two blocks of 8, their nodes, and 9 more that a reservation takes.
    full.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    let vms = ReservationSpec { for_nodes: true, ..reservation("10.0.0.20", "10.0.0.30") };
    full.store.put_reservation(&parse("v/a"), &parse("vms"), &vms, &keep()).await.unwrap();
    let before = full.dump().await;
    says(put(&full, "n1", &["10.0.0.5"]).await, &["Exhausted", "planned for a node of pool p"]);
    assert_eq!(full.dump().await, before);
    put(&full, "n1", &["10.0.0.25"]).await.unwrap();
    put(&full, "n2", &["10.0.0.26"]).await.unwrap();
    says(put(&full, "n3", &["10.0.0.27"]).await, &["Exhausted", "ipamctl pool scale p --nodes 3"]);
    full.check().await;
}

#[tokio::test]
async fn a_planned_block_follows_the_node_between_subnets_without_numbers() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    world.store.put_pool(&parse("p"), &pool(&["v/a", "v/b"], 8, 2), &keep()).await.unwrap();
    put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    let moved = put(&world, "n2", &["10.0.0.101"]).await.unwrap();
    assert_eq!(moved.subnet, parse("v/a"));
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().status.blocks, 2);
    assert_eq!(world.tiles("v/b").await.len(), 3);
    says(put(&world, "n3", &["10.0.1.100"]).await, &["Exhausted", "all 2 blocks"]);
    world.check().await;
}

#[tokio::test]
async fn a_number_of_a_subnet_binds() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    let mut spec = pool(&["v/a", "v/b"], 8, 2);
    spec.subnets[1].nodes = Some(1.try_into().unwrap());
    world.store.put_pool(&parse("p"), &spec, &keep()).await.unwrap();
    put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    says(put(&world, "n2", &["10.0.0.101"]).await, &["Exhausted", "v/a", "fixed to other subnets"]);
    put(&world, "n2", &["10.0.1.101"]).await.unwrap();
}

#[tokio::test]
async fn an_offset_may_be_two_nodes_own_in_two_families() {
    let world = small().await;
    put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    put(&world, "n2", &["fd00::64", "10.0.0.101"]).await.unwrap();
    world.check().await;
    world.store.delete_node(&name("n1"), VmState::Unknown, &keep()).await.unwrap();
    world.check().await;
    assert!(world.tiles("v/a").await.contains(&"10.0.0.100-10.0.0.100 reserved node/n2".to_owned()));
    world.store.delete_node(&name("n2"), VmState::Unknown, &keep()).await.unwrap();
    world.check().await;
    assert_eq!(world.number("SELECT COUNT(*) FROM extent WHERE node IS NOT NULL").await, 0);
}

#[tokio::test]
async fn an_assigned_address_comes_from_what_is_set_aside() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    let spec = PoolSpec { node_address: NodeAddress::Assigned, ..pool(&["v/a"], 8, 4) };
    world.store.put_pool(&parse("p"), &spec, &keep()).await.unwrap();
    let vms = ReservationSpec { for_nodes: true, ..reservation("10.0.0.200", "10.0.0.201") };
    world.store.put_reservation(&parse("v/a"), &parse("vms"), &vms, &keep()).await.unwrap();
    let mut got = Vec::new();
    for i in 0..4 {
        let node = put(&world, &format!("n{i}"), &[]).await.unwrap();
        assert_eq!(put(&world, &format!("n{i}"), &[]).await.unwrap(), node);
        got.push(node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    assert_eq!(got[0], ["10.0.0.200", "fd00::c8"]);
    assert_eq!(got[1], ["10.0.0.201", "fd00::c9"]);
    // Then the smallest hole, the one above the reservation.
    assert_eq!(got[2], ["10.0.0.202", "fd00::ca"]);
    world.check().await;
    world.store.delete_node(&name("n0"), VmState::Unknown, &keep()).await.unwrap();
    assert_eq!(put(&world, "n9", &[]).await.unwrap().addresses[0], parse::<std::net::IpAddr>("10.0.0.200"));
    says(put(&world, "n10", &[]).await, &["Exhausted", "ipamctl pool scale p --nodes 5"]);
}

#[tokio::test]
async fn a_name_is_one_vm_until_it_is_replaced() {
    let world = small().await;
    let first = NodeSpec { uid: Some("u1".to_owned()), ..node("p", &["10.0.0.100"]) };
    let none = put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    let before = world.store.node(&name("n1")).await.unwrap().version;
    let filled = world.store.put_node(&name("n1"), &first, &keep()).await.unwrap().into_inner();
    assert_eq!((filled.uid.as_deref(), filled.claim, filled.version), (Some("u1"), none.claim, before + 1));
    assert_eq!(put(&world, "n1", &["10.0.0.100"]).await.unwrap(), filled.value);

    let other = NodeSpec { uid: Some("u2".to_owned()), ..first.clone() };
    says(world.store.put_node(&name("n1"), &other, &keep()).await, &["Exists", "u1", "replace"]);
    says(put(&world, "n1", &["10.0.0.101"]).await, &["Exists", "10.0.0.100"]);
    let service = NodeSpec { allocator: Allocator::Service, ..first.clone() };
    says(world.store.put_node(&name("n1"), &service, &keep()).await, &["Exists", "allocator node"]);
    let nameless = NodeSpec { replace: true, uid: None, ..other.clone() };
    says(world.store.put_node(&name("n1"), &nameless, &keep()).await, &["Invalid /uid"]);

    activate(&world).await;
    let replace = NodeSpec { replace: true, ..other };
    let new = world.store.put_node(&name("n1"), &replace, &keep()).await.unwrap().into_inner();
    assert!(new.claim > filled.claim);
    assert_eq!((&new.block, new.state, &new.boot), (&filled.block, NodeState::Planned, &None));
    // The same request again is known by its uid.
    let again = world.store.put_node(&name("n1"), &replace, &keep()).await.unwrap().into_inner();
    assert_eq!(again, new);

    let elsewhere = NodeSpec { uid: Some("u3".to_owned()), addresses: vec![parse("10.0.0.77")], ..replace };
    let moved = world.store.put_node(&name("n1"), &elsewhere, &keep()).await.unwrap().into_inner();
    assert_eq!((&moved.block, moved.addresses[0]), (&filled.block, parse::<std::net::IpAddr>("10.0.0.77")));
    let tiles = world.tiles("v/a").await;
    assert!(tiles.contains(&"10.0.0.77-10.0.0.77 reserved node/n1".to_owned()));
    assert!(!tiles.iter().any(|tile| tile.starts_with("10.0.0.100")));
    world.check().await;
    let inside = NodeSpec { uid: Some("u4".to_owned()), addresses: vec![parse("10.0.0.5")], ..elsewhere };
    says(world.store.put_node(&name("n1"), &inside, &keep()).await, &["Overlap", "block of node n1"]);
}

#[tokio::test]
async fn an_active_node_leaves_when_it_confirms_or_its_vm_is_gone() {
    let world = small().await;
    put(&world, "n1", &["10.0.0.100"]).await.unwrap();
    activate(&world).await;
    let delete = async |vm| world.store.delete_node(&name("n1"), vm, &keep()).await.unwrap();
    let Departure::Waiting(waiting) = delete(VmState::Unknown).await else { panic!("freed") };
    assert_eq!(waiting.state, NodeState::Deleting);
    assert!(waiting.deletion.is_some());
    assert_eq!(delete(VmState::Unknown).await, Departure::Waiting(waiting.clone()));
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().status.deleting, 1);
    says(put(&world, "n1", &["10.0.0.100"]).await, &["InUse", "being deleted", "vmGone=true"]);
    let replace = NodeSpec { uid: Some("u".to_owned()), replace: true, ..node("p", &["10.0.0.100"]) };
    let new = world.store.put_node(&name("n1"), &replace, &keep()).await.unwrap().into_inner();
    assert_eq!((new.state, &new.deletion), (NodeState::Planned, &None));
    activate(&world).await;
    let Departure::Waiting(second) = delete(VmState::Unknown).await else { panic!("freed") };
    assert_ne!(second.deletion, waiting.deletion);
    assert_eq!(delete(VmState::Gone).await, Departure::Freed);
    says(world.store.delete_node(&name("n1"), VmState::Gone, &keep()).await, &["NotFound"]);
    world.check().await;
}

#[tokio::test]
async fn what_a_node_held_rests_in_its_block() {
    let world = small().await;
    let service = NodeSpec { allocator: Allocator::Service, ..node("p", &["10.0.0.100"]) };
    let made = world.store.put_node(&name("n1"), &service, &keep()).await.unwrap().into_inner();
    assert_eq!(made.state, NodeState::Active);
    let call = NodeCall { node: name("n1"), stamp: None };
    let attachment =
        Attachment { network: parse("default"), container_id: parse("c1"), if_name: parse("eth0") };
    let held =
        world.store.allocate(&call, &attachment, &AllocationSpec::default()).await.unwrap().into_inner();
    assert_eq!(world.store.node(&name("n1")).await.unwrap().allocations, 1);
    says(world.store.delete_node(&name("n1"), VmState::Unknown, &keep()).await, &["InUse", "vmGone=true"]);
    world.clock.pass(10);
    world.store.delete_node(&name("n1"), VmState::Gone, &keep()).await.unwrap();
    world.check().await;
    world.clock.pass(20);
    // The next node gets the same block: its address still rests.
    let next = put(&world, "n2", &["10.0.0.100"]).await.unwrap();
    assert_eq!(next.block.ranges, made.block.ranges);
    assert!(next.claim > made.claim);
    assert_eq!(next.resting.len(), 1);
    assert_eq!((next.resting[0].address, next.resting[0].age_seconds), (held.addresses[0].address, 20));
    world.clock.pass(111);
    assert!(world.store.node(&name("n2")).await.unwrap().resting.is_empty());
}

#[tokio::test]
async fn nodes_come_in_pages_by_pool() {
    let world = small().await;
    world.store.put_pool(&parse("q"), &pool(&["v/b"], 8, 1), &keep()).await.unwrap();
    for (node, address) in [("n1", "10.0.0.100"), ("n2", "10.0.0.101"), ("n3", "10.0.0.102")] {
        put(&world, node, &[address]).await.unwrap();
    }
    world.store.put_node(&name("m"), &node("q", &["10.0.1.100"]), &keep()).await.unwrap();
    let all = world.store.nodes(&NodeFilter::default(), &page()).await.unwrap();
    assert_eq!(all.items.len(), 4);
    for item in &all.items {
        assert_eq!(world.store.node(&item.name).await.unwrap().value, *item);
    }
    let filter = NodeFilter { pool: Some(parse("p")) };
    let first = world.store.nodes(&filter, &Page { limit: 2, after: None }).await.unwrap();
    let second = world.store.nodes(&filter, &Page { limit: 2, after: first.next }).await.unwrap();
    assert_eq!((first.items.len(), second.items.len(), second.next), (2, 1, None));
}
