//! How many addresses are used is what the ledger says, whatever happened.

use crate::{
    filled::fill,
    support::{World, parse},
};
use ipam_server::store::{Store, VmState};
use std::sync::Arc;

/// What pool "p" uses, as capacity tells it of the pool and of its subnet.
async fn used(world: &World) -> (u64, u64) {
    let capacity = world.store.capacity().await.unwrap();
    (capacity.pools[0].used, capacity.subnets[0].used)
}

#[tokio::test]
async fn it_is_known_when_it_is_asked() {
    let world = World::new().await;
    fill(&world.store).await;
    assert_eq!(used(&world).await, (3, 3));
    world.store.delete_node(&parse("n1"), VmState::Gone, &crate::support::keep()).await.unwrap();
    assert_eq!(used(&world).await, (1, 1), "what the node held is used no more");
    world.check().await;
}

/// More than there are connections, and all have to look at the plan anew.
#[tokio::test]
async fn many_ask_at_once() {
    let world = World::new().await;
    fill(&world.store).await;
    for answer in futures::future::join_all((0..32).map(|_| world.store.capacity())).await {
        assert_eq!(answer.unwrap().pools[0].used, 3);
    }
}

#[tokio::test]
async fn a_wrong_count_is_put_right() {
    let world = World::new().await;
    fill(&world.store).await;
    for wrong in ["UPDATE usage SET used = used - 7", "DELETE FROM usage"] {
        world.sql(wrong).await;
        assert_ne!(used(&world).await, (3, 3));
        assert_eq!(world.store.recount().await.unwrap(), 1);
        assert_eq!(used(&world).await, (3, 3));
        assert_eq!(world.store.recount().await.unwrap(), 0, "it is right by now");
    }
    world.check().await;
}

#[tokio::test]
async fn a_database_of_before_is_counted_when_it_is_brought_up_to_date() {
    let world = World::new().await;
    fill(&world.store).await;
    world.sql("DROP TABLE usage").await;
    world.sql("DROP INDEX extent_reserved").await;
    world.sql("DELETE FROM _sqlx_migrations WHERE version >= 8").await;
    let store = Store::open(&parse(&world.database.url()), Arc::clone(&world.clock) as _).await.unwrap();
    assert_eq!(store.capacity().await.unwrap().pools[0].used, 3);
    assert_eq!(store.consistency().await.unwrap().findings, []);
}
