//! What can't be wired is refused, and nothing is left of the attempt.

use crate::wiring::{
    Pod, WiringError,
    testing::{Lab, NODE_V4, NODE_V6, Ns, attachment, ips, node_addresses, wiring},
    transparent::{Wiring, wire},
};
use std::{fs::File, io::Write, os::fd::AsRawFd, path::Path};

#[test]
fn an_existing_interface_of_the_pod_is_left_untouched() {
    let lab = Lab::new();
    let (pod, addresses) = (Ns::bare(), ips(&["10.240.1.1", "fd00:10::101"]));
    lab.prepare(&addresses);
    pod.sh("ip link add eth0 type bridge && ip addr add 192.0.2.7/24 dev eth0");
    let before = (pod.state(), lab.node.state());
    let error = lab.with(&pod, |host, pod, uplink| {
        wire(host, pod, &wiring(&attachment("a"), &addresses, uplink, &node_addresses())).unwrap_err()
    });
    assert!(matches!(error, WiringError::InterfaceExists { .. }), "{error}");
    assert_eq!((pod.state(), lab.node.state()), before);
}

#[test]
fn a_second_wiring_fails_and_harms_nothing() {
    let lab = Lab::new();
    let (pod, attachment, addresses) = lab.pod("twice", &["10.240.1.1", "fd00:10::101"]);
    let before = (pod.state(), lab.node.state());
    let again = |ns: &Ns| {
        lab.with(ns, |host, pod, uplink| {
            wire(host, pod, &wiring(&attachment, &addresses, uplink, &node_addresses())).unwrap_err()
        })
    };
    assert!(matches!(again(&pod), WiringError::InterfaceExists { .. }));
    let elsewhere = Ns::bare();
    let empty = elsewhere.state();
    let error = again(&elsewhere);
    assert!(
        matches!(&error, WiringError::HostEndExists { alias, .. } if alias == "prod/twice/eth0"),
        "{error}"
    );
    assert!(error.to_string().contains("wired already"), "{error}");
    assert_eq!((pod.state(), lab.node.state()), before);
    assert_eq!(elsewhere.state(), empty);
    assert!(lab.vm.ping("10.240.1.1", "").is_some());
}

#[test]
fn an_address_in_use_on_the_host_is_refused_without_a_trace() {
    let lab = Lab::new();
    let _holder = lab.pod("holder", &["10.240.1.1", "fd00:10::101"]);
    let pod = Ns::bare();
    let before = (pod.state(), lab.node.state());
    for taken in [
        ["10.240.1.1", "fd00:10::102"],
        ["10.240.1.2", "fd00:10::101"],
        [NODE_V4, "fd00:10::102"],
        ["10.240.1.2", NODE_V6],
    ] {
        let addresses = ips(&taken);
        let error = lab.with(&pod, |host, pod, uplink| {
            wire(host, pod, &wiring(&attachment("b"), &addresses, uplink, &node_addresses())).unwrap_err()
        });
        assert!(matches!(error, WiringError::AddressInUse { .. }), "{error}");
        assert_eq!((pod.state(), lab.node.state()), before);
    }
}

#[test]
fn a_failure_halfway_leaves_nothing() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1", "fd00:10::101"]);
    lab.prepare(&addresses);
    let pod = Ns::bare();
    let before = (pod.state(), lab.node.state());
    // The pair exists, both ends are up and the pod's side is done when the host's route is refused.
    let error = lab.with(&pod, |host, pod, uplink| {
        let own = ips(&[NODE_V4, "fd00:10::dead"]);
        wire(host, pod, &wiring(&attachment("c"), &addresses, uplink, &own)).unwrap_err()
    });
    assert!(
        matches!(error, WiringError::NodeAddressMissing { address } if address == "fd00:10::dead".parse::<std::net::IpAddr>().unwrap()),
        "{error}"
    );
    assert_eq!((pod.state(), lab.node.state()), before);
    // An uplink that is gone: refused by the very last request.
    let error = lab.with(&pod, |host, pod, uplink| {
        let mut gone = uplink.clone();
        gone.index = 4711;
        wire(host, pod, &wiring(&attachment("c"), &addresses, &gone, &node_addresses())).unwrap_err()
    });
    assert!(matches!(error, WiringError::Netlink { .. }), "{error}");
    assert_eq!((pod.state(), lab.node.state()), before);
    lab.wire(&pod, &attachment("c"), &addresses);
    assert!(pod.ping(crate::wiring::testing::VM_V6, "").is_some());
}

