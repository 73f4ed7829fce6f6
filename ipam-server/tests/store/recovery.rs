//! An older backup is restored: the service goes back in time, the nodes do not.

use crate::{
    dump::{dumped, empty},
    filled::{call, fill, pod, sync},
    support::{World, keep, node, page, parse, pool, reservation, says},
};
use ipam_api::wire::{AllocationSpec, Allocator, NodeSpec, NodeState};
use ipam_server::store::{
    Change, Departure, EventFilter, NodeCall, Precondition, Since, Store, StoreError, VmState,
};
use std::io::Cursor;
use testdb::TestDatabase;

/// A service that was filled, lived on for a while, and was lost; and the one that its older backup became.
struct Loss {
    before: World,
    after: Store,
    _database: TestDatabase,
}

impl Loss {
    /// `since` is what happens between backup and loss.
    async fn with(since: impl AsyncFnOnce(&Store)) -> Self {
        let before = World::new().await;
        fill(&before.store).await;
        let dump = dumped(&before.database.url(), &before).await;
        since(&before.store).await;
        let database = empty().await;
        let now = ipam_server::clock::Clock::now(&*before.clock);
        let url = parse(&database.url());
        Store::restore(&url, now, Cursor::new(&dump), Since::Unknown).await.unwrap();
        let after = Store::open(&url, before.clock.clone()).await.unwrap();
        Self { before, after, _database: database }
    }

    /// The node lists its pods, learns of its block, and lists them again in its name.
    async fn found_back(&self, name: &str, seq: u64, live: &[(&str, &str)]) {
        let told = sync(&self.after, name, 1, seq, live).await.node.unwrap();
        sync(&self.after, name, told.block.version.0, seq + 1, live).await;
    }
}

fn picked_by_service(name: &str) -> NodeCall {
    NodeCall { node: parse(name), stamp: None }
}

#[tokio::test]
async fn nobody_new_gets_an_address_that_may_be_in_use() {
    let loss = Loss::with(async |store| {
        // Its pods run in a block that the backup has as free.
        store.put_node(&parse("n4"), &node("p", &["10.0.0.7"]), &keep()).await.unwrap();
        sync(store, "n4", 1, 1, &[]).await;
        let any = AllocationSpec::default();
        store.allocate(&picked_by_service("n2"), &pod("s2"), &any).await.unwrap();
    })
    .await;
    let store = &loss.after;
    let lost = loss.before.store.node(&parse("n4")).await.unwrap();
    let held = loss.before.store.allocation(&parse("n2"), &pod("s2")).await.unwrap();

    let refused = ["Recovering", "ipamctl recovery end"];
    says(store.put_node(&parse("n5"), &node("p", &["10.0.0.8"]), &keep()).await, &refused);
    let replace = NodeSpec { uid: Some("another".to_owned()), replace: true, ..node("p", &[]) };
    says(store.put_node(&parse("n1"), &replace, &keep()).await, &refused);
    says(store.put_pool(&parse("q"), &pool(&["v/b"], 4, 2), &keep()).await, &refused);
    says(store.put_pool(&parse("p"), &pool(&["v/a"], 14, 4), &keep()).await, &refused);
    let range = reservation("10.0.0.200", "10.0.0.209");
    says(store.put_reservation(&parse("v/a"), &parse("more"), &range, &keep()).await, &refused);
    let any = AllocationSpec::default();
    says(store.allocate(&picked_by_service("n2"), &pod("s3"), &any).await, &refused);
    // What is there goes on.
    store.allocate(&picked_by_service("n2"), &pod("s1"), &any).await.unwrap();
    let claim = store.node(&parse("n1")).await.unwrap().claim;
    let at = AllocationSpec { address: Some(parse("10.0.0.22")), pod: None };
    store.allocate(&call("n1", claim, 2, 30), &pod("c4"), &at).await.unwrap();
    // Who knows of an address that was given since names it.
    let known = AllocationSpec { address: Some(held.addresses[0].address), pod: None };
    store.allocate(&picked_by_service("n2"), &pod("s2"), &known).await.unwrap();
    // The lost node is refused without being told anything that it could take for its own.
    let error = store.allocate(&call("n4", lost.claim, 1, 9), &pod("x"), &at).await.unwrap_err();
    assert!(matches!(error, StoreError::StaleClaim(_)), "{error:?}");

    says(store.end_recovery(&keep()).await, &["InUse", "n1", "cni-shim sync", "vmGone"]);
    let pods = [("c1", "10.0.0.20"), ("c4", "10.0.0.22")];
    loss.found_back("n1", 40, &pods).await;
    store.end_recovery(&keep()).await.unwrap();
    store.end_recovery(&keep()).await.unwrap();
    assert_eq!(store.consistency().await.unwrap().recovery, None);
    store.allocate(&picked_by_service("n2"), &pod("s3"), &any).await.unwrap();
    store.put_node(&parse("n5"), &node("p", &["10.0.0.8"]), &keep()).await.unwrap();
    let new = store.node(&parse("n5")).await.unwrap();
    assert!(new.claim > lost.claim, "a claim's number was given twice");
    let events = EventFilter { subject: Some("service/recovery".to_owned()), ..EventFilter::default() };
    let actions: Vec<_> =
        store.events(&events, &page()).await.unwrap().items.into_iter().map(|event| event.action).collect();
    assert_eq!(actions, ["create", "delete"]);
}

