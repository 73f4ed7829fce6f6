//! Installing on a node and leaving it as it was found, by the program that does both.

use crate::{
    node::{Namespace, Node, SHIM, shim},
    site::{DEBIANS, Site, as_before, refused, versions, words},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn a_node_is_set_up_for_its_runtime_and_left_as_it_was_found() {
    let site = Site::new();
    site.node
        .namespace
        .sh("echo 1 >/proc/sys/net/ipv4/conf/far0/forwarding; sysctl -qw net.ipv6.conf.up0.accept_ra=1");
    let before = site.traces();
    let installed = site.install();
    assert_eq!(installed["binary"], site.binary().display().to_string());
    assert_eq!(installed["versions"], json!(["1.0.0", "1.1.0"]));
    let list = site.list_as_read();
    assert_eq!(versions(&list), (&json!("1.0.0"), &json!(["1.0.0", "1.1.0"])));
    assert_eq!((&list["name"], &list["plugins"][0]["type"]), (&json!("pods"), &json!("cni-shim")));
    assert_eq!(fs::read(site.binary()).unwrap(), fs::read(SHIM).unwrap());
    assert_eq!(fs::metadata(site.binary()).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(site.list()).unwrap().permissions().mode() & 0o777, 0o644);
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/up0/accept_ra", "2"),
        ("ipv4/conf/all/send_redirects", "0"),
    ] {
        assert_eq!(site.node.namespace.sh(&format!("cat /proc/sys/net/{key}")).trim(), value, "{key}");
    }
    assert!(site.node.about_network("STATUS", &json!({})).done().is_null(), "pods can be started");
    let again = site.install();
    assert_eq!(words(&again, "changed"), "", "nothing is left to do");

    // A pod comes and goes.
    let pod = site.node.pod();
    site.node.add("c", &pod).done();
    refused(&site.run("uninstall", &[]), &["1 of them, pods/c/eth0 for one", "--despite-running-pods"]);
    assert!(site.list().exists(), "nothing is taken away");
    site.node.del("c", &pod.path()).done();

    let removed = site.run("uninstall", &[]).done();
    assert_eq!(words(&removed, "left"), "");
    as_before(&before, &site.traces());
    assert!(words(&site.run("uninstall", &[]).done(), "done").is_empty(), "and again");
}

#[test]
fn files_that_were_there_before_come_back() {
    let site = Site::new();
    for (path, content) in [(site.binary(), "an older one"), (site.list(), "")] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let old = json!({"name": "pods", "cniVersion": "1.0.0", "plugins": [
        {"type": "cni-shim", "server": "unix:///old"}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
    ]});
    fs::write(site.list(), old.to_string()).unwrap();
    let before = site.traces();
    let with = ["--plugin-dir", DEBIANS];
    for _ in 0..2 {
        site.run("install", &with).done();
    }
    let list = site.list_as_read();
    assert_eq!(list["plugins"][0]["server"], site.node.service.url());
    assert_eq!(list["plugins"][1], old["plugins"][1], "what is chained is kept");
    site.run("uninstall", &[]).done();
    as_before(&before, &site.traces());
    assert_eq!(fs::read_to_string(site.list()).unwrap(), old.to_string());
}

#[test]
fn newer_runtimes_get_1_1_0_only_where_every_chained_plugin_has_it() {
    let site = Site::new();
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let with = ["--plugin-dir", DEBIANS];
    let installed = site.run_until("", "install", std::slice::from_ref(&portmap), &with).done();
    assert_eq!(installed["versions"], json!(["1.0.0"]));
    assert_eq!(versions(&site.list_as_read()), (&json!("1.0.0"), &Value::Null));
    assert_eq!(site.list_as_read()["plugins"][1], portmap);

    let newer = site.path("newer");
    fs::create_dir(&newer).unwrap();
    fs::copy(SHIM, newer.join("portmap")).unwrap();
    let installed = site.run_until("", "install", &[portmap], &["--plugin-dir", newer.to_str().unwrap()]);
    assert_eq!(installed.done()["versions"], json!(["1.0.0", "1.1.0"]));

    let before = fs::read(site.list()).unwrap();
    let absent = site.run_until("", "install", &[json!({"type": "absent"})], &with);
    refused(&absent, &["\"absent\"", DEBIANS, "--plugin-dir", "take it out"]);
    assert_eq!(fs::read(site.list()).unwrap(), before);
}

