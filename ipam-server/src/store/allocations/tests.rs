use crate::{
    clock::Clock,
    store::{
        Actor, AllocationFilter, Change, DatabaseUrl, Departure, NodeCall, Page, Store, StoreError, VmState,
        Written, writer::Mutation,
    },
};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{
        AllocationSpec, AllocationState, BlockVersion, BootSeq, Node, NodeStamp, NodeState, PodRef, Seq,
        Stamp, SyncEntry, SyncOutcome, SyncRequest,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex},
};
use testdb::TestDatabase;

mod known;

/// A clock that stands until a test moves it.
#[derive(Debug)]
struct Standing(Mutex<Timestamp>);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct World {
    store: Store,
    clock: Arc<Standing>,
    database: TestDatabase,
}

fn from<T: DeserializeOwned>(json: Json) -> T {
    serde_json::from_value(json).unwrap()
}

impl World {
    /// A dual-stack subnet with a pool of two nodes of four pods each.
    async fn new(allocator: &str) -> Self {
        let clock = Arc::new(Standing(Mutex::new("2026-11-23T00:00:00Z".parse().unwrap())));
        let database = TestDatabase::new(async |url| open(&url, &clock).await.close().await).await;
        let store = open(&database.url(), &clock).await;
        let keep = Change::default();
        let vnet = from(json!({"addressSpace": ["10.1.0.0/16", "fd00:1::/48"]}));
        store.put_vnet(&"prod".parse().unwrap(), &vnet, &keep).await.unwrap();
        let subnet = from(json!({"cidrs": ["10.1.0.0/24", "fd00:1::/64"]}));
        store.put_subnet(&"prod/nodes".parse().unwrap(), &subnet, &keep).await.unwrap();
        let pool = from(json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 4, "nodes": 2, "surge": 0}));
        store.put_pool(&"workers".parse().unwrap(), &pool, &keep).await.unwrap();
        for (name, address) in [("node-1", "10.1.0.200"), ("node-2", "10.1.0.201")] {
            let node = from(json!({"pool": "workers", "addresses": [address], "allocator": allocator}));
            store.put_node(&name.parse().unwrap(), &node, &keep).await.unwrap();
        }
        Self { store, clock, database }
    }

    fn pass(&self, seconds: i64) {
        let mut now = self.clock.0.lock().unwrap();
        *now += SignedDuration::from_secs(seconds);
    }

    async fn node(&self, name: &str) -> Node {
        self.store.node(&name.parse().unwrap()).await.unwrap().value
    }

    /// The shim of a node, its claim taken up.
    async fn shim(&self, name: &str) -> Shim {
        let node = self.node(name).await;
        let shim = Shim { name: node.name.clone(), node, boot: 1 };
        self.sync(&shim, 1, vec![]).await.unwrap();
        shim
    }

    async fn sync(
        &self,
        shim: &Shim,
        as_of: u64,
        entries: Vec<SyncEntry>,
    ) -> Result<Vec<SyncOutcome>, StoreError> {
        let request = SyncRequest { as_of_seq: Seq(as_of), entries, conflicts: vec![], deletion: None };
        let answer = self.store.sync(&shim.at(as_of), &request, &Actor::default()).await?;
        Ok(answer.items.into_iter().map(|item| item.result).collect())
    }

    async fn hold(&self, shim: &Shim, seq: u64, who: &str, nth: usize) -> Result<Held, StoreError> {
        let spec = AllocationSpec { address: Some(shim.address(nth)), pod: None };
        Ok(match self.store.allocate(&shim.at(seq), &attachment(who), &spec).await? {
            Written::Created(_) => Held::New,
            Written::Updated(allocation) if allocation.state == AllocationState::Held => Held::Already,
            Written::Updated(_) => Held::Not,
        })
    }

    async fn release(&self, shim: &Shim, seq: u64, who: &str, nth: usize) -> Result<(), StoreError> {
        self.store.release(&shim.at(seq), &attachment(who), Some(shim.address(nth))).await
    }

    /// Who holds what, by first address.
    async fn held(&self) -> Vec<(IpAddr, String)> {
        let page = Page { limit: 1000, after: None };
        let list = self.store.allocations(&AllocationFilter::default(), &page).await.unwrap();
        list.items.into_iter().map(|it| (it.addresses[0].address, it.container_id.to_string())).collect()
    }
}

