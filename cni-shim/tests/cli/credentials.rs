//! A node's credential: what it shows, what it makes of one that counts no more, how it gets another.

use crate::node::{Node, Printed};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const OLD: &str = "ipam_node_OOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOO";
const JOIN: &str = "ipam_join_JJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJ";

/// A node whose configuration names a token file, and the file.
fn node() -> (Node, PathBuf) {
    let mut node = Node::new();
    let path = node.directory.path().join("token");
    node.conf["tokenFile"] = path.to_str().unwrap().into();
    (node, path)
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name("token.new")
}

fn join(node: &Node) -> Printed {
    let path = node.directory.path().join("join");
    fs::write(&path, JOIN).unwrap();
    node.by_hand_with("join", &["--join-token-file", path.to_str().unwrap()])
}

/// The tokens that the service was asked to keep, with what was shown for it.
fn asked(node: &Node) -> Vec<(String, String)> {
    let state = node.service.state();
    let puts = state.requests.iter().filter(|put| put.target == "/v1/nodes/n1/credential");
    puts.map(|put| {
        let token = put.body["token"].as_str().unwrap();
        (put.authorization.clone(), token.to_owned())
    })
    .collect()
}

/// No secret is in what was printed.
#[track_caller]
fn secret(node: &Node, printed: &Printed) {
    let all = format!("{}{}", printed.stdout, printed.stderr);
    let secrets = asked(node).into_iter().map(|(_, token)| token).chain([OLD.to_owned(), JOIN.to_owned()]);
    for secret in secrets {
        assert!(!all.contains(&secret), "{printed:?}");
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_node_joins_with_a_token_that_it_made() {
    let (node, path) = node();
    let printed = join(&node);
    let summary = printed.done();
    assert_eq!(
        (&summary["node"], &summary["token"], &summary["tokenFile"], &summary["expiresAt"]),
        (&json!("n1"), &json!("0123456789abcdef"), &json!(path), &json!("2036-01-01T00:00:00Z"))
    );
    secret(&node, &printed);
    let [(shown, token)] = &asked(&node)[..] else { panic!("one request: {:?}", asked(&node)) };
    assert_eq!(*shown, bearer(JOIN));
    assert!(token.starts_with("ipam_node_") && token.len() == OLD.len(), "{token}");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{token}\n"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!beside(&path).exists());

    // It is what the plugin shows from now on.
    node.add("c", &node.pod()).done();
    let last = node.service.state().requests.last().unwrap().authorization.clone();
    assert_eq!(last, bearer(token));

    // Once more would use the join token up for nothing.
    let printed = join(&node);
    assert!(printed.status == 1 && printed.stderr.contains("cni-shim rotate"), "{printed:?}");
    assert_eq!(asked(&node).len(), 1);
}

#[test]
fn a_lost_answer_loses_nothing() {
    let (node, path) = node();
    for verb in ["join", "rotate"] {
        let run = || if verb == "join" { join(&node) } else { node.by_hand("rotate") };
        let before = (asked(&node).len(), fs::read(&path).ok());
        node.service.state().lose("PUT");
        let printed = run();
        assert!(printed.status == 1 && printed.stderr.contains("run this again"), "{printed:?}");
        secret(&node, &printed);
        assert_eq!(fs::read(&path).ok(), before.1, "{verb}");
        assert_eq!(beside(&path).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        run().done();
        let asked = asked(&node);
        assert_eq!(asked.len(), before.0 + 2);
        assert_eq!(asked[before.0], asked[before.0 + 1], "{verb}: the same token, by the same");
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), asked[before.0].1);
        assert!(!beside(&path).exists());
    }
    let asked = asked(&node);
    assert_eq!(asked[2].0, bearer(&asked[0].1), "it rotates by the one that it had");
    assert_ne!(asked[2].1, asked[0].1);
}

#[test]
fn whoever_joins_wants_the_node_and_may_be_killed_on_the_way() {
    let (node, path) = node();
    let end = node.directory.path().join("data/ended.json");
    fs::create_dir_all(end.parent().unwrap()).unwrap();
    fs::write(&end, r#"{"node": "n1", "claim": 1}"#).unwrap();
    node.service.state().lose("PUT");
    assert_eq!(join(&node).status, 1);
    assert!(!end.exists(), "once there is a token none is joined with any more");
    join(&node).done();
    assert!(path.exists());
}

#[test]
fn what_ended_since_the_answer_was_lost_is_spoken_for_by_the_new_token() {
    let (node, path) = node();
    fs::write(&path, OLD).unwrap();
    node.service.state().lose("PUT");
    assert_eq!(node.by_hand("rotate").status, 1);
    node.service.state().refuse("PUT", 401, "unauthenticated");
    node.by_hand("rotate").done();
    let asked = asked(&node);
    let shown: Vec<&str> = asked.iter().map(|(shown, _)| shown.as_str()).collect();
    let new = &asked[0].1;
    assert_eq!(shown, [bearer(OLD), bearer(OLD), bearer(new)]);
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), new);

    // One that the service has not kept speaks for nobody, and the first answer is the one to hear of.
    for _ in 0..3 {
        node.service.state().refuse("PUT", 401, "unauthenticated");
    }
    for requests in [4, 6] {
        let printed = node.by_hand("rotate");
        assert!(printed.status == 1 && printed.stderr.contains("told unauthenticated"), "{printed:?}");
        assert_eq!(self::asked(&node).len(), requests);
    }
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), new);
}

#[test]
fn whoever_is_refused_keeps_what_there_was() {
    let (node, path) = node();
    node.service.state().refuse("PUT", 403, "forbidden");
    let printed = join(&node);
    assert!(printed.status == 1 && printed.stderr.contains("told forbidden"), "{printed:?}");
    assert!(!path.exists());
    secret(&node, &printed);
    // It says nothing of the service to pods that start.
    assert!(!node.state_dir().join("unreachable").exists());

    fs::write(&path, OLD).unwrap();
    node.service.state().refuse("PUT", 409, "exists");
    let printed = node.by_hand("rotate");
    assert!(printed.status == 1 && printed.stderr.contains("told exists"), "{printed:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
    secret(&node, &printed);
}

#[test]
fn what_is_missing_or_no_token_is_named() {
    let (mut node, path) = node();
    let says = |printed: &Printed, what: &str| {
        assert!(printed.status == 1 && printed.stderr.contains(what), "{printed:?}");
    };
    says(&node.by_hand("rotate"), "cni-shim join");
    says(&node.by_hand_with("join", &["--join-token-file", "/nowhere/join"]), "check --join-token-file");
    fs::write(beside(&path), "ipam_admin_x").unwrap();
    says(&join(&node), "token.new holds no node's token");
    fs::remove_file(beside(&path)).unwrap();
    node.conf["tokenFile"] = "/proc/nowhere/token".into();
    says(&join(&node), "cannot write /proc/nowhere/token.new");
    node.conf.as_object_mut().unwrap().remove("tokenFile");
    says(&join(&node), "no tokenFile");
    assert!(asked(&node).is_empty());
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
