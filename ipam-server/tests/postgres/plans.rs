//! How the server goes about the statements of the hot path when tables are large. What it did is read from its log
//! (`auto_explain`), and with it what its foreign keys did.

use crate::store::{
    DATABASE, add_subnet, attachment, cluster, from, keep, node, parse, pool, replica, stranger,
};
use futures::future::join;
use ipam_api::wire::{Allocator, BlockVersion, BootSeq, Node, NodeSpec, NodeStamp, Seq, Stamp, SyncRequest};
use ipam_server::store::{Actor, EventFilter, NodeCall, Page, VmState};
use jiff::{SignedDuration, Timestamp};
use sqlx::Executor;
use std::net::IpAddr;
use testdb::fill;

const SETTINGS: [&str; 3] = [
    "shared_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_nested_statements=on",
];

/// Tables that grow with nodes and pods, and with time.
const LARGE: [&str; 6] = ["extent", "allocation", "node", "block", "token", "event"];

const POOLS: usize = 40;
/// Nodes of each pool, and addresses held of each node.
const NODES: i64 = 50;
const HELD: i64 = 4;

/// Plans in the log that read all of a large table, with their statements.
fn scans(log: &str) -> Vec<&str> {
    let plans = log.split("  plan:\n").skip(1);
    let reads_all = |plan: &&str| {
        let steps: Vec<&str> = plan.lines().collect();
        (0..steps.len()).any(|at| {
            let all_of = |table: &&str| {
                // An index of what is rare may be read whole.
                let by_index = steps[at].contains(" Scan using ")
                    && steps[at].contains(&format!(" on {table} "))
                    && !steps[at].contains(" using extent_leaving ");
                let sought = steps.get(at + 1).is_some_and(|next| next.contains("Index Cond:"));
                steps[at].contains(&format!("Seq Scan on {table} ")) || by_index && !sought
            };
            LARGE.iter().any(all_of)
        })
    };
    plans.filter(reads_all).map(|plan| plan.split("LOG:").next().unwrap_or_default()).collect()
}

/// A word of a node's shim.
fn said(node: &Node, seq: u64) -> NodeCall {
    let stamp = NodeStamp {
        stamp: Stamp { claim: node.claim, boot: BootSeq(1), seq: Seq(seq) },
        block: BlockVersion(node.block.version.0),
        boot_id: Some("boot".to_owned()),
        machine: None,
    };
    NodeCall { node: node.name.clone(), stamp: Some(stamp) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_large_table_is_read_whole() {
    let cluster = cluster(&SETTINGS).await;
    let store = replica(&cluster).await;
    store.put_vnet(&parse("v"), &from(r#"{"addressSpace": ["10.0.0.0/8"]}"#), &keep()).await.unwrap();
    for i in 0..POOLS {
        add_subnet(&store, &format!("s{i}"), &format!("10.{i}.0.0/20"), 100).await;
        let spec = pool(&format!("v/s{i}"), NODES.cast_unsigned() + 10);
        store.put_pool(&parse(&format!("p{i}")), &spec, &keep()).await.unwrap();
    }
    let mut raw = cluster.connect(DATABASE).await;
    fill(&mut raw, NODES, HELD).await;
    // Hardly an address of the ledger is released, and the planner knows it.
    raw.execute("ANALYZE").await.unwrap();
    // The first one's plans are of tables that were empty.
    store.close().await;
    let store = replica(&cluster).await;
    let nodes = store.nodes(&Default::default(), &Page { limit: 1000, after: None }).await.unwrap().items;
    let (shimmed, picked): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.allocator == Allocator::Node);

    let before = cluster.log().len();
    // More often than a statement is planned anew with its values.
    for i in 0..8 {
        let pod = attachment(&format!("x{i}"));
        let IpAddr::V4(first) = shimmed[i].block.ranges[0].first else { panic!("no IPv4") };
        let address = IpAddr::V4((u32::from(first) + 5).into());
        let spec = from(&format!(r#"{{"address": "{address}"}}"#));
        store.allocate(&said(&shimmed[i], 10), &pod, &spec).await.unwrap();
        // The node is known by now: these are written at once.
        store.release(&said(&shimmed[i], 11), &pod, Some(address)).await.unwrap();
        store.allocate(&said(&shimmed[i], 12), &attachment(&format!("y{i}")), &spec).await.unwrap();
        let sync = SyncRequest { as_of_seq: Seq(20), entries: vec![], conflicts: vec![], deletion: None };
        store.sync(&said(&shimmed[i], 20), &sync, &Actor::default()).await.unwrap();

        let call = NodeCall { node: picked[i].name.clone(), stamp: None };
        store.allocate(&call, &pod, &Default::default()).await.unwrap();
        store.release(&call, &pod, None).await.unwrap();

        let one_assigned = node(&format!("p{i}"));
        let own = |last: u8| {
            let addresses = vec![parse(&format!("10.{i}.0.{last}"))];
            NodeSpec { addresses, uid: Some("u".to_owned()), ..one_assigned.clone() }
        };
        let [name, second, third] = ["new", "second", "third"].map(|name| parse(&format!("{name}{i}")));
        let keep = keep();
        store.put_node(&name, &one_assigned, &keep).await.unwrap();
        // Two that claim together.
        let specs = (own(102), own(103));
        let (two, three) =
            join(store.put_node(&second, &specs.0, &keep), store.put_node(&third, &specs.1, &keep)).await;
        assert!(two.is_ok() && three.is_ok());
        for name in [name, second, third] {
            store.delete_node(&name, VmState::Gone, &keep).await.unwrap();
        }
        store.nodes(&Default::default(), &Page { limit: 20, after: None }).await.unwrap();
        let lately = EventFilter {
            since: Some(Timestamp::now() - SignedDuration::from_mins(5)),
            ..Default::default()
        };
        for filter in [EventFilter::default(), lately] {
            store.events(&filter, &Page { limit: 20, after: None }).await.unwrap();
        }
    }
    let log = cluster.log()[before..].to_owned();
    for word in
        ["INSERT INTO allocation", "UPDATE allocation", "WITH confirmed AS", "FOR KEY SHARE", "AS claimant"]
    {
        assert!(log.contains(word), "it tells of {word}: {log}");
    }
    assert_eq!(scans(&log), [""; 0]);

    // And one is seen.
    let before = cluster.log().len();
    stranger(&cluster).await.execute("SELECT * FROM allocation WHERE pod_uid = 'x'").await.unwrap();
    assert_eq!(scans(&cluster.log()[before..]).len(), 1);
}