async fn open(url: &str, clock: &Arc<Standing>) -> Store {
    Store::open(&url.parse::<DatabaseUrl>().unwrap(), Arc::<Standing>::clone(clock)).await.unwrap()
}

#[derive(Debug, PartialEq, Eq)]
enum Held {
    New,
    Already,
    Not,
}

struct Shim {
    name: NodeName,
    node: Node,
    boot: u64,
}

impl Shim {
    fn at(&self, seq: u64) -> NodeCall {
        let stamp = Stamp { claim: self.node.claim, boot: BootSeq(self.boot), seq: Seq(seq) };
        let stamp = NodeStamp {
            stamp,
            block: BlockVersion(self.node.block.version.0),
            boot_id: Some(format!("boot-{}", self.boot)),
            machine: None,
        };
        NodeCall { node: self.name.clone(), stamp: Some(stamp) }
    }

    fn address(&self, nth: usize) -> IpAddr {
        let IpAddr::V4(first) = self.node.block.ranges[0].first else { panic!("no IPv4") };
        IpAddr::V4((u32::from(first) + u32::try_from(nth).unwrap()).into())
    }

    fn entry(&self, who: &str, nth: usize, state: &str, seq: u64) -> SyncEntry {
        from(json!({
            "network": "default", "containerId": who, "ifName": "eth0", "address": self.address(nth),
            "state": state, "seq": seq, "ageSeconds": 3,
        }))
    }
}

fn attachment(who: &str) -> Attachment {
    Attachment {
        network: "default".parse().unwrap(),
        container_id: who.parse().unwrap(),
        if_name: "eth0".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_claim_is_used_only_once_taken_up() {
    let world = World::new("node").await;
    let node = world.node("node-1").await;
    assert_eq!(node.state, NodeState::Planned);
    let shim = Shim { name: node.name.clone(), node, boot: 1 };
    assert!(matches!(world.hold(&shim, 5, "a", 0).await, Err(StoreError::StaleClaim(_))));
    let shim = world.shim("node-1").await;
    assert_eq!(world.node("node-1").await.state, NodeState::Active);
    assert_eq!(world.hold(&shim, 5, "a", 0).await.unwrap(), Held::New);
}

#[tokio::test]
async fn the_newest_word_on_an_address_wins() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    assert_eq!(world.hold(&shim, 10, "a", 0).await.unwrap(), Held::New);
    assert_eq!(world.hold(&shim, 10, "a", 0).await.unwrap(), Held::Already, "a replay");
    world.release(&shim, 9, "a", 0).await.unwrap();
    assert_eq!(world.held().await.len(), 1, "an older release changes nothing");
    world.release(&shim, 11, "a", 0).await.unwrap();
    assert_eq!(world.held().await, vec![]);
    assert_eq!(
        world.hold(&shim, 10, "a", 0).await.unwrap(),
        Held::Not,
        "a late hold gets the current answer"
    );
    world.release(&shim, 30, "b", 1).await.unwrap();
    assert_eq!(world.hold(&shim, 29, "b", 1).await.unwrap(), Held::Not, "a release overtook its hold");
    assert_eq!(world.held().await, vec![]);
}

#[tokio::test]
async fn an_attachment_that_moves_holds_one_address() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    assert_eq!(world.hold(&shim, 11, "a", 1).await.unwrap(), Held::New);
    assert_eq!(world.held().await, vec![(shim.address(1), "a".to_owned())]);
    assert_eq!(world.hold(&shim, 12, "b", 1).await.unwrap(), Held::New, "a newer hold takes the address");
    assert_eq!(world.held().await, vec![(shim.address(1), "b".to_owned())]);
}

#[tokio::test]
async fn a_node_holds_only_in_its_block() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    for nth in [4, 5, 100, 300] {
        assert!(matches!(world.hold(&shim, 10, "a", nth).await, Err(StoreError::AddressTaken(_))), "{nth}");
    }
    world.release(&shim, 11, "a", 4).await.unwrap();
    assert_eq!(world.held().await, vec![]);
}

