//! A node's credential: what it shows, and what it makes of one that counts no more.

use crate::node::Node;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

const OLD: &str = "ipam_node_OOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOO";

/// A node whose configuration names a token file, and the file.
fn node() -> (Node, PathBuf) {
    let mut node = Node::new();
    let path = node.directory.path().join("token");
    node.conf["tokenFile"] = path.to_str().unwrap().into();
    (node, path)
}

#[test]
fn a_token_that_counts_no_more_stops_no_pod() {
    let (mut node, path) = node();
    fs::write(&path, OLD).unwrap();
    let log = node.directory.path().join("log");
    node.conf["logFile"] = log.to_str().unwrap().into();
    node.by_hand("sync").done();
    let unreachable = node.state_dir().join("unreachable");
    let expired = json!({
        "type": "/problems/unauthenticated", "title": "t", "status": 401,
        "detail": "token 0123456789abcdef (node:n1) has expired: ask an admin for a new one (ipamctl token create)"
    });
    let pod = node.pod();
    node.service.state().script("PUT", 401, &expired);
    let result: Value = node.add("c", &pod).done();
    assert_eq!(result["ips"][0]["address"], "10.240.1.0/32");
    assert_eq!(node.entry("10.240.1.0")["acknowledged"], false);
    let status = node.by_hand("status").done();
    assert!(status["unreachable"]["reason"].as_str().unwrap().contains("has expired"), "{status}");

    fs::remove_file(&unreachable).unwrap();
    node.service.state().script("DELETE", 401, &expired);
    assert!(node.del("c", &pod.path()).done().is_null());
    assert_eq!(node.host_ends(), 0);
    assert_eq!(node.service.state().of("DELETE").len(), 1);

    // Each says why, which file, and the cure, and never what is in it.
    let said = fs::read_to_string(&log).unwrap();
    for verb in ["ADD", "DEL"] {
        let line = said.lines().find(|line| line.contains(verb) && line.contains("answered 401")).unwrap();
        for part in ["warning", path.to_str().unwrap(), "has expired", "ipamctl token create"] {
            assert!(line.contains(part), "{line}");
        }
    }
    assert!(!said.contains(OLD), "{said}");

    // A file that is gone or holds no token is an outage like it.
    for broken in [None, Some("a\nb")] {
        fs::remove_file(&unreachable).ok();
        fs::remove_file(&path).ok();
        if let Some(text) = broken {
            fs::write(&path, text).unwrap();
        }
        let pod = node.pod();
        node.add("d", &pod).done();
        node.del("d", &pod.path()).done();
    }
    assert!(fs::read_to_string(&log).unwrap().contains("tokenFile"));
}

#[test]
fn certificates_that_cannot_be_used_stop_no_pod() {
    let (mut node, _) = node();
    node.conf.as_object_mut().unwrap().remove("tokenFile");
    node.by_hand("sync").done();
    let ca = node.directory.path().join("ca");
    node.conf["server"] = "https://127.0.0.1:1".into();
    node.conf["caFile"] = ca.to_str().unwrap().into();
    for (text, why) in [(None, "No such file"), (Some("junk"), "no certificate in PEM")] {
        if let Some(text) = text {
            fs::write(&ca, text).unwrap();
        }
        let pod = node.pod();
        let printed = node.add("c", &pod);
        printed.done();
        assert!(printed.stderr.contains("caFile") && printed.stderr.contains(why), "{printed:?}");
        node.del("c", &pod.path()).done();
        fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    }
}
