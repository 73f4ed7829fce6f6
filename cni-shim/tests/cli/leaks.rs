//! What pods left whose end nobody told: the agent sweeps it, and nothing else.

use crate::{
    agent::Agent,
    node::{Node, until},
};
use serde_json::{Value, json};

/// A round a second, and two sightings of a leak.
const SOON: [&str; 4] = ["--every", "1", "--leak-grace", "1"];

fn state(node: &Node, address: &str) -> Value {
    node.entry(address)["state"].clone()
}

/// It was swept and the service has heard of it.
#[track_caller]
fn until_swept(node: &Node, address: &str) {
    until(address, || {
        let entry = node.entry(address);
        (&entry["state"], &entry["acknowledged"]) == (&json!("released"), &json!(true))
    });
}

/// A pod without an end of its own, begun after all others, is swept: so those were seen as often.
#[track_caller]
fn until_all_were_seen(node: &Node, address: &str) {
    let pod = node.pod();
    node.add("last", &pod).done();
    assert_eq!(state(node, address), "wired");
    drop(pod);
    until_swept(node, address);
}

#[test]
fn a_pod_whose_namespace_is_gone_is_swept_and_one_that_lives_is_not() {
    let node = Node::new();
    let (lives, ends) = (node.pod(), node.pod());
    node.add("lives", &lives).done();
    node.add("ends", &ends).done();
    let agent = Agent::start_with(&node, "", &SOON);
    drop(ends);
    until_swept(&node, "10.240.1.1");
    let proxies = node.namespace.sh("ip neigh show proxy; ip -6 neigh show proxy");
    assert!(!proxies.contains("10.240.1.1 ") && !proxies.contains("fd00:10::101 "), "{proxies}");
    assert_eq!((state(&node, "10.240.1.0"), node.host_ends()), (json!("wired"), 1));
    until("it is counted", || agent.metric("cni_shim_leaks_swept_total") == Some(1.0));
    // Whoever comes after all has nothing to do.
    assert!(node.del("ends", "").done().is_null());
    // A runtime that calls GC, and one that adds a pod, find nothing of it.
    assert!(node.gc(&["lives"]).done().is_null());
    node.add("ends", &node.pod()).done();
}

#[test]
fn a_pod_that_lost_its_interface_and_lives_is_its_runtimes_to_end() {
    let node = Node::new();
    let pod = node.pod();
    node.add("lives", &pod).done();
    let _agent = Agent::start_with(&node, "", &SOON);
    let end = node.entry("10.240.1.0")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link del {end}"));
    until_all_were_seen(&node, "10.240.1.1");
    assert_eq!(state(&node, "10.240.1.0"), "wired");
    drop(pod);
    until_swept(&node, "10.240.1.0");
}

#[test]
fn a_host_that_is_not_the_node_shows_nothing() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    node.namespace.sh("ip addr flush dev up0");
    let agent = Agent::start_with(&node, "", &SOON);
    drop(pod);
    // Each round fails: with the addresses the default route went, by which the uplink is known.
    until("some rounds have passed", || {
        agent.metric("cni_shim_rounds_failed_total").unwrap_or_default() >= 5.0
    });
    assert_eq!(state(&node, "10.240.1.0"), "wired");
    node.namespace.sh("ip addr add 10.240.0.10/16 dev up0; ip -6 addr add fd00:10::a/64 dev up0 nodad");
    until_swept(&node, "10.240.1.0");
}

#[cfg(feature = "fault-points")]
mod at_fault_points {
    use super::*;

    /// Waits for a process to stop at its fault point.
    fn until_reached(hold: &std::path::Path) {
        until("the fault point", || hold.with_extension("reached").exists());
    }

    #[test]
    fn whatever_is_left_of_an_add_or_del_that_was_killed_is_swept() {
        let node = Node::new();
        node.by_hand("sync").done();
        let _agent = Agent::start_with(&node, "", &SOON);
        for point in
            ["add-after-intent", "add-after-wire", "add-after-put", "del-after-releasing", "del-after-unwire"]
        {
            let pod = node.pod();
            let verb = if point.starts_with("add") { "ADD" } else { "DEL" };
            if verb == "DEL" {
                node.add(point, &pod).done();
            }
            assert_ne!(node.run_until(point, verb, point, &pod.path(), &node.conf).status, 0);
            until(point, || {
                let status = node.by_hand("status").done();
                let counts = &status["counts"];
                ["intent", "wired", "releasing", "unacknowledged"].iter().all(|key| counts[key] == 0)
            });
            assert_eq!(node.host_ends(), 0, "{point}");
            pod.sh("! ip link show eth0 2>/dev/null");
        }
    }

    #[test]
    fn an_add_at_work_is_left_alone_however_long_it_takes() {
        let node = Node::new();
        node.by_hand("sync").done();
        let _agent = Agent::start_with(&node, "", &SOON);
        let hold = node.directory.path().join("hold");
        std::fs::write(&hold, "").unwrap();
        let pod = node.pod();
        std::thread::scope(|scope| {
            let point = format!("add-after-wire:{}", hold.display());
            let (node, pod) = (&node, &pod);
            let slow = scope.spawn(move || node.run_until(&point, "ADD", "slow", &pod.path(), &node.conf));
            until_reached(&hold);
            until_all_were_seen(node, "10.240.1.1");
            assert_eq!(state(node, "10.240.1.0"), "intent");
            std::fs::remove_file(&hold).unwrap();
            slow.join().unwrap().done();
        });
        pod.sh("ip link show eth0");
    }

    #[test]
    fn a_pod_that_was_made_anew_meanwhile_is_spared() {
        let node = Node::new();
        let pod = node.pod();
        node.add("c", &pod).done();
        let hold = node.directory.path().join("hold");
        std::fs::write(&hold, "").unwrap();
        let agent = Agent::start_with(&node, &format!("sweep-before-lock:{}", hold.display()), &SOON);
        drop(pod);
        until_reached(&hold);
        // It was seen twice; now its runtime ends it after all, and makes another by the same name.
        node.del("c", "").done();
        let anew = node.pod();
        let result = node.add("c", &anew).done();
        std::fs::remove_file(&hold).unwrap();
        until_all_were_seen(&node, "10.240.1.2");
        let mut conf = node.conf.clone();
        conf["prevResult"] = result;
        node.run("CHECK", "c", &anew.path(), &conf).done();
        until("only the other is counted", || agent.metric("cni_shim_leaks_swept_total") == Some(1.0));
    }
}
