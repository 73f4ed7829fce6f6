//! `portMappings`: what is refused, who holds a port, and what is left of one.

use crate::node::{Namespace, Node, Printed};
#[cfg(feature = "fault-points")]
use crate::{agent::Agent, node::until};
use serde_json::{Value, json};

fn conf(node: &Node, mappings: &Value) -> Value {
    let mut conf = node.conf.clone();
    conf["capabilities"] = json!({"portMappings": true});
    conf["runtimeConfig"] = json!({"portMappings": mappings});
    conf
}

fn add(node: &Node, container: &str, pod: &Namespace, mappings: &Value) -> Printed {
    node.run("ADD", container, &pod.path(), &conf(node, mappings))
}

fn tcp(port: u16) -> Value {
    json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}])
}

/// The elements that the kernel has, and the pairs of pods that may reach themselves.
fn elements(node: &Node) -> Vec<String> {
    let listed = node.namespace.sh("nft -j list ruleset");
    let ruleset: Value = serde_json::from_str(&listed).unwrap();
    let sets = ruleset["nftables"].as_array().unwrap().iter();
    let sets = sets.filter_map(|object| object.get("map").or_else(|| object.get("set")));
    let elements = sets.filter_map(|set| set["elem"].as_array()).flatten();
    elements.map(ToString::to_string).collect()
}

#[test]
fn what_is_wrong_is_refused_with_the_key_before_anything_is_done() {
    let node = Node::new();
    let pod = node.pod();
    let refused = |mapping: Value, code: u32, words: &[&str]| {
        let error = add(&node, "c", &pod, &json!([mapping])).failed(code);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?} in {error}");
    };
    let key = "runtimeConfig.portMappings[0]";
    refused(json!({"hostPort": 80}), 7, &[key, "containerPort"]);
    refused(json!({"hostPort": 65_536, "containerPort": 1}), 7, &[key, "hostPort", "65536"]);
    refused(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}), 7, &[key, "icmp", "sctp"]);
    refused(json!({"hostPort": 80, "containerPort": 80, "hostIP": "eth0"}), 7, &[key, "eth0"]);
    refused(json!({"hostPort": 80, "containerPort": 80, "hostIP": "::1"}), 2, &[key, "::1", "127.0.0.1"]);
    let twice = json!([tcp(80)[0], {"hostPort": 80, "containerPort": 81, "hostIP": "10.240.0.10"}]);
    let error = add(&node, "c", &pod, &twice).failed(7);
    assert!(error.to_string().contains("twice"), "{error}");
    assert_eq!((node.host_ends(), node.service.state().of("PUT").len()), (0, 0));

    // Ports that nobody asked the node for are none.
    add(&node, "c", &pod, &json!([{"containerPort": 80}, {"hostPort": 0, "containerPort": 81}])).done();
    assert!(elements(&node).is_empty());
    assert!(!node.namespace.sh("nft list ruleset").contains("host-ports"));
}

#[test]
fn a_port_has_one_holder() {
    let node = Node::new();
    let (one, two) = (node.pod(), node.pod());
    let result = add(&node, "one", &one, &tcp(8080)).done();
    let mut check = conf(&node, &tcp(8080));
    check["prevResult"] = result;
    node.run("CHECK", "one", &one.path(), &check).done();
    let before = elements(&node);
    assert_eq!(before.len(), 4, "one port and one pair a family: {before:?}");
    let error = add(&node, "two", &two, &tcp(8080)).failed(11);
    assert!(error["msg"] == "the node's port tcp 8080 is taken", "{error}");
    assert!(error["details"].as_str().unwrap().starts_with("pods/one/eth0 has it"), "{error}");
    assert_eq!((elements(&node), node.host_ends()), (before, 1));

    // A late DEL of who was refused, and of whoever had it before, takes nothing from the holder.
    let before = elements(&node);
    node.del("two", &two.path()).done();
    node.del("zero", "").done();
    assert_eq!(elements(&node), before);
    node.del("one", "").done();
    assert!(elements(&node).is_empty());
    add(&node, "two", &two, &tcp(8080)).done();
    node.del("one", &one.path()).done();
    assert_eq!(elements(&node).len(), 4);
}

