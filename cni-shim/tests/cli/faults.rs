//! Killed at any step of ADD or DEL: what the runtime does next, a DEL, leaves nothing. Killed
//! at any step of a sync: nothing is lost, and the next one goes on.

use crate::node::{Namespace, Node, Printed, until};
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

/// Runs a verb up to a point, does something meanwhile, and lets it go on.
fn meanwhile(
    node: &Node,
    point: &str,
    run: impl FnOnce(&str) -> Printed + Send,
    act: impl FnOnce(),
) -> Printed {
    let gate = node.directory.path().join(format!("gate-{point}"));
    let reached = gate.with_extension("reached");
    std::fs::write(&gate, "").unwrap();
    std::thread::scope(|scope| {
        let fault = format!("{point}:{}", gate.display());
        let running = scope.spawn(move || run(&fault));
        until("it waits at the point", || reached.exists());
        act();
        std::fs::remove_file(&gate).unwrap();
        running.join().unwrap()
    })
}

fn gc_until(node: &Node, point: &str) -> Printed {
    let mut conf = node.conf.clone();
    conf["cniVersion"] = "1.1.0".into();
    conf["cni.dev/valid-attachments"] = json!(null);
    node.run_until(point, "GC", "", "", &conf)
}

#[test]
fn a_gc_spares_what_was_made_since_it_began() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| node.pod()).collect();
    node.add("again", &pods[0]).done();
    node.add("lost", &pods[1]).done();
    let printed = meanwhile(
        &node,
        "gc-after-begin",
        |fault| gc_until(&node, fault),
        || {
            node.del("again", &pods[0].path()).done();
            node.add("again", &pods[0]).done();
            node.add("new", &pods[2]).done();
        },
    );
    assert!(printed.done().is_null());
    for (pod, there) in pods.iter().zip([true, false, true]) {
        pod.sh(if there { "ip link show eth0" } else { "! ip link show eth0 2>/dev/null" });
    }
    assert_eq!(node.by_hand("status").done()["counts"]["wired"], 2);
}

#[test]
fn a_gc_spares_what_an_add_is_at() {
    for point in ["add-after-intent", "add-after-wire", "add-after-wired"] {
        let node = Node::new();
        let pod = node.pod();
        let printed = meanwhile(
            &node,
            point,
            |fault| node.run_until(fault, "ADD", "c", &pod.path(), &node.conf),
            || assert!(node.gc(&[]).done().is_null()),
        );
        let mut conf = node.conf.clone();
        conf["prevResult"] = printed.done();
        node.run("CHECK", "c", &pod.path(), &conf).done();
        // Now it is nobody's.
        node.gc(&[]).done();
        gone(&node, point, &pod);
    }
}

#[test]
fn a_gc_that_was_killed_is_done_by_the_next() {
    let node = Node::new();
    node.by_hand("sync").done();
    for point in [
        "gc-after-begin",
        "del-after-releasing",
        "del-after-unwire",
        "del-after-released",
        "sync-after-answer",
    ] {
        let pods = [node.pod(), node.pod()];
        for (n, pod) in pods.iter().enumerate() {
            node.add(&format!("c{n}"), pod).done();
        }
        let printed = gc_until(&node, point);
        assert!(printed.status != 0 && printed.stdout.is_empty(), "{point}: {printed:?}");
        node.gc(&[]).done();
        for pod in &pods {
            gone(&node, point, pod);
        }
    }
}

#[test]
fn a_gc_finishes_what_was_killed_at_any_step_of_an_add_or_a_del() {
    let node = Node::new();
    node.by_hand("sync").done();
    for point in ["add-after-intent", "add-after-wire", "add-after-put", "add-after-wired"] {
        let pod = node.pod();
        killed(&node, point, "ADD", "c", &pod);
        node.gc(&[]).done();
        gone(&node, point, &pod);
    }
    for point in ["del-after-releasing", "del-after-unwire", "del-after-released"] {
        let pod = node.pod();
        node.add("c", &pod).done();
        killed(&node, point, "DEL", "c", &pod);
        node.gc(&[]).done();
        gone(&node, point, &pod);
    }
}

#[test]
fn a_defect_is_one_error_object_and_leaves_nothing_after_a_del() {
    let node = Node::new();
    node.by_hand("sync").done();
    let pod = node.pod();
    for (verb, point) in [("ADD", "add-after-intent!"), ("DEL", "del-after-releasing!")] {
        let error = node.run_until(point, verb, "c", &pod.path(), &node.conf).failed(999);
        assert!(error["details"].as_str().unwrap().contains("asked for at"), "{error}");
        assert_eq!(error["cniVersion"], "1.0.0");
    }
    // After the result the runtime has its one object.
    node.del("c", &pod.path()).done();
    gone(&node, "a defect", &pod);
    gc_until(&node, "gc-after-begin!").failed(999);
}
