//! Wiring a pod.

use crate::ports::PortMapping;
use crate::wiring::{
    GATEWAY_V4, Host, HostEnd, Mac, Pod, Uplink, WiringError,
    conntrack::Forgetting,
    gateway_for,
    host_ports::{self, Publication},
    link::{self, End, LOOPBACK, Link},
    masquerade::{self, Egress},
    neighbour,
    netlink::{Answer, family_of, host_length},
    route::{self, Existing, NewRoute},
    rule, sysctl,
};
use ipam_api::names::Attachment;
use ipnet::IpNet;
use netlink_packet_route::route::RouteType;
use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// What is to be wired.
#[derive(Debug, Clone, Copy)]
pub struct Wiring<'a> {
    /// Whose interface it is.
    pub attachment: &'a Attachment,
    /// The pod's addresses: one, or one of each family.
    pub addresses: &'a [IpAddr],
    /// The node's own addresses in the VNet; the host's source towards the pod.
    pub node_addresses: &'a [IpAddr],
    /// The uplink, on which the host answers for the pod.
    pub uplink: &'a Uplink,
    /// MTU of both ends in bytes; 0: the uplink's.
    pub mtu: u32,
    /// The MAC that the pod's interface is to have; `None`: the one that follows from the attachment.
    pub mac: Option<Mac>,
    /// The node's ports that lead to it.
    pub ports: &'a [PortMapping],
    /// How it is seen outside the VNet.
    pub egress: Egress,
}

/// Below this the kernel takes IPv6 off an interface (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;

impl Wiring<'_> {
    /// MTU that both ends get, in bytes.
    #[must_use]
    pub fn effective_mtu(&self) -> u32 {
        if self.mtu == 0 { self.uplink.mtu } else { self.mtu }
    }

    pub(crate) fn publication(&self) -> Publication<'_> {
        let Self { attachment, addresses, ports, .. } = *self;
        Publication { attachment, addresses, ports }
    }

    /// The CNI network.
    pub(crate) fn network(&self) -> &str {
        self.attachment.network.as_str()
    }

    /// The MAC of the pod's end.
    pub(crate) fn pod_mac(&self, end: &HostEnd) -> Mac {
        self.mac.unwrap_or(end.pod_mac)
    }

    /// The host's route to one of the addresses, through the host end.
    pub(crate) fn host_route(&self, dev: u32, address: IpAddr) -> NewRoute {
        let source = self.source_for(address);
        NewRoute { to: IpNet::from(address), dev, gateway: None, source, table: route::MAIN }
    }

    /// The host's source towards one of the pod's addresses: the node's own of the same family.
    #[must_use]
    pub fn source_for(&self, pod: IpAddr) -> Option<IpAddr> {
        self.node_addresses.iter().copied().find(|address| address.is_ipv4() == pod.is_ipv4())
    }

    fn validate(&self) -> Result<(), WiringError> {
        let of_family = |v4| self.addresses.iter().filter(|address| address.is_ipv4() == v4).count();
        if self.addresses.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
            return Err(WiringError::Addresses { given: self.addresses.to_vec() });
        }
        let mtu = self.effective_mtu();
        if of_family(false) > 0 && mtu < IPV6_MIN_MTU {
            return Err(WiringError::MtuTooSmall { mtu });
        }
        Ok(())
    }
}

/// What was wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    /// Name of the host's end.
    pub host_name: String,
    /// MAC of the host's end, read back.
    pub host_mac: Mac,
    /// MAC of the pod's end, read back.
    pub pod_mac: Mac,
    /// MTU of both ends.
    pub mtu: u32,
    /// The pod's routing table with the routes of this address; another than the main one where the pod had
    /// a default route of the family already.
    pub tables: Vec<(IpAddr, u32)>,
}

