//! Leaving a node as it was found, whatever happened to it and whoever is at it.

use crate::{
    node::{SHIM, until},
    site::{Site, as_before, words},
};
use std::{fs, io::Write, process::Stdio};

#[test]
fn what_others_changed_since_stays() {
    let site = Site::new();
    site.install();
    site.node.namespace.sh("sysctl -qw net.ipv4.conf.all.send_redirects=1 net.ipv4.neigh.up0.proxy_delay=20
         nft add table inet others");
    fs::write(site.list(), "{}").unwrap();
    // Another of ours must not pass for what the node was like.
    site.node.add("c", &site.node.pod()).done();
    site.node.namespace.sh("sysctl -qw net.ipv4.neigh.up0.proxy_delay=20");
    site.node.del("c", "").done();
    let removed = site.run("uninstall", &[]).done();
    let left = words(&removed, "left");
    for part in ["10-pods.conflist was changed since", "net/ipv4/neigh/up0/proxy_delay was changed since"] {
        assert!(left.contains(part), "{part}: {left}");
    }
    let now = |key: &str| site.node.namespace.sh(&format!("sysctl -n {key}")).trim().to_owned();
    assert_eq!(
        (now("net.ipv4.neigh.up0.proxy_delay"), now("net.ipv4.conf.all.send_redirects")),
        ("20".into(), "1".into())
    );
    assert_eq!(now("net.ipv4.ip_forward"), "0");
    assert_eq!(fs::read_to_string(site.list()).unwrap(), "{}");
    assert_eq!(site.node.namespace.sh("nft list tables").trim(), "table inet others");
    assert!(!site.binary().exists());
}

#[test]
fn whoever_says_so_leaves_a_node_under_pods_that_run() {
    let site = Site::new();
    let before = site.traces();
    site.install();
    let pod = site.node.pod();
    site.node.add("c", &pod).done();
    let removed = site.run("uninstall", &["--despite-running-pods"]).done();
    assert_eq!(words(&removed, "left"), "");
    assert!(words(&removed, "done").contains("answers no more for 10.240.1."), "{removed}");
    as_before(
        &before,
        &site.traces().lines().filter(|line| !line.contains(".vn")).collect::<Vec<_>>().join("\n"),
    );
    assert_eq!(site.node.host_ends(), 1, "the pod itself is its runtime's");
    // Which ends it as always.
    site.node.del("c", &pod.path()).done();
    assert_eq!(site.node.host_ends(), 0);
    as_before(&before, &site.traces());
}

/// Started by a runtime that took its time to say what it wanted.
#[test]
fn an_add_that_began_before_the_node_was_left_attaches_no_pod() {
    let site = Site::new();
    site.install();
    let pod = site.node.pod();
    let mut late = site.node.namespace.enter("env");
    late.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND=ADD", "CNI_CONTAINERID=c"]);
    late.args([&format!("CNI_NETNS={}", pod.path()), "CNI_IFNAME=eth0", SHIM]);
    let mut late = late.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    until("it waits for its input", || {
        let of = |file: &str| format!("/proc/{}/{file}", late.id());
        let is_ours = fs::read_link(of("exe")).is_ok_and(|exe| exe == fs::canonicalize(SHIM).unwrap());
        is_ours && fs::read_to_string(of("stat")).is_ok_and(|stat| stat.contains(") S "))
    });
    site.run("uninstall", &[]).done();
    late.stdin.take().unwrap().write_all(site.node.conf.to_string().as_bytes()).unwrap();
    let output = late.wait_with_output().unwrap();
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error.to_string().contains("cni-shim install"), "{error}");
    assert_eq!(site.node.namespace.sh("nft list tables").trim(), "");
    // Who begins now knows what he does.
    site.node.add("c", &pod).done();
}

#[cfg(feature = "fault-points")]
mod killed {
    use super::*;
    use crate::{node::Printed, site::refused};

