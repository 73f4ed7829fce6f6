//! Random planning mutations against what must hold whatever they are.

use crate::support::{World, all, dry, keep, node, parse, pool, reservation, subnet};
use ipam_api::{
    names::Attachment,
    quantity::MaxPods,
    wire::{
        AllocationSpec, Allocator, Block, BlockVersion, BootSeq, EntryState, NodeSpec, NodeStamp, PoolSpec,
        Range, ReservationSpec, Seq, Stamp, SubnetSpec, SyncEntry, SyncRequest,
    },
};
use ipam_server::store::{Actor, AllocationFilter, Change, Commit, Departure, NodeCall, Result, VmState};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

#[derive(Debug, Clone)]
enum Op {
    PutSubnet {
        which: usize,
        reserve: bool,
        gateway: u8,
    },
    DeleteSubnet(usize),
    PutReservation {
        which: usize,
        name: u8,
        first: u8,
        size: u8,
        for_nodes: bool,
    },
    DeleteReservation {
        which: usize,
        name: u8,
    },
    PutPool {
        name: u8,
        subnets: usize,
        max_pods: u64,
        nodes: u64,
    },
    /// Blocks of another size, and nothing else of the pool.
    Resize {
        name: u8,
        max_pods: u64,
    },
    DeletePool(u8),
    PutNode {
        name: u8,
        pool: u8,
        which: usize,
        v4: Option<u8>,
        v6: Option<u8>,
        uid: u8,
        replace: bool,
    },
    Activate,
    DeleteNode {
        name: u8,
        gone: bool,
    },
    /// A shim holds the address at this place of the block it was told of, or of that in which it is smaller.
    Hold {
        name: u8,
        place: u64,
    },
    /// A shim lists the pods it has, or none, with the current version of its block or the one before.
    Sync {
        name: u8,
        pods: bool,
        older: u64,
    },
}

fn op() -> impl Strategy<Value = (Op, Commit)> {
    let op = prop_oneof![
        1 => (0..2usize, any::<bool>(), prop_oneof![Just(1u8), 1..64u8])
            .prop_map(|(which, reserve, gateway)| Op::PutSubnet { which, reserve, gateway }),
        1 => (0..2usize).prop_map(Op::DeleteSubnet),
        3 => (0..2usize, 0..3u8, 0..64u8, 1..12u8, any::<bool>()).prop_map(|(which, name, first, size, for_nodes)|
            Op::PutReservation { which, name, first, size, for_nodes }),
        1 => (0..2usize, 0..3u8).prop_map(|(which, name)| Op::DeleteReservation { which, name }),
        4 => (0..2u8, 0..3usize, 1..7u64, 0..7u64)
            .prop_map(|(name, subnets, max_pods, nodes)| Op::PutPool { name, subnets, max_pods, nodes }),
        // Of blocks this small the nodes' own addresses are half of the subnet, and next to nothing is left.
        3 => (0..2u8, 0..2usize, 1..3u64, 18..30u64)
            .prop_map(|(name, subnets, max_pods, nodes)| Op::PutPool { name, subnets, max_pods, nodes }),
        5 => (0..2u8, 1..7u64).prop_map(|(name, max_pods)| Op::Resize { name, max_pods }),
        1 => (0..2u8).prop_map(Op::DeletePool),
        8 => (0..6u8, 0..2u8, 0..2usize, prop::option::weighted(0.9, 0..64u8), prop::option::of(0..64u8), 0..3u8,
              prop::bool::weighted(0.2))
            .prop_map(|(name, pool, which, v4, v6, uid, replace)|
                Op::PutNode { name, pool, which, v4, v6, uid, replace }),
        3 => Just(Op::Activate),
        3 => (0..6u8, any::<bool>()).prop_map(|(name, gone)| Op::DeleteNode { name, gone }),
        3 => (0..6u8, 0..7u64).prop_map(|(name, place)| Op::Hold { name, place }),
        2 => (0..6u8, any::<bool>(), 0..2u64).prop_map(|(name, pods, older)| Op::Sync { name, pods, older }),
    ];
    (op, prop_oneof![4 => Just(Commit::Keep), 1 => Just(Commit::DryRun)])
}

