//! ADD, CHECK and DEL with everything that a service can answer.

use crate::node::{Node, until};
use serde_json::{Value, json};

pub(crate) fn first(result: &Value) -> &str {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap()
}

#[test]
fn a_pod_comes_is_checked_and_goes() {
    let node = Node::new();
    let pod = node.pod();
    let result = node.add("c1", &pod).done();
    assert_eq!(result["cniVersion"], "1.0.0");
    assert_eq!(result["ips"][0]["address"], "10.240.1.0/32");
    assert_eq!(result["ips"][1]["address"], "fd00:10::100/128");
    assert_eq!(result["ips"][0]["interface"], 1);
    assert_eq!(result["interfaces"][1]["sandbox"], pod.path());
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["dns"]["nameservers"], json!(["10.240.0.2"]));
    {
        let state = node.service.state();
        let methods: Vec<&str> = state.requests.iter().map(|request| request.method.as_str()).collect();
        assert_eq!(methods, ["GET", "PUT", "PUT"], "fetch, first sync, allocation");
        let put = &state.requests[2];
        assert_eq!(put.target, "/v1/nodes/n1/allocations/c1/eth0?network=pods");
        assert_eq!(put.body, json!({"address": "10.240.1.0", "pod": {"namespace": "shop", "name": "web"}}));
        assert_eq!((put.number("claim"), put.number("boot"), put.number("block")), (1, 1, 1));
        assert!(put.number("seq") > state.requests[1].number("seq"));
        assert!(put.stamp.contains("machine=\""), "{}", put.stamp);
    }
    assert_eq!(node.entry("10.240.1.0")["acknowledged"], true);

    let mut conf = node.conf.clone();
    conf["prevResult"] = result.clone();
    assert!(node.run("CHECK", "c1", &pod.path(), &conf).done().is_null());

    // A second ADD sends nothing and harms nothing.
    let before = node.service.state().requests.len();
    let error = node.add("c1", &pod).failed(4);
    assert!(error["msg"].as_str().unwrap().contains("10.240.1.0"), "{error}");
    assert_eq!(node.service.state().requests.len(), before);
    assert!(node.run("CHECK", "c1", &pod.path(), &conf).done().is_null());

    assert!(node.run("DEL", "c1", &pod.path(), &conf).done().is_null());
    assert_eq!(node.host_ends(), 0);
    {
        let state = node.service.state();
        let delete = state.of("DELETE")[0];
        assert_eq!(delete.target, "/v1/nodes/n1/allocations/c1/eth0?network=pods&address=10.240.1.0");
        assert!(delete.number("seq") > state.requests[2].number("seq"));
    }
    let entry = node.entry("10.240.1.0");
    assert_eq!((&entry["state"], &entry["acknowledged"]), (&json!("released"), &json!(true)));
    let before = node.service.state().requests.len();
    for netns in [pod.path().as_str(), "", "/nowhere"] {
        assert!(node.del("c1", netns).done().is_null());
    }
    assert_eq!(node.service.state().requests.len(), before, "there was nothing left to say");
    node.run("CHECK", "c1", &pod.path(), &conf).failed(103);
    // Never used comes before used.
    assert_eq!(first(&node.add("c1", &pod).done()), "10.240.1.1");
}

#[test]
fn older_versions_get_their_words() {
    let node = Node::new();
    let pod = node.pod();
    let mut conf = node.conf.clone();
    conf["cniVersion"] = "0.3.1".into();
    let result = node.run("ADD", "c", &pod.path(), &conf).done();
    assert_eq!((&result["cniVersion"], &result["ips"][1]["version"]), (&json!("0.3.1"), &json!("6")));
    node.run("DEL", "c", "", &conf).done();
    assert_eq!(node.host_ends(), 0);
}

#[test]
fn an_address_that_is_taken_is_left_for_another() {
    let node = Node::new();
    let pod = node.pod();
    node.by_hand("sync").done();
    node.service.state().refuse("PUT", 409, "address-taken");
    let result = node.add("c", &pod).done();
    assert_eq!(first(&result), "10.240.1.1");
    assert_eq!(node.host_ends(), 1);
    let conflict = node.entry("10.240.1.0");
    assert_eq!(
        (&conflict["state"], &conflict["conflict"]),
        (&json!("released"), &json!("told address-taken"))
    );
    {
        let state = node.service.state();
        let delete = state.of("DELETE")[0];
        assert!(delete.target.ends_with("address=10.240.1.0"));
        assert!(delete.number("seq") > state.of("PUT")[1].number("seq"), "newer than the refused request");
    }
    node.del("c", &pod.path()).done();
    // Both are released now; only one of them may be used.
    for n in 0..3 {
        assert_ne!(first(&node.add(&format!("d{n}"), &node.pod()).done()), "10.240.1.0");
    }
    node.add("last", &node.pod()).failed(102);
}