#[tokio::test]
async fn stale_claims_boots_and_blocks_are_refused() {
    let world = World::new("node").await;
    let mut shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    let stale = |result: Result<Held, StoreError>| {
        assert!(matches!(result, Err(StoreError::StaleClaim(_))), "{result:?}");
    };

    shim.boot = 0;
    stale(world.hold(&shim, 11, "b", 1).await);
    shim.boot = 1;
    shim.node.block.version.0 += 1;
    stale(world.hold(&shim, 11, "b", 1).await);
    shim.node.block.version.0 -= 1;
    shim.node.claim.0 += 1;
    stale(world.hold(&shim, 11, "b", 1).await);
    shim.node.claim.0 -= 1;
    shim.name = "nobody".parse().unwrap();
    stale(world.hold(&shim, 11, "b", 1).await);
    assert_eq!(world.held().await.len(), 1);
}

#[tokio::test]
async fn a_later_boot_ends_what_earlier_ones_held() {
    let world = World::new("node").await;
    let mut shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    world.hold(&shim, 11, "b", 1).await.unwrap();
    shim.boot = 2;
    assert_eq!(world.hold(&shim, 1, "c", 0).await.unwrap(), Held::New);
    assert_eq!(world.held().await, vec![(shim.address(0), "c".to_owned())]);
    let boot = world.node("node-1").await.boot.unwrap();
    assert_eq!((boot.id.as_str(), boot.seq), ("boot-2", BootSeq(2)));
    shim.boot = 1;
    assert!(matches!(world.release(&shim, 99, "c", 0).await, Err(StoreError::StaleClaim(_))));
}

#[tokio::test]
async fn a_sync_is_the_truth_up_to_its_number() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    for (seq, who, nth) in [(10, "a", 0), (11, "b", 1), (50, "late", 2)] {
        world.hold(&shim, seq, who, nth).await.unwrap();
    }
    let entries = vec![
        shim.entry("a", 0, "wired", 10),
        shim.entry("n", 3, "intent", 12),
        shim.entry("x", 9, "wired", 13),
    ];
    let outcomes = world.sync(&shim, 20, entries).await.unwrap();
    assert_eq!(outcomes, [SyncOutcome::Kept, SyncOutcome::Kept, SyncOutcome::Refused]);
    let expected: Vec<_> =
        [(0, "a"), (2, "late"), (3, "n")].map(|(nth, who)| (shim.address(nth), who.to_owned())).into();
    assert_eq!(world.held().await, expected, "b was unlisted, late came after");
    assert_eq!(world.hold(&shim, 19, "b", 1).await.unwrap(), Held::Not, "the floor is at 20");
    let twice = vec![shim.entry("a", 0, "wired", 30), shim.entry("b", 0, "wired", 31)];
    assert!(matches!(world.sync(&shim, 40, twice).await, Err(StoreError::Invalid(_))));
    assert_eq!(world.held().await, expected);
}

#[tokio::test]
async fn a_deletion_waits_for_its_confirmation() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    let departure = world.store.delete_node(&shim.name, VmState::Unknown, &Change::default()).await.unwrap();
    let Departure::Waiting(node) = departure else { panic!("freed under a pod") };
    assert_eq!(node.state, NodeState::Deleting);
    assert!(matches!(world.hold(&shim, 11, "b", 1).await, Err(StoreError::StaleClaim(_))), "nothing new");

    let confirm = |as_of, entries, deletion: Option<String>| {
        let request = SyncRequest { as_of_seq: Seq(as_of), entries, conflicts: vec![], deletion };
        let call = shim.at(as_of);
        let store = world.store.clone();
        async move { store.sync(&call, &request, &Actor::default()).await.unwrap().node }
    };
    assert!(
        confirm(20, vec![shim.entry("a", 0, "wired", 10)], node.deletion.clone()).await.is_some(),
        "a pod runs"
    );
    assert!(confirm(21, vec![], None).await.is_some(), "no name of the deletion");
    assert!(confirm(22, vec![], Some("another".to_owned())).await.is_some(), "another deletion");
    assert_eq!(confirm(23, vec![], node.deletion.clone()).await, None, "confirmed");
    assert!(matches!(world.store.node(&shim.name).await, Err(StoreError::NotFound(..))));
    assert!(matches!(world.hold(&shim, 30, "a", 0).await, Err(StoreError::StaleClaim(_))));
}

