//! What runtimes really send, and what other plugins get wrong.

use crate::{
    attachments::first,
    node::{Namespace, Node, SHIM},
};
use serde_json::{Value, json};
use std::{io::Write, process::Stdio};

fn check(node: &Node, container: &str, pod: &Namespace, result: &Value) {
    let mut conf = node.conf.clone();
    conf["prevResult"] = result.clone();
    node.run("CHECK", container, &pod.path(), &conf).done();
}

#[test]
fn each_version_gets_its_own_words() {
    let node = Node::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", ""] {
        let (pod, mut conf) = (node.pod(), node.conf.clone());
        conf["cniVersion"] = version.into();
        if version.is_empty() {
            conf.as_object_mut().unwrap().remove("cniVersion");
        }
        let mut result = node.run("ADD", "c", &pod.path(), &conf).done();
        assert_eq!(result["cniVersion"], if version.is_empty() { "0.1.0" } else { version });
        if matches!(version, "" | "0.1.0" | "0.2.0") {
            let v4 = result["ip4"]["ip"].as_str().unwrap().to_owned();
            assert!(v4.starts_with("10.240.1.") && v4.ends_with("/32"), "{result}");
            assert_eq!(result["ip4"]["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
            assert_eq!(result["ip6"]["gateway"], "fe80::1");
            assert!(result.get("ips").is_none() && result.get("interfaces").is_none(), "{result}");
            assert_eq!(result["dns"]["nameservers"][0], "10.240.0.2");
        } else {
            assert_eq!(result["ips"][0]["interface"], 1);
            assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0", "{result}");
            assert_eq!(result["interfaces"][1].get("mtu").is_some(), version == "1.1.0", "{result}");
            assert_eq!(result["interfaces"][1]["sandbox"], pod.path());
        }
        if version >= "0.4.0" {
            // As Go writes it again, with the keys of old libraries and what later plugins add.
            let parts = result.as_object_mut().unwrap();
            parts.insert("dns".to_owned(), json!({}));
            let interfaces = parts.remove("interfaces").unwrap();
            parts.insert("Interfaces".to_owned(), interfaces);
            parts["Interfaces"].as_array_mut().unwrap().push(json!({"Name": "ifb0", "mac": null}));
            conf["PrevResult"] = result;
            assert!(node.run("CHECK", "c", &pod.path(), &conf).done().is_null());
        } else {
            conf["prevResult"] = json!({"ip4": null});
            node.run("CHECK", "c", &pod.path(), &conf).failed(1);
        }
        assert!(node.run("DEL", "c", &pod.path(), &conf).done().is_null());
        assert_eq!(node.host_ends(), 0);
    }
}

/// A configuration of 300 KB, in pieces, from one who stops whenever the pipe is full.
#[test]
fn a_large_configuration_comes_in_pieces() {
    let node = Node::new();
    let pod = node.pod();
    let mut conf = node.conf.clone();
    conf["args"] = json!({"cni": {"labels": [{"key": "k", "value": "<&>".repeat(100_000)}]}});
    // At the very end, so that whoever stops early fails.
    let text = conf.to_string().replacen('{', "{\"name\":null,", 1);
    let text = text.replace("\"name\":\"pods\",", "");
    let text =
        format!("{},\"Name\":\"pods\"}}", text.strip_suffix('}').unwrap()).replace("\"name\":null,", "");
    assert!(text.len() > 300_000);
    let netns = pod.path();
    let mut child = node
        .namespace
        .enter("env")
        .args(["-i", "PATH=/usr/sbin:/usr/bin", "CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0"])
        .arg(format!("CNI_NETNS={netns}"))
        .arg(SHIM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for piece in text.as_bytes().chunks(997) {
        stdin.write_all(piece).unwrap();
        std::thread::yield_now();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.success(), first(&result)), (true, "10.240.1.0"));
}

#[test]
fn multus_repeats_itself() {
    let node = Node::new();
    let args = "IgnoreUnknown=true;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;IP=;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=x=y;Junk";
    let pod = node.pod();
    node.run_with(&[("CNI_ARGS", args)], "ADD", "c", &pod.path(), &node.conf).done();
    let state = node.service.state();
    let put = state.of("PUT");
    assert_eq!(put[1].body["pod"], json!({"namespace": "shop", "name": "x=y"}));
}

#[test]
fn the_hosts_own_namespace_is_refused_by_each_name() {
    let node = Node::new();
    let link = node.directory.path().join("netns");
    std::os::unix::fs::symlink(node.namespace.path(), &link).unwrap();
    node.namespace.sh("ip link add eth0 type veth peer name far9");
    let before = node.namespace.sh("ip -o link | cut -d' ' -f2-");
    for netns in
        [link.to_str().unwrap(), "/proc/self/ns/net", "/proc/thread-self/ns/net", &node.namespace.path()]
    {
        node.run("ADD", "c", netns, &node.conf).failed(8);
        let mut conf = node.conf.clone();
        conf["prevResult"] = json!({});
        node.run("CHECK", "c", netns, &conf).failed(8);
        assert!(node.del("c", netns).done().is_null());
        // Even where somebody switches the library's own check off.
        let more = [("CNI_NETNS_OVERRIDE", "1")];
        node.run_with(&more, "ADD", "c", netns, &node.conf).failed(8);
        assert!(node.run_with(&more, "DEL", "c", netns, &node.conf).done().is_null());
    }
    assert_eq!(node.namespace.sh("ip -o link | cut -d' ' -f2-"), before);
    assert_eq!(node.service.state().requests.len(), 0);
}

#[test]
fn a_late_del_leaves_the_next_container_alone() {
    let mut node = Node::new();
    node.conf["ipMasq"] = true.into();
    let pod = node.pod();
    node.add("old", &pod).done();
    let end = node.entry("10.240.1.0")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link del {end}"));
    // The same path and the same interface name, another container.
    let new = node.add("new", &pod).done();
    // But for the addresses in its sets.
    let rules = || node.namespace.sh("nft -t list ruleset | sed 's/packets.*drop/drop/'");
    let before = rules();
    for _ in 0..2 {
        assert!(node.del("old", &pod.path()).done().is_null());
    }
    check(&node, "new", &pod, &new);
    assert_eq!(rules(), before);
}

#[test]
fn a_del_does_not_touch_an_interface_that_another_plugin_made() {
    let node = Node::new();
    let pod = node.pod();
    node.add("c", &pod).done();
    let end = node.entry("10.240.1.0")["hostEnd"].as_str().unwrap().to_owned();
    node.namespace.sh(&format!("ip link del {end}"));
    pod.sh(
        "ip link add eth0 type veth peer name theirs; ip addr add 192.0.2.7/24 dev eth0; ip link set eth0 up",
    );
    let before = pod.sh("ip -o link; ip -o addr");
    assert!(node.del("c", &pod.path()).done().is_null());
    assert_eq!(pod.sh("ip -o link; ip -o addr"), before);
    assert_eq!(node.entry("10.240.1.0")["state"], "released");
}

#[test]
fn two_dels_at_once_both_succeed() {
    let node = Node::new();
    for round in 0..4 {
        let (pod, container) = (node.pod(), format!("c{round}"));
        node.add(&container, &pod).done();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| node.del(&container, &pod.path()))).collect();
            for thread in threads {
                assert!(thread.join().unwrap().done().is_null());
            }
        });
        assert_eq!(node.host_ends(), 0);
        assert_eq!(node.entry(&format!("10.240.1.{round}"))["acknowledged"], true);
    }
}

