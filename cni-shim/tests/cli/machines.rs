//! Which host may speak for a node, and as which machine: a copy of its disk has its claim, too.

use crate::node::Node;
use serde_json::json;

/// The machine that the last request told of.
fn told(node: &Node) -> Option<String> {
    let state = node.service.state();
    let stamp = &state.requests.last().unwrap().stamp;
    Some(stamp.split("machine=").nth(1)?.to_owned())
}

const ANOTHER_CARD: &str = "ip link set up0 address 02:00:00:00:00:99";

#[test]
fn neither_another_uplink_nor_another_card_is_another_machine() {
    for uuid in [None, Some("a")] {
        let node = Node::new();
        node.firmware(uuid);
        node.add("a", &node.pod()).done();
        let first_seen = told(&node);
        assert!(first_seen.is_some());
        node.namespace
            .sh("ip link add up1 type veth peer name far1; ip link set far1 up; ip link set up1 up");
        node.namespace.sh(ANOTHER_CARD);
        node.add("b", &node.pod()).done();
        assert_eq!(told(&node), first_seen);
        let mut other = node.conf.clone();
        other["uplink"] = "up1".into();
        node.run("ADD", "c", &node.pod().path(), &other).done();
        assert_eq!(told(&node), first_seen);
        // Nor is it after a claim that was taken for stale.
        node.service.state().refuse("PUT", 409, "stale-claim");
        node.add("d", &node.pod()).failed(101);
        assert_eq!(node.by_hand("sync").done()["adopted"], true);
        assert_eq!(told(&node), first_seen);
    }
}

#[test]
fn with_an_id_of_its_own_a_machine_is_the_same_after_any_change() {
    let node = Node::new();
    node.firmware(Some("a"));
    node.by_hand("sync").done();
    let first_seen = told(&node);
    node.reboot("boot-b");
    node.namespace.sh(ANOTHER_CARD);
    node.add("c", &node.pod()).done();
    assert_eq!(told(&node), first_seen);
    assert_eq!(node.service.state().requests.last().unwrap().number("boot"), 2);
}

#[test]
fn a_copied_disk_does_not_speak_as_the_machine_that_it_was_copied_from() {
    for (uuid, copys) in [(None, None), (Some("a"), Some("b"))] {
        let node = Node::new();
        node.firmware(uuid);
        node.by_hand("sync").done();
        let original = told(&node);
        // It took the original's address, too: nothing on this host tells that it is another's.
        node.firmware(copys);
        node.reboot("boot-of-the-copy");
        node.namespace.sh(ANOTHER_CARD);
        for _ in 0..2 {
            node.service.state().refuse("PUT", 409, "stale-claim");
        }
        node.add("c", &node.pod()).failed(101);
        let copy = told(&node);
        assert!(copy.is_some() && copy != original, "{copy:?}");
        assert_eq!(node.host_ends(), 0);
        // And it stays what it is.
        for _ in 0..2 {
            node.service.state().refuse("PUT", 409, "stale-claim");
        }
        assert_eq!(node.by_hand("sync").status, 1);
        assert_eq!(told(&node), copy);
    }
}

#[test]
fn a_copied_disk_says_nothing_where_the_node_is_not() {
    let node = Node::new();
    node.firmware(None);
    let pod = node.pod();
    node.add("original", &pod).done();
    {
        // What the empty journal of a copy would confirm.
        let mut state = node.service.state();
        state.node["state"] = "deleting".into();
        state.node["deletion"] = "d-1".into();
    }
    let original = told(&node);
    let before = node.service.state().requests.len();
    drop(pod);
    node.reboot("boot-of-the-copy");
    node.namespace.sh(ANOTHER_CARD);
    node.namespace
        .sh("ip addr flush dev up0; ip addr add 10.240.0.77/16 dev up0; ip route add default via 10.240.0.1");
    let error = node.add("c", &node.pod()).failed(11);
    assert!(error["msg"].as_str().unwrap().contains("10.240.0.10"), "{error}");
    assert!(error["details"].as_str().unwrap().contains("claim.json"), "{error}");
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("10.240.0.10"), "{printed:?}");
    // What is left of the original's pods goes.
    node.del("original", "").done();
    assert_eq!(node.service.state().requests.len(), before, "nobody heard of it");

    // The cure for a copy that is to be a node of its own.
    std::fs::remove_file(node.directory.path().join("data/claim.json")).unwrap();
    {
        let mut state = node.service.state();
        state.node = crate::node::node(2);
        state.node["addresses"] = json!(["10.240.0.77"]);
    }
    node.add("c", &node.pod()).done();
    assert_ne!(told(&node), original);
}

#[test]
fn a_node_whose_address_comes_late_waits_for_it() {
    let node = Node::new();
    node.by_hand("sync").done();
    let first_seen = told(&node);
    node.reboot("boot-b");
    node.namespace.sh("ip addr flush dev up0; ip route add default dev up0");
    node.add("c", &node.pod()).failed(11);
    node.namespace.sh("ip addr add 10.240.0.10/16 dev up0; ip -6 addr add fd00:10::a/64 dev up0 nodad");
    let pod = node.pod();
    node.add("c", &pod).done();
    assert_eq!(told(&node), first_seen);
    // Once it was there, pods end without it as well.
    node.namespace.sh("ip addr del 10.240.0.10/16 dev up0; ip -6 addr del fd00:10::a/64 dev up0");
    node.del("c", &pod.path()).done();
    assert_eq!(node.entry("10.240.1.0")["acknowledged"], true);
}
