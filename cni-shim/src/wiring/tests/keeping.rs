//! Taking away, checking, re-asserting, and what the host knows by itself.

use crate::wiring::{
    Host, HostEnd, Pod,
    announce::announce,
    check::check,
    host::{self, Advertisements, Preparation},
    survey::{remove_proxies, survey},
    testing::{Lab, attachment, ips, nobody, node_addresses, unwiring, wiring},
    transparent::{reassert, unwire},
    uplink,
};
use ipnet::IpNet;

#[test]
fn unwiring_leaves_nothing_and_may_be_repeated() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1", "fd00:10::101"]);
    lab.prepare(&addresses);
    let before = lab.node.state();
    let (pod, attachment, addresses) = lab.pod("gone", &["10.240.1.1", "fd00:10::101"]);
    assert_ne!(lab.node.state(), before);
    let removed = lab.unwire(&attachment, &addresses);
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert_eq!(lab.node.state(), before);
    assert!(!pod.sh("ip link").contains("eth0"));
    assert!(lab.unwire(&attachment, &addresses).is_empty());
    assert!(lab.unwire(&crate::wiring::testing::attachment("never"), &addresses).is_empty());
}

#[test]
fn unwiring_needs_neither_namespace_nor_record() {
    let lab = Lab::new();
    lab.prepare(&ips(&["10.240.1.1", "fd00:10::101"]));
    let before = lab.node.state();
    // The addresses are not given: the routes know them.
    let (_pod, attachment, _) = lab.pod("norecord", &["10.240.1.1", "fd00:10::101"]);
    assert_eq!(lab.unwire(&attachment, &[]).len(), 3);
    assert_eq!(lab.node.state(), before);
    // The namespace ends and takes the pair along; the proxies remain for us.
    let (pod, attachment, addresses) = lab.pod("nonetns", &["10.240.1.2", "fd00:10::102"]);
    drop(pod);
    let name = HostEnd::of(&attachment).name;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while lab.node.sh("ip link").contains(&name) {
        assert!(std::time::Instant::now() < deadline, "the pair outlived the namespace");
    }
    assert_eq!(lab.unwire(&attachment, &addresses).len(), 2);
    assert_eq!(lab.node.state(), before);
}

#[test]
fn an_uplink_renamed_since_is_found() {
    let lab = Lab::new();
    let (_pod, attachment, addresses) = lab.pod("renamed", &["10.240.1.1"]);
    lab.node.sh("ip link set eth0 name lan0");
    assert_eq!(lab.unwire(&attachment, &addresses).len(), 2);
    assert_eq!(lab.node.sh("ip neigh show proxy"), "");
}

#[test]
fn what_belongs_to_others_stays() {
    let lab = Lab::new();
    let attachment = attachment("mine");
    let name = HostEnd::of(&attachment).name;
    let (_other, _, addresses) = lab.pod("other", &["10.240.1.1", "fd00:10::101"]);
    lab.node.sh(&format!(
        "ip link add {name} type veth peer name x; ip link set {name} alias 'somebody else';
         ip route add 10.240.1.2 dev eth0"
    ));
    let before = lab.node.state();
    // Late DEL: our name is somebody else's by now, and so are the addresses.
    assert!(lab.unwire(&attachment, &addresses).is_empty());
    assert_eq!(lab.node.state(), before);
    lab.node.sh("ip neigh add proxy 10.240.1.2 dev eth0");
    let before = lab.node.state();
    assert!(lab.unwire(&attachment, &ips(&["10.240.1.2"])).is_empty());
    assert_eq!(lab.node.state(), before);
}

#[test]
fn an_end_without_alias_is_ours_by_its_mac() {
    let lab = Lab::new();
    let before = lab.node.state();
    let attachment = attachment("crashed");
    let end = HostEnd::of(&attachment);
    lab.node.sh(&format!("ip link add {} address {} type veth peer name x", end.name, end.host_mac));
    assert_eq!(lab.unwire(&attachment, &[]).len(), 1);
    assert_eq!(lab.node.state(), before);
}

