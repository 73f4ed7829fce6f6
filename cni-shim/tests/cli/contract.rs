//! What a runtime sees before anything is wired.

use crate::node::{Namespace, Node, is_empty, shim, until};
use serde_json::{Value, json};

const CONF: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"cni-shim","server":"unix:///nowhere","node":"n1","stateDir":"/nowhere/s","dataDir":"/nowhere/d"}"#;

fn verb<'a>(verb: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("CNI_COMMAND", verb)].into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn version_needs_nothing() {
    let host = Namespace::new(None);
    for stdin in ["", "not JSON", r#"{"cniVersion":"0.4.0"}"#] {
        let printed = shim(&host, &verb("VERSION", &[]), &[], stdin).done();
        assert_eq!(
            printed["supportedVersions"],
            json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
        assert!(!printed["cniVersion"].as_str().unwrap().is_empty());
    }
}

#[test]
fn wrong_environments_are_named() {
    let host = Namespace::new(None);
    let error = shim(&host, &verb("ADD", &[("CNI_IFNAME", "")]), &[], CONF).failed(4);
    assert!(error["msg"].as_str().unwrap().contains("[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"), "{error}");
    let all = [("CNI_CONTAINERID", "a/b"), ("CNI_NETNS", "/nowhere"), ("CNI_IFNAME", "eth0")];
    shim(&host, &verb("ADD", &all), &[], CONF).failed(4);
    for unknown in ["PLUG", "add"] {
        shim(&host, &verb(unknown, &all), &[], CONF).failed(4);
    }
}

#[test]
fn wrong_configurations_are_named() {
    let host = Namespace::new(None);
    let all = [("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/nowhere"), ("CNI_IFNAME", "eth0")];
    for verb_name in ["ADD", "DEL", "CHECK"] {
        let run = |conf: &str| shim(&host, &verb(verb_name, &all), &[], conf);
        run("").failed(6);
        run("{").failed(6);
        run(&CONF.replace("1.0.0", "1.2.0")).failed(1);
        run(&CONF.replace("\"pods\"", "\"-\"")).failed(7);
        let error = run(&CONF.replace("unix:///nowhere", "http://ipam.example")).failed(7);
        assert!(error["msg"].as_str().unwrap().contains("server"), "{error}");
        let error = run(&CONF.replace("\"name\"", "\"mode\":\"bridge\",\"name\"")).failed(2);
        assert!(error["msg"].as_str().unwrap().contains("bridge"), "{error}");
    }
    // Before anything else is asked of them, and whatever else the runtime sets or leaves empty.
    for (name, since, before) in
        [("CHECK", "0.4.0", "0.3.1"), ("GC", "1.1.0", "1.0.0"), ("STATUS", "1.1.0", "1.0.0")]
    {
        for empty in [&all[..], &[("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")]] {
            if name == "CHECK" && empty[0].1.is_empty() {
                continue;
            }
            for old in [before, ""] {
                let error = shim(&host, &verb(name, empty), &[], &CONF.replace("1.0.0", old)).failed(1);
                assert!(error["msg"].as_str().unwrap().contains(since), "{error}");
                assert_eq!(error["cniVersion"], if old.is_empty() { "0.1.0" } else { old });
            }
        }
    }
}

#[test]
fn wrong_namespaces_harm_nothing() {
    let node = Node::new();
    let links = node.namespace.sh("ip -o link");
    for (netns, code) in [("/proc/self/ns/net", 8), ("/nowhere/netns", 4), ("/etc/hostname", 4)] {
        node.run("ADD", "c", netns, &node.conf).failed(code);
    }
    assert!(is_empty(&node.state_dir()) && node.service.state().requests.is_empty());
    assert_eq!(node.namespace.sh("ip -o link"), links);
    // DEL has nothing to do, wherever CNI_NETNS leads, and says so.
    for netns in ["/proc/self/ns/net", "/nowhere/netns", "/etc/hostname", ""] {
        assert!(node.del("c", netns).done().is_null());
    }
    assert_eq!(node.namespace.sh("ip -o link"), links);
}

