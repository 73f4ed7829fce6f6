//! Hosts that lack something, and many things at once.

use crate::wiring::{
    Host, Pod, WiringError,
    host::{self, Preparation},
    testing::{Lab, Ns, VM_V4, attachment, ips, nobody, node_addresses, unwiring, wiring},
    transparent::{unwire, wire},
    uplink,
};
use nix::sched::{CloneFlags, unshare};
use std::{process::Command, sync::Barrier, thread};

/// Runs on the node with mounts of its own, after a shell script in them.
fn with_mounts<T: Send>(ns: &Ns, script: &str, action: impl FnOnce() -> T + Send) -> T {
    ns.run(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let script = format!("mount --make-rprivate /\n{script}");
        let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        action()
    })
}

const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys";

#[test]
fn a_sysctl_that_cannot_be_set_is_named() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1", "fd00:10::101"]);
    let prepare = || {
        let uplink = uplink::find(&mut Host::open().unwrap(), None).unwrap();
        let preparation = Preparation { addresses: &addresses, ..Preparation::default() };
        host::prepare(&uplink, &preparation, &lab.turn(), nobody)
    };
    let error = with_mounts(&lab.node, READ_ONLY, prepare).unwrap_err();
    assert!(error.to_string().contains("/proc/sys/net/ipv4/ip_forward must be \"1\""), "{error}");
    // Whatever becomes of sysctls: without the rules pods use others' addresses.
    assert!(lab.node.sh("nft list table inet vnet_ipam").contains("chain spoofing"));
    lab.prepare(&addresses);
    // The right values are enough where nothing can be written.
    assert!(with_mounts(&lab.node, READ_ONLY, prepare).unwrap().is_empty());
}

#[test]
fn a_failure_between_pair_and_addresses_leaves_nothing() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1", "fd00:10::101"]);
    lab.prepare(&addresses);
    let pod = Ns::bare();
    let (before, path) = ((pod.state(), lab.node.state()), pod.path());
    let attempt = || {
        let (mut host, mut pod) = (Host::open().unwrap(), Pod::open(&path).unwrap());
        let uplink = uplink::find(&mut host, None).unwrap();
        wire(&mut host, &mut pod, &wiring(&attachment("ro"), &addresses, &uplink, &node_addresses()))
    };
    let error = with_mounts(&lab.node, READ_ONLY, attempt).unwrap_err();
    assert!(matches!(error, WiringError::Sysctl { .. }), "{error}");
    assert_eq!((pod.state(), lab.node.state()), before);
    let error = with_mounts(&lab.node, "mount -t tmpfs none /proc/sys/net", attempt).unwrap_err();
    assert!(matches!(error, WiringError::Ipv6Disabled { .. }), "{error}");
    assert_eq!((pod.state(), lab.node.state()), before);
}

#[test]
fn a_missing_nft_names_its_package() {
    let lab = Lab::new();
    let error = with_mounts(&lab.node, "mount -t tmpfs none /usr/sbin", || {
        let uplink = uplink::find(&mut Host::open().unwrap(), None).unwrap();
        host::prepare(&uplink, &Preparation::default(), &lab.turn(), nobody).unwrap_err()
    });
    assert!(error.to_string().contains("install the package nftables"), "{error}");
}

#[test]
fn an_mtu_too_small_for_ipv6_is_refused_before_anything() {
    let lab = Lab::new();
    let (pod, addresses) = (Ns::bare(), ips(&["10.240.1.1", "fd00:10::101"]));
    let attempt = |addresses: &[std::net::IpAddr]| {
        lab.with(&pod, |host, pod, uplink| {
            let attachment = attachment("small");
            let own = node_addresses();
            let mut wiring = wiring(&attachment, addresses, uplink, &own);
            wiring.mtu = 1000;
            wire(host, pod, &wiring)
        })
    };
    assert!(matches!(attempt(&addresses), Err(WiringError::MtuTooSmall { mtu: 1000 })));
    lab.prepare(&addresses[..1]);
    assert_eq!(attempt(&addresses[..1]).unwrap().mtu, 1000);
    assert!(pod.sh("ip link show eth0").contains("mtu 1000"));
    assert!(pod.ping(VM_V4, "").is_some());
}

#[test]
fn no_uplink_is_named() {
    let ns = Ns::new();
    ns.run(|| {
        let mut host = Host::open().unwrap();
        for name in [None, Some("eth7")] {
            assert!(matches!(uplink::find(&mut host, name), Err(WiringError::NoUplink { .. })));
        }
    });
}

#[test]
fn many_at_once() {
    const PODS: usize = 12;
    let lab = Lab::new();
    lab.prepare(&ips(&["10.240.1.1", "fd00:10::101"]));
    let before = lab.node.state();
    let start = Barrier::new(PODS);
    thread::scope(|scope| {
        for n in 1..=PODS {
            let (lab, start) = (&lab, &start);
            scope.spawn(move || {
                let (pod, attachment) = (Ns::bare(), attachment(&format!("many{n}")));
                let addresses = ips(&[&format!("10.240.1.{n}"), &format!("fd00:10::1:{n:x}")]);
                start.wait();
                lab.wire(&pod, &attachment, &addresses);
                assert!(pod.ping(VM_V4, "").is_some());
                // Two DELs of one attachment at once: both succeed.
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| lab.unwire(&attachment, &addresses));
                    }
                });
            });
        }
    });
    assert_eq!(lab.node.state(), before);
}

#[test]
fn a_pod_of_ipv4_has_no_way_around_through_link_local_addresses() {
    let lab = Lab::new();
    let (_pod, attachment, addresses) = lab.pod("local", &["10.240.1.1"]);
    let name = crate::wiring::HostEnd::of(&attachment).name;
    assert!(!lab.node.sh(&format!("ip addr show {name}")).contains("inet6"));
    lab.node.run(|| {
        let unwiring = unwiring(&attachment, &addresses);
        assert_eq!(unwire(&mut Host::open().unwrap(), None, &unwiring).unwrap().removed.len(), 2);
    });
}
