//! `mac`, `ips` and `dns`, by each way in which runtimes ask for them.

use crate::{
    attachments::first,
    node::{Namespace, Node, Printed},
};
use serde_json::{Value, json};

/// ADD with these `CNI_ARGS` and these keys in the configuration.
fn add(node: &Node, container: &str, pod: &Namespace, args: &str, more: &Value) -> Printed {
    let mut conf = node.conf.clone();
    conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.run_with(&[("CNI_ARGS", args)], "ADD", container, &pod.path(), &conf)
}

fn check(node: &Node, container: &str, pod: &Namespace, result: &Value) -> Printed {
    let mut conf = node.conf.clone();
    conf["prevResult"] = result.clone();
    node.run("CHECK", container, &pod.path(), &conf)
}

#[test]
fn the_pods_interface_gets_the_mac_that_is_asked_for() {
    let node = Node::new();
    let mac = "02:00:5e:10:00:07";
    for (n, (args, more)) in [
        (format!("IgnoreUnknown=1;MAC={mac}"), json!({})),
        (String::new(), json!({"args": {"cni": {"mac": mac}}})),
        ("MAC=02:00:00:00:00:01".to_owned(), json!({"runtimeConfig": {"mac": mac.to_uppercase()}})),
    ]
    .into_iter()
    .enumerate()
    {
        let (pod, container) = (node.pod(), format!("c{n}"));
        let result = add(&node, &container, &pod, &args, &more).done();
        assert_eq!(result["interfaces"][1]["mac"], mac);
        assert!(pod.sh("ip link show eth0").contains(mac));
        let address = first(&result).to_owned();
        assert!(node.namespace.sh(&format!("ip neigh show {address}")).contains(mac));
        pod.sh("ping -c1 -W5 10.240.0.10 >/dev/null; ping -6 -c1 -W5 fd00:10::a >/dev/null");
        check(&node, &container, &pod, &result).done();
        // Its record is lost: the host knows it.
        std::fs::remove_dir_all(node.state_dir()).unwrap();
        node.by_hand("sync").done();
        let entry = std::fs::read_to_string(node.state_dir().join("addresses").join(&address)).unwrap();
        assert!(entry.contains(mac), "{entry}");
        pod.sh("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up");
        let error = check(&node, &container, &pod, &result).failed(104);
        assert!(error["details"].as_str().unwrap().contains(mac), "{error}");
        node.del(&container, &pod.path()).done();
        assert_eq!(node.host_ends(), 0);
    }
    let error = add(&node, "c", &node.pod(), "MAC=33:33:00:00:00:01", &json!({})).failed(4);
    assert!(error["msg"].as_str().unwrap().contains("CNI_ARGS MAC \"33:33:00:00:00:01\""), "{error}");
    let error = add(&node, "c", &node.pod(), "", &json!({"runtimeConfig": {"mac": "x"}})).failed(7);
    assert!(error["msg"].as_str().unwrap().contains("runtimeConfig.mac \"x\""), "{error}");
}

#[test]
fn a_late_del_leaves_a_new_container_alone_that_asked_for_the_same_mac() {
    let node = Node::new();
    let (pod, args) = (node.pod(), "MAC=02:00:5e:10:00:07");
    add(&node, "old", &pod, args, &json!({})).done();
    let end = node.entry("10.240.1.0")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link del {end}"));
    let result = add(&node, "new", &pod, args, &json!({})).done();
    node.del("old", &pod.path()).done();
    check(&node, "new", &pod, &result).done();
    // An end that lost its partner goes with it.
    let end = node.entry("10.240.1.1")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link set {end} down; ip link set {end} name x0 alias ''"));
    node.del("new", &pod.path()).done();
    pod.sh("! ip link show eth0 2>/dev/null");
}