#[test]
fn another_containers_interface_is_never_deleted() {
    let lab = Lab::new();
    let (pod, _, addresses) = lab.pod("tenant", &["10.240.1.1"]);
    let before = (pod.state(), lab.node.state());
    // The path names another container's namespace by now.
    let late = attachment("former");
    let path = pod.path();
    lab.node.run(|| {
        let (mut host, mut pod) = (Host::open().unwrap(), Pod::open(&path).unwrap());
        let unwiring = unwiring(&late, &addresses);
        assert!(unwire(&mut host, Some(&mut pod), &unwiring).unwrap().removed.is_empty());
    });
    assert_eq!((pod.state(), lab.node.state()), before);
}

#[test]
fn an_end_that_lost_its_partner_is_removed() {
    let lab = Lab::new();
    let (pod, attachment, addresses) = lab.pod("torn", &["10.240.1.1"]);
    let name = HostEnd::of(&attachment).name;
    lab.node.sh(&format!("ip link set {name} down && ip link set {name} name renamed alias ''"));
    let path = pod.path();
    let removed = lab.node.run(|| {
        let (mut host, mut pod) = (Host::open().unwrap(), Pod::open(&path).unwrap());
        let unwiring = unwiring(&attachment, &addresses);
        unwire(&mut host, Some(&mut pod), &unwiring).unwrap().removed
    });
    assert!(removed.iter().any(|words| words.contains("in the pod")), "{removed:?}");
    assert!(!pod.sh("ip link").contains("eth0"));
}

#[test]
fn check_names_each_loss() {
    let lab = Lab::new();
    let losses: &[(&str, &str, &str)] = &[
        ("pod", "ip link set eth0 down", "eth0 in the pod is down"),
        ("pod", "ip addr del 10.240.1.1/32 dev eth0", "lost its address 10.240.1.1"),
        ("pod", "ip addr del fd00:10::101/128 dev eth0", "lost its address fd00:10::101"),
        ("pod", "ip route del default", "default route via 169.254.1.1 is gone"),
        ("pod", "ip -6 route del default", "default route via fe80::1 is gone"),
        ("pod", "ip neigh del 169.254.1.1 dev eth0", "pod's neighbour 169.254.1.1"),
        ("pod", "ip neigh del fe80::1 dev eth0", "pod's neighbour fe80::1"),
        ("pod", "sysctl -qw net.ipv6.conf.eth0.accept_ra=1", "accept_ra is not 0"),
        ("pod", "ip link del eth0", "interface eth0 in the pod is gone"),
        ("node", "ip link set NAME down", "NAME is down"),
        ("node", "ip link set NAME alias other", "belongs to \"other\""),
        ("node", "ip link set NAME address 02:00:00:00:00:77", "has another MAC"),
        ("node", "ip route del 10.240.1.1", "route to 10.240.1.1 is gone"),
        ("node", "ip -6 route del fd00:10::101", "route to fd00:10::101 is gone"),
        ("node", "ip route replace 10.240.1.1 dev NAME", "lost its source address"),
        ("node", "ip neigh del 10.240.1.1 dev NAME", "host's neighbour 10.240.1.1"),
        ("node", "ip neigh del fd00:10::101 dev NAME", "host's neighbour fd00:10::101"),
        ("node", "ip neigh del proxy 10.240.1.1 dev eth0", "no longer answers for 10.240.1.1"),
        ("node", "ip -6 neigh del proxy fd00:10::101 dev eth0", "no longer answers for fd00:10::101"),
        ("node", "sysctl -qw net.ipv4.ip_forward=0", "/proc/sys/net/ipv4/ip_forward is 0, not 1"),
        ("node", "sysctl -qw net.ipv6.conf.eth0.proxy_ndp=0", "proxy_ndp is 0, not 1"),
        ("node", "nft flush ruleset", "rules of table inet vnet_ipam"),
        ("node", "nft flush chain inet vnet_ipam spoofing", "rules of table inet vnet_ipam"),
    ];
    for (where_, script, finding) in losses {
        let (pod, attachment, addresses) = lab.pod("checked", &["10.240.1.1", "fd00:10::101"]);
        let name = HostEnd::of(&attachment).name;
        let look = || {
            lab.with(&pod, |host, pod, uplink| {
                let preparation = Preparation { addresses: &addresses, ..Preparation::default() };
                let own = node_addresses();
                check(host, pod, &wiring(&attachment, &addresses, uplink, &own), &preparation).unwrap()
            })
        };
        assert_eq!(look(), [], "before {script}");
        let ns = if *where_ == "pod" { &pod } else { &lab.node };
        ns.sh(&script.replace("NAME", &name));
        let findings: Vec<String> = look().iter().map(ToString::to_string).collect();
        let finding = finding.replace("NAME", &name);
        assert!(findings.iter().any(|words| words.contains(&finding)), "{script}: {findings:?}");
        lab.node.sh(&format!("ip link set {name} alias '{}' || true", HostEnd::of(&attachment).alias));
        lab.unwire(&attachment, &addresses);
    }
}

