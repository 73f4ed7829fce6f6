//! The uplink: the interface through which the node is in the VNet.

use super::{Host, Mac, WiringError, link, route};
use netlink_packet_route::{AddressFamily, route::RouteType};
use std::net::IpAddr;

/// The uplink as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MAC; none on a link without Ethernet addresses.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// The uplink: by name, else the interface of the default route with the lowest metric (IPv4 before
/// IPv6).
///
/// # Errors
/// [`WiringError::NoUplink`] when there is none.
pub fn find(host: &mut Host, name: Option<&str>) -> Result<Uplink, WiringError> {
    let link = match name {
        Some(name) => link::by_name(&mut host.netlink, name)?
            .ok_or_else(|| WiringError::NoUplink { reason: format!("there is no interface {name:?}") })?,
        None => {
            let index = default_route(host)?.ok_or_else(|| WiringError::NoUplink {
                reason: "the host has no default route".to_owned(),
            })?;
            link::by_index(&mut host.netlink, index)?.ok_or_else(|| WiringError::NoUplink {
                reason: format!("interface {index} of the default route is gone"),
            })?
        }
    };
    let addresses = route::addresses(&mut host.netlink)?
        .into_iter()
        .filter(|address| address.index == link.index)
        .map(|address| address.net.addr())
        .collect();
    Ok(Uplink { name: link.name, index: link.index, mac: link.mac, mtu: link.mtu, up: link.up, addresses })
}

/// Whether an interface of the host has this MAC.
///
/// # Errors
/// When the kernel can't be asked.
pub fn any_has_mac(host: &mut Host, mac: &str) -> Result<bool, WiringError> {
    let links = link::all(&mut host.netlink)?;
    Ok(links.iter().any(|link| link.mac.is_some_and(|found| found.to_string() == mac)))
}

fn default_route(host: &mut Host) -> Result<Option<u32>, WiringError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let best = route::all(&mut host.netlink, family)?
            .into_iter()
            .filter(|route| {
                route.to.prefix_len() == 0 && route.table == route::MAIN && route.kind == RouteType::Unicast
            })
            .filter_map(|route| Some((route.metric, route.dev?)))
            .min();
        if let Some((_, index)) = best {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