#[test]
fn masquerading_leaves_nothing_behind_where_the_namespace_has_gone() {
    let mut node = Node::new();
    node.conf["ipMasq"] = true.into();
    let rules = || node.namespace.sh("nft list ruleset | sed 's/packets.*drop/drop/'");
    let stays = node.pod();
    node.add("stays", &stays).done();
    let before = rules();
    assert!(before.contains("masquerade"), "{before}");
    let pod = node.pod();
    node.add("c", &pod).done();
    drop(pod);
    assert!(node.del("c", "").done().is_null());
    assert_eq!(rules(), before, "one rule a node, none a pod");
}

#[test]
fn an_add_that_failed_is_not_in_the_way_of_the_next() {
    let node = Node::new();
    node.by_hand("sync").done();
    let pod = node.pod();
    for (status, slug) in [(409, "in-use"), (507, "exhausted")] {
        node.service.state().refuse("PUT", status, slug);
        assert_eq!(node.add("c", &pod).status, 1);
        pod.sh("! ip link show eth0 2>/dev/null");
    }
    let result = node.add("c", &pod).done();
    check(&node, "c", &pod, &result);
}

#[test]
fn once_the_node_is_set_up_no_other_program_is_run() {
    let mut node = Node::new();
    node.conf["ipMasq"] = true.into();
    node.add("a", &node.pod()).done();
    // No nft, no iptables.
    node.namespace.sh("mount -t tmpfs none /usr/sbin");
    let pod = node.pod();
    node.add("b", &pod).done();
    assert!(node.del("b", &pod.path()).done().is_null());
}

