//! Wired pods talk, from the first packet on, and only as themselves.

use crate::wiring::{
    Host, firewall,
    host::{self, Preparation},
    host_ports, masquerade,
    testing::{
        Lab, NODE_V4, NODE_V6, Ns, VM_V4, VM_V6, attachment, ips, nobody, node_addresses, unwiring, wiring,
    },
    transparent::{Unwiring, unwire, wire},
    uplink,
};
use std::time::Instant;

/// Without permanent neighbours and a proxy delay of 0 a first packet takes 690 to 2,040 ms.
const FIRST_PACKET_MS: f64 = 5.0;

fn first(from: &Ns, to: &str, what: &str) {
    let time = from.ping(to, "").unwrap_or_else(|| panic!("{what}: no answer from {to}"));
    println!("first packet {what}: {time} ms");
    assert!(time < FIRST_PACKET_MS, "{what}: {time} ms");
}

#[test]
fn a_pod_of_both_families_and_a_vm_reach_each_other_at_once() {
    let lab = Lab::new();
    let (pod, ..) = lab.pod("dual", &["10.240.1.1", "fd00:10::101"]);
    // Each direction of each family begins with nothing known: the addresses are new to the VM.
    first(&lab.vm, "10.240.1.1", "VM to pod, IPv4");
    first(&lab.vm, "fd00:10::101", "VM to pod, IPv6");
    let (other, ..) = lab.pod("other", &["10.240.1.2", "fd00:10::102"]);
    first(&other, VM_V4, "pod to VM, IPv4");
    first(&other, VM_V6, "pod to VM, IPv6");
    first(&pod, "10.240.1.2", "pod to pod, IPv4");
    first(&other, "fd00:10::101", "pod to pod, IPv6");
    let (third, ..) = lab.pod("third", &["10.240.1.3", "fd00:10::103"]);
    first(&lab.node, "10.240.1.3", "node to pod, IPv4");
    first(&lab.node, "fd00:10::103", "node to pod, IPv6");
    first(&third, NODE_V4, "pod to node, IPv4");
    first(&third, NODE_V6, "pod to node, IPv6");
}

#[test]
fn pods_of_one_family() {
    let lab = Lab::new();
    let (four, ..) = lab.pod("four", &["10.240.1.4"]);
    first(&lab.vm, "10.240.1.4", "VM to pod, IPv4 only");
    first(&four, VM_V4, "pod to VM, IPv4 only");
    assert!(four.ping(VM_V6, "").is_none());
    let (six, ..) = lab.pod("six", &["fd00:10::106"]);
    first(&lab.vm, "fd00:10::106", "VM to pod, IPv6 only");
    first(&six, VM_V6, "pod to VM, IPv6 only");
}

