//! What networks ask of the whole node: whose word counts, and whom rules that are made anew know.

use crate::{
    agent::Agent,
    node::{Namespace, Node, shim, until},
};
use serde_json::Value;
use std::fs;

/// A node whose network is masqueraded.
fn node() -> Node {
    let mut node = Node::new();
    node.conf["ipMasq"] = true.into();
    node
}

fn start(node: &Node, container: &str) -> (Namespace, Value) {
    let pod = node.pod();
    let result = node.add(container, &pod).done();
    (pod, result)
}

/// CHECK, which misses what is not masqueraded.
#[track_caller]
fn checks(node: &Node, container: &str, (pod, result): &(Namespace, Value)) {
    let mut conf = node.conf.clone();
    conf["prevResult"] = result.clone();
    node.run("CHECK", container, &pod.path(), &conf).done();
}

fn table(node: &Node) -> String {
    node.namespace.sh("nft list table inet vnet_ipam")
}

/// Waits until an agent has made a round that began after this.
#[track_caller]
fn round(node: &Node) {
    let delete = "ip neighbour del proxy 10.240.1.0 dev up0";
    let proxies = || node.namespace.sh("ip neighbour show proxy");
    node.namespace.sh(delete);
    until("the round sees to pods", || proxies().contains("10.240.1.0"));
    node.namespace.sh(delete);
    until("the next does too", || proxies().contains("10.240.1.0"));
}

#[test]
fn rules_made_anew_know_all_who_live_whatever_becomes_of_whoever_makes_them() {
    let node = node();
    let first = start(&node, "a");
    let _torn = start(&node, "torn");
    fs::write(node.state_dir().join("addresses/10.240.1.1"), "{").unwrap();
    let known = || ["10.240.1.0", "10.240.1.1", "fd00:10::101"].iter().all(|pod| table(&node).contains(pod));
    assert!(known(), "{}", table(&node));

    // A sysctl stands in the way of all that follows.
    node.namespace.sh("nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0
         mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
    let pod = node.pod();
    node.add("b", &pod).failed(104);
    node.namespace.sh("umount /proc/sys");
    assert!(known(), "{}", table(&node));
    assert!(!table(&node).contains("10.240.1.2"), "who was not attached is none of them");
    start(&node, "c");
    checks(&node, "a", &first);
}

#[cfg(feature = "fault-points")]
#[test]
fn an_add_that_was_killed_once_it_had_made_the_rules_leaves_nobody_bare() {
    let node = node();
    let first = start(&node, "a");
    node.namespace.sh("nft flush ruleset");
    let pod = node.pod();
    let killed = node.run_until("set-up-after-rules", "ADD", "b", &pod.path(), &node.conf);
    assert!(killed.status != 0 && killed.stdout.is_empty(), "{killed:?}");
    checks(&node, "a", &first);
    node.del("b", &pod.path()).done();
    start(&node, "c");
    checks(&node, "a", &first);
}

#[test]
fn the_last_adds_word_counts_and_not_what_an_agent_began_with() {
    let node = Node::new();
    // The list is edited after the agent has read it.
    let _agent = Agent::start_with(&node, "", &["--every", "1"]);
    let pod = node.pod();
    let mut edited = node.conf.clone();
    edited["ipMasq"] = true.into();
    edited["prevResult"] = node.run("ADD", "a", &pod.path(), &edited).done();
    round(&node);
    node.run("CHECK", "a", &pod.path(), &edited).done();
    assert!(table(&node).contains("masquerade comment"), "{}", table(&node));
}

#[test]
fn an_agent_does_what_it_can_where_nothing_can_be_written() {
    let node = Node::new();
    start(&node, "a");
    let state = node.state_dir().display().to_string();
    node.namespace.sh(&format!("mount --bind {state} {state}; mount -o remount,ro,bind {state}"));
    let _agent = Agent::start_with(&node, "", &["--every", "1"]);
    node.namespace.sh("ip neighbour add proxy 10.240.1.3 dev up0");
    until("the round comes to its end", || {
        !node.namespace.sh("ip neighbour show proxy").contains("10.240.1.3")
    });
}

#[test]
fn whoever_attaches_by_hand_says_nothing_of_the_network() {
    let node = node();
    let first = start(&node, "a");
    let conf = |key: &str| node.conf[key].as_str().unwrap().to_owned();
    let by_hand = |container: &str| {
        let pod = node.pod();
        let (server, state, data, boot) =
            (conf("server"), conf("stateDir"), conf("dataDir"), conf("bootIdFile"));
        let path = pod.path();
        let words = [
            ["--server", &server],
            ["--node", "n1"],
            ["--state-dir", &state],
            ["--data-dir", &data],
            ["--boot-id-file", &boot],
            ["--network", "pods"],
            ["--container-id", container],
            ["--netns", &path],
        ]
        .concat();
        shim(&node.namespace, &[], &[&["attach"], &words[..]].concat(), "").done();
        pod
    };
    let networks = || fs::read_to_string(node.state_dir().join("networks.json")).unwrap();
    let before = networks();
    let _second = by_hand("b");
    assert_eq!(networks(), before);
    checks(&node, "a", &first);
    assert!(table(&node).contains("10.240.1.1"), "it is masqueraded as well: {}", table(&node));
    // Where nothing is known of the network its rules stay as they are.
    fs::remove_file(node.state_dir().join("networks.json")).unwrap();
    let _third = by_hand("c");
    checks(&node, "a", &first);
}

#[test]
fn rules_of_an_earlier_version_count_until_they_are_made_anew() {
    let node = node();
    let first = start(&node, "a");
    // As they were: nobody counted them, and blocks were named.
    node.namespace.sh(r#"nft list table inet vnet_ipam | sed -e 's/"cni-shim [0-9]* /"cni-shim /' \
             -e 's/@masquerade-[0-9a-f]*-4/{ 10.240.1.0-10.240.1.3 }/' \
             -e 's/@masquerade-[0-9a-f]*-6/{ fd00:10::100-fd00:10::103 }/' \
             -e '/set masquerade-/,/^.}$/d' >/dev/shm/earlier.$$
           nft delete table inet vnet_ipam; nft -f /dev/shm/earlier.$$; rm /dev/shm/earlier.$$"#);
    assert!(table(&node).contains("saddr 10.240.1.0-10.240.1.3"), "{}", table(&node));
    checks(&node, "a", &first);
    start(&node, "b");
    assert!(table(&node).contains("saddr @masquerade-"), "{}", table(&node));
    checks(&node, "a", &first);
}
