//! Nodes that register at the same time share a transaction, and each gets what it would get alone.

use crate::support::{World, dry, keep, node, page, parse, pool, says};
use futures::future::{join, join_all};
use ipam_api::{
    token::Secret,
    wire::{Node, NodeSpec, ReservationSpec, Role, TokenSpec},
};
use ipam_server::store::{
    Actor, Change, EventFilter, NodeFilter, Precondition, Result, StoreError, VmState, Written,
};
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use testdb::Make;

/// A subnet of two families with room for nodes from .200 and `fd00::c8`, and one of one family; pool `p` plans so
/// many nodes in the first.
async fn ground(nodes: u64) -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/16", "fd00::/64"]), ("b", &["10.1.0.0/24"])]).await;
    let own = ReservationSpec { for_nodes: true, ..crate::support::reservation("10.0.0.200", "10.0.1.200") };
    world.store.put_reservation(&parse("v/a"), &parse("nodes"), &own, &keep()).await.unwrap();
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, nodes), &keep()).await.unwrap();
    world
}

fn vm(n: u64) -> NodeSpec {
    let (v4, v6) = (format!("10.0.0.{}", 200 + n), format!("fd00::{:x}", 200 + n));
    NodeSpec {
        uid: Some(format!("u{n}")),
        mac: Some(format!("52:54:00:00:00:{n:02x}")),
        ..node("p", &[&v4, &v6])
    }
}

/// The first so many VMs, each a node of its number.
fn vms(count: u64) -> Vec<(String, NodeSpec)> {
    (0..count).map(|n| (format!("n{n}"), vm(n))).collect()
}

/// All at once.
async fn put(world: &World, nodes: &[(impl AsRef<str>, NodeSpec)]) -> Vec<Result<Node>> {
    let change = keep();
    let puts = nodes.iter().map(|(name, spec)| {
        let (name, change) = (parse(name.as_ref()), &change);
        async move { Ok(world.store.put_node(&name, spec, change).await?.into_inner().value) }
    });
    join_all(puts).await
}

/// How many transactions had the plan to themselves.
fn plans(world: &World) -> u64 {
    let mut registry = Registry::default();
    world.store.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let name = r#"store_operation_duration_seconds_count{operation="plan"} "#;
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn many_share_a_transaction_and_nothing_else() {
    let world = ground(40).await;
    let asked = vms(40);
    let before = plans(&world);
    let nodes: Vec<Node> = put(&world, &asked).await.into_iter().map(Result::unwrap).collect();
    assert!(plans(&world) - before <= 2, "{} transactions", plans(&world) - before);

    let claims: BTreeSet<u64> = nodes.iter().map(|node| node.claim.0).collect();
    let blocks: BTreeSet<String> = nodes.iter().map(|node| format!("{:?}", node.block.ranges)).collect();
    assert_eq!((claims.len(), blocks.len()), (40, 40));
    for ((name, spec), node) in asked.iter().zip(&nodes) {
        assert_eq!(node.name.as_str(), name);
        assert_eq!((&node.addresses, &node.uid, &node.mac), (&spec.addresses, &spec.uid, &spec.mac));
        assert_eq!(*world.store.node(&node.name).await.unwrap(), *node);
        let events = EventFilter { subject: Some(format!("node/{name}")), ..EventFilter::default() };
        let events = world.store.events(&events, &page()).await.unwrap().items;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].after, Some(serde_json::to_value(node).unwrap()));
        assert_eq!((events[0].action.as_str(), &events[0].before), ("create", &None));
    }
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().status.claimed, 40);
    world.check().await;
    // The next number is nobody's.
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 41), &keep()).await.unwrap();
    let next = world.store.put_node(&parse("next"), &vm(40), &keep()).await.unwrap().into_inner();
    assert!(!claims.contains(&next.claim.0) && claims.iter().all(|claim| *claim < next.claim.0));
}

#[tokio::test]
async fn a_node_gets_what_it_would_get_alone() {
    let world = ground(3).await;
    let token = TokenSpec {
        name: "before".to_owned(),
        role: Role::Node,
        node: Some(parse("n0")),
        pool: None,
        uses: None,
        expires_in_seconds: None,
        node_token_seconds: None,
    };
    let secret = Secret::new(Role::Node, [1; 32]);
    world.store.create_token(&token, &secret, &keep()).await.unwrap();
    // A try is never done together with others.
    let alone = world.store.put_node(&parse("n0"), &vm(0), &dry()).await.unwrap().into_inner();
    let (n0, n1, keep) = (parse("n0"), parse("n1"), keep());
    let (together, other) =
        join(world.store.put_node(&n0, &vm(0), &keep), world.store.put_node(&n1, &vm(1), &keep)).await;
    let Ok(Written::Created(together)) = together else { panic!("{together:?}") };
    assert!(other.is_ok());
    assert_eq!(together, alone);
    assert!(together.credential.is_some());
    assert_eq!(world.store.node(&n0).await.unwrap(), together);
}