#[test]
fn an_address_of_the_block_is_had_by_who_asks_for_it() {
    let node = Node::new();
    for (args, more) in [
        ("IP=10.240.1.2", json!({})),
        ("IP=10.240.1.2,fd00:10::102", json!({})),
        ("IP=10.240.1.1;IP=fd00:10::102/64", json!({})),
        ("", json!({"args": {"cni": {"ips": ["10.240.1.2/16"]}}})),
        ("IP=10.240.1.1", json!({"runtimeConfig": {"ips": ["fd00:10::102", "10.240.1.2"]}})),
    ] {
        let pod = node.pod();
        let result = add(&node, "c", &pod, args, &more).done();
        assert_eq!(result["ips"][0]["address"], "10.240.1.2/32", "{args} {more}");
        assert_eq!(result["ips"][1]["address"], "fd00:10::102/128", "{args} {more}");
        // It is had again at once, though it has hardly rested.
        node.del("c", &pod.path()).done();
    }
    let puts = node.service.state();
    assert!(puts.of("PUT").iter().skip(1).all(|put| put.body["address"] == "10.240.1.2"));
}

#[test]
fn an_address_that_cannot_be_had_is_refused_with_the_reason() {
    let node = Node::new();
    let pod = node.pod();
    let holder = node.add("holder", &pod).done();
    let before = node.service.state().requests.len();
    let refused = |args: &str, code: u32, words: &[&str]| {
        let error = add(&node, "c", &node.pod(), args, &json!({})).failed(code);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?} in {error}");
    };
    // Elsewhere, whatever it is.
    let block = ["10.240.1.0 to 10.240.1.3", "fd00:10::100 to fd00:10::103"];
    for (ip, named) in
        [("10.240.9.9", "10.240.9.9"), ("192.0.2.1", "192.0.2.1"), ("10.240.0.10", "10.240.0.10")]
    {
        refused(&format!("IP={ip}"), 2, &["CNI_ARGS IP", named, block[0], block[1]]);
    }
    refused("IP=10.240.1.1,fd00:10::102", 2, &["fd00:10::102", "10.240.1.1 and fd00:10::101"]);
    refused("IP=10.240.1.1,10.240.1.2", 2, &["10.240.1.2", "does not go with 10.240.1.1"]);
    refused("IP=nine", 4, &["CNI_ARGS IP", "nine"]);
    refused("IP=10.240.1.0", 11, &["CNI_ARGS IP 10.240.1.0 is not free", "pods/holder/eth0 has it"]);
    assert_eq!(node.service.state().requests.len(), before, "nobody was asked");
    // What turns out to be somebody else's is not exchanged for another.
    node.service.state().refuse("PUT", 409, "address-taken");
    refused("IP=10.240.1.1", 11, &["10.240.1.1 is not free", "told address-taken"]);
    assert_eq!(node.service.state().of("PUT").len(), 3);
    refused("IP=10.240.1.1", 11, &["was seen to have it"]);
    node.namespace.sh("ip addr add 10.240.1.2/32 dev lo");
    refused("IP=10.240.1.2", 11, &["10.240.1.2 is not free"]);
    check(&node, "holder", &pod, &holder).done();
    assert_eq!(node.host_ends(), 1);
}

#[test]
fn name_service_is_the_configurations_or_else_the_runtimes() {
    let mut node = Node::new();
    let asked = json!({"runtimeConfig": {"DNS": {"Servers": ["9.9.9.9"], "Searches": ["svc"], "Options": ["ndots:5"]}}});
    let result = add(&node, "a", &node.pod(), "", &asked).done();
    assert_eq!(result["dns"], json!({"nameservers": ["10.240.0.2"]}));
    node.conf["dns"] = json!({});
    for version in ["0.2.0", "1.0.0"] {
        node.conf["cniVersion"] = version.into();
        let result = add(&node, version, &node.pod(), "", &asked).done();
        let dns = json!({"nameservers": ["9.9.9.9"], "search": ["svc"], "options": ["ndots:5"]});
        assert_eq!(result["dns"], dns);
    }
    node.conf["dns"] = json!({"nameservers": ["ns.example"]});
    let error = node.add("c", &node.pod()).failed(7);
    assert!(error["msg"].as_str().unwrap().contains("dns.nameservers \"ns.example\""), "{error}");
    // No reason to keep a pod.
    node.del("a", "").done();
}