#[test]
fn ports_are_held_by_who_cannot_be_read_as_well() {
    let node = Node::new();
    let (one, two) = (node.pod(), node.pod());
    add(&node, "one", &one, &tcp(8080)).done();
    let before = elements(&node);
    std::fs::write(node.state_dir().join("addresses/10.240.1.0"), "{").unwrap();
    let error = add(&node, "two", &two, &tcp(8080)).failed(11);
    assert!(error["details"].as_str().unwrap().starts_with("pods/one/eth0 has it"), "{error}");
    assert_eq!(elements(&node), before);
    add(&node, "two", &two, &tcp(8081)).done();
}

#[test]
fn a_lost_journal_is_told_the_ports_by_the_host() {
    let node = Node::new();
    let pod = node.pod();
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "10.240.0.10"},
        {"hostPort": 7, "containerPort": 7, "protocol": "sctp", "hostIP": "fd00:10::a"}
    ]);
    let result = add(&node, "c", &pod, &mappings).done();
    let before = elements(&node);
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    node.by_hand("sync").done();
    let mut conf = node.conf.clone();
    conf["prevResult"] = result;
    node.run("CHECK", "c", &pod.path(), &conf).done();
    let entry = std::fs::read_to_string(node.state_dir().join("addresses/10.240.1.0")).unwrap();
    for words in ["\"hostPort\":8080", "\"hostIp\":\"10.240.0.10\"", "\"protocol\":\"sctp\""] {
        assert!(entry.contains(words), "{words} in {entry}");
    }
    add(&node, "other", &node.pod(), &tcp(8080)).failed(11);
    assert_eq!(elements(&node), before);
    node.del("c", &pod.path()).done();
    assert!(elements(&node).is_empty());
}

#[test]
fn what_portmap_does_is_left_to_it() {
    let node = Node::new();
    let lists = node.directory.path().join("net.d");
    std::fs::create_dir(&lists).unwrap();
    let list = |name: &str| {
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "cni-shim"}, portmap]}).to_string()
    };
    let add_to = |container: &str, pod: &Namespace| {
        let mut conf = conf(&node, &tcp(8080));
        conf["confDir"] = json!(lists);
        node.run("ADD", container, &pod.path(), &conf).done()
    };
    // Another network's list is no word about this one.
    std::fs::write(lists.join("20-others.conflist"), list("others")).unwrap();
    let pod = node.pod();
    add_to("ours", &pod);
    assert_eq!(elements(&node).len(), 4);
    node.del("ours", &pod.path()).done();

    std::fs::write(lists.join("10-pods.conflist"), list("pods")).unwrap();
    let pod = node.pod();
    let result = add_to("theirs", &pod);
    assert!(elements(&node).is_empty());
    let mut conf = conf(&node, &tcp(8080));
    conf["confDir"] = json!(lists);
    conf["prevResult"] = result;
    node.run("CHECK", "theirs", &pod.path(), &conf).done();
    // What ADD left to it stays its own, whatever the list says by now.
    std::fs::remove_file(lists.join("10-pods.conflist")).unwrap();
    node.run("CHECK", "theirs", &pod.path(), &conf).done();
    node.run("DEL", "theirs", &pod.path(), &conf).done();
}