#[test]
fn the_runtime_is_told_when_the_node_has_its_claim() {
    let site = Site::new();
    site.node.service.state().refuse("GET", 404, "not-found");
    let told = site.run("install", &[]);
    refused(&told, &["waits for this node's claim", "ipamctl node register n1", "--before-claim"]);
    assert!(site.binary().exists() && !site.list().exists());
    site.node.service.state().refuse("GET", 404, "not-found");
    let installed = site.run("install", &["--before-claim"]).done();
    assert!(words(&installed, "warnings").contains("no pod can be started yet"), "{installed}");
    assert!(site.list().exists());
    site.node.about_network("STATUS", &json!({})).failed(50);
    site.install();
    assert!(site.node.about_network("STATUS", &json!({})).done().is_null());
}

#[test]
fn a_node_registers_itself_in_its_pool_where_it_may() {
    let site = Site::new();
    for (status, slug) in [(404, "not-found"), (404, "not-found")] {
        site.node.service.state().refuse("GET", status, slug);
    }
    site.node.service.state().refuse("PUT", 403, "forbidden");
    let told = site.run("install", &["--pool", "workers"]);
    refused(&told, &["told forbidden", "ipamctl node register n1 --pool workers"]);
    let answer = site.node.service.state().node.clone();
    site.node.service.state().script("PUT", 201, &answer);
    site.run("install", &["--pool", "workers"]).done();
    let state = site.node.service.state();
    let spec = state.of("PUT").into_iter().rev().find(|put| put.target == "/v1/nodes/n1").unwrap();
    assert_eq!(spec.body["pool"], "workers");
    assert_eq!(spec.body["addresses"], json!(["10.240.0.10", "fd00:10::a"]));
    assert!(spec.body["mac"].is_string(), "{}", spec.body);
}

#[test]
fn a_node_that_was_deleted_registers_itself_again_at_a_persons_word_alone() {
    let mut site = Site::new();
    site.node.conf["tokenFile"] = site.path("token").to_str().unwrap().into();
    fs::write(site.path("token"), format!("ipam_node_{}", "O".repeat(43))).unwrap();
    let delete = || {
        site.node.service.state().node["state"] = "deleting".into();
        site.node.service.state().node["deletion"] = "d1".into();
        assert_eq!(site.node.by_hand("sync").done()["outcome"], "ended");
        let node = &mut site.node.service.state().node;
        node["state"] = "planned".into();
        node.as_object_mut().unwrap().remove("deletion");
    };
    let unknown = || site.node.service.state().refuse("GET", 404, "not-found");
    let registered =
        || site.node.service.state().of("PUT").iter().filter(|put| put.target == "/v1/nodes/n1").count();
    let pool = ["--pool", "workers"];
    site.run("install", &pool).done();
    delete();
    for _ in 0..2 {
        unknown();
        refused(
            &site.run("install", &pool),
            &["n1 was deleted", "ipamctl node register n1 --pool workers", "cni-shim join"],
        );
    }
    assert_eq!(registered(), 0);

    // An admin has registered it.
    site.run("install", &pool).done();
    assert_eq!(registered(), 0);
    delete();

    // It is given a join token.
    fs::remove_file(site.path("token")).unwrap();
    fs::write(site.path("join"), format!("ipam_join_{}", "J".repeat(43))).unwrap();
    let join = site.path("join");
    site.node.by_hand_with("join", &["--join-token-file", join.to_str().unwrap()]).done();
    unknown();
    let answer = site.node.service.state().node.clone();
    site.node.service.state().script("PUT", 201, &answer);
    site.run("install", &pool).done();
    assert_eq!(registered(), 1);
}

