//! STATUS: from the node alone, and with a cure for whatever is in the way.

use crate::node::{Node, Printed};
use serde_json::{Value, json};
use std::{
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

fn status(node: &Node, more: &Value) -> Printed {
    node.about_network("STATUS", more)
}

#[track_caller]
fn in_the_way(printed: &Printed, code: u32, words: &[&str]) {
    let error = printed.failed(code);
    let details = error["details"].as_str().unwrap();
    assert!(words.iter().all(|word| details.contains(word)), "{words:?} in {details}");
}

#[test]
fn a_node_is_ready_once_its_claim_is_taken_up_and_stays_so_when_the_block_is_full() {
    let node = Node::new();
    in_the_way(&status(&node, &json!({})), 50, &["no claim", "cni-shim sync"]);
    assert_eq!(node.service.state().requests.len(), 0);
    node.by_hand("sync").done();
    assert!(status(&node, &json!({})).done().is_null());
    let pods: Vec<_> = (0..5).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate().take(4) {
        node.add(&format!("c{n}"), pod).done();
    }
    node.add("one-too-many", &pods[4]).failed(102);
    let before = node.service.state().requests.len();
    assert!(status(&node, &json!({})).done().is_null());
    assert_eq!(node.service.state().requests.len(), before, "nobody is asked");
}

#[test]
fn neither_status_nor_check_waits_for_the_service() {
    let node = Node::new();
    let pod = node.pod();
    let result = node.add("c", &pod).done();
    let path = node.directory.path().join("silent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let silent =
        json!({"server": format!("unix://{}", path.display()), "timeoutSeconds": 60, "prevResult": result});
    let mut conf = node.conf.clone();
    conf.as_object_mut().unwrap().extend(silent.as_object().unwrap().clone());
    let start = Instant::now();
    assert!(status(&node, &silent).done().is_null());
    assert!(node.run("CHECK", "c", &pod.path(), &conf).done().is_null());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn a_claim_that_takes_no_pods_is_named_with_its_cure() {
    let node = Node::new();
    node.by_hand("sync").done();
    node.service.state().refuse("PUT", 409, "stale-claim");
    node.add("c", &node.pod()).failed(101);
    in_the_way(&status(&node, &json!({})), 50, &["told stale-claim", "register node n1", "cni-shim sync"]);
    node.by_hand("sync").done();
    assert!(status(&node, &json!({})).done().is_null());
    {
        let mut state = node.service.state();
        state.node["state"] = "deleting".into();
        state.node["deletion"] = "d-1".into();
    }
    let pod = node.pod();
    node.add("c", &pod).done();
    node.by_hand("sync").done();
    in_the_way(&status(&node, &json!({})), 50, &["being deleted"]);
    in_the_way(&status(&node, &json!({"node": "n2"})), 50, &["n1's, not n2's"]);
    in_the_way(&status(&node, &json!({"stateDir": "/run/elsewhere"})), 50, &["write the same two"]);
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let node = Node::new();
    node.by_hand("sync").done();
    for directory in ["state", "data"] {
        let path = node.directory.path().join(directory);
        let path = path.display();
        node.namespace.sh(&format!("mount --bind {path} {path}; mount -o remount,bind,ro {path}"));
        let told = path.to_string();
        in_the_way(&status(&node, &json!({})), 50, &[&told, "Read-only", "must be writable"]);
        node.namespace.sh(&format!("umount {path}"));
    }
    assert!(status(&node, &json!({})).done().is_null());
    let state = node.state_dir();
    let state = state.display();
    node.namespace.sh(&format!(
        "mount -t tmpfs -o size=16k none {state}; mkdir {state}/addresses; ! head -c 1M /dev/zero >{state}/full"
    ));
    in_the_way(&status(&node, &json!({})), 50, &["No space left", "have room"]);
    std::fs::write(node.directory.path().join("boot_id"), "").unwrap();
    in_the_way(&status(&node, &json!({})), 50, &["boot_id"]);
}

#[test]
fn without_its_uplink_running_pods_are_limited_as_well() {
    let node = Node::new();
    node.by_hand("sync").done();
    node.namespace.sh("ip route del default");
    in_the_way(&status(&node, &json!({})), 51, &["no default route", "`uplink`"]);
    assert!(status(&node, &json!({"uplink": "up0"})).done().is_null());
    in_the_way(&status(&node, &json!({"uplink": "eth7"})), 51, &["eth7"]);
    node.namespace.sh("ip link set up0 down");
    in_the_way(&status(&node, &json!({"uplink": "up0"})), 51, &["ip link set up0 up"]);
    node.namespace.sh("ip link set up0 up; ip addr del 10.240.0.10/16 dev up0");
    in_the_way(&status(&node, &json!({"uplink": "up0"})), 50, &["10.240.0.10 is not on this host"]);
}

#[test]
fn what_the_host_lacks_is_named_with_its_cure() {
    let node = Node::new();
    node.by_hand("sync").done();
    node.namespace.sh("echo 0 >/proc/sys/net/ipv4/ip_forward
         mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
    in_the_way(&status(&node, &json!({})), 50, &["/proc/sys/net/ipv4/ip_forward must be \"1\""]);
    node.namespace.sh("umount /proc/sys");
    assert!(status(&node, &json!({})).done().is_null(), "ADD sets it");
    node.namespace.sh("mount -t tmpfs none /usr/sbin");
    in_the_way(&status(&node, &json!({})), 50, &["install the package nftables"]);
}

#[test]
fn a_service_that_was_not_reached_is_in_the_way_of_those_alone_who_will_not_do_without() {
    let node = Node::new();
    node.by_hand("sync").done();
    let mut dead = node.conf.clone();
    dead["server"] = "unix:///nowhere".into();
    node.run("ADD", "c", &node.pod().path(), &dead).done();
    assert!(status(&node, &json!({"server": "unix:///nowhere"})).done().is_null());
    in_the_way(&status(&node, &json!({"whenUnreachable": "fail"})), 50, &["use-block"]);
    let insecure = json!({"server": "https://10.240.0.5:1"});
    in_the_way(&status(&node, &insecure), 50, &["caFile"]);
}
