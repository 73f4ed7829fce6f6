//! Leaving a node as it was found, whatever happened to it and whoever is at it.

use crate::site::{Site, as_before, words};
use std::fs;

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

#[cfg(feature = "fault-points")]
mod killed {
    use super::*;
    use crate::{
        node::{Printed, SHIM, until},
        site::refused,
    };
    use std::os::unix::fs::MetadataExt;

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
        let pod = site.node.pod();
        let (gate, asked) = gate(&site, "add-before-intent");
        std::thread::scope(|scope| {
            let added = scope.spawn(|| site.node.run_until(&asked, "ADD", "c", &pod.path(), &site.node.conf));
            until("ADD has no entry yet", || is_reached(&gate));
            let uninstalled = scope.spawn(|| site.run("uninstall", &[]));
            let lock = fs::metadata(site.node.state_dir().join("leaving.lock")).unwrap().ino();
            until("it waits for the pod", || {
                let locks = fs::read_to_string("/proc/locks").unwrap();
                locks.lines().any(|line| line.contains("->") && line.contains(&format!(":{lock} ")))
            });
            fs::remove_file(&gate).unwrap();
            added.join().unwrap().done();
            refused(&uninstalled.join().unwrap(), &["1 of them, pods/c/eth0 for one"]);
        });
        assert!(!site.node.namespace.sh("nft list tables").trim().is_empty(), "its rules are there");
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
