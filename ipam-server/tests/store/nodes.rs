use crate::support::{World, dry, keep, node, page, parse, pool, reservation, says};
use ipam_api::{
    names::NodeName,
    wire::{Allocator, NodeAddress, NodeState},
};
use ipam_server::store::{Departure, NodeFilter, VmState, Written};

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
    let Written::Updated(again) = store.put_node(&name("n1"), &spec, &keep()).await.unwrap() else { panic!() };
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