#[tokio::test]
async fn what_is_not_plain_is_decided_by_itself() {
    let world = ground(6).await;
    let store = &world.store;
    store.put_node(&parse("there"), &vm(0), &keep()).await.unwrap();
    store.put_node(&parse("gone"), &vm(1), &keep()).await.unwrap();
    store.delete_node(&parse("gone"), VmState::Gone, &keep()).await.unwrap();

    let asked = [
        ("there", vm(0)),
        ("gone", vm(1)),
        ("first", vm(2)),
        ("second", vm(2)),
        ("twice", vm(3)),
        ("twice", vm(3)),
        ("thief", NodeSpec { uid: None, ..vm(0) }),
        ("platform", node("p", &["10.0.0.1"])),
        ("free", node("p", &["10.0.200.1"])),
        ("apart", node("p", &["10.0.0.210", "fd00::d3"])),
        ("astray", node("p", &["10.9.0.1"])),
        ("nowhere", node("q", &["10.0.0.220"])),
    ];
    let mut answers = put(&world, &asked).await.into_iter();
    let mut answer = || answers.next().unwrap();
    assert_eq!(answer().unwrap().claim, store.node(&parse("there")).await.unwrap().claim);
    says(answer(), &["Exists", "VM u1 was node gone before"]);
    let (first, second) = (answer(), answer());
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    says(first.and(second), &["Overlap", "own address of node"]);
    assert_eq!(answer().unwrap(), answer().unwrap());
    says(answer(), &["Overlap", "own address of node there"]);
    says(answer(), &["Overlap", "platform"]);
    assert_eq!(answer().unwrap().addresses, [parse::<std::net::IpAddr>("10.0.200.1")]);
    assert_eq!(answer().unwrap().addresses.len(), 2);
    says(answer(), &["Invalid /addresses/0", "in no subnet of pool p"]);
    says(answer(), &["Invalid /pool", "there is no pool q"]);
    world.check().await;
}

#[tokio::test]
async fn the_last_blocks_go_to_as_many_as_there_are() {
    let world = ground(5).await;
    let (made, refused): (Vec<_>, Vec<_>) = put(&world, &vms(9)).await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 5);
    for refusal in refused {
        says(refusal, &["Exhausted", "all 5 blocks of pool p are claimed"]);
    }
    world.check().await;
}

#[tokio::test]
async fn a_condition_or_a_replacement_is_kept_apart() {
    let world = ground(5).await;
    let store = &world.store;
    let absent = Change { precondition: Precondition::Absent, ..keep() };
    store.put_node(&parse("n0"), &vm(0), &absent).await.unwrap();
    says(store.put_node(&parse("n0"), &vm(0), &absent).await, &["PreconditionFailed", "exists already"]);
    let there = Change { precondition: Precondition::Exists, ..keep() };
    says(store.put_node(&parse("n1"), &vm(1), &there).await, &["PreconditionFailed", "there is no node n1"]);
    store.delete_node(&parse("n0"), VmState::Gone, &keep()).await.unwrap();
    says(store.put_node(&parse("n0"), &vm(0), &keep()).await, &["Exists", "u0"]);
    let back = NodeSpec { replace: true, ..vm(0) };
    store.put_node(&parse("n0"), &back, &keep()).await.unwrap();
    world.check().await;
}

/// One deed that the database refuses takes nothing from its neighbours.
#[tokio::test]
async fn a_refused_transaction_is_tried_one_by_one() {
    let world = ground(5).await;
    let refuse = match Make::wanted() {
        Make::Sqlite => {
            "CREATE TRIGGER no_event BEFORE INSERT ON event WHEN NEW.subject = 'node/n1'
            BEGIN SELECT RAISE(ABORT, 'no event'); END"
        }
        Make::Postgres => "ALTER TABLE event ADD CHECK (subject <> 'node/n1') NOT VALID",
    };
    world.sql(refuse).await;
    let asked = [("n0", vm(0)), ("n1", vm(1)), ("n2", vm(2))];
    let answers = put(&world, &asked).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(StoreError::Database(_))), "{:?}", answers[1]);
    let there = world.store.nodes(&NodeFilter::default(), &page()).await.unwrap();
    assert_eq!(there.items.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n0", "n2"]);
    world.check().await;
}

#[tokio::test]
async fn each_event_names_who_asked() {
    let world = ground(5).await;
    let puts = (0..3).map(|n| {
        let change =
            Change { by: Actor { name: format!("node:n{n}"), ..Actor::default() }, ..Change::default() };
        let store = &world.store;
        async move { store.put_node(&parse(&format!("n{n}")), &vm(n), &change).await.unwrap() }
    });
    join_all(puts).await;
    let events = world.store.events(&EventFilter::default(), &page()).await.unwrap().items;
    let claims = events.iter().filter_map(|event| {
        let node = event.subject.strip_prefix("node/")?;
        Some((node.to_owned(), event.actor.clone()))
    });
    let expected = (0..3).map(|n| (format!("n{n}"), format!("node:n{n}")));
    assert_eq!(claims.collect::<BTreeSet<_>>(), expected.collect());
}