    #[track_caller]
    fn killed(printed: &Printed, point: &str) {
        assert!(printed.status != 0 && printed.stdout.is_empty(), "{point}: {printed:?}");
    }

    #[test]
    fn an_installation_that_was_killed_is_finished_or_undone_by_the_next_command() {
        for point in
            ["install-after-note", "install-after-draft", "install-after-place", "install-after-set-up"]
        {
            let site = Site::new();
            let before = site.traces();
            // First at the binary, then at the list.
            killed(&site.run_until(point, "install", &[], &[]), point);
            site.run("uninstall", &[]).done();
            as_before(&before, &site.traces());
            killed(&site.run_until(point, "install", &[], &[]), point);
            let second = site.run_until(point, "install", &[], &[]);
            // One that was killed with the binary in its place goes by it.
            if matches!(point, "install-after-place" | "install-after-set-up") {
                killed(&second, point);
            }
            if site.list().exists() {
                site.list_as_read();
            }
            site.install();
            assert_eq!(words(&site.install(), "changed"), "", "{point}");
            assert_eq!(fs::read(site.binary()).unwrap(), fs::read(SHIM).unwrap());
            site.run("uninstall", &[]).done();
            as_before(&before, &site.traces());
        }
    }

    #[test]
    fn an_uninstallation_that_was_killed_is_finished_by_the_next() {
        for point in [
            "uninstall-after-file",
            "uninstall-after-files",
            "uninstall-after-rules",
            "uninstall-after-decision",
            "uninstall-after-sysctls",
        ] {
            let site = Site::new();
            site.node.namespace.sh("echo 1 >/proc/sys/net/ipv4/conf/far0/forwarding");
            fs::create_dir_all(site.list().parent().unwrap()).unwrap();
            fs::write(site.list(), r#"{"name": "pods", "plugins": [{"type": "cni-shim"}]}"#).unwrap();
            let before = site.traces();
            site.install();
            killed(&site.run_until(point, "uninstall", &[], &[]), point);
            assert!(fs::read_to_string(site.list()).unwrap().len() < 100, "{point}: the list went first");
            let removed = site.run("uninstall", &[]).done();
            assert_eq!(words(&removed, "left"), "", "{point}");
            as_before(&before, &site.traces());
        }
    }

    #[test]
    fn what_was_decided_does_not_outlive_the_next_installation() {
        let site = Site::new();
        let node = &site.node.namespace;
        let now = |key: &str| node.sh(&format!("sysctl -n {key}")).trim().to_owned();
        let [theirs, along] = ["net.ipv4.neigh.up0.proxy_delay", "net.ipv4.conf.far0.forwarding"];
        node.sh(&format!("sysctl -qw {along}=1"));
        site.install();
        killed(&site.run_until("uninstall-after-decision", "uninstall", &[], &[]), "decision");
        node.sh(&format!("sysctl -qw {theirs}=20"));
        site.install();
        assert_eq!(now(theirs), "0", "the node is used again");
        node.sh(&format!("sysctl -qw {along}=0"));
        let left = words(&site.run("uninstall", &[]).done(), "left");
        assert!(left.contains("far0/forwarding was changed since"), "{left}");
        assert_eq!((now(theirs), now(along)), ("20".to_owned(), "0".to_owned()));
    }

    #[test]
    fn what_somebody_set_since_a_killed_uninstallation_stays() {
        let site = Site::new();
        site.install();
        killed(&site.run_until("uninstall-after-decision", "uninstall", &[], &[]), "decision");
        site.node.namespace.sh("sysctl -qw net.ipv4.neigh.up0.proxy_delay=20");
        let left = words(&site.run("uninstall", &[]).done(), "left");
        assert!(left.contains("up0/proxy_delay was changed since"), "{left}");
        assert_eq!(site.node.namespace.sh("sysctl -n net.ipv4.neigh.up0.proxy_delay").trim(), "20");
    }

    /// A point with the file that keeps what is stopped there.
    fn gate(site: &Site, point: &str) -> (std::path::PathBuf, String) {
        let path = site.path(point);
        fs::write(&path, "").unwrap();
        let asked = format!("{point}:{}", path.display());
        (path, asked)
    }

    fn is_reached(gate: &std::path::Path) -> bool {
        gate.with_extension("reached").exists()
    }

    #[test]
    fn a_pod_that_is_being_attached_is_seen_before_it_has_an_entry() {
        let site = Site::new();
        site.install();
        let (pod, list) = (site.node.pod(), fs::read(site.list()).unwrap());
        let (gate, asked) = gate(&site, "add-before-intent");
        std::thread::scope(|scope| {
            let added = scope.spawn(|| site.node.run_until(&asked, "ADD", "c", &pod.path(), &site.node.conf));
            until("ADD has no entry yet", || is_reached(&gate));
            let uninstalled = scope.spawn(|| site.run("uninstall", &[]));
            until("the runtime is told, and the pod is waited for", || !site.list().exists());
            fs::remove_file(&gate).unwrap();
            added.join().unwrap().done();
            refused(&uninstalled.join().unwrap(), &["1 of them, pods/c/eth0 for one"]);
        });
        assert!(!site.node.namespace.sh("nft list tables").trim().is_empty(), "its rules are there");
        assert_eq!(fs::read(site.list()).unwrap(), list, "the node goes on, and its runtime with it");
        site.node.del("c", &pod.path()).done();
        assert_eq!(words(&site.run("uninstall", &[]).done(), "left"), "");
        assert!(!site.list().exists());
    }

    #[test]
    fn no_pod_is_attached_while_the_node_is_being_left() {
        let site = Site::new();
        site.install();
        let (gate, asked) = gate(&site, "uninstall-after-rules");
        let pod = site.node.pod();
        std::thread::scope(|scope| {
            let uninstalled = scope.spawn(|| site.run_until(&asked, "uninstall", &[], &[]));
            until("half of it is gone", || is_reached(&gate));
            let told = site.node.add("c", &pod).failed(11);
            assert!(told.to_string().contains("cni-shim install"), "{told:?}");
            fs::remove_file(&gate).unwrap();
            uninstalled.join().unwrap().done();
        });
        assert_eq!(site.node.namespace.sh("nft list tables").trim(), "");
        site.node.add("c", &pod).done();
    }

    #[test]
    fn what_was_decided_is_not_decided_again_where_all_of_it_is_somebodys_by_now() {
        let site = Site::new();
        site.install();
        killed(&site.run_until("uninstall-after-decision", "uninstall", &[], &[]), "decision");
        let undo: serde_json::Value =
            serde_json::from_slice(&fs::read(site.path("data/install.json")).unwrap()).unwrap();
        let decided: Vec<&str> =
            undo["goingBack"].as_array().unwrap().iter().map(|was| was["key"].as_str().unwrap()).collect();
        for key in &decided {
            site.node.namespace.sh(&format!("echo 7 >/proc/sys/{key}"));
        }
        let left = words(&site.run("uninstall", &[]).done(), "left");
        assert_eq!(left.lines().count(), decided.len(), "each once: {left}");
    }

    #[test]
    fn values_of_another_boot_are_not_put_back() {
        let site = Site::new();
        site.install();
        killed(&site.run_until("uninstall-after-decision", "uninstall", &[], &[]), "decision");
        site.node.reboot("boot-b");
        // This boot's own, as somebody's sysctl.d has it.
        site.node.namespace.sh("sysctl -qw net.ipv4.ip_forward=1");
        site.run("uninstall", &[]).done();
        assert_eq!(site.node.namespace.sh("sysctl -n net.ipv4.ip_forward").trim(), "1");
        assert_eq!(words(&site.run("uninstall", &[]).done(), "done"), "");
    }
}