#[tokio::test]
async fn a_node_with_a_pod_where_its_block_had_grown_keeps_the_recovery_going() {
    let loss = Loss::with(async |store| {
        sync(store, "n1", 2, 25, &[("c1", "10.0.0.20")]).await;
        store.put_pool(&parse("p"), &pool(&["v/a"], 30, 4), &keep()).await.unwrap();
    })
    .await;
    let grown = loss.before.store.node(&parse("n1")).await.unwrap().block.clone();
    let last = grown.ranges.last().unwrap().last.to_string();
    let restored = loss.after.node(&parse("n1")).await.unwrap().block.clone();
    assert!(restored.version > grown.version, "what it is told now has to be news to it");
    // Its pod out there is the truth, and not the ledger's to give.
    let pods = [("c1", "10.0.0.20"), ("far", last.as_str())];
    loss.found_back("n1", 40, &pods).await;
    let codes: Vec<_> =
        loss.after.consistency().await.unwrap().findings.into_iter().map(|found| found.code).collect();
    assert!(codes.contains(&"refused-addresses".to_owned()), "{codes:?}");
    says(loss.after.end_recovery(&keep()).await, &["InUse", "n1"]);
    // As long as it works with the block as it was, its word does not count.
    sync(&loss.after, "n1", grown.version.0, 50, &[("c1", "10.0.0.20")]).await;
    says(loss.after.end_recovery(&keep()).await, &["InUse", "n1"]);
    sync(&loss.after, "n1", restored.version.0, 60, &[("c1", "10.0.0.20")]).await;
    loss.after.end_recovery(&keep()).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_may_have_been_taken_up_is_not_freed_by_its_deletion_alone() {
    let before = World::new().await;
    fill(&before.store).await;
    before.store.put_node(&parse("n4"), &node("p", &["10.0.0.7"]), &keep()).await.unwrap();
    let dump = dumped(&before.database.url(), &before).await;
    let database = empty().await;
    let url = parse(&database.url());
    let now = ipam_server::clock::Clock::now(&*before.clock);
    Store::restore(&url, now, Cursor::new(&dump), Since::Unknown).await.unwrap();
    let after = Store::open(&url, before.clock.clone()).await.unwrap();
    let delete =
        async |store: &Store| store.delete_node(&parse("n4"), VmState::Unknown, &keep()).await.unwrap();
    let Departure::Waiting(waiting) = delete(&after).await else {
        panic!("its shim may have used the block since")
    };
    assert_eq!(waiting.state, NodeState::Deleting);
    assert!(matches!(delete(&before.store).await, Departure::Freed), "where nothing was restored it is");
    says(after.end_recovery(&keep()).await, &["n1", "n4"]);
    for name in ["n1", "n4"] {
        after.delete_node(&parse(name), VmState::Gone, &keep()).await.unwrap();
    }
    after.end_recovery(&keep()).await.expect("whoever says that a VM is gone has spoken for it");
}

#[tokio::test]
async fn no_version_that_was_shown_comes_back_as_another() {
    let loss = Loss::with(async |store| {
        store.put_pool(&parse("p"), &pool(&["v/a"], 12, 3), &keep()).await.unwrap();
    })
    .await;
    let seen = loss.before.store.pool(&parse("p")).await.unwrap().version;
    let now = loss.after.pool(&parse("p")).await.unwrap().version;
    assert!(now > seen + 1_000_000, "{seen} {now}");
    let old = Change { precondition: Precondition::Version(vec![seen, seen + 1, seen - 1]), ..keep() };
    says(loss.after.put_pool(&parse("p"), &pool(&["v/a"], 12, 4), &old).await, &["PreconditionFailed"]);
    let last = |events: Vec<ipam_api::wire::Event>| events.iter().map(|event| event.id).max().unwrap();
    let lost = last(loss.before.store.events(&EventFilter::default(), &page()).await.unwrap().items);
    let events = loss.after.events(&EventFilter::default(), &page()).await.unwrap().items;
    let restore = events.iter().find(|event| event.subject == "service/recovery").unwrap();
    assert!(restore.id > lost, "a reader's cursor would meet another event");
    let service = NodeSpec { allocator: Allocator::Service, ..node("p", &["10.0.0.9"]) };
    says(loss.after.put_node(&parse("n9"), &service, &keep()).await, &["Recovering"]);
}
