//! What is decided by what was known: done if it is still so, else not at all.

use super::{Shim, World, attachment};
use crate::{
    clock::Clock,
    store::{
        Change, VmState, Written,
        allocations::{self, Outcome},
        book::KnownHolders,
        db::{Engine, Scope, args},
        writer::Mutation,
    },
};
use ipam_api::wire::AllocationSpec;

fn hold(shim: &Shim, seq: u64, who: &str, nth: usize) -> Mutation {
    Mutation::Hold {
        call: shim.at(seq),
        attachment: attachment(who),
        spec: AllocationSpec { address: Some(shim.address(nth)), pod: None },
    }
}

fn release(shim: &Shim, seq: u64, who: &str, nth: usize) -> Mutation {
    Mutation::Release { call: shim.at(seq), attachment: attachment(who), address: Some(shim.address(nth)) }
}

/// A node of which everything is known, with "a" at its first address.
async fn known(world: &World) -> (Shim, KnownHolders) {
    let (shim, known) = (world.shim("node-1").await, KnownHolders::default());
    // Its boot and its contact are noted before.
    let first = [hold(&shim, 10, "a", 0)];
    allocations::commit(&world.store.db, &known, world.clock.now(), &first).await.unwrap();
    (shim, known)
}

async fn tried(world: &World, known: &KnownHolders, mutations: &[Mutation]) -> Vec<Option<&'static str>> {
    let outcomes =
        allocations::commit_known(&world.store.db, known, world.clock.now(), mutations).await.unwrap();
    let word = |outcome: Outcome| match outcome {
        Outcome::Held(written) => {
            assert!(matches!(*written, Written::Created(_)), "{written:?}");
            "held"
        }
        Outcome::Released => "released",
    };
    outcomes.into_iter().map(|outcome| outcome.map(word)).collect()
}

async fn held(world: &World) -> Vec<String> {
    world.held().await.into_iter().map(|(_, who)| who).collect()
}

#[tokio::test]
async fn a_known_node_s_words_are_written_at_once() {
    let world = World::new("node").await;
    let (shim, known) = known(&world).await;
    let batch = [hold(&shim, 11, "b", 1), hold(&shim, 12, "c", 2), release(&shim, 13, "a", 0)];
    assert_eq!(tried(&world, &known, &batch).await, [Some("held"), Some("held"), Some("released")]);
    assert_eq!(held(&world).await, ["b", "c"]);
    // Over the row that "a" left.
    assert_eq!(tried(&world, &known, &[hold(&shim, 14, "d", 0)]).await, [Some("held")]);
    assert_eq!(held(&world).await, ["d", "b", "c"]);
}

#[tokio::test]
async fn a_word_that_is_not_newer_is_not_written() {
    let world = World::new("node").await;
    let (shim, known) = known(&world).await;
    tried(&world, &known, &[release(&shim, 20, "a", 0)]).await;
    // Overtaken by the release; said before; older than the floor of the last sync.
    for late in [hold(&shim, 19, "a", 0), hold(&shim, 20, "b", 0), hold(&shim, 1, "b", 1)] {
        assert_eq!(tried(&world, &known, &[late]).await, [None]);
    }
    world.hold(&shim, 21, "b", 1).await.unwrap();
    // Of another's, of a hold that came later, of one that has it already.
    for other in [release(&shim, 30, "c", 1), release(&shim, 21, "b", 1), hold(&shim, 31, "b", 1)] {
        assert_eq!(tried(&world, &known, &[other]).await, [None]);
    }
    assert_eq!(held(&world).await, ["b"]);
}

#[tokio::test]
async fn where_one_word_is_not_confirmed_none_is() {
    let world = World::new("node").await;
    let (shim, known) = known(&world).await;
    let used = async || world.store.capacity().await.unwrap().pools[0].used;
    // The first address is held; nobody holds the third.
    let takes = [hold(&shim, 11, "b", 1), hold(&shim, 12, "c", 0)];
    assert_eq!(tried(&world, &known, &takes).await, [None, None]);
    let returns = [release(&shim, 13, "a", 0), release(&shim, 14, "d", 2)];
    assert_eq!(tried(&world, &known, &returns).await, [None, None]);
    assert_eq!((held(&world).await, used().await), (vec!["a".to_owned()], 1));
    assert_eq!(tried(&world, &known, &[hold(&shim, 15, "b", 1)]).await, [Some("held")]);
    assert_eq!(used().await, 2);
}

#[tokio::test]
async fn a_node_that_is_gone_is_known_no_more() {
    let world = World::new("node").await;
    let (shim, known) = known(&world).await;
    world.store.delete_node(&shim.name, VmState::Gone, &Change::default()).await.unwrap();
    let late = [hold(&shim, 11, "b", 1)];
    assert_eq!(tried(&world, &known, &late).await, [None]);
    assert!(known.get(&shim.name).is_some(), "it is known until it is looked for");
    allocations::commit(&world.store.db, &known, world.clock.now(), &late).await.unwrap();
    assert!(known.get(&shim.name).is_none());
}