const PATHS: [&str; 2] = ["v/a", "v/b"];
const CIDRS: [[&str; 2]; 2] = [["10.0.0.0/26", "fd00::/64"], ["10.0.1.0/26", "fd00:0:0:1::/64"]];
const POOLS: [&[&str]; 3] = [&["v/a"], &["v/b"], &["v/a", "v/b"]];

fn addresses(which: usize, v4: Option<u8>, v6: Option<u8>) -> Vec<String> {
    let v4 = v4.map(|at| format!("10.0.{which}.{at}"));
    let v6 = v6.map(|at| format!("fd00:0:0:{which}::{at:x}"));
    v4.into_iter().chain(v6).collect()
}

/// Does it; whether it was a PUT, which may be repeated.
async fn run(world: &World, op: &Op, change: &Change) -> Result<bool> {
    let store = &world.store;
    match op {
        Op::PutSubnet { which, reserve, gateway } => {
            let gateways = addresses(*which, Some(*gateway), None);
            let spec = SubnetSpec {
                gateways: all(&gateways.iter().map(String::as_str).collect::<Vec<_>>()),
                reserve_platform: *reserve,
                ..subnet(&CIDRS[*which])
            };
            store.put_subnet(&parse(PATHS[*which]), &spec, change).await?;
        }
        Op::DeleteSubnet(which) => {
            store.delete_subnet(&parse(PATHS[*which]), change).await?;
            return Ok(false);
        }
        Op::PutReservation { which, name, first, size, for_nodes } => {
            let range = addresses(*which, Some(*first), None).swap_remove(0);
            let last = addresses(*which, Some(first + size - 1), None).swap_remove(0);
            let spec = ReservationSpec { for_nodes: *for_nodes, ..reservation(&range, &last) };
            store.put_reservation(&parse(PATHS[*which]), &parse(&format!("r{name}")), &spec, change).await?;
        }
        Op::DeleteReservation { which, name } => {
            store.delete_reservation(&parse(PATHS[*which]), &parse(&format!("r{name}")), change).await?;
            return Ok(false);
        }
        Op::PutPool { name, subnets, max_pods, nodes } => {
            let spec = pool(POOLS[*subnets], *max_pods, *nodes);
            store.put_pool(&parse(&format!("p{name}")), &spec, change).await?;
        }
        Op::Resize { name, max_pods } => {
            let name = parse(&format!("p{name}"));
            let spec = world.store.pool(&name).await?.value.spec;
            let spec = PoolSpec { max_pods: MaxPods::try_from(*max_pods).unwrap(), ..spec };
            world.store.put_pool(&name, &spec, change).await?;
        }
        Op::DeletePool(name) => {
            store.delete_pool(&parse(&format!("p{name}")), change).await?;
            return Ok(false);
        }
        Op::PutNode { name, pool, which, v4, v6, uid, replace } => {
            let own = addresses(*which, *v4, *v6);
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let spec = NodeSpec {
                uid: (*uid > 0).then(|| format!("u{uid}")),
                replace: *replace,
                allocator: if *name == 5 { Allocator::Service } else { Allocator::Node },
                ..node(&format!("p{pool}"), &own)
            };
            store.put_node(&parse(&format!("n{name}")), &spec, change).await?;
        }
        Op::Activate => {
            world.sql("UPDATE node SET state = 'active' WHERE state = 'planned'").await;
            return Ok(false);
        }
        Op::DeleteNode { name, gone } => {
            let vm = if *gone { VmState::Gone } else { VmState::Unknown };
            let departure = store.delete_node(&parse(&format!("n{name}")), vm, change).await?;
            return Ok(matches!(departure, Departure::Waiting(_)));
        }
        Op::Hold { .. } | Op::Sync { .. } => {}
    }
    Ok(true)
}