#[test]
fn what_the_host_forgets_is_put_back() {
    let lab = Lab::new();
    let (_pod, attachment, addresses) = lab.pod("flaky", &["10.240.1.1", "fd00:10::101"]);
    let name = HostEnd::of(&attachment).name;
    let again = || {
        lab.node.run(|| {
            let mut host = Host::open().unwrap();
            let uplink = uplink::find(&mut host, Some("eth0")).unwrap();
            reassert(&mut host, &wiring(&attachment, &addresses, &uplink, &node_addresses())).unwrap()
        })
    };
    assert!(again().is_empty());
    lab.node.sh(
        "ip link set eth0 down; ip link set eth0 up; ip addr add fd00:10::10/64 dev eth0 nodad 2>&- || true",
    );
    assert_eq!(again().len(), 2, "the uplink forgot both proxies");
    lab.node.sh(&format!("ip link set {name} down"));
    assert!(again().iter().any(|words| words.contains("was down")));
    assert!(again().is_empty());
    // As a network manager that begins anew. IPv4 drops the route with its source address, IPv6 the source alone.
    lab.node.sh("ip addr del 10.240.0.10/16 dev eth0; ip addr add 10.240.0.10/16 dev eth0
         ip addr del fd00:10::10/64 dev eth0; ip addr add fd00:10::10/64 dev eth0 nodad");
    let words = again();
    assert!(words.iter().any(|words| words.contains("10.240.1.1 was missing")), "{words:?}");
    assert!(words.iter().any(|words| words.contains("fd00:10::101 had lost its source")), "{words:?}");
    assert!(again().is_empty());
    lab.wait_for_bridge();
    assert!(lab.vm.ping("10.240.1.1", "").is_some() && lab.vm.ping("fd00:10::101", "").is_some());
}

#[test]
fn the_host_knows_its_pods_by_itself() {
    let lab = Lab::new();
    let (_a, first, _) = lab.pod("a", &["10.240.1.1", "fd00:10::101"]);
    let (_b, second, _) = lab.pod("b", &["10.240.1.2"]);
    lab.node.sh(
        "ip link add vn01234567890 type veth peer name x; ip link set vn01234567890 alias prod/foreign/eth0;
         ip route add 10.240.1.9/32 dev eth0; ip addr add 10.240.1.10/32 dev lo;
         ip neigh add proxy 10.240.1.11 dev eth0; ip neigh add proxy 10.240.2.1 dev eth0;
         ip -6 neigh add proxy fd00:10::111 dev eth0",
    );
    let within: Vec<IpNet> = vec!["10.240.1.0/27".parse().unwrap(), "fd00:10::100/123".parse().unwrap()];
    let found = lab.node.run(|| {
        let mut host = Host::open().unwrap();
        let uplink = uplink::find(&mut host, None).unwrap();
        let found = survey(&mut host, Some(&uplink), &within).unwrap();
        assert_eq!(remove_proxies(&mut host, &uplink, &found.stale_proxies).unwrap(), found.stale_proxies);
        assert!(survey(&mut host, Some(&uplink), &within).unwrap().stale_proxies.is_empty());
        found
    });
    let ends: Vec<_> = found.ends.iter().map(|end| (end.attachment.clone(), end.addresses.clone())).collect();
    assert_eq!(ends, [(first, ips(&["10.240.1.1", "fd00:10::101"])), (second, ips(&["10.240.1.2"]))]);
    let taken = ips(&["10.240.1.1", "10.240.1.2", "10.240.1.9", "10.240.1.10", "fd00:10::101"]);
    assert_eq!(found.taken.into_iter().collect::<Vec<_>>(), taken);
    assert_eq!(found.stale_proxies, ips(&["10.240.1.11", "fd00:10::111"]));
}

#[test]
fn an_announcement_moves_an_address() {
    let lab = Lab::new();
    let addresses = ips(&["10.240.1.1", "fd00:10::101"]);
    // The VM believes that another machine has them.
    for address in ["10.240.1.1", "fd00:10::101"] {
        lab.vm.sh(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
    }
    let warnings = lab.node.run(|| {
        let uplink = uplink::find(&mut Host::open().unwrap(), None).unwrap();
        let start = std::time::Instant::now();
        let warnings = announce(&uplink, &addresses);
        println!("announce: {:?}", start.elapsed());
        warnings
    });
    assert!(warnings.is_empty(), "{warnings:?}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let known = lab.vm.sh("ip neigh");
        let moved = |address: &str| {
            known
                .lines()
                .any(|line| line.starts_with(&format!("{address} ")) && line.contains("02:00:00:00:00:01"))
        };
        if moved("10.240.1.1") && moved("fd00:10::101") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{known}");
    }
}

#[test]
fn ra_keeps_working_when_forwarding_begins() {
    let lab = Lab::new();
    let read = || lab.node.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim().to_owned();
    assert_eq!(read(), "1");
    lab.prepare(&ips(&["10.240.1.1"]));
    assert_eq!(read(), "1", "nothing of IPv6 is touched for IPv4");
    let changed = lab.prepare(&ips(&["fd00:10::101"]));
    assert_eq!(read(), "2");
    let order = |what: &str| changed.iter().position(|line| line.contains(what)).unwrap();
    assert!(order("accept_ra") < order("forwarding"));
    assert!(lab.prepare(&ips(&["fd00:10::101", "10.240.1.1"])).is_empty());

    // Once it forwards, what is written there says nothing of what it was: the record does.
    let addresses = ips(&["fd00:10::101"]);
    let heeded = || {
        let preparation = Preparation {
            addresses: &addresses,
            advertisements: Advertisements::Heeded,
            ..Preparation::default()
        };
        lab.node.run(|| {
            let uplink = uplink::find(&mut Host::open().unwrap(), Some("eth0")).unwrap();
            host::prepare(&uplink, &preparation, &lab.turn(), nobody).unwrap()
        })
    };
    lab.node.sh("echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra");
    assert!(lab.prepare(&addresses).is_empty(), "without a record it is left as it is");
    assert_eq!(heeded(), ["/proc/sys/net/ipv6/conf/eth0/accept_ra = 2"]);
    lab.node.sh("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra");
    assert!(heeded().is_empty(), "somebody wants none, or hears them himself");
}

#[test]
fn an_uplink_that_does_not_forward_though_ip_forward_says_so_is_mended() {
    let lab = Lab::new();
    lab.prepare(&ips(&["10.240.1.1"]));
    lab.node.sh("echo 0 >/proc/sys/net/ipv4/conf/eth0/forwarding");
    let changed = lab.prepare(&ips(&["10.240.1.1"]));
    assert_eq!(changed, ["/proc/sys/net/ipv4/conf/eth0/forwarding = 1"]);
}