#[test]
fn an_address_that_the_host_uses_is_left_for_another() {
    let node = Node::new();
    node.namespace.sh("ip addr add 10.240.1.0/32 dev lo; ip route add 10.240.1.1/32 dev lo");
    let pod = node.pod();
    assert_eq!(first(&node.add("c", &pod).done()), "10.240.1.2");
    node.namespace.sh("ip route get 10.240.1.1 | grep -q 'dev lo'");
}

#[test]
fn a_stale_claim_stops_new_pods_and_no_old_ones() {
    let node = Node::new();
    let (old, new) = (node.pod(), node.pod());
    let result = node.add("old", &old).done();
    node.service.state().refuse("PUT", 409, "stale-claim");
    node.add("new", &new).failed(101);
    assert_eq!(node.host_ends(), 1);
    new.sh("! ip link show eth0 2>/dev/null");
    let before = node.service.state().of("PUT").len();
    let error = node.add("new", &new).failed(101);
    assert!(error["details"].as_str().unwrap().contains("cni-shim sync"), "{error}");
    assert_eq!(node.service.state().of("PUT").len(), before, "nobody is asked again");

    let mut conf = node.conf.clone();
    conf["prevResult"] = result;
    node.run("CHECK", "old", &old.path(), &conf).done();
    node.del("old", &old.path()).done();
    assert_eq!(node.host_ends(), 0);

    // The name was registered anew: a person's sync takes the new claim over.
    let mut other = crate::node::node(2);
    other["boot"] = json!({"id": "another", "seq": 4});
    // What rests from the former claim is the service's to know.
    other["resting"] =
        json!([{"address": "10.240.1.0", "ageSeconds": 1}, {"address": "10.240.1.1", "ageSeconds": 2}]);
    node.service.state().node = other;
    let summary = node.by_hand("sync").done();
    assert_eq!(
        (&summary["adopted"], &summary["claim"], &summary["boot"]),
        (&json!(true), &json!(2), &json!(5))
    );
    assert_eq!(first(&node.add("new", &new).done()), "10.240.1.2");
}

#[test]
fn other_refusals_have_their_codes_and_leave_nothing() {
    let node = Node::new();
    let pod = node.pod();
    node.by_hand("sync").done();
    for (status, slug, code) in
        [(507, "exhausted", 102), (409, "in-use", 100), (507, "no-contiguous-block", 102)]
    {
        node.service.state().refuse("PUT", status, slug);
        let error = node.add("c", &pod).failed(code);
        assert!(error["details"].as_str().unwrap().contains(slug), "{error}");
        assert_eq!(node.host_ends(), 0);
    }
    assert_eq!(node.service.state().of("DELETE").len(), 3);
}

#[test]
fn whatever_is_neither_success_nor_refusal_is_an_outage() {
    let node = Node::new();
    node.by_hand("sync").done();
    let nonsense = [
        (500, json!({})),
        (404, json!({"type": "/problems/not-found", "title": "t", "status": 404, "detail": "x"})),
        (409, json!("busy")),
    ];
    for (n, (status, body)) in nonsense.into_iter().enumerate() {
        node.service.state().script("PUT", status, &body);
        let result = node.add(&format!("c{n}"), &node.pod()).done();
        assert_eq!(node.entry(first(&result))["acknowledged"], false, "{status}");
        // While the marker stands nobody is asked.
        let before = node.service.state().requests.len();
        node.del(&format!("c{n}"), "").done();
        assert_eq!(node.service.state().requests.len(), before);
        std::fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    }
    let summary = node.by_hand("sync").done();
    assert_eq!(summary["acknowledged"], 3);
}

#[test]
fn a_dead_service_does_not_stop_pods_unless_so_configured() {
    let node = Node::new();
    let pod = node.pod();
    node.by_hand("sync").done();
    let mut dead = node.conf.clone();
    dead["server"] = json!(["unix:///nowhere/api.sock", "http://127.0.0.1:1"]);
    dead["whenUnreachable"] = "fail".into();
    node.run("ADD", "c", &pod.path(), &dead).failed(11);
    assert_eq!(node.host_ends(), 0);
    dead["whenUnreachable"] = "use-block".into();
    let result = node.run("ADD", "c", &pod.path(), &dead).done();
    assert!(node.by_hand("status").done()["unreachable"]["reason"].is_string());
    assert_eq!(node.run("DEL", "c", "", &dead).status, 0);
    assert_eq!(node.entry(first(&result))["acknowledged"], false);
    // Whoever gets through first after the outage tells of everything, once it is nobody's to send.
    std::fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    until("the first after the outage syncs", || {
        let pod = node.pod();
        node.add("d", &pod).done();
        node.del("d", &pod.path()).done();
        node.entry(first(&result))["acknowledged"] == true
    });
}

