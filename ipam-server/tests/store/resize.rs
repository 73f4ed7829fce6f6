//! Claimed blocks that grow and shrink with their pool (P7).

use crate::support::{World, dry, keep, node, parse, pool, says};
use ipam_api::{
    names::Attachment,
    quantity::MaxPods,
    wire::{
        AllocationSpec, Allocator, Block, BlockVersion, BootSeq, Claim, Contiguity, EntryState, Node,
        NodeSpec, NodeStamp, PlanRequest, Pool, PoolSpec, PoolStatus, Seq, Stamp, SyncEntry, SyncRequest,
    },
};
use ipam_server::store::{Actor, Departure, NodeCall, Result, StoreError, Versioned, VmState, Written};

fn spec(max_pods: u64) -> PoolSpec {
    pool(&["v/a"], max_pods, 3)
}

/// Pool `p` of three blocks of 8, from 10.0.0.4 on, and so many nodes that have claimed one.
async fn world(nodes: u64) -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    world.store.put_pool(&parse("p"), &spec(8), &keep()).await.unwrap();
    for i in 0..nodes {
        let own = format!("10.0.0.{}", 100 + i);
        world.store.put_node(&parse(&format!("n{i}")), &node("p", &[&own]), &keep()).await.unwrap();
    }
    world
}

async fn resize(world: &World, spec: &PoolSpec) -> Result<PoolStatus> {
    let before = world.dump().await;
    let tried = world.store.put_pool(&parse("p"), spec, &dry()).await;
    assert_eq!(world.dump().await, before, "a dry run changed something");
    let done = world.store.put_pool(&parse("p"), spec, &keep()).await;
    let status = |written: Written<Versioned<Pool>>| written.into_inner().value.status;
    let (tried, done) = (tried.map(status), done.map(status));
    assert_eq!(tried.map_err(|error| error.to_string()), done.as_ref().copied().map_err(ToString::to_string));
    if done.is_err() {
        assert_eq!(world.dump().await, before, "a refusal changed something");
    }
    world.check().await;
    done
}

async fn get(world: &World, name: &str) -> Node {
    world.store.node(&parse(name)).await.unwrap().value
}

/// Version, ranges and what leaves, in few letters.
fn told(block: &Block) -> String {
    let ranges = |ranges: &[ipam_api::wire::Range]| {
        let last = |text: String| text.rsplit('.').next().unwrap().to_owned();
        let texts: Vec<_> = ranges
            .iter()
            .map(|range| format!("{}-{}", last(range.first.to_string()), last(range.last.to_string())))
            .collect();
        texts.join(" ")
    };
    let leaving =
        if block.leaving.is_empty() { String::new() } else { format!(" ({})", ranges(&block.leaving)) };
    format!("v{} {}{leaving}", block.version.0, ranges(&block.ranges))
}

async fn block(world: &World, name: &str) -> String {
    told(&get(world, name).await.block)
}

fn stamp(claim: Claim, version: u64, seq: u64) -> NodeStamp {
    NodeStamp {
        stamp: Stamp { claim, boot: BootSeq(1), seq: Seq(seq) },
        block: BlockVersion(version),
        boot_id: None,
        machine: None,
    }
}

/// `n0` as its shim speaks: every word with the version it works with.
struct Shim<'a> {
    world: &'a World,
    claim: Claim,
}

