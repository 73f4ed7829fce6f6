//! The whole journal at once: what a sync sends, and what it hears.

use crate::node::Node;
use serde_json::{Value, json};

fn entries(node: &Node) -> Vec<(String, String)> {
    let status = node.by_hand("status").done();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = status["entries"].as_array().unwrap();
    rows.iter().map(|row| (text(&row["addresses"][0]), text(&row["state"]))).collect()
}

#[test]
fn a_sync_lists_everything_under_its_number() {
    let node = Node::new();
    let (stays, goes) = (node.pod(), node.pod());
    node.add("stays", &stays).done();
    node.add("goes", &goes).done();
    node.del("goes", &goes.path()).done();
    let summary = node.by_hand("sync").done();
    assert_eq!(
        (&summary["live"], &summary["released"], &summary["outcome"]),
        (&json!(1), &json!(1), &json!("synced"))
    );
    let state = node.service.state();
    let sync = state.requests.last().unwrap();
    assert_eq!(sync.number("seq"), sync.body["asOfSeq"].as_u64().unwrap());
    for entry in sync.body["entries"].as_array().unwrap() {
        assert!(entry["seq"].as_u64() < sync.body["asOfSeq"].as_u64(), "{entry}");
    }
    assert!(sync.stamp.contains("boot-id=\"boot-a\""), "{}", sync.stamp);
}

#[test]
fn what_the_ledger_gave_away_is_said_again_as_new() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    let before = node.entry("10.240.1.0")["seq"].as_u64().unwrap();
    let item = json!({"network": "pods", "containerId": "c", "ifName": "eth0", "address": "10.240.1.0", "result": "released"});
    {
        let mut state = node.service.state();
        let answer = json!({"items": [item], "node": state.node});
        state.script("PUT", 200, &answer);
    }
    node.by_hand("sync").done();
    let entry = node.entry("10.240.1.0");
    assert!(entry["seq"].as_u64().unwrap() > before && entry["acknowledged"] == true, "{entry}");
}

#[test]
fn a_refused_entry_is_told_of_and_not_sent_for_ever() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    let problem = json!({"type": "/problems/address-taken", "title": "t", "status": 409, "detail": "outside the block"});
    let item = json!({"network": "pods", "containerId": "c", "ifName": "eth0", "address": "10.240.1.0", "result": "refused", "problem": problem});
    {
        let mut state = node.service.state();
        let answer = json!({"items": [item], "node": state.node});
        state.script("PUT", 200, &answer);
    }
    let printed = node.by_hand("sync");
    assert_eq!(printed.status, 1, "{printed:?}");
    assert!(
        printed.stdout.contains("outside the block") && printed.stderr.contains("refuses 1"),
        "{printed:?}"
    );
    // The pod runs on, and DEL frees it.
    assert_eq!(node.host_ends(), 1);
    node.del("c", "").done();
    assert_eq!(entries(&node), [("10.240.1.0".to_owned(), "released".to_owned())]);
}

/// The header of the last sync.
fn last_sync(node: &Node) -> String {
    let state = node.service.state();
    let sync = state.requests.iter().rev().find(|request| !request.body["asOfSeq"].is_null());
    sync.unwrap().stamp.clone()
}

#[test]
fn a_smaller_block_is_confirmed_in_its_own_name_once_nothing_lives_in_what_goes() {
    let node = Node::new();
    let pods = ["a", "b", "c"].map(|name| (name, node.pod()));
    for (name, pod) in &pods {
        node.add(name, pod).done();
    }
    node.service.state().node["block"] = json!({
        "version": 2,
        "ranges": [{"first": "10.240.1.0", "last": "10.240.1.1", "first6": "fd00:10::100", "last6": "fd00:10::101"}],
        "leaving": [{"first": "10.240.1.2", "last": "10.240.1.3", "first6": "fd00:10::102", "last6": "fd00:10::103"}],
    });
    for _ in 0..2 {
        node.by_hand("sync").done();
        assert!(last_sync(&node).contains("block=1"), "{}", last_sync(&node));
    }
    // One address is left, and it goes.
    node.add("late", &node.pod()).failed(102);
    let (name, pod) = &pods[2];
    node.del(name, &pod.path()).done();
    assert!(
        last_sync(&node).contains("block=2"),
        "the DEL of the last pod there says so: {}",
        last_sync(&node)
    );
    node.del("a", &pods[0].1.path()).done();
    node.add("d", &node.pod()).done();
    assert_eq!(node.entry("10.240.1.0")["containerId"], "d");
}

