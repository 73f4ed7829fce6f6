//! What people ask: plans, capacity, and who has an address.

use crate::support::{World, keep, node, parse, pool, reservation, says};
use ipam_api::{
    names::Attachment,
    wire::{AddressUse, AllocationSpec, Allocator, NodeSpec, PlanRequest, PoolSpec},
};
use ipam_server::store::{NodeCall, VmState};
use serde_json::{Value, json};
use std::net::IpAddr;

fn request(subnets: &Value, pools: &Value) -> PlanRequest {
    serde_json::from_value(json!({"subnets": subnets, "pools": pools})).unwrap()
}

fn demand(name: &str, subnet: &str, nodes: u64) -> Value {
    json!({"name": name, "subnets": [{"subnet": subnet}], "maxPods": 8, "nodes": nodes, "surge": 0})
}

#[tokio::test]
async fn a_plan_is_what_putting_the_pool_does() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let ask = request(&json!([]), &json!([demand("p", "v/a", 4)]));
    let before = world.dump().await;
    let plan = world.store.plan(&ask).await.unwrap();
    assert!(plan.fits);
    assert_eq!(world.dump().await, before);
    assert_eq!(world.store.plan(&ask).await.unwrap(), plan);
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 4), &keep()).await.unwrap();
    let taken = plan.pools[0].shares[0].takes[0];
    let tiles = world.store.extents(&parse("v/a"), &crate::support::page()).await.unwrap().items;
    let planned: Vec<_> = tiles.iter().filter(|tile| tile.owner.as_deref() == Some("pool/p")).collect();
    assert_eq!((planned[0].range.first, planned[3].range.last), (taken.first, taken.last));
    let subnet = world.store.subnet(&parse("v/a")).await.unwrap();
    assert_eq!(
        (plan.subnets[0].free_after, plan.subnets[0].largest_free_after),
        (subnet.free, subnet.largest_free)
    );

    // Of the pool as it is, nothing more; and the answer has a new version.
    let again = world.store.plan(&ask).await.unwrap();
    assert!(again.version > plan.version);
    assert!(again.pools[0].shares[0].takes.is_empty());
    let more = world.store.plan(&request(&json!([]), &json!([demand("p", "v/a", 6)]))).await.unwrap();
    assert_eq!((more.pools[0].shares[0].blocks, more.pools[0].shares[0].takes.len()), (6, 1));
}

#[tokio::test]
async fn a_plan_that_does_not_fit_is_an_answer() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let plan = world.store.plan(&request(&json!([]), &json!([demand("p", "v/a", 28)]))).await.unwrap();
    assert!(!plan.fits);
    assert_eq!(
        (plan.shortages[0].need, plan.shortages[0].have, plan.shortages[0].nodes_that_fit),
        (252, 251, 27)
    );
}

#[tokio::test]
async fn a_plan_may_imagine_subnets() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let imagined = |path: &str, cidr: &str| json!([{"subnet": path, "cidrs": [cidr]}]);
    let ask = |subnets| request(&subnets, &json!([demand("p", "v/new", 100)]));
    assert!(world.store.plan(&ask(imagined("v/new", "10.1.0.0/22"))).await.unwrap().fits);
    assert!(!world.store.plan(&ask(imagined("v/new", "10.1.0.0/23"))).await.unwrap().fits);
    says(world.store.plan(&ask(json!([]))).await, &["Invalid /pools/0/subnets/0/subnet", "v/new"]);
    says(world.store.plan(&ask(imagined("v/a", "10.1.0.0/22"))).await, &["Invalid /subnets/0/subnet", "v/a"]);
    says(world.store.plan(&ask(imagined("v/new", "10.1.0.1/22"))).await, &["Invalid /subnets/0/cidrs/0"]);
    says(world.store.plan(&request(&json!([]), &json!([]))).await, &["Invalid /pools"]);
}