/// What a shim says; it is not tried before it is done. Refusals are as good as answers.
async fn say(world: &World, op: &Op, step: u64) -> Result<()> {
    let (Op::Hold { name, .. } | Op::Sync { name, .. }) = op else { return Ok(()) };
    let node = world.store.node(&parse(&format!("n{name}"))).await?.value;
    let older = if let Op::Sync { older, .. } = op { *older } else { step % 2 };
    let stamp = NodeStamp {
        stamp: Stamp { claim: node.claim, boot: BootSeq(1), seq: Seq(step) },
        block: BlockVersion((node.block.version.0 - older).max(1)),
        boot_id: None,
        machine: None,
    };
    let call =
        NodeCall { node: node.name.clone(), stamp: (node.allocator == Allocator::Node).then_some(stamp) };
    if let Op::Hold { place, .. } = op {
        let mut offsets = node.block.ranges.iter().chain(&node.block.leaving).flat_map(|range| match range {
            Range { first: IpAddr::V4(first), last: IpAddr::V4(last), .. } => {
                u32::from(*first)..=u32::from(*last)
            }
            _ => 0..=0,
        });
        let address = offsets.nth(usize::try_from(*place).unwrap()).map(|at| IpAddr::V4(at.into()));
        let pod = Attachment {
            network: parse("default"),
            container_id: parse(&format!("c{step}")),
            if_name: parse("eth0"),
        };
        return world.store.allocate(&call, &pod, &AllocationSpec { address, pod: None }).await.map(|_| ());
    }
    let held = AllocationFilter { node: Some(node.name.clone()), ..AllocationFilter::default() };
    let held = world.store.allocations(&held, &crate::support::page()).await?.items;
    let lists = matches!(op, Op::Sync { pods: true, .. });
    let entries = held.into_iter().filter(|_| lists).map(|held| SyncEntry {
        network: held.network,
        address: held.addresses[0].address,
        state: EntryState::Wired,
        // As it was said when the pod was added.
        seq: Seq(held.container_id.as_str()[1..].parse().unwrap()),
        container_id: held.container_id,
        if_name: held.if_name,
        age_seconds: 0,
        pod: None,
    });
    let request = SyncRequest {
        as_of_seq: Seq(step),
        entries: entries.collect(),
        conflicts: vec![],
        deletion: node.deletion,
    };
    world.store.sync(&call, &request, &Actor::default()).await.map(|_| ())
}

/// What a claim must not lose while it lasts.
type Claims = BTreeMap<u64, (String, Block)>;

async fn claims(world: &World) -> Claims {
    let nodes = world.store.nodes(&Default::default(), &crate::support::page()).await.unwrap().items;
    nodes.into_iter().map(|node| (node.claim.0, (node.name.to_string(), node.block))).collect()
}

/// Nodes being deleted whose pool has another size by now.
const ODD: &str = "SELECT COUNT(*) FROM node n JOIN pool p ON p.id = n.pool JOIN block b ON b.node = n.id
    WHERE n.state = 'deleting' AND p.max_pods <>
      (SELECT SUM(next - first) FROM extent WHERE block = b.id AND leaving IS NULL)";

async fn check(world: &World, before: &Claims, odd: bool) -> Claims {
    world.check().await;
    let now = claims(world).await;
    for (claim, was) in before {
        let follows = now.get(claim).is_none_or(|is| {
            // A version is one block, though what leaves it may be confirmed.
            let same = is.1.ranges == was.1.ranges;
            is.0 == was.0 && is.1.version >= was.1.version && (is.1.version > was.1.version || same)
        });
        assert!(follows, "claim {claim} was {was:?}: {now:?}");
    }
    for pool in world.store.pools(&crate::support::page()).await.unwrap().items {
        let status = pool.status;
        let wanted = pool.spec.nodes.get();
        // Where a node leaves a block of another size there may be no room for one of the pool's.
        let planned = wanted.max(status.claimed);
        assert!(status.blocks == planned || odd && status.blocks < planned, "{pool:?}");
        assert_eq!(status.over_by, status.claimed.saturating_sub(wanted));
    }
    now
}

