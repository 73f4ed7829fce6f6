//! Is everything that [`wire`](super::transparent::wire) made still there?

use super::{
    GATEWAY_V4, Host, HostEnd, Mac, Pod, WiringError, firewall, gateway_for,
    host::{self, Preparation},
    host_ports,
    link::{self, Link},
    masquerade::{self, Egress},
    neighbour,
    netlink::host_length,
    route::{self, Route},
    rule, sysctl,
    transparent::{POD_SYSCTLS_V6, Wiring},
};
use netlink_packet_route::AddressFamily;
use std::net::IpAddr;

/// One thing that is not as it was made, in plain words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding(String);

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Looks at everything and changes nothing. Additions by later plugins are no findings, nor is a pod
/// MAC changed by one, as long as the host knows it and `wiring` says so.
///
/// # Errors
/// When the kernel can't be asked.
pub fn check(
    host: &mut Host,
    pod: &mut Pod,
    wiring: &Wiring<'_>,
    preparation: &Preparation<'_>,
) -> Result<Vec<Finding>, WiringError> {
    let end = HostEnd::of(wiring.attachment);
    let mut findings = Findings::default();
    let name = wiring.attachment.if_name.as_str();
    let host_link = link::by_name(&mut host.netlink, &end.name)?;
    let pod_link = link::by_name(&mut pod.netlink, name)?;
    match &host_link {
        Some(link) => findings.host_end(link, &end),
        None => findings.add(format!("the host end {} is gone", end.name)),
    }
    match &pod_link {
        Some(link) => {
            if !link.up {
                findings.add(format!("{name} in the pod is down"));
            }
            if host_link.as_ref().is_some_and(|host| host.peer.is_some_and(|peer| peer != link.index)) {
                findings.add(format!("{name} in the pod is not the other end of {}", end.name));
            }
            if let (Some(want), Some(found)) = (wiring.mac, link.mac)
                && want != found
            {
                findings.add(format!("{name} in the pod has the MAC {found}, not {want}"));
            }
            inside(pod, link, &end, wiring, &mut findings)?;
        }
        None => findings.add(format!("interface {name} in the pod is gone")),
    }
    if let Some(link) = &host_link {
        let pod_mac = pod_link.and_then(|link| link.mac).unwrap_or_else(|| wiring.pod_mac(&end));
        outside(host, link, pod_mac, wiring, &mut findings)?;
    }
    host::missing(wiring.uplink, preparation)?.into_iter().for_each(|words| findings.add(words));
    host_ports::missing(&wiring.publication())?.into_iter().for_each(|words| findings.add(words));
    if wiring.egress == Egress::Masqueraded && !firewall::names_block(wiring.network())? {
        let bare = masquerade::missing(wiring.network(), wiring.addresses)?;
        bare.into_iter().for_each(|words| findings.add(words));
    }
    Ok(findings.0)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, words: String) {
        self.0.push(Finding(words));
    }

    fn host_end(&mut self, link: &Link, end: &HostEnd) {
        if link.alias != end.alias {
            self.add(format!("{} belongs to {:?}, not to {:?}", end.name, link.alias, end.alias));
        }
        if !link.up {
            self.add(format!("the host end {} is down", end.name));
        }
        if link.mac != Some(end.host_mac) {
            self.add(format!("the host end {} has another MAC than {}", end.name, end.host_mac));
        }
    }
}

/// The pod's side: addresses, next hops, routes, sysctls.
fn inside(
    pod: &mut Pod,
    link: &Link,
    end: &HostEnd,
    wiring: &Wiring<'_>,
    findings: &mut Findings,
) -> Result<(), WiringError> {
    let name = &link.name;
    let assigned = route::addresses(&mut pod.netlink)?;
    for address in wiring.addresses {
        match assigned.iter().find(|found| found.index == link.index && found.net.addr() == *address) {
            None => findings.add(format!("{name} in the pod has lost its address {address}")),
            Some(found) if found.unusable => {
                findings.add(format!("the address {address} of {name} is not usable (duplicate detection)"));
            }
            Some(_) => {}
        }
        let gateway = gateway_for(*address);
        let neighbour = pod.netlink.one(neighbour::get(link.index, gateway))?;
        if neighbour::permanent_mac(neighbour.unless(&[nix::libc::ENOENT])?) != Some(end.host_mac) {
            findings.add(format!("the pod's neighbour {gateway} is missing or not {}", end.host_mac));
        }
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let routes = route::all(&mut pod.netlink, family)?;
        let leads = |wanted: &dyn Fn(&Route) -> bool| {
            routes.iter().any(|route| route.dev == Some(link.index) && wanted(route))
        };
        let own = rule::own_table(link.index);
        let default = |route: &Route| route.to.prefix_len() == 0 && route.gateway == Some(gateway);
        if !leads(&default) {
            findings.add(format!("the pod's default route via {gateway} is gone"));
        } else if leads(&|route| default(route) && route.table == own)
            && !rule::all(&mut pod.netlink, family)?.contains(&(*address, own))
        {
            findings.add(format!("the pod's rule for what it sends from {address} is gone"));
        }
        if address.is_ipv4() && !leads(&|route| route.is_host_route(GATEWAY_V4.into())) {
            findings.add(format!("the pod's route to {gateway} is gone"));
        }
    }
    if wiring.addresses.iter().any(IpAddr::is_ipv6) {
        let wrong = pod.inside(|| {
            let mut wrong = Vec::new();
            for (key, want) in POD_SYSCTLS_V6 {
                let key = format!("net/ipv6/conf/{name}/{key}");
                if sysctl::read(&key)?.as_deref() != Some(want) {
                    wrong.push(format!("the pod's sysctl {} is not {want}", sysctl::path(&key).display()));
                }
            }
            Ok::<_, WiringError>(wrong)
        })??;
        wrong.into_iter().for_each(|words| findings.add(words));
    }
    Ok(())
}

/// The host's side: routes, neighbours, proxies.
fn outside(
    host: &mut Host,
    link: &Link,
    pod_mac: Mac,
    wiring: &Wiring<'_>,
    findings: &mut Findings,
) -> Result<(), WiringError> {
    let uplink = wiring.uplink;
    for address in wiring.addresses {
        let mut answers = host
            .netlink
            .batch(vec![
                route::lookup(*address),
                neighbour::get(link.index, *address),
                neighbour::get_proxy(uplink.index, *address),
            ])?
            .into_iter();
        let absent = &[nix::libc::ENOENT, nix::libc::ENODEV];
        let route = answers.next().map(|answer| answer.unless(route::NO_ROUTE)).transpose()?.flatten();
        match Route::of(route).filter(|route| route.to.prefix_len() == host_length(*address)) {
            Some(route) if route.dev == Some(link.index) => {
                let want = wiring.source_for(*address);
                if want.is_some() && route.source != want {
                    findings.add(format!("the host's route to {address} has lost its source address"));
                }
            }
            Some(_) => findings.add(format!("the host's route to {address} leads elsewhere")),
            None => findings.add(format!("the host's route to {address} is gone")),
        }
        let neighbour = answers.next().map(|answer| answer.unless(absent)).transpose()?.flatten();
        if neighbour::permanent_mac(neighbour) != Some(pod_mac) {
            findings.add(format!("the host's neighbour {address} is missing or not {pod_mac}"));
        }
        if answers.next().map(|answer| answer.unless(absent)).transpose()?.flatten().is_none() {
            findings.add(format!("the host no longer answers for {address} on {}", uplink.name));
        }
    }
    Ok(())
}