#[cfg(feature = "fault-points")]
#[test]
fn ports_of_a_verb_that_was_killed_are_gone_after_the_next_del_or_gc() {
    let node = Node::new();
    node.by_hand("sync").done();
    let killed = |point: &str, verb: &str, pod: &Namespace| {
        let printed = node.run_until(point, verb, "c", &pod.path(), &conf(&node, &tcp(8080)));
        assert!(printed.status != 0 && printed.stdout.is_empty(), "{point}: {printed:?}");
    };
    let gone = |point: &str| {
        assert!(elements(&node).is_empty(), "{point}: {:?}", elements(&node));
        assert_eq!(node.host_ends(), 0, "{point}");
        let pod = node.pod();
        add(&node, "next", &pod, &tcp(8080)).done();
        node.del("next", &pod.path()).done();
    };
    for point in ["add-after-intent", "add-after-wire", "add-after-put", "add-after-wired"] {
        for gc in [false, true] {
            let pod = node.pod();
            killed(point, "ADD", &pod);
            if gc {
                node.gc(&[]).done()
            } else {
                node.del("c", "").done()
            };
            gone(point);
        }
    }
    for point in ["undo-after-unwire", "undo-after-released"] {
        let pod = node.pod();
        node.service.state().refuse("PUT", 409, "in-use");
        killed(point, "ADD", &pod);
        assert!(elements(&node).is_empty(), "{point}: {:?}", elements(&node));
        node.del("c", &pod.path()).done();
        gone(point);
    }
    for point in ["del-after-releasing", "del-after-unwire", "del-after-released", "del-after-delete"] {
        let pod = node.pod();
        add(&node, "c", &pod, &tcp(8080)).done();
        killed(point, "DEL", &pod);
        node.del("c", &pod.path()).done();
        gone(point);
    }
}

#[test]
fn an_add_that_fails_leads_no_port() {
    let node = Node::new();
    node.service.state().refuse("PUT", 409, "in-use");
    let pod = node.pod();
    add(&node, "c", &pod, &tcp(8080)).failed(100);
    assert!(elements(&node).is_empty());
    assert_eq!(node.host_ends(), 0);
    add(&node, "c", &pod, &tcp(8080)).done();
}

#[test]
fn as_many_ports_as_a_pod_asks_for_come_and_go() {
    let node = Node::new();
    let pod = node.pod();
    let mappings: Vec<Value> = (0..400).map(|n| tcp(20_000 + n)[0].clone()).collect();
    add(&node, "c", &pod, &json!(mappings)).done();
    assert_eq!(elements(&node).len(), 2 * (400 + 1), "each port and one pair a family");
    node.del("c", &pod.path()).done();
    assert!(elements(&node).is_empty());
}

#[test]
fn ports_of_a_pod_whose_entry_is_torn_go_with_it() {
    let node = Node::new();
    let pod = node.pod();
    add(&node, "c", &pod, &tcp(8080)).done();
    std::fs::write(node.state_dir().join("addresses/10.240.1.0"), "{").unwrap();
    // Of what could not be read the runtime hears; of the pod nothing is left.
    node.del("c", &pod.path());
    assert_eq!(node.host_ends(), 0);
    assert!(elements(&node).is_empty(), "{:?}", elements(&node));
}

#[cfg(feature = "fault-points")]
#[test]
fn nobody_gets_an_address_while_ports_that_lead_to_it_go() {
    let node = Node::new();
    let pod = node.pod();
    add(&node, "c", &pod, &tcp(8080)).done();
    node.del("c", &pod.path()).done();
    node.namespace.sh("nft 'add element inet vnet_ipam host-ports-4 { tcp . 8081 : 10.240.1.9 . 80 }'");
    let stop = node.directory.path().join("stop");
    std::fs::write(&stop, "").unwrap();
    let point = format!("keep-before-withdraw:{}", stop.display());
    let _agent = Agent::start_with(&node, &point, &[]);
    until("the agent finds it", || stop.with_extension("reached").exists());
    let lock = std::fs::File::open(node.state_dir().join("lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)), "an ADD would not wait");
    std::fs::remove_file(&stop).unwrap();
    until("it is gone", || elements(&node).is_empty());
}

#[test]
fn pods_that_an_uninstallation_leaves_do_not_reach_the_hosts_loopback() {
    let node = Node::new();
    let pod = node.pod();
    add(&node, "c", &pod, &tcp(8080)).done();
    let routed = || node.namespace.sh("cat /proc/sys/net/ipv4/conf/vn*/route_localnet");
    assert_eq!(routed(), "1\n");
    node.by_hand_with("uninstall", &["--despite-running-pods"]).done();
    assert_eq!((routed().as_str(), node.host_ends()), ("0\n", 1));
}