/// Plays the operations; how many nodes were registered, and how often something of a block was leaving.
async fn story(ops: &[(Op, Commit)]) -> (usize, usize) {
    let mut world = World::with_subnets(&[("a", &CIDRS[0]), ("b", &CIDRS[1])]).await;
    let mut known = Claims::new();
    let (mut registered, mut left) = (0, 0);
    let mut odd = false;
    for (step, (op, commit)) in ops.iter().enumerate() {
        let before = world.dump().await;
        let lacked = world.own_lacks().await;
        if matches!(op, Op::Activate) {
            run(&world, op, &keep()).await.unwrap();
            continue;
        }
        if matches!(op, Op::Hold { .. } | Op::Sync { .. }) {
            if let Err(error) = say(&world, op, 10 + step as u64).await {
                assert!(!matches!(error, ipam_server::store::StoreError::Database(_)), "{op:?}: {error}");
            }
            known = check(&world, &known, odd).await;
            continue;
        }
        let tried = run(&world, op, &dry()).await;
        assert_eq!(world.dump().await, before, "a dry run of {op:?} changed something");
        if *commit == Commit::DryRun {
            continue;
        }
        let done = run(&world, op, &keep()).await;
        assert_eq!(
            tried.as_ref().map_err(ToString::to_string),
            done.as_ref().map_err(ToString::to_string),
            "{op:?} tried and done"
        );
        let after = world.dump().await;
        match done {
            Err(error) => {
                assert!(!matches!(error, ipam_server::store::StoreError::Database(_)), "{op:?}: {error}");
                assert_eq!(after, before, "{op:?} was refused ({error}) and changed something");
            }
            Ok(repeatable) => {
                odd |= world.number(ODD).await > 0;
                let now = check(&world, &known, odd).await;
                // A node that leaves may: its block is planned again where its address was none for others.
                if !matches!(op, Op::DeleteNode { .. }) {
                    for (subnet, lacks) in world.own_lacks().await {
                        let before = lacked.get(&subnet).copied().unwrap_or_default();
                        assert!(
                            lacks <= before,
                            "{op:?}: nodes planned in {subnet} lack {lacks}, not {before}"
                        );
                    }
                }
                left += usize::from(now.values().any(|(_, block)| !block.leaving.is_empty()));
                registered += now.keys().filter(|claim| !known.contains_key(claim)).count();
                known = now;
                if repeatable && run(&world, op, &keep()).await.is_ok() {
                    assert_eq!(world.dump().await, after, "{op:?} done again changed something");
                }
            }
        }
        if step == ops.len() / 2 {
            let before = world.dump().await;
            world.reopen().await;
            assert_eq!(world.dump().await, before, "what was there before a restart");
        }
    }
    (registered, left)
}

/// Few cases unless `PROPTEST_CASES` asks for more: each is a hundred transactions on disk.
fn config() -> Config {
    let default = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 16 };
    Config { cases, max_shrink_iters: 200, failure_persistence: None, ..default }
}

#[test]
fn whatever_is_asked_the_line_stays_tiled() {
    let (config, registered, left) = (config(), AtomicUsize::new(0), AtomicUsize::new(0));
    let stories = config.cases as usize;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), 50), |ops| {
            let (nodes, leaving) = runtime.block_on(story(&ops));
            registered.fetch_add(nodes, Ordering::Relaxed);
            left.fetch_add(leaving, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    let (registered, left) = (registered.into_inner(), left.into_inner());
    assert!(registered > stories, "stories in which nothing is registered show nothing");
    assert!(left > 0, "in none of {stories} stories does a block shrink under a shim");
}