#[tokio::test]
async fn rest_belongs_to_addresses() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    world.release(&shim, 11, "a", 0).await.unwrap();
    world.pass(100);
    world.store.delete_node(&shim.name, VmState::Gone, &Change::default()).await.unwrap();
    let spec = from(json!({"pool": "workers", "addresses": ["10.1.0.202"]}));
    let next = world
        .store
        .put_node(&"node-3".parse().unwrap(), &spec, &Change::default())
        .await
        .unwrap()
        .into_inner()
        .value;
    assert_eq!(next.block.ranges, shim.node.block.ranges, "the block is claimed at once");
    let resting: Vec<_> = next.resting.iter().map(|it| (it.address, it.age_seconds)).collect();
    assert_eq!(resting, [(shim.address(0), 100)]);
    world.pass(31);
    assert_eq!(world.node("node-3").await.resting, vec![]);
}

#[tokio::test]
async fn the_service_picks_never_used_first_then_longest_rested() {
    let world = World::new("service").await;
    let call = NodeCall { node: "node-1".parse().unwrap(), stamp: None };
    let pick = |who: &'static str| {
        let (store, call) = (world.store.clone(), call.clone());
        async move { store.allocate(&call, &attachment(who), &AllocationSpec::default()).await }
    };
    let mut picked = Vec::new();
    for who in ["a", "b", "c"] {
        picked.push(pick(who).await.unwrap().into_inner().addresses[0].address);
        world.pass(1);
    }
    assert_eq!(
        pick("a").await.unwrap().into_inner().addresses[0].address,
        picked[0],
        "asked again, answered again"
    );
    for who in ["b", "a"] {
        world.store.release(&call, &attachment(who), None).await.unwrap();
        world.pass(1);
    }
    let fourth = pick("d").await.unwrap().into_inner().addresses[0].address;
    assert!(!picked.contains(&fourth), "never used before rested");
    assert_eq!(pick("e").await.unwrap().into_inner().addresses[0].address, picked[1], "released longest ago");
    assert_eq!(pick("f").await.unwrap().into_inner().addresses[0].address, picked[0]);
    assert!(matches!(pick("g").await, Err(StoreError::Exhausted(_))));
    let taken = AllocationSpec { address: Some(picked[2]), pod: None };
    assert!(matches!(
        world.store.allocate(&call, &attachment("h"), &taken).await,
        Err(StoreError::AddressTaken(_))
    ));
}