#[test]
fn undoing_spares_a_proxy_that_was_there_before() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1"]);
    lab.node.sh("ip neigh add proxy 10.240.1.1 dev eth0");
    let pod = Ns::bare();
    let before = lab.node.state();
    lab.with(&pod, |host, pod, uplink| {
        wire(host, pod, &wiring(&attachment("d"), &addresses, uplink, &ips(&["10.240.9.9"]))).unwrap_err()
    });
    assert_eq!(lab.node.state(), before);
}

#[test]
fn only_a_pods_namespace_will_do() {
    let node = Ns::new();
    let path = node.path();
    let refuse = |path: &Path| Pod::open(path).unwrap_err();
    node.run(|| {
        assert!(matches!(refuse(&path), WiringError::NetnsIsHost { .. }));
        let own = Path::new("/proc/thread-self/ns/net");
        assert!(matches!(refuse(own), WiringError::NetnsIsHost { .. }));
        assert!(matches!(refuse(Path::new("/nonexistent/ns")), WiringError::NetnsGone { .. }));
        assert!(matches!(refuse(Path::new("/proc/self/ns/mnt")), WiringError::NetnsUnusable { .. }));
        let mut file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(matches!(refuse(Path::new(&path)), WiringError::NetnsGone { .. }));
        file.write_all(b"not a namespace").unwrap();
        assert!(matches!(refuse(Path::new(&path)), WiringError::NetnsUnusable { .. }));
        let before = File::open("/proc/thread-self/ns/net").unwrap();
        assert!(matches!(refuse(Path::new("/proc/self/ns/mnt")), WiringError::NetnsUnusable { .. }));
        let after = File::open("/proc/thread-self/ns/net").unwrap();
        let id = |file: &File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        assert_eq!(id(&before), id(&after), "the thread stayed where it was");
    });
}

#[test]
fn addresses_are_one_of_each_family() {
    let lab = Lab::new();
    let pod = Ns::bare();
    for wrong in [&[][..], &["10.240.1.1", "10.240.1.2"], &["fd00::1", "10.240.1.1", "fd00::2"]] {
        let addresses = ips(wrong);
        let error = lab.with(&pod, |host, pod, uplink| {
            wire(host, pod, &wiring(&attachment("e"), &addresses, uplink, &node_addresses())).unwrap_err()
        });
        assert!(matches!(error, WiringError::Addresses { .. }), "{error}");
    }
}

#[test]
fn a_failure_to_lead_ports_leaves_none() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1"]);
    lab.prepare(&addresses);
    // One map of the many is there, with what the kernel did before it failed.
    lab.node.sh(
        "nft 'add map inet vnet_ipam host-ports-4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
         add element inet vnet_ipam host-ports-4 { tcp . 81 : 10.240.1.1 . 80 }'",
    );
    let (pod, attachment, own) = (Ns::bare(), attachment("a"), node_addresses());
    let ports = [crate::ports::tests::mapping("tcp 8080 80")];
    let error = lab.with(&pod, |host, pod, uplink| {
        let wiring = Wiring { ports: &ports, ..wiring(&attachment, &addresses, uplink, &own) };
        wire(host, pod, &wiring).unwrap_err()
    });
    assert!(matches!(error, WiringError::HostPorts { .. }), "{error}");
    let left = lab.node.sh("nft list map inet vnet_ipam host-ports-4");
    assert!(!left.contains("10.240.1.1"), "{left}");
}