#[test]
fn a_deletion_is_confirmed_once_nothing_lives() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    {
        let mut state = node.service.state();
        state.node["state"] = "deleting".into();
        state.node["deletion"] = "d-1".into();
    }
    let summary = node.by_hand("sync").done();
    assert_eq!((&summary["outcome"], &summary["live"]), (&json!("deleting"), &json!(1)));
    node.add("late", &node.pod()).failed(101);
    node.del("c", &pod.path()).done();
    let summary = node.by_hand("sync").done();
    assert_eq!(summary["outcome"], "ended");
    {
        let state = node.service.state();
        let confirmed = state.requests.last().unwrap();
        assert_eq!(confirmed.body["deletion"], "d-1");
        let unconfirmed = state.of("PUT").iter().filter(|put| put.body["deletion"].is_null()).count();
        assert!(unconfirmed >= 3, "a journal with a pod confirms nothing");
    }
    assert!(!node.directory.path().join("data/claim.json").exists());
    assert_eq!(entries(&node), []);
}

#[test]
fn a_confirmation_whose_answer_was_lost_ends_as_well() {
    let node = Node::new();
    node.by_hand("sync").done();
    {
        let mut state = node.service.state();
        state.refuse("PUT", 409, "stale-claim");
        state.refuse("GET", 404, "not-found");
    }
    assert_eq!(node.by_hand("sync").done()["outcome"], "ended");
    assert!(!node.directory.path().join("data/claim.json").exists());
    let end = node.directory.path().join("data/ended.json");
    assert!(!end.exists(), "a service that knows no such node names no end");
    node.by_hand("sync").done();
    for verb in ["PUT", "GET"] {
        node.service.state().refuse(verb, 409, "stale-claim");
    }
    assert_eq!(node.by_hand("sync").done()["outcome"], "ended");
    assert!(end.exists(), "this one does");

    // With a pod on it the node waits for a person.
    let pod = node.pod();
    node.add("c", &pod).done();
    {
        let mut state = node.service.state();
        state.refuse("PUT", 409, "stale-claim");
        state.refuse("GET", 404, "not-found");
    }
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("register node n1"), "{printed:?}");
    assert_eq!(node.host_ends(), 1);
}

#[test]
fn a_lost_journal_is_rebuilt_from_the_host_before_anything_is_sent() {
    let node = Node::new();
    let (one, two) = (node.pod(), node.pod());
    node.add("one", &one).done();
    node.add("two", &two).done();
    let seq = node.entry("10.240.1.1")["seq"].as_u64().unwrap();
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    assert_eq!(node.by_hand("status").done()["journal"], "lost");
    // The first verb that comes rebuilds it: a second ADD is still one.
    let before = node.service.state().requests.len();
    node.add("two", &two).failed(4);
    assert_eq!(node.service.state().requests.len(), before);
    let wired = |address: &str| (address.to_owned(), "wired".to_owned());
    assert_eq!(entries(&node), [wired("10.240.1.0"), wired("10.240.1.1")]);
    assert!(node.entry("10.240.1.1")["seq"].as_u64().unwrap() > seq);
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    assert_eq!(node.by_hand("sync").done()["rebuilt"], 2);
    node.del("two", "").done();
    assert_eq!(node.host_ends(), 1);

    // Without dataDir the service tells that this boot had a journal.
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    std::fs::remove_dir_all(node.directory.path().join("data")).unwrap();
    node.service.state().node["boot"] = json!({"id": "boot-a", "seq": 1});
    let summary = node.by_hand("sync").done();
    assert_eq!((&summary["rebuilt"], &summary["boot"]), (&json!(1), &json!(1)));
}

#[test]
fn a_reboot_is_a_new_beginning_under_the_next_number() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    drop(pod);
    node.reboot("boot-b");
    let summary = node.by_hand("sync").done();
    assert_eq!((&summary["boot"], &summary["live"]), (&json!(2), &json!(0)));
    let state = node.service.state();
    assert_eq!(state.requests.last().unwrap().number("boot"), 2);
}

#[test]
fn a_sync_that_finds_no_agreement_says_so() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    // In part: whatever is not mentioned is not agreed on.
    {
        let mut state = node.service.state();
        let answer = json!({"items": [], "node": state.node});
        state.script("PUT", 200, &answer);
    }
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("in part"), "{printed:?}");
    // Given away again and again, however new the entry is.
    let item = json!({"network": "pods", "containerId": "c", "ifName": "eth0", "address": "10.240.1.0", "result": "released"});
    for _ in 0..7 {
        let mut state = node.service.state();
        let answer = json!({"items": [item], "node": state.node});
        state.script("PUT", 200, &answer);
    }
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("do not agree"), "{printed:?}");
    assert_eq!(node.by_hand("sync").done()["live"], 1);
}

#[test]
fn a_journal_is_not_rebuilt_from_another_network() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    let before = node.service.state().requests.len();
    node.namespace.sh("ip addr flush dev up0; ip route add default dev up0");
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("10.240.0.10"), "{printed:?}");
    assert_eq!(node.service.state().requests.len(), before, "nobody was told of an empty journal");
    node.namespace.sh("ip addr add 10.240.0.10/16 dev up0");
    assert_eq!(node.by_hand("sync").done()["rebuilt"], 1);
}