#[test]
fn a_node_without_a_claim_waits_for_the_service() {
    let node = Node::new();
    let pod = node.pod();
    let mut dead = node.conf.clone();
    dead["server"] = "unix:///nowhere/api.sock".into();
    node.run("ADD", "c", &pod.path(), &dead).failed(11);
    std::fs::remove_file(node.state_dir().join("unreachable")).unwrap();
    node.service.state().refuse("GET", 404, "not-found");
    let error = node.add("c", &pod).failed(11);
    assert!(error["details"].as_str().unwrap().contains("ipamctl node register"), "{error}");
    // Registered for another machine: this one must not take its block.
    node.service.state().node["addresses"] = json!(["10.240.0.99"]);
    let error = node.add("c", &pod).failed(101);
    assert!(error["msg"].as_str().unwrap().contains("10.240.0.99"), "{error}");
    node.service.state().node["addresses"] = json!(["10.240.0.10"]);
    node.add("c", &pod).done();
}

#[test]
fn many_at_once_get_each_their_own() {
    let node = Node::new();
    let pods: Vec<_> = (0..6).map(|_| node.pod()).collect();
    let printed: Vec<_> = std::thread::scope(|scope| {
        let node = &node;
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| scope.spawn(move || node.add(&format!("c{n}"), pod)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses: Vec<String> =
        printed.iter().filter(|p| p.status == 0).map(|p| first(&p.done()).to_owned()).collect();
    addresses.sort();
    assert_eq!(addresses, ["10.240.1.0", "10.240.1.1", "10.240.1.2", "10.240.1.3"]);
    for full in printed.iter().filter(|printed| printed.status != 0) {
        full.failed(102);
    }
    assert_eq!(node.host_ends(), 4);
}

#[test]
fn a_del_needs_neither_uplink_nor_name_nor_a_journal_in_order() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&format!("c{n}"), pod).done();
    }
    // The host is called otherwise since.
    let mut renamed = node.conf.clone();
    renamed["node"] = "n2".into();
    assert!(node.run("DEL", "c0", "", &renamed).done().is_null());
    assert_eq!(node.entry("10.240.1.0")["acknowledged"], true);
    assert!(node.service.state().of("DELETE")[0].target.starts_with("/v1/nodes/n1/"));

    // An entry that cannot be read, of nobody in particular, and the claim likewise.
    let addresses = node.state_dir().join("addresses");
    std::fs::copy(addresses.join("10.240.1.2"), addresses.join("10.240.1.2~")).unwrap();
    std::fs::write(addresses.join("10.240.1.3"), "{").unwrap();
    assert!(node.del("c1", "").done().is_null());
    assert_eq!(node.host_ends(), 1);
    std::fs::remove_file(addresses.join("10.240.1.3")).unwrap();
    let claim = node.directory.path().join("data/claim.json");
    let kept = std::fs::read(&claim).unwrap();
    std::fs::write(&claim, "{").unwrap();
    assert!(node.del("never", "").done().is_null());
    std::fs::write(&claim, kept).unwrap();

    // No journal, and no uplink to begin with.
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    node.namespace.sh("ip route del default");
    assert!(node.del("never", "").done().is_null());
    assert_eq!(node.host_ends(), 1);
    assert!(node.del("c2", "").done().is_null());
    assert_eq!(node.host_ends(), 0);
    assert_eq!(node.entry("10.240.1.2")["state"], "released", "it was rebuilt first");
}

#[test]
fn a_del_ends_the_proxies_where_they_were_made() {
    let node = Node::new();
    let pod = node.pod();
    node.namespace.sh("ip link add up1 type veth peer name far1; ip link set far1 up; ip link set up1 up");
    let mut other = node.conf.clone();
    other["uplink"] = "up1".into();
    node.run("ADD", "c", &pod.path(), &other).done();
    assert!(node.namespace.sh("ip neigh show proxy dev up1").contains("10.240.1.0"));
    node.del("c", "").done();
    assert_eq!(node.namespace.sh("ip neigh show proxy; ip -6 neigh show proxy"), "");
}

