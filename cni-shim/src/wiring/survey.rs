//! What the host alone knows of its pods: the truth from which a lost journal is rebuilt.

use super::{
    Host, HostEnd, Mac, Uplink, WiringError, identity, link, neighbour,
    route::{self, Route},
};
use ipam_api::names::Attachment;
use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, route::RouteType};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Our host ends.
    pub ends: Vec<FoundEnd>,
    /// Addresses inside the ranges asked for that the host has itself or has a host route to: no new
    /// attachment may get one.
    pub taken: BTreeSet<IpAddr>,
    /// Addresses inside the ranges that the uplink answers for although no host end of ours has them.
    pub stale_proxies: Vec<IpAddr>,
}

/// A host end of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEnd {
    /// Whose it is, as its alias says (and its name confirms).
    pub attachment: Attachment,
    /// Name of the interface.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Addresses routed to it, also those outside the ranges.
    pub addresses: Vec<IpAddr>,
    /// The MAC of the pod's interface as the host knows it, where it is not the one that follows from the
    /// attachment.
    pub mac: Option<Mac>,
}

/// Reads interfaces, routes, addresses and, where there is an uplink, its proxies. `within` are the
/// block's ranges.
///
/// # Errors
/// When the kernel can't be asked: then nothing is known, and a caller must not take it for "none".
pub fn survey(host: &mut Host, uplink: Option<&Uplink>, within: &[IpNet]) -> Result<Survey, WiringError> {
    let mut ends: BTreeMap<u32, FoundEnd> = link::all(&mut host.netlink)?
        .into_iter()
        .filter(|link| link.veth && identity::is_host_end_name(&link.name))
        .filter_map(|link| {
            let attachment = identity::parse_alias(&link.alias)?;
            // An alias that does not lead to this name was written by somebody else.
            (HostEnd::of(&attachment).name == link.name).then(|| {
                let end =
                    FoundEnd { attachment, name: link.name, mtu: link.mtu, addresses: Vec::new(), mac: None };
                (link.index, end)
            })
        })
        .collect();
    let mut taken = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for route in route::all(&mut host.netlink, family)? {
            let address = route.to.addr();
            if !holds_one_address(&route) {
                continue;
            }
            if within.iter().any(|net| net.contains(&address)) {
                taken.insert(address);
            }
            if route.kind == RouteType::Unicast
                && let Some(end) = route.dev.and_then(|dev| ends.get_mut(&dev))
                && !end.addresses.contains(&address)
            {
                end.addresses.push(address);
            }
        }
    }
    // Local routes vanish while an interface is down; its addresses are the host's all the same.
    for assigned in route::addresses(&mut host.netlink)? {
        let address = assigned.net.addr();
        if within.iter().any(|net| net.contains(&address)) {
            taken.insert(address);
        }
    }
    for (dev, mac) in neighbour::permanents(&mut host.netlink)? {
        if let Some(end) = ends.get_mut(&dev) {
            end.mac = Some(mac).filter(|mac| *mac != HostEnd::of(&end.attachment).pod_mac);
        }
    }
    let ends: Vec<FoundEnd> = ends.into_values().collect();
    let proxies = match uplink {
        Some(uplink) => neighbour::proxies(&mut host.netlink, uplink.index)?,
        None => Vec::new(),
    };
    let stale_proxies = proxies
        .into_iter()
        .filter(|address| within.iter().any(|net| net.contains(address)))
        .filter(|address| !ends.iter().any(|end| end.addresses.contains(address)))
        .collect();
    Ok(Survey { ends, taken, stale_proxies })
}

/// A host route, whatever its table, or a local address; not the broadcast addresses that come with
/// a subnet's route.
fn holds_one_address(route: &Route) -> bool {
    route.is_host_route(route.to.addr())
        && !matches!(route.kind, RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast)
}

/// Ends answering for addresses on the uplink, as found by [`survey`]; returns those that were
/// answered for. For the agent: a stale proxy takes the next owner's packets away.
///
/// # Errors
/// When the kernel refuses for another reason than "gone".
pub fn remove_proxies(
    host: &mut Host,
    uplink: &Uplink,
    addresses: &[IpAddr],
) -> Result<Vec<IpAddr>, WiringError> {
    let requests = addresses.iter().map(|address| neighbour::delete_proxy(uplink.index, *address)).collect();
    let mut removed = Vec::new();
    for (address, answer) in addresses.iter().zip(host.netlink.batch(requests)?) {
        if answer.code() == 0 {
            removed.push(*address);
        }
        answer.unless(&[nix::libc::ENOENT, nix::libc::ENODEV])?;
    }
    Ok(removed)
}
