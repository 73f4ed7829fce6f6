//! A plan in which every table of the schema has rows.

use ipam_api::{
    names::Attachment,
    token::Secret,
    wire::{AllocationSpec, BlockVersion, BootSeq, Claim, NodeStamp, Role, Seq, Stamp, SyncAnswer},
};
use ipam_server::store::{Actor, Change, NodeCall, Store, VmState};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{fmt::Debug, str::FromStr};

fn of<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn from<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn keep() -> Change {
    Change::default()
}

/// A node that speaks for itself, in boot 1.
pub(crate) fn call(node: &str, claim: Claim, block: u64, seq: u64) -> NodeCall {
    let stamp = NodeStamp {
        stamp: Stamp { claim, boot: BootSeq(1), seq: Seq(seq) },
        block: BlockVersion(block),
        boot_id: Some("a-boot".to_owned()),
        machine: None,
    };
    NodeCall { node: of(node), stamp: Some(stamp) }
}

pub(crate) fn pod(name: &str) -> Attachment {
    Attachment { network: of("default"), container_id: of(name), if_name: of("eth0") }
}

/// A sync that lists these live addresses.
pub(crate) async fn sync(
    store: &Store,
    node: &str,
    block: u64,
    seq: u64,
    live: &[(&str, &str)],
) -> SyncAnswer {
    let claim = store.node(&of(node)).await.unwrap().claim;
    let entries: Vec<Value> = live
        .iter()
        .map(|(name, address)| {
            json!({"network": "default", "containerId": name, "ifName": "eth0", "address": address,
                   "state": "wired", "seq": seq, "ageSeconds": 1})
        })
        .collect();
    let strangers = if node == "n1" {
        json!([{"address": "10.0.0.30", "mac": "52:54:00:00:00:09", "ageSeconds": 3}])
    } else {
        json!([])
    };
    let request = from(json!({"asOfSeq": seq, "entries": entries, "conflicts": strangers}));
    let by = Actor { name: format!("node:{node}"), ..Actor::default() };
    store.sync(&call(node, claim, block, seq), &request, &by).await.unwrap()
}

/// VNet `v` with subnets `a` (`10.0.0.0/24`, `fd00::/64`) and `b`; pool `p` in `a`. `n1` has a shim, the pods c1 and c2, and
/// a block that is shrinking; `n2`'s addresses are picked by the service, `s1` has one; `n3` was, and is no more.
pub(crate) async fn fill(store: &Store) {
    let vnet = from(json!({"addressSpace": ["10.0.0.0/8", "fd00::/16"], "serviceCidrs": ["172.16.0.0/16"]}));
    store.put_vnet(&of("v"), &vnet, &keep()).await.unwrap();
    let cidrs = from(json!({"cidrs": ["10.0.0.0/24", "fd00::/64"]}));
    store.put_subnet(&of("v/a"), &cidrs, &keep()).await.unwrap();
    store.put_subnet(&of("v/b"), &from(json!({"cidrs": ["10.0.1.0/24"]})), &keep()).await.unwrap();
    let own =
        json!({"first": "10.0.0.4", "last": "10.0.0.19", "reason": "VMs: \"ü\" \\ 日本", "forNodes": true});
    store.put_reservation(&of("v/a"), &of("vms"), &from(own), &keep()).await.unwrap();
    let pool =
        |max_pods: u64| json!({"subnets": [{"subnet": "v/a"}], "maxPods": max_pods, "nodes": 4, "surge": 0});
    store.put_pool(&of("p"), &from(pool(16)), &keep()).await.unwrap();
    for (name, address, allocator) in
        [("n1", "10.0.0.4", "node"), ("n2", "10.0.0.5", "service"), ("n3", "10.0.0.6", "node")]
    {
        let spec = json!({"pool": "p", "addresses": [address], "uid": format!("uid-{name}"), "allocator": allocator});
        store.put_node(&of(name), &from(spec), &keep()).await.unwrap();
    }
    let claim = store.node(&of("n1")).await.unwrap().claim;
    sync(store, "n1", 1, 10, &[]).await;
    for (seq, name, address) in [(11, "c1", "10.0.0.20"), (12, "c2", "10.0.0.35"), (13, "c3", "10.0.0.21")] {
        let spec = AllocationSpec {
            address: Some(of(address)),
            pod: Some(from(json!({"namespace": "web", "name": name, "uid": "u"}))),
        };
        store.allocate(&call("n1", claim, 1, seq), &pod(name), &spec).await.unwrap();
    }
    store.release(&call("n1", claim, 1, 14), &pod("c3"), Some(of("10.0.0.21"))).await.unwrap();
    store
        .allocate(&NodeCall { node: of("n2"), stamp: None }, &pod("s1"), &AllocationSpec::default())
        .await
        .unwrap();
    // c2 keeps what leaves.
    store.put_pool(&of("p"), &from(pool(12)), &keep()).await.unwrap();
    sync(store, "n1", 1, 20, &[("c1", "10.0.0.20"), ("c2", "10.0.0.35")]).await;
    for (byte, spec) in [
        (1, json!({"name": "root", "role": "admin"})),
        (2, json!({"name": "n1's", "role": "node", "node": "n1"})),
        (3, json!({"name": "n3's", "role": "node", "node": "n3"})),
    ] {
        let spec: ipam_api::wire::TokenSpec = from(spec);
        let role: Role = spec.role;
        store.create_token(&spec, &Secret::new(role, [byte; 32]), &keep()).await.unwrap();
    }
    store.delete_node(&of("n3"), VmState::Gone, &keep()).await.unwrap();
}