#[test]
fn a_del_finds_the_journal_whatever_directories_the_configuration_names_by_now() {
    let node = Node::new();
    let elsewhere = |name: &str| json!(node.directory.path().join(name));
    let link = node.directory.path().join("link");
    std::os::unix::fs::symlink(node.directory.path().join("data"), &link).unwrap();
    for (n, changes) in [
        vec![("stateDir", elsewhere("other-state"))],
        vec![("dataDir", elsewhere("other-data"))],
        vec![("dataDir", json!(link))],
        vec![("stateDir", elsewhere("other-state")), ("dataDir", json!(link))],
    ]
    .into_iter()
    .enumerate()
    {
        let container = format!("c{n}");
        let address = first(&node.add(&container, &node.pod()).done()).to_owned();
        let mut conf = node.conf.clone();
        for (key, value) in changes {
            conf[key] = value;
        }
        for _ in 0..2 {
            node.run("DEL", &container, "", &conf).done();
            let entry = node.entry(&address);
            assert_eq!(
                (&entry["state"], &entry["acknowledged"]),
                (&json!("released"), &json!(true)),
                "{conf}"
            );
        }
        assert_eq!(node.service.state().of("DELETE").len(), n + 1);
        // ADD goes on refusing it, so that somebody hears of it.
        node.run("ADD", &container, &node.pod().path(), &conf).failed(7);
    }
}

#[test]
fn a_del_that_does_not_find_the_journal_does_not_say_that_it_is_done() {
    let node = Node::new();
    node.add("c", &node.pod()).done();
    // Of a node whose claim nobody finds.
    let header = node.state_dir().join("header.json");
    let mut text: Value = serde_json::from_slice(&std::fs::read(&header).unwrap()).unwrap();
    text["dataDir"] = "/nowhere".into();
    std::fs::write(&header, text.to_string()).unwrap();
    for _ in 0..3 {
        let error = node.del("c", "").failed(7);
        assert!(error["details"].as_str().unwrap().contains("the same two"), "{error}");
        assert_eq!(node.host_ends(), 0);
    }
    text["dataDir"] = json!(node.directory.path().join("data"));
    std::fs::write(&header, text.to_string()).unwrap();
    node.del("c", "").done();
    assert_eq!(node.entry("10.240.1.0")["acknowledged"], true);
}

#[test]
fn nobody_without_rights_keeps_pods_from_starting() {
    let node = Node::new();
    node.by_hand("sync").done();
    // What every process of the host can open, it can lock.
    let network = std::fs::File::open(node.namespace.path()).unwrap();
    network.lock().unwrap();
    node.add("c", &node.pod()).done();
    let mut files = vec![node.state_dir()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen += 1;
    }
    assert!(seen > 4, "the locks are among these");
}

#[test]
fn a_file_out_of_order_costs_its_addresses_and_stops_no_pod() {
    let node = Node::new();
    let (kept, lost) = (node.pod(), node.pod());
    let result = node.add("kept", &kept).done();
    let hidden = node.add("lost", &lost).done();
    assert_eq!((first(&result), first(&hidden)), ("10.240.1.0", "10.240.1.1"));
    let addresses = node.state_dir().join("addresses");
    let check = |container: &str, pod: &crate::node::Namespace, result: &Value| {
        let mut conf = node.conf.clone();
        conf["prevResult"] = result.clone();
        node.run("CHECK", container, &pod.path(), &conf)
    };
    let (own, other) = (addresses.join("10.240.1.1"), addresses.join("10.240.1.2"));
    let entry = std::fs::read(&own).unwrap();

    // Under another name it refuses both addresses.
    std::fs::rename(&own, &other).unwrap();
    let before = node.service.state().requests.len();
    let error = node.add("lost", &lost).failed(4);
    assert!(error["msg"].as_str().unwrap().contains("10.240.1.1"), "{error}");
    assert_eq!(node.service.state().requests.len(), before);
    let printed = node.add("new", &node.pod());
    assert_eq!(first(&printed.done()), "10.240.1.3");
    assert!(printed.stderr.contains("10.240.1.2 holds the entry of 10.240.1.1"), "{printed:?}");
    node.add("more", &node.pod()).failed(102);
    check("kept", &kept, &result).done();
    check("lost", &lost, &hidden).failed(103);
    let printed = node.by_hand("sync");
    assert!(printed.status == 1 && printed.stderr.contains("10.240.1.2"), "{printed:?}");
    node.del("new", "").done();

    // What cannot be read refuses its own, and the pod that it may be about does not start twice.
    std::fs::remove_file(&other).unwrap();
    std::fs::write(&own, "{").unwrap();
    let before = node.service.state().requests.len();
    node.add("lost", &lost).failed(103);
    assert_eq!(node.service.state().requests.len(), before);
    let new = node.pod();
    assert_eq!(first(&node.add("new", &new).done()), "10.240.1.2");
    check("kept", &kept, &result).done();
    check("lost", &lost, &hidden).failed(103);
    assert_eq!(node.by_hand("sync").status, 1);
    assert_eq!(node.host_ends(), 3);

    std::fs::write(&own, entry).unwrap();
    check("lost", &lost, &hidden).done();
    assert_eq!(node.by_hand("sync").done()["live"], 3);
}