/// Wires a pod. On failure everything that this call made is gone again and what was there before is
/// untouched.
///
/// # Errors
/// [`WiringError::InterfaceExists`], [`WiringError::HostEndExists`], [`WiringError::AddressInUse`],
/// [`WiringError::NodeAddressMissing`], [`WiringError::Ipv6Disabled`], [`WiringError::MacChanged`],
/// [`WiringError::Netlink`] and others.
pub fn wire(host: &mut Host, pod: &mut Pod, wiring: &Wiring<'_>) -> Result<Wired, WiringError> {
    wiring.validate()?;
    let end = HostEnd::of(wiring.attachment);
    let before = Before::read(host, pod, wiring, &end)?;
    let pair = Pair::create(host, pod, wiring, &end)?;
    let tables = before.tables(wiring, &pair);
    let result = finish(host, pod, wiring, &end, &pair, tables).and_then(|wired| {
        host_ports::publish(&wiring.publication())?;
        if wiring.egress == Egress::Masqueraded {
            masquerade::cover(wiring.network(), wiring.addresses)?;
        }
        Ok(wired)
    });
    if result.is_err() {
        before.restore(host, pod, wiring, &pair);
    }
    result
}

/// What was there before, as far as the undo has to know.
struct Before {
    proxied: Vec<IpAddr>,
    /// Addresses in whose family the pod has a default route, or one to our next hop.
    routed: Vec<IpAddr>,
}

impl Before {
    /// Reads it, and refuses what can be refused before anything is made.
    fn read(host: &mut Host, pod: &mut Pod, wiring: &Wiring<'_>, end: &HostEnd) -> Result<Self, WiringError> {
        let name = wiring.attachment.if_name.as_str();
        if link::by_name(&mut pod.netlink, name)?.is_some() {
            return Err(WiringError::InterfaceExists { name: name.to_owned() });
        }
        let mut requests = vec![link::get(&end.name)];
        for address in wiring.addresses {
            requests.push(neighbour::get_proxy(wiring.uplink.index, *address));
            requests.push(route::lookup(*address));
        }
        let mut answers = host.netlink.batch(requests)?.into_iter();
        let found = answers.next().map(|answer| answer.unless(&[nix::libc::ENODEV])).transpose()?;
        if let Some(link) = Link::of(found.flatten()) {
            return Err(host_end_exists(end, &link));
        }
        let mut proxied = Vec::new();
        for address in wiring.addresses {
            if answers.next().is_some_and(|answer| answer.code() == 0) {
                proxied.push(*address);
            }
            let found = answers.next().map(|answer| answer.unless(route::NO_ROUTE)).transpose()?.flatten();
            // Whatever leads to exactly this address, a local address of the host included.
            if route::Route::of(found).is_some_and(|route| route.is_host_route(*address)) {
                return Err(WiringError::AddressInUse { address: *address });
            }
        }
        let mut routed = Vec::new();
        for address in wiring.addresses {
            let in_the_way = |route: &route::Route| {
                route.table == route::MAIN
                    && (route.to.prefix_len() == 0 || route.is_host_route(gateway_for(*address)))
            };
            if route::all(&mut pod.netlink, family_of(*address))?.iter().any(in_the_way) {
                routed.push(*address);
            }
        }
        Ok(Self { proxied, routed })
    }

    /// The tables that the pod's new routes belong in.
    fn tables(&self, wiring: &Wiring<'_>, pair: &Pair) -> Vec<(IpAddr, u32)> {
        let table = |address: &IpAddr| match self.routed.contains(address) {
            true => rule::own_table(pair.pod),
            false => route::MAIN,
        };
        wiring.addresses.iter().map(|address| (*address, table(address))).collect()
    }

    /// Takes away what was made, as far as the kernel lets us; the error being reported is the first.
    fn restore(&self, host: &mut Host, pod: &mut Pod, wiring: &Wiring<'_>, pair: &Pair) {
        let rules = self.routed.iter().map(|address| rule::delete(*address, rule::own_table(pair.pod)));
        let _ = pod.netlink.batch(rules.collect());
        // Whatever the kernel said of them: it may have done what it was asked before it failed to say so.
        let _ = host_ports::withdraw(wiring.addresses);
        let _ = masquerade::uncover(wiring.network(), wiring.addresses);
        let mut requests = Vec::new();
        for address in wiring.addresses.iter().filter(|address| !self.proxied.contains(address)) {
            requests.push(neighbour::delete_proxy(wiring.uplink.index, *address));
        }
        requests.push(link::delete(pair.host.index, &pair.host.name));
        let _ = host.netlink.batch(requests);
    }
}

/// The two ends as made.
struct Pair {
    host: Link,
    pod: u32,
    mtu: u32,
}

