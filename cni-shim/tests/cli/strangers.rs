//! Machines that answer for addresses of the block: no pod gets them, and the service is told.

use crate::{
    agent::Agent,
    attachments::first,
    node::{Namespace, Node, until},
};
use serde_json::{Value, json};

/// Strangers are asked again each second.
const SOON: [&str; 4] = ["--every", "1", "--ask-again", "1"];

/// A machine at the other end of the uplink's cable, with these addresses.
fn stranger(node: &Node, addresses: &[&str]) -> Namespace {
    let stranger = Namespace::new(None);
    stranger.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    node.namespace.sh(&format!("ip link set far0 netns {}", stranger.path()));
    stranger.sh("ip link set far0 address 02:00:00:00:00:0b up");
    for address in addresses {
        stranger.sh(&format!("ip addr add {address} dev far0"));
    }
    until("the cable carries", || node.namespace.sh("ip -o link show up0").contains("state UP"));
    stranger
}

/// The conflicts in the last sync.
fn told(node: &Node) -> Vec<(String, String)> {
    let state = node.service.state();
    let mut syncs = state.requests.iter().filter(|request| request.target.ends_with("/allocations"));
    let conflicts = syncs.next_back().map(|sync| sync.body["conflicts"].as_array().unwrap().clone());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    conflicts.unwrap_or_default().iter().map(|one| (text(&one["address"]), text(&one["mac"]))).collect()
}

fn at(addresses: &[&str]) -> Vec<(String, String)> {
    addresses.iter().map(|address| ((*address).to_owned(), "02:00:00:00:00:0b".to_owned())).collect()
}

#[test]
fn what_a_stranger_answers_for_no_pod_gets_until_it_is_gone() {
    let node = Node::new();
    let stranger = stranger(&node, &["10.240.1.0/16", "fd00:10::102/64"]);
    node.by_hand("sync").done();
    let agent = Agent::start_with(&node, "", &SOON);
    until("the service is told", || told(&node) == at(&["10.240.1.0", "fd00:10::102"]));
    assert_eq!(agent.metric("cni_shim_conflicts"), Some(2.0));
    assert_eq!(agent.metric("cni_shim_addresses_left"), Some(2.0));
    let name = "cni_shim_conflict{address=\"10.240.1.0\",mac=\"02:00:00:00:00:0b\"}";
    assert_eq!(agent.metric(name), Some(1.0), "{}", agent.get("/metrics"));
    let status = node.by_hand("status").done();
    assert_eq!(status["strangers"][1]["address"], "fd00:10::102", "{status}");

    // Neither is the next to be picked, nor one when nothing else is left, nor one asked for.
    let pods: Vec<_> = (0..4).map(|_| node.pod()).collect();
    assert_eq!(first(&node.add("a", &pods[0]).done()), "10.240.1.1");
    assert_eq!(first(&node.add("b", &pods[1]).done()), "10.240.1.3");
    let error = node.add("c", &pods[2]).failed(102);
    assert!(error["details"].as_str().unwrap().contains("10.240.1.0 (02:00:00:00:00:0b)"), "{error}");
    let mut asks = node.conf.clone();
    // By the address of the family that the stranger does not have.
    asks["args"] = json!({"cni": {"ips": ["10.240.1.2"]}});
    let error = node.run("ADD", "c", &pods[2].path(), &asks).failed(11);
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("fd00:10::102 (02:00:00:00:00:0b)"), "{error}");

    stranger.sh("ip addr del 10.240.1.0/16 dev far0");
    until("the service is told that one is gone", || told(&node) == at(&["fd00:10::102"]));
    assert_eq!(first(&node.add("c", &pods[2]).done()), "10.240.1.0");
    node.add("d", &pods[3]).failed(102);
}

#[test]
fn what_the_service_was_not_told_of_a_boot_that_is_over_it_still_knows() {
    let node = Node::new();
    let _stranger = stranger(&node, &["10.240.1.2/16"]);
    node.by_hand("sync").done();
    node.service.state().node["conflicts"] =
        json!([{"address": "10.240.1.0", "mac": "02:00:00:00:00:0b", "ageSeconds": 5}]);
    node.by_hand("sync").done();
    node.reboot("boot-b");
    // Before anybody was asked.
    assert_eq!(first(&node.add("a", &node.pod()).done()), "10.240.1.1");
    let _agent = Agent::start_with(&node, "", &SOON);
    // One answers, the other does not any more.
    until("the segment is asked anew", || told(&node) == at(&["10.240.1.2"]));
}

#[test]
fn what_was_asked_is_not_asked_again_and_what_grows_is() {
    let node = Node::new();
    let stranger = stranger(&node, &["10.240.1.4/16"]);
    node.by_hand("sync").done();
    // However long it takes: only what is new is asked for.
    let slow = ["--every", "1", "--ask-again", "3600"];
    let asked = || std::fs::read_to_string(node.state_dir().join("strangers.json")).unwrap_or_default();
    let agent = Agent::start_with(&node, "", &slow);
    until("the block was asked for", || asked().contains("\"asked\":[[256,260]]"));
    drop(agent);
    // It is in the block when it was asked for: nobody asks twice.
    stranger.sh("ip addr add 10.240.1.1/16 dev far0");
    let _agent = Agent::start_with(&node, "", &slow);
    let block = json!({"version": 2, "ranges": [{"first": "10.240.1.0", "last": "10.240.1.5", "first6": "fd00:10::100", "last6": "fd00:10::105"}]});
    node.service.state().node["block"] = block;
    node.by_hand("sync").done();
    until("the growth was asked for", || asked().contains("\"asked\":[[256,262]]"));
    until("the service is told", || told(&node) == at(&["10.240.1.4"]));
}

#[test]
fn a_machine_that_answers_for_everything_is_no_stranger() {
    let node = Node::new();
    let fabric = stranger(&node, &["10.240.0.1/16"]);
    // It has no route of its own to the subnet, and answers in the name of all that lies elsewhere.
    fabric.sh("ip link add out0 type veth peer name out1; ip link set out0 up; ip link set out1 up
         ip route flush dev far0; ip route add 10.240.0.0/16 dev out0; ip route add 10.240.0.10/32 dev far0
         sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.far0.proxy_arp=1 net.ipv4.neigh.far0.proxy_delay=0
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.far0.rp_filter=0");
    node.namespace
        .sh("ping -c1 -W2 10.240.1.1 >/dev/null || true; ip neigh | grep '10.240.1.1 .*02:00:00:00:00:0b'");
    node.by_hand("sync").done();
    let _agent = Agent::start_with(&node, "", &SOON);
    until("the block was asked for", || node.state_dir().join("strangers.json").exists());
    assert_eq!(told(&node), at(&[]));
    assert_eq!(first(&node.add("a", &node.pod()).done()), "10.240.1.0");
}
