//! Who else has an address, asked of the segment.

use crate::wiring::{
    Host, Mac, WiringError,
    probe::probe,
    testing::{Lab, Ns, VM_V4, VM_V6, ips},
    uplink,
};
use std::{collections::BTreeMap, net::IpAddr};

const VM: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ask(lab: &Lab, addresses: &[&str]) -> Result<BTreeMap<IpAddr, Mac>, WiringError> {
    lab.node.run(|| {
        let mut host = Host::open().unwrap();
        let uplink = uplink::find(&mut host, Some("eth0")).unwrap();
        probe(&mut host, &uplink, &ips(addresses).into_iter().collect())
    })
}

fn from(vm: &[&str]) -> BTreeMap<IpAddr, Mac> {
    ips(vm).into_iter().map(|address| (address, VM)).collect()
}

#[test]
fn who_has_an_address_is_known_by_its_mac_and_nobodys_neighbours_change() {
    let lab = Lab::new();
    lab.node.sh("ip neigh flush all; ip -6 neigh flush all");
    let asked = [VM_V4, VM_V6, "10.240.1.1", "fd00:10::101"];
    assert_eq!(ask(&lab, &asked).unwrap(), from(&[VM_V4, VM_V6]));
    assert!(!lab.node.sh("ip neigh; ip -6 neigh").contains("10.240.1.1 "));
}

#[test]
fn what_this_host_answers_for_has_no_stranger() {
    let lab = Lab::new();
    let (_pod, _, addresses) = lab.pod("own", &["10.240.1.1", "fd00:10::101"]);
    let gratuitous = lab.node.run(|| {
        let uplink = uplink::find(&mut Host::open().unwrap(), Some("eth0")).unwrap();
        crate::wiring::announce::announce(&uplink, &addresses)
    });
    assert_eq!(gratuitous, [""; 0]);
    assert_eq!(ask(&lab, &["10.240.1.1", "fd00:10::101"]).unwrap(), BTreeMap::new());
}

#[test]
fn a_machine_that_answers_for_its_pods_is_found_as_well() {
    let lab = Lab::new();
    lab.vm.sh(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.eth0.proxy_ndp=1
         sysctl -qw net.ipv4.neigh.eth0.proxy_delay=0 net.ipv6.neigh.eth0.proxy_delay=0
         ip link add pod0 type veth peer name pod1; ip link set pod0 up; ip link set pod1 up
         ip route add 10.240.1.1 dev pod0; ip -6 route add fd00:10::101 dev pod0
         ip neigh add proxy 10.240.1.1 dev eth0; ip -6 neigh add proxy fd00:10::101 dev eth0",
    );
    let asked = ["10.240.1.1", "fd00:10::101", "10.240.1.2"];
    assert_eq!(ask(&lab, &asked).unwrap(), from(&["10.240.1.1", "fd00:10::101"]));
}

#[test]
fn silence_says_nothing_where_nobody_can_be_heard() {
    let lab = Lab::new();
    lab.node.sh("ip link set eth0 down");
    assert!(matches!(ask(&lab, &[VM_V4]), Err(WiringError::Probe { .. })));
    let ns = Ns::new();
    let error = ns.run(|| {
        let mut host = Host::open().unwrap();
        let mut uplink = uplink::find(&mut host, Some("lo")).unwrap();
        uplink.mac = None;
        probe(&mut host, &uplink, &ips(&[VM_V4]).into_iter().collect()).unwrap_err()
    });
    assert!(matches!(error, WiringError::Unsupported { .. }), "{error}");
}