#[tokio::test]
async fn one_word_of_an_address_and_of_an_attachment_is_written_at_once() {
    let world = World::new("node").await;
    let (shim, known) = known(&world).await;
    let same_address = [hold(&shim, 11, "b", 1), hold(&shim, 12, "c", 1)];
    assert_eq!(tried(&world, &known, &same_address).await, [Some("held"), None]);
    let same_attachment = [hold(&shim, 13, "d", 2), hold(&shim, 14, "d", 3)];
    assert_eq!(tried(&world, &known, &same_attachment).await, [Some("held"), None]);
    // It holds another address by now: whoever is in the same batch is decided anew too.
    let moves = [hold(&shim, 15, "d", 3), release(&shim, 16, "b", 1)];
    assert_eq!(tried(&world, &known, &moves[..1]).await, [None]);
    assert_eq!(held(&world).await, ["a", "b", "d"]);
}

/// Each of these happens behind the back of whoever knew the node.
#[tokio::test]
async fn what_has_changed_is_noticed() {
    for change in ["sync", "boot", "deleting", "gone", "replaced", "smaller", "gateway", "contact"] {
        let world = World::new("node").await;
        let (shim, known) = known(&world).await;
        let (keep, name) = (Change::default(), shim.name.clone());
        match change {
            "sync" => drop(world.sync(&shim, 50, vec![]).await.unwrap()),
            "boot" => {
                let later = Shim { boot: 2, name: shim.name.clone(), node: shim.node.clone() };
                world.hold(&later, 1, "z", 3).await.unwrap();
            }
            "deleting" => drop(world.store.delete_node(&name, VmState::Unknown, &keep).await.unwrap()),
            "gone" => drop(world.store.delete_node(&name, VmState::Gone, &keep).await.unwrap()),
            "replaced" => {
                let node = super::from(serde_json::json!({
                    "pool": "workers", "addresses": ["10.1.0.200"], "uid": "another", "replace": true
                }));
                world.store.put_node(&name, &node, &keep).await.unwrap();
            }
            "smaller" => {
                let pool = super::from(serde_json::json!({
                    "subnets": [{"subnet": "prod/nodes"}], "maxPods": 2, "nodes": 2, "surge": 0
                }));
                world.store.put_pool(&"workers".parse().unwrap(), &pool, &keep).await.unwrap();
            }
            "gateway" => {
                let subnet = super::from(serde_json::json!({
                    "cidrs": ["10.1.0.0/24", "fd00:1::/64"], "gateways": ["10.1.0.250"]
                }));
                world.store.put_subnet(&"prod/nodes".parse().unwrap(), &subnet, &keep).await.unwrap();
            }
            _ => world.pass(5),
        }
        let before = world.held().await;
        assert_eq!(tried(&world, &known, &[hold(&shim, 40, "b", 1)]).await, [None], "{change}");
        assert_eq!(tried(&world, &known, &[release(&shim, 41, "a", 0)]).await, [None], "{change}");
        assert_eq!(world.held().await, before, "{change}");
    }
}

/// The statement sees what was committed when it began, and waits for a lock; what was committed meanwhile counts.
#[tokio::test]
async fn what_changes_while_it_waits_is_noticed() {
    const WAITING: &str = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    const CHANGES: [&str; 4] = [
        "UPDATE node SET floor_seq = 50 WHERE name = 'node-1'",
        "UPDATE block SET version = version + 1",
        // A word on each address that is newer than those to come.
        "UPDATE allocation SET seq = 60",
        "UPDATE allocation SET state = 'released', node = NULL, block = NULL, extent_first = NULL,
            extent_next = NULL, seq = 60",
    ];
    for (change, takes) in CHANGES.into_iter().flat_map(|change| [(change, true), (change, false)]) {
        let world = World::new("node").await;
        if world.store.db.engine() == Engine::Sqlite {
            // Its one writer waits before it begins.
            return;
        }
        let (shim, known) = known(&world).await;
        world.hold(&shim, 11, "b", 1).await.unwrap();
        world.release(&shim, 12, "b", 1).await.unwrap();
        let word = [if takes { hold(&shim, 40, "c", 1) } else { release(&shim, 41, "a", 0) }];
        let mut first = world.store.db.write(Scope::Nodes).await.unwrap();
        first.execute("UPDATE node SET state = state WHERE name = 'node-1'", args![]).await.unwrap();
        let mut raw = world.database.connect().await;
        let second = tried(&world, &known, &word);
        let then = async {
            while raw.number(WAITING).await == 0 {}
            first.execute(change, args![]).await.unwrap();
            first.commit().await.unwrap();
        };
        assert_eq!(futures::join!(second, then).0, [None], "{change}");
    }
}

/// A plan that is being made may take the block away: nothing is confirmed before it is there.
#[tokio::test]
async fn nothing_is_confirmed_while_somebody_plans() {
    let world = World::new("node").await;
    if world.store.db.engine() == Engine::Sqlite {
        // Its one writer waits.
        return;
    }
    let (shim, known) = known(&world).await;
    let plan = world.store.db.write(Scope::Plan).await.unwrap();
    assert_eq!(tried(&world, &known, &[hold(&shim, 11, "b", 1)]).await, [None]);
    plan.rollback().await.unwrap();
    assert_eq!(tried(&world, &known, &[hold(&shim, 11, "b", 1)]).await, [Some("held")]);
}
