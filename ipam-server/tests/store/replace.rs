//! `replace`: a VM whose place another has taken does not come back by a request that is late.

use crate::support::{World, dry, keep, node, parse, pool, says};
use ipam_api::{
    names::Attachment,
    wire::{AllocationSpec, Allocator, Node, NodeSpec},
};
use ipam_server::store::{Departure, NodeCall, Result, StoreError, VmState};
use std::collections::BTreeSet;

/// What the VM of this uid asks for.
fn vm(uid: &str, addresses: &[&str]) -> NodeSpec {
    NodeSpec { uid: Some(uid.to_owned()), ..node("p", addresses) }
}

fn replacing(spec: &NodeSpec) -> NodeSpec {
    NodeSpec { replace: true, ..spec.clone() }
}

async fn put(world: &World, name: &str, spec: &NodeSpec) -> Result<Node> {
    Ok(world.store.put_node(&parse(name), spec, &keep()).await?.into_inner().value)
}

async fn remembered(world: &World) -> i64 {
    world.number("SELECT COUNT(*) FROM former_vm").await
}

async fn small() -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
    world
}

#[tokio::test]
async fn a_late_request_of_a_replaced_vm_changes_nothing() {
    let mut world = small().await;
    let (first, second) = (vm("u1", &["10.0.0.100"]), replacing(&vm("u2", &["10.0.0.100"])));
    // The first is filled in, so it is known by a registration that named no VM before.
    put(&world, "n1", &node("p", &["10.0.0.100"])).await.unwrap();
    put(&world, "n1", &first).await.unwrap();
    put(&world, "n1", &second).await.unwrap();
    let third = NodeSpec { allocator: Allocator::Service, ..replacing(&vm("u3", &["10.0.0.77"])) };
    put(&world, "n1", &third).await.unwrap();
    let pod = Attachment { network: parse("default"), container_id: parse("c1"), if_name: parse("eth0") };
    let call = NodeCall { node: parse("n1"), stamp: None };
    world.store.allocate(&call, &pod, &AllocationSpec::default()).await.unwrap();

    let has = world.store.node(&parse("n1")).await.unwrap();
    assert_eq!((has.uid.as_deref(), has.allocations), (Some("u3"), 1));
    let before = world.dump().await;
    world.reopen().await;
    for late in [
        replacing(&first),
        second.clone(),
        // As well when what it asks for is what the node has by now, or could have.
        replacing(&vm("u1", &[])),
        NodeSpec { allocator: Allocator::Service, ..replacing(&vm("u2", &["10.0.0.77"])) },
        replacing(&vm("u2", &["10.0.0.90", "fd00::5a"])),
    ] {
        let uid = late.uid.clone().unwrap();
        says(put(&world, "n1", &late).await, &["Exists", &uid, "late"]);
        says(world.store.put_node(&parse("n1"), &late, &dry()).await, &["Exists", &uid, "late"]);
        says(put(&world, "n1", &NodeSpec { replace: false, ..late }).await, &["Exists"]);
        assert_eq!(world.dump().await, before);
    }
    assert_eq!(world.store.node(&parse("n1")).await.unwrap(), has);
    // One that never was this node does replace.
    assert!(put(&world, "n1", &replacing(&vm("u4", &[]))).await.unwrap().claim > has.claim);
    world.check().await;
}

/// Three VMs ask twice each, in every order: who has the node is who asked first last.
#[tokio::test]
async fn in_every_order_of_repeated_requests_no_vm_ends_its_successor() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/23"])]).await;
    let orders: BTreeSet<[u8; 6]> = permutations([1, 1, 2, 2, 3, 3]);
    assert_eq!(orders.len(), 90);
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 1, 90), &keep()).await.unwrap();
    for (i, order) in orders.iter().enumerate() {
        let (name, address) = (format!("n{i}"), format!("10.0.1.{}", 100 + i));
        let mut were = Vec::new();
        let mut claim = None;
        for asks in order {
            let spec = replacing(&vm(&format!("u{asks}"), &[&address]));
            let answer = put(&world, &name, &spec).await;
            let known = were.contains(asks);
            if known && were.last() != Some(asks) {
                assert!(matches!(answer, Err(StoreError::Exists(_))), "{order:?}, {asks}: {answer:?}");
            } else {
                let answer = answer.unwrap();
                assert_eq!(answer.uid, spec.uid, "{order:?}");
                assert_eq!(claim == Some(answer.claim), known, "{order:?}, {asks}: one claim a VM");
                claim = Some(answer.claim);
            }
            if !known {
                were.push(*asks);
            }
            let has = world.store.node(&parse(&name)).await.unwrap();
            let last = were.last().map(|last| format!("u{last}"));
            assert_eq!((&has.uid, Some(has.claim)), (&last, claim), "{order:?}");
        }
    }
    world.check().await;
}

/// The distinct orders of these.
fn permutations(of: [u8; 6]) -> BTreeSet<[u8; 6]> {
    let mut all = BTreeSet::from([of]);
    loop {
        let swapped = all.iter().flat_map(|order| {
            (1..6).map(move |i| {
                let mut order = *order;
                order.swap(i - 1, i);
                order
            })
        });
        let more: BTreeSet<[u8; 6]> = all.iter().copied().chain(swapped).collect();
        if more.len() == all.len() {
            return all;
        }
        all = more;
    }
}