#[test]
fn a_pod_sends_only_from_its_own_addresses() {
    let lab = Lab::new();
    let (pod, ..) = lab.pod("spoofer", &["10.240.1.5", "fd00:10::105"]);
    let _victim = lab.pod("victim", &["10.240.1.6", "fd00:10::106"]);
    pod.sh("for a in 10.240.7.7 10.240.1.6 10.240.0.10; do ip addr add $a/32 dev eth0; done;
         for a in fd00:10::707 fd00:10::106 fd00:10::10; do ip addr add $a/128 dev eth0 nodad; done");
    let send = |source: &str| {
        let to = if source.contains(':') { VM_V6 } else { VM_V4 };
        pod.ping(to, &format!("-I {source}"))
    };
    assert!(send("10.240.1.5").is_some() && send("fd00:10::105").is_some());
    let before = lab.vm.echoes();
    let others = ["10.240.7.7", "10.240.1.6", "10.240.0.10", "fd00:10::707", "fd00:10::106", "fd00:10::10"];
    for other in others {
        assert!(send(other).is_none(), "answered as {other}");
    }
    assert_eq!(lab.vm.echoes(), before, "a packet from a foreign address arrived");
    // The proof that it was the rules: without them the same packets arrive.
    lab.node.sh("nft delete table inet vnet_ipam");
    for stranger in ["10.240.7.7", "fd00:10::707"] {
        assert!(send(stranger).is_none());
    }
    assert_eq!(lab.vm.echoes(), before + 2);
}

#[test]
fn masquerading_hides_pods_from_outside_only() {
    let lab = Lab::new();
    lab.node.sh("ip addr add 192.0.2.1/24 dev eth0");
    lab.vm.sh("ip addr add 192.0.2.2/24 dev eth0");
    let (pod, attachment, addresses) = lab.pod("masked", &["10.240.1.7"]);
    assert!(pod.ping("192.0.2.2", "").is_some());
    let except = vec!["10.240.0.0/12".parse().unwrap()];
    let prepare = || {
        lab.node.run(|| {
            let uplink = uplink::find(&mut Host::open().unwrap(), None).unwrap();
            let masquerade = Some(host::Masquerade { except: except.clone() });
            let network =
                host::NetworkRules { network: "prod", masquerade, metadata: host::Metadata::default() };
            host::prepare(
                &uplink,
                &Preparation { addresses: &addresses, networks: vec![network], ..Preparation::default() },
                &lab.turn(),
                nobody,
            )
            .unwrap()
        })
    };
    assert_eq!(prepare().len(), 1);
    assert!(prepare().is_empty(), "a second time there is nothing to do");
    // A rule too many in a chain of ours is a change: the chain is replaced, the other stays.
    lab.node.sh("nft add rule inet vnet_ipam spoofing accept");
    assert_eq!(prepare().len(), 1);
    assert!(prepare().is_empty());
    // The VM no longer knows a way to the pod: only a masqueraded packet is answered.
    lab.vm.sh("ip route del 10.240.0.0/16; ip route add 10.240.0.10/32 dev eth0; ip route del default");
    lab.node.run(|| masquerade::cover("other", &addresses).unwrap_err());
    assert!(pod.ping("192.0.2.2", "").is_none(), "nobody said that it is of the network");
    lab.node.run(|| {
        assert_eq!(masquerade::missing("prod", &addresses).unwrap().len(), 1);
        masquerade::cover("prod", &addresses).unwrap();
        masquerade::cover("prod", &addresses).unwrap();
        assert!(masquerade::missing("prod", &addresses).unwrap().is_empty());
        assert_eq!(masquerade::covered("prod").unwrap(), addresses);
    });
    assert!(pod.ping("192.0.2.2", "").is_some());
    assert!(prepare().is_empty(), "who is masqueraded changes no rule");
    assert_eq!(lab.unwire(&attachment, &addresses).len(), 3);
    assert!(lab.node.run(|| masquerade::covered("prod").unwrap()).is_empty());
    lab.node.run(|| {
        assert_eq!(firewall::of_others(&["prod"]).unwrap(), Vec::<String>::new());
        assert_eq!(firewall::remove_others(&["other"]).unwrap().len(), 1);
    });
    assert!(!lab.node.sh("nft list table inet vnet_ipam").contains("masquerade"), "rule and sets are gone");
    assert_eq!(prepare().len(), 1);
    lab.node.sh("nft list table inet vnet_ipam | grep -q 'hook postrouting priority srcnat'");
}

#[test]
fn how_long_it_takes() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.8", "fd00:10::108"]);
    lab.prepare(&addresses);
    let (mut wired, mut unwired) = (Vec::new(), Vec::new());
    for n in 0..20 {
        let (pod, attachment) = (Ns::bare(), attachment(&format!("c{n}")));
        lab.with(&pod, |host, pod, uplink| {
            let own = node_addresses();
            let start = Instant::now();
            wire(host, pod, &wiring(&attachment, &addresses, uplink, &own)).unwrap();
            wired.push(start.elapsed());
            let start = Instant::now();
            unwire(host, None, &Unwiring { uplink: Some("eth0"), ..unwiring(&attachment, &addresses) })
                .unwrap();
            unwired.push(start.elapsed());
        });
    }
    wired.sort();
    unwired.sort();
    println!("wire: median {:?}, worst {:?}", wired[10], wired[19]);
    println!("unwire: median {:?}, worst {:?}", unwired[10], unwired[19]);
    lab.node.run(|| {
        let start = Instant::now();
        let mut host = Host::open().unwrap();
        let uplink = uplink::find(&mut host, None).unwrap();
        println!("opening the host and finding the uplink: {:?}", start.elapsed());
        let start = Instant::now();
        let changed = host::prepare(
            &uplink,
            &Preparation { addresses: &addresses, ..Preparation::default() },
            &lab.turn(),
            nobody,
        )
        .unwrap();
        println!("prepare with nothing to do: {:?}", start.elapsed());
        let times = |what: &str, action: &dyn Fn()| {
            let start = Instant::now();
            (0..100).for_each(|_| action());
            println!("{what}: {:?}", start.elapsed() / 100);
        };
        times("looking through the maps of host ports", &|| {
            host_ports::withdraw(&addresses).unwrap();
        });
        times("asking for the pod's ports and masquerading", &|| {
            host_ports::withdraw_unrecorded(&addresses).unwrap();
            masquerade::uncover("prod", &addresses).unwrap();
        });
        assert!(changed.is_empty());
    });
}
