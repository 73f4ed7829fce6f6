//! GC: what the runtime no longer knows of one network goes, and nothing else.

use crate::node::{Node, until};
use serde_json::{Value, json};

/// A second network of the node.
fn other_network(node: &Node) -> Value {
    let mut conf = node.conf.clone();
    conf["name"] = "other".into();
    conf
}

fn state(node: &Node, address: &str) -> (Value, Value) {
    let entry = node.entry(address);
    (entry["state"].clone(), entry["acknowledged"].clone())
}

fn released() -> (Value, Value) {
    (json!("released"), json!(true))
}

#[test]
fn what_the_runtime_does_not_know_goes_and_the_rest_stays() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| node.pod()).collect();
    let kept = node.add("kept", &pods[0]).done();
    node.add("lost", &pods[1]).done();
    node.run("ADD", "of-other", &pods[2].path(), &other_network(&node)).done();
    let before = node.service.state().requests.len();
    let printed = node.gc(&["kept", "never-was"]);
    assert_eq!((printed.status, printed.stdout.as_str()), (0, ""), "{printed:?}");

    pods[1].sh("! ip link show eth0 2>/dev/null");
    assert_eq!(node.namespace.sh("ip neigh show proxy").matches("10.240.1.1 ").count(), 0);
    assert_eq!(state(&node, "10.240.1.1"), released());
    assert_eq!(node.service.state().requests.len(), before + 1, "one sync tells of all");
    let mut conf = node.conf.clone();
    conf["prevResult"] = kept;
    node.run("CHECK", "kept", &pods[0].path(), &conf).done();
    assert_eq!(node.entry("10.240.1.2")["state"], "wired", "another network's");
    assert_eq!(node.host_ends(), 2);

    // Nothing is left to do, and nobody is told of it.
    assert!(node.gc(&["kept"]).done().is_null());
    assert_eq!(node.service.state().requests.len(), before + 1);
    // A DEL that comes after all has nothing to do.
    assert!(node.del("lost", &pods[1].path()).done().is_null());
}

#[test]
fn an_empty_list_is_not_a_missing_one() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    assert!(node.about_network("GC", &json!({})).done().is_null());
    for wrong in [json!("none"), json!([{"containerID": "c"}]), json!({})] {
        node.about_network("GC", &json!({"cni.dev/valid-attachments": wrong})).failed(7);
    }
    // Either name of the list vouches, in Go's spelling too.
    let go = json!([{"ContainerID": "c", "IfName": "eth0"}]);
    for lists in [
        json!({"cni.dev/attachments": go}),
        json!({"cni.dev/valid-attachments": null, "CNI.DEV/attachments": go}),
    ] {
        assert!(node.about_network("GC", &lists).done().is_null());
    }
    assert_eq!((node.host_ends(), &node.entry("10.240.1.0")["state"]), (1, &json!("wired")));
    assert!(node.about_network("GC", &json!({"cni.dev/valid-attachments": null})).done().is_null());
    assert_eq!((node.host_ends(), state(&node, "10.240.1.0")), (0, released()));
}

#[test]
fn both_halves_of_a_leak_are_swept() {
    let node = Node::new();
    let pods: Vec<_> = (0..4).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate().take(3) {
        node.add(&format!("c{n}"), pod).done();
    }
    node.run("ADD", "c3", &pods[3].path(), &other_network(&node)).done();
    let end = |address: &str| node.entry(address)["hostEnd"].as_str().unwrap().to_owned();
    // An entry without its interface; interfaces without an entry, one of them valid, one another network's.
    node.namespace.sh(&format!("ip link del {}", end("10.240.1.0")));
    for address in ["10.240.1.1", "10.240.1.2", "10.240.1.3"] {
        std::fs::remove_file(node.state_dir().join("addresses").join(address)).unwrap();
    }
    assert!(node.gc(&["c2"]).done().is_null());
    assert_eq!(state(&node, "10.240.1.0"), released());
    pods[1].sh("! ip link show eth0 2>/dev/null");
    for pod in &pods[2..] {
        pod.sh("ip link show eth0");
    }
    let proxies = node.namespace.sh("ip neigh show proxy; ip -6 neigh show proxy");
    for (address, there) in
        [("10.240.1.0", false), ("10.240.1.1", false), ("10.240.1.2", true), ("fd00:10::101", false)]
    {
        assert_eq!(proxies.contains(&format!("{address} ")), there, "{address} in {proxies}");
    }
}

#[test]
fn it_goes_on_after_an_error_and_tells_of_it_at_the_end() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&format!("c{n}"), pod).done();
    }
    std::fs::write(node.state_dir().join("addresses/10.240.1.1"), "{").unwrap();
    let error = node.gc(&[]).failed(103);
    assert!(error["details"].as_str().unwrap().contains("10.240.1.1"), "{error}");
    // Whose that is and how old nobody knows: it may be an ADD that has just begun.
    assert_eq!(node.host_ends(), 1);
    pods[1].sh("ip link show eth0");
    std::fs::remove_file(node.state_dir().join("addresses/10.240.1.1")).unwrap();
    assert!(node.gc(&[]).done().is_null());
    assert_eq!(node.host_ends(), 0);
}

#[test]
fn it_waits_for_no_dead_service_and_needs_no_journal_in_order() {
    let node = Node::new();
    let pods: Vec<_> = (0..2).map(|_| node.pod()).collect();
    node.add("a", &pods[0]).done();
    node.add("b", &pods[1]).done();
    // Lost: the host knows what lives.
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    assert!(
        node.about_network("GC", &json!({"server": "unix:///nowhere", "cni.dev/attachments": []}))
            .done()
            .is_null()
    );
    assert_eq!(node.host_ends(), 0);
    assert_eq!(state(&node, "10.240.1.1"), (json!("released"), json!(false)));
    std::fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    assert_eq!(node.by_hand("sync").done()["acknowledged"], 2);
    // A node that never had anything.
    let node = Node::new();
    assert!(node.gc(&[]).done().is_null());
    assert_eq!(node.service.state().requests.len(), 0);
}

#[test]
fn a_namespace_that_another_has_by_now_is_left_alone() {
    let node = Node::new();
    let pod = node.pod();
    node.add("old", &pod).done();
    let end = node.entry("10.240.1.0")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link del {end}"));
    let new = node.add("new", &pod).done();
    assert!(node.gc(&["new"]).done().is_null());
    let mut conf = node.conf.clone();
    conf["prevResult"] = new;
    node.run("CHECK", "new", &pod.path(), &conf).done();
    until("the old one is given back", || state(&node, "10.240.1.0") == released());
}