#[test]
fn without_a_verb_it_tells_what_it_is() {
    let host = Namespace::new(None);
    for variables in [&[][..], &[("CNI_COMMAND", "")]] {
        let printed = shim(&host, variables, &[], "");
        assert_eq!((printed.status, printed.stdout.as_str()), (0, ""));
        assert!(printed.stderr.contains("CNI plugin") && printed.stderr.contains("1.0.0"), "{printed:?}");
    }
    assert_eq!(shim(&host, &[], &["dance"], "").status, 2);
    assert!(shim(&host, &[], &["--help"], "").stdout.contains("sync"));
}

#[test]
fn a_node_that_never_had_a_pod_says_so() {
    let node = Node::new();
    let status = node.by_hand("status").done();
    assert_eq!((&status["journal"], &status["entries"]), (&json!("none"), &json!([])));
    assert!(is_empty(&node.state_dir()), "status only looks");
    let printed = shim(&node.namespace, &[], &["sync", "--node", "n1"], "");
    assert!(printed.status == 1 && printed.stderr.contains("--server"), "{printed:?}");
}

#[test]
fn what_would_never_work_is_refused_at_once() {
    let node = Node::new();
    let pod = node.pod();
    let mut conf = node.conf.clone();
    conf["server"] = "https://10.240.0.5:8420".into();
    let error = node.run("ADD", "c", &pod.path(), &conf).failed(7);
    assert!(error["msg"].as_str().unwrap().contains("caFile"), "{error}");
    assert!(node.run("DEL", "c", &pod.path(), &conf).done().is_null());
    let by_hand =
        shim(&node.namespace, &[], &["sync", "--server", "https://10.240.0.5:1", "--node", "n1"], "");
    assert!(by_hand.status == 1 && by_hand.stderr.contains("caFile"), "{by_hand:?}");
    conf["caFile"] = "/nowhere/ca".into();
    conf["certFile"] = "/nowhere/cert".into();
    let error = node.run("ADD", "c", &pod.path(), &conf).failed(7);
    assert!(error["msg"].as_str().unwrap().contains("keyFile"), "{error}");
    // No alias holds that, so nothing could be rebuilt from it.
    node.add(&"c".repeat(250), &pod).failed(4);
    assert_eq!(node.host_ends(), 0);
}

#[test]
fn a_del_that_cannot_even_begin_does_not_read_like_one_that_is_done() {
    let host = Namespace::new(None);
    let all = [("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
    let conf = CONF
        .replace("\"type\"", "\"bootIdFile\":\"/nowhere/id\",\"type\"")
        .replace("/nowhere/s", "/proc/nowhere");
    let printed = shim(&host, &verb("DEL", &all), &[], &conf);
    assert_eq!(printed.status, 1, "{printed:?}");
    assert!(!printed.stdout.to_lowercase().contains("no such file"), "{printed:?}");
    assert!(printed.stdout.contains("missing"), "{printed:?}");
}

#[test]
fn the_segment_hears_of_a_new_pod() {
    let node = Node::new();
    // A neighbour that believes announcements.
    node.namespace.sh("echo 1 >/proc/sys/net/ipv4/conf/far0/arp_accept");
    node.add("c", &node.pod()).done();
    until("far0 knows the pod's address", || {
        node.namespace.sh("ip neigh show dev far0").contains("10.240.1.0 ")
    });
}

/// Each version of the README's list is one that its plugin can be called with.
#[test]
fn the_readmes_configuration_is_one() {
    const README: &str = include_str!("../../../README.md");
    let (_, after) = README.split_once("```json").unwrap();
    let told: Value = serde_json::from_str(after.split("```").next().unwrap()).unwrap();
    let node = Node::new();
    let mut conf = told.clone();
    for key in ["stateDir", "dataDir", "bootIdFile", "node"] {
        conf[key] = node.conf[key].clone();
    }
    for version in ["1.0.0", "1.1.0"] {
        conf["cniVersion"] = version.into();
        assert!(node.run("DEL", "c", "", &conf).done().is_null());
    }
    let error = node.run("STATUS", "", "", &conf).failed(50);
    let details = error["details"].as_str().unwrap();
    assert!(details.starts_with("node n1 has no claim here yet"), "nothing else is wrong: {error}");
}
