//! What rests is the service's to know where the journal has forgotten it.

use crate::{attachments::first, node::Node};
use serde_json::json;
use std::{
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A node that gave addresses back, the service knows which, and was started anew.
fn rebooted() -> Node {
    let mut node = Node::new();
    // However busy the machine is.
    node.conf["timeoutSeconds"] = json!(30);
    let pod = node.pod();
    node.add("before", &pod).done();
    node.del("before", &pod.path()).done();
    node.service.state().node["resting"] = json!([
        {"address": "10.240.1.0", "ageSeconds": 1},
        {"address": "10.240.1.1", "ageSeconds": 2},
        {"address": "10.240.1.3", "ageSeconds": 1}
    ]);
    node.reboot("boot-b");
    node.service.state().requests.clear();
    node
}

fn forgotten(node: &Node) -> bool {
    std::fs::read_to_string(node.directory.path().join("data/claim.json")).unwrap().contains("\"forgotten\"")
}

/// Whether each request since the reboot was a sync.
fn syncs(node: &Node) -> Vec<bool> {
    node.service.state().requests.iter().map(|request| request.target.ends_with("/allocations")).collect()
}

#[test]
fn the_first_pod_after_a_reboot_gets_no_address_that_rests() {
    let node = rebooted();
    assert_eq!(first(&node.add("c", &node.pod()).done()), "10.240.1.2");
    assert!(!forgotten(&node));
    assert_eq!(syncs(&node), [true, false]);
    // The others know it from the first.
    assert_eq!(first(&node.add("d", &node.pod()).done()), "10.240.1.1");
    assert_eq!(syncs(&node), [true, false, false]);
}

#[test]
fn pods_that_start_at_once_after_a_reboot_ask_once() {
    let node = rebooted();
    let pods: Vec<_> = (0..3).map(|_| node.pod()).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let node = &node;
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| scope.spawn(move || first(&node.add(&format!("c{n}"), pod).done()).to_owned()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    addresses.sort();
    assert_eq!(addresses[1..], ["10.240.1.1", "10.240.1.2"], "{addresses:?}");
    assert_eq!(syncs(&node).iter().filter(|sync| **sync).count(), 1);
}

#[test]
fn whoever_gets_through_first_asks_what_rests() {
    let node = rebooted();
    node.service.state().refuse("PUT", 507, "exhausted");
    node.add("c", &node.pod()).done();
    assert_eq!(syncs(&node), [true, false, true]);
    assert!(!forgotten(&node));
}

#[test]
fn a_service_that_does_not_answer_is_waited_for_once() {
    let node = rebooted();
    let path = node.directory.path().join("silent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        // They stay open and nothing is ever said.
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    let mut conf = node.conf.clone();
    conf["server"] = json!(format!("unix://{}", path.display()));
    conf["timeoutSeconds"] = json!(0.3);
    node.run("ADD", "c", &node.pod().path(), &conf).done();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(forgotten(&node), "until it answers");
    std::fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    node.add("d", &node.pod()).done();
    assert!(!forgotten(&node));
}