impl<'a> Shim<'a> {
    async fn of(world: &'a World) -> Shim<'a> {
        Shim { world, claim: get(world, "n0").await.claim }
    }

    fn call(&self, version: u64, seq: u64) -> NodeCall {
        NodeCall { node: parse("n0"), stamp: Some(stamp(self.claim, version, seq)) }
    }

    async fn hold(&self, version: u64, seq: u64, at: u64) -> Result<()> {
        let spec = AllocationSpec { address: Some(parse(&format!("10.0.0.{at}"))), pod: None };
        self.world.store.allocate(&self.call(version, seq), &pod(at), &spec).await.map(|_| ())
    }

    async fn release(&self, version: u64, seq: u64, at: u64) {
        let address = Some(parse(&format!("10.0.0.{at}")));
        self.world.store.release(&self.call(version, seq), &pod(at), address).await.unwrap();
    }

    /// A sync that lists live entries at these addresses.
    async fn sync(&self, version: u64, seq: u64, live: &[u64]) -> Option<Node> {
        let request = SyncRequest {
            as_of_seq: Seq(seq),
            entries: live.iter().map(|&at| entry(at)).collect(),
            conflicts: Vec::new(),
            deletion: get(self.world, "n0").await.deletion,
        };
        let by = Actor { name: "node:n0".to_owned(), ..Actor::default() };
        let answer = self.world.store.sync(&self.call(version, seq), &request, &by).await.unwrap();
        self.world.check().await;
        answer.node
    }

    async fn held(&self) -> Vec<String> {
        let listed =
            self.world.store.allocations(&Default::default(), &crate::support::page()).await.unwrap();
        listed.items.iter().map(|item| item.addresses[0].address.to_string()).collect()
    }
}

fn pod(at: u64) -> Attachment {
    Attachment { network: parse("default"), container_id: parse(&format!("c{at}")), if_name: parse("eth0") }
}

fn entry(at: u64) -> SyncEntry {
    let Attachment { network, container_id, if_name } = pod(at);
    SyncEntry {
        network,
        container_id,
        if_name,
        address: parse(&format!("10.0.0.{at}")),
        state: EntryState::Wired,
        seq: Seq(5),
        age_seconds: 0,
        pod: None,
    }
}

/// `n0` of three, active, with pods at 4, 9 and 11, and its pool's blocks cut to 4: version 2.
async fn shrunk() -> World {
    let world = world(1).await;
    let shim = Shim::of(&world).await;
    shim.sync(1, 10, &[4, 9, 11]).await;
    assert_eq!(resize(&world, &spec(4)).await.unwrap().leaving, 4);
    assert_eq!(block(&world, "n0").await, "v2 4-7 (8-11)");
    world
}

#[tokio::test]
async fn blocks_grow_where_they_lie_and_new_ones_are_planned_around_them() {
    let world = world(1).await;
    let status = resize(&world, &spec(10)).await.unwrap();
    assert_eq!((status.block_size, status.blocks, status.leaving), (10, 3, 0));
    assert_eq!(block(&world, "n0").await, "v2 4-13");
    // With as many addresses as before there is nothing to do for a block.
    let other: PoolSpec = PoolSpec { max_pods: MaxPods::try_from(9).unwrap(), ..spec(10) };
    let other = PoolSpec { headroom: ipam_api::quantity::Headroom::try_from(1).unwrap(), ..other };
    resize(&world, &other).await.unwrap();
    assert_eq!(block(&world, "n0").await, "v2 4-13");
    assert_eq!(get(&world, "n0").await.max_pods.get(), 9);
}

#[tokio::test]
async fn blocks_without_room_beside_them_get_another_extent() {
    let world = world(3).await;
    let shim = Shim::of(&world).await;
    shim.sync(1, 10, &[4, 11]).await;
    resize(&world, &spec(10)).await.unwrap();
    let blocks = [block(&world, "n0").await, block(&world, "n1").await, block(&world, "n2").await];
    assert_eq!(blocks, ["v2 4-11 30-31", "v2 12-19 32-33", "v2 20-29"]);
    assert_eq!(shim.held().await, ["10.0.0.4", "10.0.0.11"]);
    // Whatever version it works with: what is its own by now it may hold.
    shim.hold(1, 11, 30).await.unwrap();
    shim.hold(2, 12, 31).await.unwrap();
    says(shim.hold(2, 13, 32).await, &["AddressTaken"]);
    // A node that leaves leaves one block of the pool's size.
    world.store.delete_node(&parse("n2"), VmState::Gone, &keep()).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn growth_that_does_not_fit_is_refused_with_numbers() {
    let world = world(3).await;
    let short = resize(&world, &spec(90)).await.unwrap_err();
    let StoreError::Exhausted(short) = short else { panic!("{short:?}") };
    assert_eq!((short.need, short.have, short.nodes_that_fit), (246, 224, 2), "{short:?}");
}

#[tokio::test]
async fn growth_of_whole_blocks_is_refused_where_one_has_a_neighbour() {
    let world = world(3).await;
    let whole = |size| PoolSpec { contiguous: Contiguity::Required, ..spec(size) };
    let short = resize(&world, &whole(10)).await.unwrap_err();
    assert!(short.to_string().contains("contiguous to preferred"), "{short}");
    let StoreError::NoContiguousBlock(short) = short else { panic!("{short:?}") };
    let [subnet] = &short.subnets[..] else { panic!("{short:?}") };
    assert_eq!((subnet.need, subnet.have, subnet.largest_free, subnet.nodes_that_fit), (6, 224, 152, 1));
    // The plan says the same.
    let request: PlanRequest = serde_json::from_value(serde_json::json!({"pools": [
        {"name": "p", "subnets": [{"subnet": "v/a"}], "maxPods": 10, "nodes": 3, "surge": 0, "contiguous": "required"},
    ]}))
    .unwrap();
    says(world.store.plan(&request).await, &["NoContiguousBlock", "grow to 10"]);
}

#[tokio::test]
async fn a_block_gives_up_its_end_only_when_its_node_confirms() {
    let world = shrunk().await;
    let shim = Shim::of(&world).await;
    assert_eq!(shim.held().await, ["10.0.0.4", "10.0.0.9", "10.0.0.11"]);
    let capacity = world.store.capacity().await.unwrap();
    assert_eq!((capacity.subnets[0].leaving, capacity.pools[0].leaving), (4, 4));
    // Nobody has used the other two blocks, so they are planned anew at once.
    assert_eq!(capacity.subnets[0].planned, 8);

    // A node that knows nothing of it goes on; one that does begins nothing there.
    shim.hold(1, 11, 10).await.unwrap();
    says(shim.hold(2, 12, 8).await, &["AddressTaken", "leaves the node's block"]);
    shim.hold(2, 12, 5).await.unwrap();
    shim.release(1, 13, 10).await;

    let not_yet = "v2 4-7 (8-11)";
    for (why, version, seq, live) in
        [("an older version says nothing", 1, 20, &[4, 5][..]), ("a pod lives there", 2, 21, &[4, 5, 11][..])]
    {
        assert_eq!(told(&shim.sync(version, seq, live).await.unwrap().block), not_yet, "{why}");
    }
    shim.hold(1, 30, 9).await.unwrap();
    assert_eq!(told(&shim.sync(2, 29, &[4]).await.unwrap().block), not_yet, "held since the listing");
    world.clock.pass(1_000_000);
    assert_eq!(block(&world, "n0").await, not_yet, "no time is long enough");
    assert_eq!(told(&shim.sync(2, 31, &[4]).await.unwrap().block), "v2 4-7");
    assert_eq!(world.store.pool(&parse("p")).await.unwrap().value.status.leaving, 0);
    let events =
        world.number("SELECT COUNT(*) FROM event WHERE actor = 'node:n0' AND action = 'update'").await;
    assert_eq!(events, 1, "the confirmation is on record");
    says(shim.hold(1, 40, 9).await, &["AddressTaken", "not in the node's block"]);
}

#[tokio::test]
async fn a_block_that_grows_again_first_takes_back_what_is_leaving() {
    let world = shrunk().await;
    let shim = Shim::of(&world).await;
    assert_eq!(resize(&world, &spec(6)).await.unwrap().leaving, 2);
    assert_eq!(block(&world, "n0").await, "v3 4-9 (10-11)");
    // It answers for version 2, in which 8 and 9 were not its own, and they are again.
    let late = shim.sync(2, 20, &[4]).await.unwrap();
    assert_eq!(told(&late.block), "v3 4-9 (10-11)");
    assert_eq!(resize(&world, &spec(3)).await.unwrap().leaving, 5);
    assert_eq!(block(&world, "n0").await, "v4 4-6 (7-11)");
    assert_eq!(told(&shim.sync(3, 21, &[4]).await.unwrap().block), "v4 4-6 (7-11)");
    assert_eq!(resize(&world, &spec(9)).await.unwrap().leaving, 0);
    assert_eq!(block(&world, "n0").await, "v5 4-12");
    shim.hold(5, 22, 11).await.unwrap();
    assert_eq!(told(&shim.sync(5, 23, &[]).await.unwrap().block), "v5 4-12");
}

#[tokio::test]
async fn a_deletion_ends_what_was_leaving() {
    let world = shrunk().await;
    let shim = Shim::of(&world).await;
    let departure = world.store.delete_node(&parse("n0"), VmState::Unknown, &keep()).await.unwrap();
    assert!(matches!(departure, Departure::Waiting(_)));
    // While it is being deleted a pool that changes leaves it alone.
    resize(&world, &spec(6)).await.unwrap();
    assert_eq!(block(&world, "n0").await, "v2 4-7 (8-11)");
    assert!(shim.sync(2, 20, &[]).await.is_none(), "confirmed");
    let status = world.store.pool(&parse("p")).await.unwrap().value.status;
    assert_eq!((status.blocks, status.claimed, status.leaving), (3, 0, 0));
    world.check().await;
}

#[tokio::test]
async fn a_vm_that_takes_a_place_takes_the_block_as_the_pool_wants_it() {
    let replace = NodeSpec { uid: Some("u2".to_owned()), replace: true, ..node("p", &["10.0.0.100"]) };
    let world = shrunk().await;
    world.store.put_node(&parse("n0"), &replace, &keep()).await.unwrap();
    assert_eq!(block(&world, "n0").await, "v2 4-7");
    world.check().await;

    let world = shrunk().await;
    world.store.delete_node(&parse("n0"), VmState::Unknown, &keep()).await.unwrap();
    resize(&world, &spec(5)).await.unwrap();
    world.store.put_node(&parse("n0"), &replace, &keep()).await.unwrap();
    world.check().await;
    assert_eq!(get(&world, "n0").await.block.leaving, []);
}

#[tokio::test]
async fn a_claim_that_nobody_took_up_changes_at_once() {
    let world = world(1).await;
    assert_eq!(resize(&world, &spec(4)).await.unwrap().leaving, 0);
    assert_eq!(block(&world, "n0").await, "v2 4-7");
    // The node may have fetched it before.
    let taken_up = Shim::of(&world).await.sync(1, 10, &[]).await.unwrap();
    assert_eq!(told(&taken_up.block), "v2 4-7");
}

#[tokio::test]
async fn what_the_service_picked_is_not_cut_off() {
    let world = world(0).await;
    let own = NodeSpec { allocator: Allocator::Service, ..node("p", &["10.0.0.100"]) };
    world.store.put_node(&parse("n0"), &own, &keep()).await.unwrap();
    let call = NodeCall { node: parse("n0"), stamp: None };
    for at in [4, 9] {
        let spec = AllocationSpec { address: Some(parse(&format!("10.0.0.{at}"))), pod: None };
        world.store.allocate(&call, &pod(at), &spec).await.unwrap();
    }
    says(resize(&world, &spec(4)).await, &["InUse", "10.0.0.9 of node n0", "delete"]);
    assert_eq!(resize(&world, &spec(6)).await.unwrap().leaving, 0);
    assert_eq!(block(&world, "n0").await, "v2 4-9");
    world.store.release(&call, &pod(9), None).await.unwrap();
    resize(&world, &spec(4)).await.unwrap();
    let spec = AllocationSpec { address: Some(parse("10.0.0.8")), pod: None };
    says(world.store.allocate(&call, &pod(8), &spec).await, &["AddressTaken"]);
}