impl Pair {
    fn create(
        host: &mut Host,
        pod: &mut Pod,
        wiring: &Wiring<'_>,
        end: &HostEnd,
    ) -> Result<Self, WiringError> {
        let name = wiring.attachment.if_name.as_str();
        let mtu = wiring.effective_mtu();
        let create = link::create_pair(
            &End { name: &end.name, mac: end.host_mac },
            &End { name, mac: wiring.pod_mac(end) },
            pod.fd(),
            mtu,
        );
        let mut answers = host.netlink.batch(vec![create, link::get(&end.name)])?.into_iter();
        let (created, found) = (answers.next(), answers.next());
        let found = found.and_then(|answer| Link::of(answer.ok().ok()?));
        match created.map_or(nix::libc::EIO, |answer| answer.code()) {
            0 => {}
            // Between our look and now somebody made one of the two; no harm was done.
            nix::libc::EEXIST => {
                return Err(match found {
                    Some(link) => host_end_exists(end, &link),
                    None => WiringError::InterfaceExists { name: name.to_owned() },
                });
            }
            nix::libc::EOPNOTSUPP => {
                return Err(WiringError::Unsupported {
                    what: "the veth driver".to_owned(),
                    cure: "load the kernel module veth".to_owned(),
                });
            }
            code => {
                return Err(WiringError::Netlink {
                    what: format!("making the pair {} and {name} (pod), MTU {mtu}", end.name),
                    errno: crate::wiring::error::Errno { code, reason: None },
                });
            }
        }
        let vanished = || WiringError::HostEndExists {
            name: end.name.clone(),
            alias: String::new(),
            cure: "something renamed or removed it as soon as it was made; exempt vn* from network managers",
        };
        let host = found.ok_or_else(vanished)?;
        // Older kernels leave the peer's index out where both ends happen to have the same one.
        let pod = match host.peer {
            Some(peer) => Some(peer),
            None => link::by_name(&mut pod.netlink, name)?.map(|link| link.index),
        };
        Ok(Self { pod: pod.unwrap_or(host.index), host, mtu })
    }
}

fn host_end_exists(end: &HostEnd, found: &Link) -> WiringError {
    let ours = found.alias == end.alias || (found.alias.is_empty() && found.mac == Some(end.host_mac));
    WiringError::HostEndExists {
        name: end.name.clone(),
        alias: found.alias.clone(),
        cure: if ours {
            "this attachment is wired already; detach it first (DEL)"
        } else {
            "rename or remove that interface"
        },
    }
}

fn finish(
    host: &mut Host,
    pod: &mut Pod,
    wiring: &Wiring<'_>,
    end: &HostEnd,
    pair: &Pair,
    tables: Vec<(IpAddr, u32)>,
) -> Result<Wired, WiringError> {
    let index = pair.host.index;
    // The alias first: it is how a crashed ADD is found again.
    succeed(host.netlink.batch(vec![link::set_alias(index, &end.alias)])?)?;
    settle_pod(pod, wiring)?;
    let mut requests = Vec::new();
    if settle_host_end(wiring, end)? {
        // The host end needs no address at all; and pods could not send from theirs of this kind.
        requests.push(link::without_link_local(index));
    }
    requests.push(link::set_up(index));
    succeed(host.netlink.batch(requests)?)?;

    let mut requests = vec![link::set_up(pair.pod)];
    for (address, table) in &tables {
        requests.extend(pod_requests(pair.pod, *address, end.host_mac, *table));
    }
    succeed(pod.netlink.batch(requests)?)?;

    let mut requests = Vec::new();
    for address in wiring.addresses {
        requests.push(route::add(&wiring.host_route(index, *address), Existing::Refuse));
        requests.push(neighbour::permanent(index, *address, wiring.pod_mac(end)));
    }
    requests.push(link::get_index(index));
    let host_link = host_side(host.netlink.batch(requests)?, wiring)?;

    // Last, and only once the route is ours: the segment begins to send us the pod's packets.
    let proxies = wiring.addresses.iter().map(|address| neighbour::proxy(wiring.uplink.index, *address));
    let proxies = proxies.collect();
    succeed(host.netlink.batch(proxies)?)?;

    // At the very end, because it is not undone: another network of the pod may count on it by then.
    let requests = vec![link::set_up(LOOPBACK), link::get_index(pair.pod)];
    let pod_link = succeed(pod.netlink.batch(requests)?)?;
    let host_mac = same_mac(host_link, end.host_mac)?;
    let pod_mac = same_mac(pod_link, wiring.pod_mac(end))?;
    await_addresses(pod, wiring)?;
    Ok(Wired { host_name: end.name.clone(), host_mac, pod_mac, mtu: pair.mtu, tables })
}