#[test]
fn a_second_interface_of_one_container_comes_and_goes_by_itself() {
    let mut node = Node::new();
    node.conf["ipMasq"] = true.into();
    let pod = node.pod();
    let result = node.add("c", &pod).done();
    let second = [("CNI_IFNAME", "net1")];
    let other = node.run_with(&second, "ADD", "c", &pod.path(), &node.conf).done();
    assert_ne!(first(&result), first(&other));
    check(&node, "c", &pod, &result);
    let mut conf = node.conf.clone();
    conf["prevResult"] = other.clone();
    node.run_with(&second, "CHECK", "c", &pod.path(), &conf).done();
    // Whichever of its addresses is asked answers.
    for address in [&result, &other].map(|result| first(result).to_owned()) {
        node.namespace.sh(&format!("ping -c1 -W5 {address} >/dev/null"));
    }
    let rules = || pod.sh("ip rule; ip -6 rule").lines().count();
    let with_both = rules();
    node.run_with(&second, "DEL", "c", &pod.path(), &node.conf).done();
    assert_eq!(rules(), with_both - 2, "none stays of the second");
    check(&node, "c", &pod, &result);
    node.del("c", &pod.path()).done();
    assert_eq!(node.host_ends(), 0);
}

#[test]
fn an_interface_beside_another_networks_does_not_take_the_default_route() {
    let mut node = Node::new();
    node.conf["cniVersion"] = "1.1.0".into();
    let pod = node.pod();
    pod.sh(
        "ip link set lo up; ip link add eth0 type bridge; ip addr add 192.0.2.7/24 dev eth0; ip link set eth0 up
         ip route add default via 192.0.2.1",
    );
    let net1 = [("CNI_IFNAME", "net1")];
    let before = pod.sh("ip rule; ip -6 rule; ip route show default");
    let result = node.run_with(&net1, "ADD", "c", &pod.path(), &node.conf).done();
    assert!(result["routes"][0]["table"].is_number(), "{result}");
    assert!(result["routes"][1].get("table").is_none(), "of IPv6 there was none: {result}");
    assert_eq!(pod.sh("ip route show default | head -1"), "default via 192.0.2.1 dev eth0 \n");
    node.namespace.sh("ping -c1 -W5 10.240.1.0 >/dev/null; ping -6 -c1 -W5 fd00:10::100 >/dev/null");
    let mut conf = node.conf.clone();
    conf["prevResult"] = result;
    node.run_with(&net1, "CHECK", "c", &pod.path(), &conf).done();
    pod.sh("ip rule del from 10.240.1.0");
    let error = node.run_with(&net1, "CHECK", "c", &pod.path(), &conf).failed(104);
    assert!(error["details"].as_str().unwrap().contains("rule for what it sends from 10.240.1.0"), "{error}");
    node.run_with(&net1, "DEL", "c", &pod.path(), &conf).done();
    assert_eq!(pod.sh("ip rule; ip -6 rule; ip route show default"), before);
}