#[tokio::test]
async fn to_the_vm_that_has_the_claim_replace_is_the_same_request_again() {
    let world = small().await;
    let second = replacing(&vm("u2", &["10.0.0.100"]));
    put(&world, "n1", &vm("u1", &["10.0.0.100"])).await.unwrap();
    let has = put(&world, "n1", &second).await.unwrap();
    world.sql("UPDATE node SET state = 'active', boot_id = 'b', boot_seq = 1").await;
    let before = world.dump().await;
    for again in [second.clone(), replacing(&vm("u2", &[])), vm("u2", &["10.0.0.100"])] {
        assert_eq!(put(&world, "n1", &again).await.unwrap().claim, has.claim);
        assert_eq!(world.dump().await, before);
    }
    // It is not gone, so what a registration fixes stays fixed.
    says(put(&world, "n1", &replacing(&vm("u2", &["10.0.0.77"]))).await, &["Exists", "10.0.0.100"]);
    says(put(&world, "n1", &replacing(&vm("u2", &["10.0.1.77"]))).await, &["Exists", "10.0.0.100"]);
    let service = NodeSpec { allocator: Allocator::Service, ..second.clone() };
    says(put(&world, "n1", &service).await, &["Exists", "allocator node"]);
    let nameless = NodeSpec { uid: None, ..second.clone() };
    says(put(&world, "n1", &nameless).await, &["Invalid /uid"]);
    assert_eq!(world.dump().await, before);

    // Being deleted, it comes back neither by itself nor by its predecessor; a third VM may take its place.
    let departure = world.store.delete_node(&parse("n1"), VmState::Unknown, &keep()).await.unwrap();
    assert!(matches!(departure, Departure::Waiting(_)));
    let before = world.dump().await;
    says(put(&world, "n1", &second).await, &["InUse", "being deleted"]);
    says(put(&world, "n1", &replacing(&vm("u1", &["10.0.0.100"]))).await, &["Exists", "u1", "late"]);
    assert_eq!(world.dump().await, before);
    let third = put(&world, "n1", &replacing(&vm("u3", &["10.0.0.100"]))).await.unwrap();
    assert!(third.claim > has.claim);
    says(put(&world, "n1", &second).await, &["Exists", "u2", "late"]);
    world.check().await;
}

#[tokio::test]
async fn what_is_remembered_of_a_vm_is_of_one_name_and_outlives_the_node() {
    let world = small().await;
    let (first, second) = (vm("u1", &["10.0.0.100"]), replacing(&vm("u2", &["10.0.0.100"])));
    put(&world, "n1", &first).await.unwrap();
    let before = put(&world, "n1", &second).await.unwrap();
    assert_eq!(remembered(&world).await, 1);
    // Elsewhere u1 was not replaced.
    put(&world, "n2", &vm("u9", &["10.0.0.101"])).await.unwrap();
    let elsewhere = put(&world, "n2", &replacing(&vm("u1", &["10.0.0.101"]))).await.unwrap();
    assert_eq!(elsewhere.uid.as_deref(), Some("u1"));
    assert_eq!(remembered(&world).await, 2);

    assert_eq!(
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap(),
        Departure::Freed
    );
    assert_eq!(remembered(&world).await, 3, "u2 has ended as well");
    // Somebody who may says that it is there again.
    let new = put(&world, "n1", &replacing(&first)).await.unwrap();
    assert_eq!((new.uid.as_deref(), remembered(&world).await), (Some("u1"), 2));
    assert!(new.claim > before.claim);
    says(put(&world, "n1", &second).await, &["Exists", "u2", "late"]);
    says(put(&world, "n2", &replacing(&vm("u9", &["10.0.0.101"]))).await, &["Exists", "u9", "late"]);
    world.check().await;
}

/// The interleaving: VM 1 registers, and a copy of that request stays on the way. VM 1 ends. VM 2 of the name starts,
/// and the copy arrives: were it to make a claim, VM 2's shim would take that up and start pods. Its registrar meets the
/// claim of VM 1, says truly that VM 1 is gone, and the block of running pods would be another's.
#[tokio::test]
async fn a_late_registration_of_a_vm_that_has_ended_makes_no_claim() {
    let world = small().await;
    let (first, nameless) = (vm("u1", &["10.0.0.100"]), node("p", &["10.0.0.100"]));
    for end in ["never used", "gone", "replaced and gone"] {
        put(&world, "n1", &first).await.unwrap();
        match end {
            "never used" => {}
            "gone" => {
                world.sql("UPDATE node SET state = 'active', boot_id = 'b', boot_seq = 1").await;
            }
            _ => drop(put(&world, "n1", &replacing(&vm("u2", &["10.0.0.100"]))).await.unwrap()),
        }
        let fate = if end == "never used" { VmState::Unknown } else { VmState::Gone };
        assert_eq!(world.store.delete_node(&parse("n1"), fate, &keep()).await.unwrap(), Departure::Freed);

        let before = world.dump().await;
        says(put(&world, "n1", &first).await, &["Exists", "u1", "late", "replace"]);
        says(world.store.put_node(&parse("n1"), &first, &dry()).await, &["Exists", "u1", "late"]);
        assert_eq!(world.dump().await, before, "{end}");

        // Nor does it pass for the VM that is there now.
        put(&world, "n1", &nameless).await.unwrap();
        let before = world.dump().await;
        says(put(&world, "n1", &first).await, &["Exists", "u1", "late"]);
        assert_eq!(world.dump().await, before, "{end}");
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();

        // One that is there again is said to be, and is forgotten as a former one.
        put(&world, "n1", &replacing(&first)).await.unwrap();
        put(&world, "n1", &first).await.unwrap();
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();
        // So late is no request.
        world.clock.pass(366 * 86_400);
        world.prune(400).await;
        put(&world, "n1", &vm("u3", &["10.0.0.100"])).await.unwrap();
        world.store.delete_node(&parse("n1"), VmState::Gone, &keep()).await.unwrap();
        assert_eq!(remembered(&world).await, 1, "u3 alone");
    }
    world.check().await;
}
