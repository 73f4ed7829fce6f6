//! Killed at any step of ADD or DEL: what the runtime does next, a DEL, leaves nothing. Killed
//! at any step of a sync: nothing is lost, and the next one goes on.

use crate::node::{Namespace, Node, until};
use serde_json::json;

/// The verb was killed at the point, and printed nothing.
#[track_caller]
fn killed(node: &Node, point: &str, verb: &str, container: &str, pod: &Namespace) {
    let printed = node.run_until(point, verb, container, &pod.path(), &node.conf);
    assert!(printed.status != 0 && printed.stdout.is_empty(), "{point}: {printed:?}");
}

/// Nothing is left of any attachment, here and at the service.
#[track_caller]
fn gone(node: &Node, point: &str, pod: &Namespace) {
    assert_eq!(node.host_ends(), 0, "{point}");
    pod.sh("! ip link show eth0 2>/dev/null");
    let summary = node.by_hand("sync").done();
    assert_eq!((&summary["live"], &summary["outcome"]), (&json!(0), &json!("synced")), "{point}: {summary}");
    let status = node.by_hand("status").done();
    assert_eq!(status["counts"]["unacknowledged"], 0, "{point}: {status}");
}

#[test]
fn an_add_that_was_killed_leaves_nothing_after_its_del() {
    let node = Node::new();
    node.by_hand("sync").done();
    for point in
        ["add-before-intent", "add-after-intent", "add-after-wire", "add-after-put", "add-after-wired"]
    {
        let pod = node.pod();
        killed(&node, point, "ADD", point, &pod);
        if point != "add-before-intent" {
            node.add(point, &pod).failed(4);
        }
        node.del(point, &pod.path()).done();
        gone(&node, point, &pod);
        node.add(point, &pod).done();
        node.del(point, "").done();
    }
}

#[test]
fn an_undo_that_was_killed_leaves_nothing_after_its_del() {
    let node = Node::new();
    node.by_hand("sync").done();
    for point in ["undo-after-unwire", "undo-after-released"] {
        let pod = node.pod();
        node.service.state().refuse("PUT", 409, "in-use");
        killed(&node, point, "ADD", "c", &pod);
        node.del("c", &pod.path()).done();
        gone(&node, point, &pod);
    }
}

#[test]
fn a_del_that_was_killed_is_done_by_the_next() {
    let node = Node::new();
    node.by_hand("sync").done();
    for point in ["del-after-releasing", "del-after-unwire", "del-after-released", "del-after-delete"] {
        let pod = node.pod();
        node.add("c", &pod).done();
        killed(&node, point, "DEL", "c", &pod);
        node.del("c", "").done();
        gone(&node, point, &pod);
    }
}

#[test]
fn a_del_that_was_killed_and_never_came_again_is_told_by_the_next_sync() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    killed(&node, "del-after-released", "DEL", "c", &pod);
    gone(&node, "del-after-released", &pod);
}

#[test]
fn a_sync_that_was_killed_loses_nothing() {
    for point in ["sync-after-listing", "sync-after-answer", "rebuild-before-header"] {
        let node = Node::new();
        let (stays, goes) = (node.pod(), node.pod());
        node.add("stays", &stays).done();
        // What the service has not heard of by then: an ADD, and a DEL that nobody repeats.
        killed(&node, "add-after-wire", "ADD", "goes", &goes);
        killed(&node, "del-after-released", "DEL", "goes", &goes);
        if point == "rebuild-before-header" {
            std::fs::remove_dir_all(node.state_dir()).unwrap();
        }
        let before = node.service.state().requests.len();
        let printed = node.by_hand_until(point, "sync");
        assert!(printed.status != 0 && printed.stdout.is_empty(), "{point}: {printed:?}");
        let heard = usize::from(point == "sync-after-answer");
        assert_eq!(node.service.state().requests.len(), before + heard, "{point}");
        // Nobody takes what is half done for a journal in which nothing lives.
        node.add("stays", &stays).failed(4);

        let summary = node.by_hand("sync").done();
        assert_eq!((&summary["live"], &summary["outcome"]), (&json!(1), &json!("synced")), "{point}");
        {
            let state = node.service.state();
            let listed = state.requests.last().unwrap().body["entries"].as_array().unwrap().clone();
            let of_it: Vec<_> = listed.iter().filter(|entry| entry["containerId"] == "stays").collect();
            assert_eq!(of_it.len(), 1, "{point}: {listed:?}");
            assert_eq!((&of_it[0]["state"], &of_it[0]["address"]), (&json!("wired"), &json!("10.240.1.0")));
            let gone = listed.iter().filter(|entry| entry["containerId"] == "goes");
            assert!(gone.into_iter().all(|entry| entry["state"] == "released"), "{point}: {listed:?}");
        }
        node.del("stays", &stays.path()).done();
        gone(&node, point, &stays);
    }
}

#[test]
fn an_add_that_cannot_write_down_its_end_leaves_no_pod_behind() {
    let node = Node::new();
    node.by_hand("sync").done();
    let remount = |directory: &str, how: &str| {
        let path = node.directory.path().join(directory);
        let path = path.display();
        node.namespace.sh(&format!("mount --bind {path} {path}; mount -o remount,bind,{how} {path}"));
    };
    let pod = node.pod();

    // dataDir takes no writes: that the claim is stale cannot be kept.
    remount("data", "ro");
    node.service.state().refuse("PUT", 409, "stale-claim");
    node.add("c", &pod).failed(103);
    assert_eq!(node.host_ends(), 0);
    pod.sh("! ip link show eth0 2>/dev/null");
    remount("data", "rw");

    // stateDir takes none between the service's answer and the end of the ADD.
    let (gate, reached) = (node.directory.path().join("gate"), node.directory.path().join("gate.reached"));
    std::fs::write(&gate, "").unwrap();
    std::thread::scope(|scope| {
        let point = format!("add-after-put:{}", gate.display());
        let (node, pod) = (&node, &pod);
        let add = scope.spawn(move || node.run_until(&point, "ADD", "d", &pod.path(), &node.conf));
        until("the ADD waits", || reached.exists());
        remount("state", "ro");
        std::fs::remove_file(&gate).unwrap();
        add.join().unwrap().failed(103);
    });
    assert_eq!(node.host_ends(), 0);
    pod.sh("! ip link show eth0 2>/dev/null");
    remount("state", "rw");
    node.del("d", &pod.path()).done();
    gone(&node, "stateDir is full", &pod);
}