/// How long a new IPv6 address may take to become usable before we answer all the same.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);

/// Waits until the pod takes packets for its IPv6 address. Even without duplicate detection the kernel
/// adds the local route from a work queue, which waits for the lock that every change of an interface
/// on the machine holds: a deletion elsewhere would cost the first packets.
fn await_addresses(pod: &mut Pod, wiring: &Wiring<'_>) -> Result<(), WiringError> {
    let start = Instant::now();
    for address in wiring.addresses.iter().filter(|address| address.is_ipv6()) {
        loop {
            let found = pod.netlink.one(route::lookup(*address))?.unless(route::NO_ROUTE)?;
            let local = route::Route::of(found).is_some_and(|route| route.kind == RouteType::Local);
            if local || start.elapsed() > ADDRESS_PATIENCE {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

/// What the pod's end needs for one address.
fn pod_requests(
    index: u32,
    address: IpAddr,
    host_mac: Mac,
    table: u32,
) -> Vec<crate::wiring::netlink::Request> {
    let gateway = gateway_for(address);
    let mut requests =
        vec![route::add_address(index, address), neighbour::permanent(index, gateway, host_mac)];
    if address.is_ipv4() {
        // A link-local next hop needs no such route in IPv6.
        let to = IpNet::from(IpAddr::from(GATEWAY_V4));
        let next_hop = NewRoute { to, dev: index, gateway: None, source: None, table };
        requests.push(route::add(&next_hop, Existing::Refuse));
    }
    requests.extend(
        IpNet::new(unspecified(address), 0)
            .map(|to| NewRoute { to, dev: index, gateway: Some(gateway), source: None, table })
            .map(|default| route::add(&default, Existing::Refuse)),
    );
    if table != route::MAIN {
        requests.push(rule::add(address, table));
    }
    requests
}

/// `0.0.0.0` or `::`.
pub(crate) fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The pod's sysctls for IPv6, for its end alone: other networks of the pod keep theirs. The end is
/// still down, so nothing happens before they count.
pub(crate) const POD_SYSCTLS_V6: &[(&str, &str)] =
    &[("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0")];

fn settle_pod(pod: &Pod, wiring: &Wiring<'_>) -> Result<(), WiringError> {
    if !wiring.addresses.iter().any(IpAddr::is_ipv6) {
        return Ok(());
    }
    let name = wiring.attachment.if_name.as_str();
    pod.inside(|| {
        for (key, want) in POD_SYSCTLS_V6 {
            sysctl::ensure(&format!("net/ipv6/conf/{name}/{key}"), want)?;
        }
        Ok(())
    })?
}

/// The same for the host's end; returns whether it has IPv6 at all. A pod must not be able to tell
/// the host of routers, whatever the host's defaults say.
fn settle_host_end(wiring: &Wiring<'_>, end: &HostEnd) -> Result<bool, WiringError> {
    let key = |name: &str| format!("net/ipv6/conf/{}/{name}", end.name);
    if wiring.addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::ensure(&key("disable_ipv6"), "0")?;
    } else if sysctl::read(&key("accept_ra"))?.is_none() {
        return Ok(false);
    }
    sysctl::ensure(&key("accept_ra"), "0")?;
    Ok(true)
}

/// All answers, or the first refusal; of the objects, the last.
fn succeed(answers: Vec<Answer>) -> Result<Option<Link>, WiringError> {
    let mut last = None;
    for answer in answers {
        last = answer.ok()?;
    }
    Ok(Link::of(last))
}

/// The same for routes and neighbours of the host, with refusals in our terms.
fn host_side(answers: Vec<Answer>, wiring: &Wiring<'_>) -> Result<Option<Link>, WiringError> {
    let mut answers = answers.into_iter();
    for address in wiring.addresses {
        if let Some(added) = answers.next() {
            let source = wiring.source_for(*address);
            match (added.code(), source) {
                (nix::libc::EEXIST, _) => return Err(WiringError::AddressInUse { address: *address }),
                (nix::libc::EINVAL, Some(address)) => {
                    return Err(WiringError::NodeAddressMissing { address });
                }
                _ => added.ok()?,
            };
        }
        if let Some(neighbour) = answers.next() {
            neighbour.ok()?;
        }
    }
    succeed(answers.collect())
}

fn same_mac(link: Option<Link>, want: Mac) -> Result<Mac, WiringError> {
    let (interface, found) = link.map_or_else(Default::default, |link| (link.name, link.mac));
    if found == Some(want) {
        return Ok(want);
    }
    let found = found.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
    Err(WiringError::MacChanged { interface, want: want.to_string(), found })
}

/// Puts back what disappears from the host's side of a wired pod (routes, neighbours, proxies, ports, masquerading);
/// returns what was missing, in words. For the agent. Never touches an end that is not this
/// attachment's, nor an address that leads elsewhere by now.
///
/// # Errors
/// When the host end is gone (ENODEV) or the kernel refuses.
pub fn reassert(host: &mut Host, wiring: &Wiring<'_>) -> Result<Vec<String>, WiringError> {
    wiring.validate()?;
    let end = HostEnd::of(wiring.attachment);
    let link = link::by_name(&mut host.netlink, &end.name)?.filter(|link| link.alias == end.alias);
    let Some(link) = link else {
        return Err(WiringError::Netlink {
            what: format!("looking for the host end {} of {}", end.name, wiring.attachment),
            errno: crate::wiring::error::Errno { code: nix::libc::ENODEV, reason: None },
        });
    };
    let mut questions = Vec::new();
    for address in wiring.addresses {
        questions.push(route::lookup(*address));
        questions.push(neighbour::get(link.index, *address));
        questions.push(neighbour::get_proxy(wiring.uplink.index, *address));
    }
    let mut answers = host.netlink.batch(questions)?.into_iter();
    let (mut repairs, mut missing) = (Vec::new(), Vec::new());
    if !link.up {
        missing.push(format!("{} was down", end.name));
        repairs.push(link::set_up(link.index));
    }
    for address in wiring.addresses {
        let found = answers.next().map(|answer| answer.unless(route::NO_ROUTE)).transpose()?.flatten();
        let found = route::Route::of(found).filter(|route| route.to.prefix_len() == host_length(*address));
        let source = wiring.source_for(*address);
        match found {
            Some(route) if route.dev == Some(link.index) => {
                // IPv6 keeps a route whose source address was taken from the node, and forgets the address.
                if source.is_some() && route.source != source {
                    missing.push(format!("the route to {address} had lost its source address"));
                    repairs.push(route::add(&wiring.host_route(link.index, *address), Existing::Replace));
                }
            }
            Some(_) => return Err(WiringError::AddressInUse { address: *address }),
            None => {
                missing.push(format!("the route to {address} was missing"));
                repairs.push(route::add(&wiring.host_route(link.index, *address), Existing::Replace));
            }
        }
        let found = answers.next().map(|answer| answer.unless(&[nix::libc::ENOENT])).transpose()?.flatten();
        if neighbour::permanent_mac(found) != Some(wiring.pod_mac(&end)) {
            missing.push(format!("the neighbour {address} was missing or another"));
            repairs.push(neighbour::permanent(link.index, *address, wiring.pod_mac(&end)));
        }
        if answers.next().is_some_and(|answer| answer.code() != 0) {
            missing.push(format!("{} did not answer for {address}", wiring.uplink.name));
            repairs.push(neighbour::proxy(wiring.uplink.index, *address));
        }
    }
    if !repairs.is_empty() {
        succeed(host.netlink.batch(repairs)?)?;
    }
    let led = host_ports::publish(&wiring.publication())?;
    if !led.is_empty() {
        Forgetting::ports(wiring.addresses, wiring.ports).forget();
    }
    missing.extend(led);
    if wiring.egress == Egress::Masqueraded {
        let bare = masquerade::missing(wiring.network(), wiring.addresses)?;
        if !bare.is_empty() {
            masquerade::cover(wiring.network(), wiring.addresses)?;
            Forgetting::bare(wiring.addresses.iter().copied()).forget();
        }
        missing.extend(bare);
    }
    Ok(missing)
}