#[tokio::test]
async fn an_imagined_subnet_keeps_the_rules_of_those_that_are_made() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    let before = world.dump().await;
    let plan =
        async |subnets: Value| world.store.plan(&request(&subnets, &json!([demand("p", "v/a", 1)]))).await;
    let one = |path: &str, cidrs: &[&str]| json!({"subnet": path, "cidrs": cidrs});
    says(plan(json!([one("v/b", &["11.0.0.0/24"])])).await, &["Invalid /subnets/0/cidrs/0", "VNet v"]);
    // Either family, and whichever of the subnets it is.
    says(
        plan(json!([one("v/b", &["10.1.0.0/24"]), one("v/c", &["10.2.0.0/24", "2001:db8::/64"])])).await,
        &["Invalid /subnets/1/cidrs/1", "2001:db8::/64 is not inside VNet v"],
    );
    says(plan(json!([one("v/b", &["10.0.0.128/25"])])).await, &["Overlap", "10.0.0.128/25", "v/a"]);
    says(plan(json!([one("v/b", &["10.1.0.0/24", "fd00::/60"])])).await, &["Overlap", "fd00::/60", "v/a"]);
    says(
        plan(json!([
            one("v/b", &["10.1.0.0/24"]),
            one("v/c", &["10.2.0.0/24"]),
            one("v/d", &["10.1.0.0/23"])
        ]))
        .await,
        &["Overlap", "10.1.0.0/23", "10.1.0.0/24", "v/d"],
    );
    says(
        plan(json!([one("v/b", &["10.1.0.0/24", "fd00:1::/64"]), one("v/c", &["fd00:1::/80"])])).await,
        &["Overlap", "fd00:1::/80", "fd00:1::/64"],
    );
    says(plan(json!([one("v/b", &["10.1.0.0/30"])])).await, &["Invalid /subnets/0/cidrs", "larger CIDR"]);
    // One name is one subnet, also where both are in the same place.
    says(
        plan(json!([one("v/a", &["10.0.0.0/24", "fd00::/64"])])).await,
        &["Invalid /subnets/0/subnet", "there is a subnet v/a"],
    );
    says(
        plan(json!([one("v/b", &["10.1.0.0/24"]), one("v/b", &["10.1.0.0/24"])])).await,
        &["Invalid /subnets/1/subnet", "v/b"],
    );
    // In VNets that are not there the imagined ones keep apart as well; VNets may be alike.
    says(
        plan(json!([one("w/b", &["10.0.0.0/24"]), one("w/c", &["10.0.0.0/25"])])).await,
        &["Overlap", "w/c"],
    );
    plan(json!([one("w/b", &["10.0.0.0/24"]), one("x/b", &["10.0.0.0/24"])])).await.unwrap();
    plan(json!([one("v/b", &["10.0.1.0/24"]), one("v/c", &["10.0.2.0/24"])])).await.unwrap();
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn capacity_adds_up() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 4), &keep()).await.unwrap();
    let service = NodeSpec { allocator: Allocator::Service, ..node("p", &["10.0.0.100"]) };
    store.put_node(&parse("n1"), &service, &keep()).await.unwrap();
    store.put_node(&parse("n2"), &node("p", &["10.0.0.101"]), &keep()).await.unwrap();
    world.sql("UPDATE node SET state = 'active' WHERE name = 'n2'").await;
    store.delete_node(&parse("n2"), VmState::Unknown, &keep()).await.unwrap();
    hold(&world, "c1").await;
    let capacity = store.capacity().await.unwrap();
    let a = &capacity.subnets[0];
    assert_eq!((a.size, a.reserved, a.planned, a.claimed, a.deleting, a.used), (256, 7, 16, 16, 8, 1));
    assert_eq!(a.free + a.reserved + a.planned + a.claimed, a.size);
    assert_eq!(a.largest_free, 153);
    let p = &capacity.pools[0];
    assert_eq!((p.nodes, p.blocks, p.claimed, p.deleting, p.over_by, p.used), (4, 4, 2, 1, 0, 1));
    // 217 are free, 2 of them promised to nodes to come: 215 / 9.
    assert_eq!((a.free, p.more_nodes), (217, 23));
    let grown = store.put_pool(&parse("p"), &pool(&["v/a"], 8, 4 + 23), &keep()).await.unwrap().into_inner();
    assert_eq!(grown.status.blocks, 27);
    says(store.put_pool(&parse("p"), &pool(&["v/a"], 8, 4 + 24), &keep()).await, &["Exhausted"]);
    assert_eq!(capacity.subnets[1].free, 251);
}

async fn hold(world: &World, container: &str) -> IpAddr {
    let call = NodeCall { node: parse("n1"), stamp: None };
    let attachment =
        Attachment { network: parse("default"), container_id: parse(container), if_name: parse("eth0") };
    let held = world.store.allocate(&call, &attachment, &AllocationSpec::default()).await.unwrap();
    held.into_inner().addresses[0].address
}

#[tokio::test]
async fn every_address_says_who_has_it() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    let service = NodeSpec { allocator: Allocator::Service, ..node("p", &["10.0.0.100", "fd00::65"]) };
    store.put_node(&parse("n1"), &service, &keep()).await.unwrap();
    store
        .put_reservation(&parse("v/a"), &parse("r"), &reservation("10.0.0.200", "10.0.0.209"), &keep())
        .await
        .unwrap();
    let pod = hold(&world, "c1").await;
    let ask = async |address: &str| {
        let info = store.address(parse(address)).await.unwrap();
        (info.usage, info.node.map(|node| node.to_string()), info.extent.owner)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ask(&pod.to_string()).await, (AddressUse::Pod, text("n1"), text("node/n1")));
    assert_eq!(ask("10.0.0.11").await, (AddressUse::Block, text("n1"), text("node/n1")));
    assert_eq!(ask("10.0.0.12").await, (AddressUse::Block, None, text("pool/p")));
    assert_eq!(ask("10.0.0.100").await, (AddressUse::Node, text("n1"), text("node/n1")));
    // The other family of its own addresses' offsets is kept free for no one.
    assert_eq!(ask("fd00::64").await, (AddressUse::Reserved, None, text("node/n1")));
    assert_eq!(ask("fd00::65").await, (AddressUse::Node, text("n1"), text("node/n1")));
    assert_eq!(ask("10.0.0.205").await, (AddressUse::Reserved, None, text("reservation/r")));
    assert_eq!(ask("fd00::d8").await, (AddressUse::Free, None, None));
    let info = store.address(pod).await.unwrap();
    assert_eq!(info.allocation.unwrap().container_id, parse("c1"));
    assert_eq!(info.addresses.len(), 2);
    says(store.address(parse("10.0.7.7")).await, &["NotFound", "10.0.7.7"]);
}

#[tokio::test]
async fn one_node_more_in_a_large_subnet_reads_little() {
    let world = World::with_subnets(&[("a", &["10.128.0.0/12"])]).await;
    let many = |nodes: u64| -> PoolSpec { pool(&["v/a"], 8, nodes) };
    world.store.put_pool(&parse("p"), &many(20_000), &keep()).await.unwrap();
    world.store.put_pool(&parse("p"), &many(20_001), &keep()).await.unwrap();
    world.store.put_node(&parse("n"), &node("p", &["10.143.255.9"]), &keep()).await.unwrap();
    // Over a planned block: that one moves, the rest stays.
    world.store.put_node(&parse("m"), &node("p", &["10.128.200.9"]), &keep()).await.unwrap();
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().status.claimed, 2);
    world.check().await;
}