#[tokio::test]
async fn concurrent_callers_share_batches_and_never_an_address() {
    let world = World::new("service").await;
    let mut callers = Vec::new();
    for n in 0..32 {
        let store = world.store.clone();
        callers.push(tokio::spawn(async move {
            let call = NodeCall { node: format!("node-{}", n % 2 + 1).parse().unwrap(), stamp: None };
            store.allocate(&call, &attachment(&format!("c{n}")), &AllocationSpec::default()).await
        }));
    }
    let (mut held, mut refused) = (BTreeSet::new(), 0);
    for caller in callers {
        match caller.await.unwrap() {
            Ok(written) => {
                assert!(held.insert(written.into_inner().addresses[0].address), "an address twice");
            }
            Err(StoreError::Exhausted(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((held.len(), refused), (8, 24));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    let pod = PodRef { namespace: "shop".to_owned(), name: "web-0".to_owned(), uid: String::new() };
    let spec = AllocationSpec { address: Some(shim.address(2)), pod: Some(pod.clone()) };
    world.store.allocate(&shim.at(10), &attachment("a"), &spec).await.unwrap();
    world.store.close().await;
    assert!(matches!(world.hold(&shim, 11, "b", 1).await, Err(StoreError::Unavailable(_))));
    let store = open(&world.database.url(), &world.clock).await;
    let found = store.allocation(&shim.name, &attachment("a")).await.unwrap();
    assert_eq!((found.addresses[0].address, found.pod), (shim.address(2), Some(pod)));
}

#[tokio::test]
async fn pages_are_whole_and_filters_narrow() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    for nth in 0..4 {
        world.hold(&shim, 10 + nth as u64, &format!("c{nth}"), nth).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = Page { limit: 3, after };
        let list = world.store.allocations(&AllocationFilter::default(), &page).await.unwrap();
        seen.extend(list.items.into_iter().map(|it| it.container_id.to_string()));
        after = list.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["c0", "c1", "c2", "c3"]);
    let page = Page { limit: 10, after: None };
    let one = |filter: AllocationFilter| {
        let (store, page) = (world.store.clone(), page.clone());
        async move { store.allocations(&filter, &page).await.unwrap().items.len() }
    };
    assert_eq!(one(AllocationFilter { node: Some(shim.name.clone()), ..Default::default() }).await, 4);
    assert_eq!(
        one(AllocationFilter { node: Some("node-2".parse().unwrap()), ..Default::default() }).await,
        0
    );
    assert_eq!(one(AllocationFilter { address: Some(shim.address(1)), ..Default::default() }).await, 1);
    assert_eq!(
        one(AllocationFilter { address: Some("192.0.2.1".parse().unwrap()), ..Default::default() }).await,
        0
    );
    assert_eq!(one(AllocationFilter { pod: Some("web".to_owned()), ..Default::default() }).await, 0);
    let bad = Page { limit: 10, after: Some("nonsense".to_owned()) };
    assert!(matches!(
        world.store.allocations(&AllocationFilter::default(), &bad).await,
        Err(StoreError::Invalid(_))
    ));
}

#[tokio::test]
async fn attachments_trade_addresses_in_one_sync() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    world.hold(&shim, 11, "b", 1).await.unwrap();
    let entries = vec![shim.entry("b", 0, "wired", 20), shim.entry("a", 1, "wired", 21)];
    assert_eq!(world.sync(&shim, 30, entries).await.unwrap(), [SyncOutcome::Kept, SyncOutcome::Kept]);
    let entries = vec![
        shim.entry("a", 0, "wired", 31),
        shim.entry("c", 1, "wired", 32),
        shim.entry("b", 2, "wired", 33),
    ];
    assert_eq!(world.sync(&shim, 40, entries).await.unwrap(), [SyncOutcome::Kept; 3], "a chain");
    let held: Vec<_> =
        [(0, "a"), (1, "c"), (2, "b")].map(|(nth, who)| (shim.address(nth), who.to_owned())).into();
    assert_eq!(world.held().await, held);
}

#[tokio::test]
async fn attachments_trade_addresses_in_one_batch() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    world.hold(&shim, 11, "b", 1).await.unwrap();
    let hold = |seq, who, nth| Mutation::Hold {
        call: shim.at(seq),
        attachment: attachment(who),
        spec: AllocationSpec { address: Some(shim.address(nth)), pod: None },
    };
    let batch = [hold(20, "a", 2), hold(21, "b", 0), hold(22, "a", 1)];
    let outcomes =
        super::commit(&world.store.db, &Default::default(), world.clock.now(), &batch).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let held: Vec<_> = [(0, "b"), (1, "a")].map(|(nth, who)| (shim.address(nth), who.to_owned())).into();
    assert_eq!(world.held().await, held);
}

#[tokio::test]
async fn an_overtaken_sync_and_one_of_both_families_say_nothing() {
    let world = World::new("node").await;
    let shim = world.shim("node-1").await;
    world.hold(&shim, 10, "a", 0).await.unwrap();
    let entries = vec![shim.entry("a", 0, "wired", 10)];
    world.sync(&shim, 20, entries).await.unwrap();
    world.sync(&shim, 15, vec![]).await.unwrap();
    assert_eq!(world.held().await.len(), 1, "a sync that comes late");
    let mut six = shim.entry("b", 0, "wired", 31);
    six.address = shim.node.block.ranges[0].first6.unwrap().into();
    let both = vec![shim.entry("a", 0, "wired", 30), six];
    assert!(matches!(world.sync(&shim, 40, both).await, Err(StoreError::Invalid(_))));
}