/// Everything that reads the list or starts the binary meets a whole one, whichever.
#[test]
fn nobody_meets_half_a_file_while_another_is_put_in_its_place() {
    let site = Site::new();
    site.install();
    let other = site.path("other");
    fs::copy(SHIM, &other).unwrap();
    // Another build, as far as its content goes.
    Command::new("sh").args(["-c", &format!("echo >>{}", other.display())]).status().unwrap();
    let (list, binary) = (site.list(), site.binary());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let text = fs::read(&list).unwrap();
                let value: Value = serde_json::from_slice(&text).expect("a whole list at every moment");
                assert_eq!(value["plugins"].as_array().unwrap().len(), 1);
                read += 1;
            }
            read
        });
        let runner = scope.spawn(|| {
            let mut ran = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // A process of the old one is being started or runs all the time.
                let output =
                    Command::new(&binary).env("CNI_COMMAND", "VERSION").output().expect("it can be run");
                assert!(output.status.success(), "{output:?}");
                ran += 1;
            }
            ran
        });
        for turn in 0..8 {
            let program = if turn % 2 == 0 { other.to_str().unwrap() } else { SHIM };
            let mut source = site.words("install", &[], &[]);
            source.extend(["--uplink".to_owned(), "up0".to_owned()].into_iter().filter(|_| turn % 2 == 0));
            let output = site.node.namespace.enter(program).args(source).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 8 && runner.join().unwrap() > 8);
    });
}

/// The kernel's limits in a tree of this test's, over the one that a namespace has without them.
fn limits(namespace: &Namespace, directory: &Path, values: [u64; 3]) -> [PathBuf; 2] {
    ["ipv4", "ipv6"].map(|family| {
        let tree = directory.join(format!("neigh-{family}"));
        let path = tree.join("default");
        fs::create_dir_all(&path).unwrap();
        for (n, value) in values.iter().enumerate() {
            fs::write(path.join(format!("gc_thresh{}", n + 1)), format!("{value}\n")).unwrap();
        }
        // Besides the first namespace's limits there is only the uplink, as it really is.
        namespace.sh(&format!(
            "cd {tree}; mkdir up0; mount --bind /proc/sys/net/{family}/neigh/up0 up0
             mount --rbind . /proc/sys/net/{family}/neigh",
            tree = tree.display()
        ));
        path
    })
}

fn read_limits(path: &Path) -> [u64; 3] {
    [1, 2, 3].map(|n| fs::read_to_string(path.join(format!("gc_thresh{n}"))).unwrap().trim().parse().unwrap())
}

#[test]
fn neighbour_tables_get_room_for_the_subnet_and_are_never_made_smaller() {
    let site = Site::new();
    site.node.service.state().node["network"]["cidrs"] = json!(["10.240.0.0/22", "fd00:10::/64"]);
    let paths = limits(&site.node.namespace, site.node.directory.path(), [128, 512, 8192]);
    let installed = site.install();
    assert!(!words(&installed, "warnings").contains("neighbour"), "{installed}");
    for path in &paths {
        assert_eq!(read_limits(path), [1024, 2048, 8192]);
    }
    let status = site.node.by_hand("status").done();
    assert!(status.get("warnings").is_none(), "{status}");
    // Somebody wants more of one of them.
    fs::write(paths[0].join("gc_thresh2"), "5000\n").unwrap();
    site.run("uninstall", &[]).done();
    assert_eq!((read_limits(&paths[0]), read_limits(&paths[1])), ([128, 5000, 8192], [128, 512, 8192]));
}

#[test]
fn limits_that_cannot_be_set_here_are_named_with_the_command_for_the_host() {
    let site = Site::new();
    site.node.service.state().node["network"]["cidrs"] = json!(["10.240.0.0/22", "fd00:10::/64"]);
    let told = words(&site.install(), "warnings");
    let cure = "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096 net.ipv4.neigh.default.gc_thresh2=2048 \
                net.ipv4.neigh.default.gc_thresh1=1024 net.ipv6.neigh.default.gc_thresh3=4096";
    assert!(told.contains("a subnet of 1024 addresses wants") && told.contains(cure), "{told}");
    assert!(words(&site.node.by_hand("status").done(), "warnings").contains(cure));
}

