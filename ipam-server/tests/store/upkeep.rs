//! Rows past their time, and whose turn it is to take them away.

use crate::support::{self, World, keep, node, page, parse, pool, vnet};
use ipam_api::{
    token::Secret,
    wire::{NodeSpec, Role},
};
use ipam_server::store::{EventFilter, StoreError, VmState};
use testdb::Make;

const DAY: i64 = 86_400;

async fn subjects(world: &World) -> Vec<String> {
    let events = world.store.events(&EventFilter::default(), &page()).await.unwrap().items;
    events.into_iter().map(|event| event.subject).collect()
}

#[tokio::test]
async fn events_go_when_they_are_old_and_not_before() {
    let world = World::new().await;
    let make = async |name: &str, space: &str| {
        world.store.put_vnet(&parse(name), &vnet(&[space]), &keep()).await.unwrap();
    };
    make("a", "10.1.0.0/16").await;
    world.clock.pass(3 * DAY);
    make("b", "10.2.0.0/16").await;
    world.clock.pass(7 * DAY);
    make("c", "10.3.0.0/16").await;
    world.prune(10).await;
    assert_eq!(subjects(&world).await, ["vnet/a", "vnet/b", "vnet/c"], "ten days old, to the second");
    world.clock.pass(1);
    world.prune(10).await;
    assert_eq!(subjects(&world).await, ["vnet/b", "vnet/c"]);
    let last = world.store.events(&EventFilter::default(), &page()).await.unwrap().items[1].id;
    world.clock.pass(400 * DAY);
    world.prune(10).await;
    assert_eq!(subjects(&world).await, [""; 0]);
    make("d", "10.4.0.0/16").await;
    let next = world.store.events(&EventFilter::default(), &page()).await.unwrap().items[0].id;
    assert!(next > last, "a reader's cursor meets no other event");
}

#[tokio::test]
async fn more_than_goes_at_once_goes_all_the_same() {
    let world = World::new().await;
    let many: Vec<String> =
        (0..1200).map(|i| format!("(0, 'a', 's', 'create', 'vnet/v{i}', '{{}}')")).collect();
    let sql =
        format!("INSERT INTO event (at, actor, source, action, subject, became) VALUES {}", many.join(", "));
    world.sql(&sql).await;
    world.prune(400).await;
    assert_eq!(subjects(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_revoked_bootstrap_token_is_never_forgotten() {
    let world = World::new().await;
    let secret = Secret::new(Role::Admin, [7; 32]);
    let token = world.store.bootstrap(&secret, &keep()).await.unwrap().into_inner();
    world.store.revoke_token(&token.id, &keep()).await.unwrap();
    world.clock.pass(1000 * DAY);
    world.prune(1).await;
    let again = world.store.bootstrap(&secret, &keep()).await;
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn a_vm_that_has_ended_is_remembered_for_a_year() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    let of = |uid: &str| NodeSpec { uid: Some(uid.to_owned()), ..node("p", &["10.0.0.200"]) };
    store.put_node(&parse("n"), &of("one"), &keep()).await.unwrap();
    store.delete_node(&parse("n"), VmState::Gone, &keep()).await.unwrap();
    let known = "SELECT COUNT(*) FROM former_vm";
    world.clock.pass(365 * DAY);
    world.prune(1).await;
    assert_eq!(world.number(known).await, 1);
    world.clock.pass(1);
    world.prune(1).await;
    assert_eq!(world.number(known).await, 0);
    store.put_node(&parse("n"), &of("one"), &keep()).await.unwrap();
}

/// A file is one process's; a server is several replicas', and the turn goes on when the one that has it ends.
#[tokio::test]
async fn one_at_a_time_has_the_turn() {
    let world = World::new().await;
    let (other, third) = (world.another().await, world.another().await);
    let mut turn = world.store.take_turn().await.unwrap().unwrap();
    assert!(turn.lasts().await);
    if Make::wanted() == Make::Sqlite {
        return;
    }
    assert!(other.take_turn().await.unwrap().is_none());
    drop(turn);
    let mut turn = support::turn(&other).await;
    assert!(third.take_turn().await.unwrap().is_none());

    // Whoever lost the turn without a word finds out before the next batch.
    let end =
        "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = 3
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(world.number(end).await, 1);
    assert!(!turn.lasts().await);
    drop(support::turn(&third).await);
}