#[test]
fn rules_of_others_that_drop_what_is_forwarded_are_told_with_the_cure_and_left_alone() {
    let site = Site::new();
    site.install();
    let warnings = || {
        let status = site.node.by_hand("status").done();
        let told = status["warnings"].as_array().cloned().unwrap_or_default();
        let drops = |words: &&Value| words.as_str().unwrap().contains("drops what is forwarded");
        told.iter().filter(drops).map(|words| words.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(warnings(), Vec::<String>::new());
    for (make, cure) in [
        (
            "nft 'table inet firewall { chain forwarded { type filter hook forward priority 5; policy drop; }; }'",
            "nft insert rule inet firewall forwarded iifname '\"vn*\"' accept",
        ),
        (
            "iptables-nft -P FORWARD DROP",
            "iptables -I FORWARD -i vn+ -j ACCEPT; iptables -I FORWARD -o vn+ -j ACCEPT",
        ),
        (
            "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER",
            "iptables -I DOCKER-USER -i vn+ -j ACCEPT",
        ),
        ("ip6tables-nft -P FORWARD DROP", "ip6tables -I FORWARD -i vn+ -j ACCEPT"),
        ("iptables-legacy -P FORWARD DROP", "iptables-legacy -I FORWARD -i vn+ -j ACCEPT"),
        ("ip6tables-legacy -P FORWARD DROP", "ip6tables-legacy -I FORWARD -i vn+ -j ACCEPT"),
    ] {
        site.node.namespace.sh(make);
        let before = site.node.namespace.sh("nft list ruleset");
        let told = warnings();
        assert!(told.len() == 1 && told[0].contains(cure), "{make}: {told:?}");
        assert_eq!(site.node.namespace.sh("nft list ruleset"), before);
        // The cure as it is told: what follows the last colon.
        let cure = told[0].rsplit_once(": ").unwrap().1.replace("iptables -I", "iptables-nft -I");
        site.node.namespace.sh(&cure.replace("ip6tables -I", "ip6tables-nft -I"));
        assert_eq!(warnings(), Vec::<String>::new(), "{cure}");
        site.node.namespace.sh(
            "nft flush ruleset; for t in iptables-legacy ip6tables-legacy; do $t -P FORWARD ACCEPT; $t -F; done",
        );
    }
    // Other hooks and other policies are nobody's trouble.
    let harmless = "nft 'table ip x {
             chain a { type filter hook input priority 0; policy drop; }
             chain b { type filter hook forward priority 0; policy accept; }
         }'";
    site.node.namespace.sh(harmless);
    assert_eq!(warnings(), Vec::<String>::new());
}

#[test]
fn a_container_that_no_runtime_attaches_is_attached_by_hand() {
    let node = Node::new();
    let pod = node.pod();
    let target = ["--container-id", "by-hand", "--netns", &pod.path()];
    let path = node.directory.path().join("pods.json");
    fs::write(&path, node.conf.to_string()).unwrap();
    let words = |command| [&[command, "--config", path.to_str().unwrap()], &target[..]].concat();
    let result = shim(&node.namespace, &[], &words("attach"), "").done();
    assert!(result["ips"][0]["address"].as_str().unwrap().starts_with("10.240.1."), "{result}");
    pod.sh("ip link show eth0");
    refused(&shim(&node.namespace, &[], &words("attach"), ""), &["eth0"]);
    for _ in 0..2 {
        assert!(shim(&node.namespace, &[], &words("detach"), "").done().is_null());
        assert_eq!(node.host_ends(), 0);
    }
    // A relative path is by where it is said.
    let pid = pod.path().split('/').nth(2).unwrap().to_owned();
    let said =
        format!("cd /proc/{pid}/ns; {SHIM} attach --config {} --container-id c --netns net", path.display());
    node.namespace.sh(&said);
    let status = node.by_hand("status").done();
    let entries = status["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["containerId"] == "c").unwrap()["addresses"][0].clone();
    let kept = fs::read(node.state_dir().join("addresses").join(entry.as_str().unwrap())).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["netns"], format!("/proc/{pid}/ns/net"), "{kept}");
}
