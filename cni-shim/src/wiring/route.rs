//! Routes and addresses.

use super::{
    WiringError,
    netlink::{Netlink, Request, family_of, host_length},
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What we read of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: IpNet,
    pub(crate) table: u32,
    pub(crate) kind: RouteType,
    pub(crate) dev: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) metric: u32,
}

impl Route {
    pub(crate) fn of(message: Option<RouteNetlinkMessage>) -> Option<Self> {
        let Some(RouteNetlinkMessage::NewRoute(message)) = message else { return None };
        let zero: IpAddr = match message.header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Self {
            to: IpNet::new(zero, 0).ok()?,
            table: message.header.table.into(),
            kind: message.header.kind,
            dev: None,
            gateway: None,
            source: None,
            metric: 0,
        };
        let mut to = zero;
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = ip(&address)?,
                RouteAttribute::Gateway(address) => route.gateway = ip(&address),
                RouteAttribute::PrefSource(address) => route.source = ip(&address),
                RouteAttribute::Oif(index) => route.dev = Some(index),
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Priority(metric) => route.metric = metric,
                RouteAttribute::MultiPath(hops) => {
                    route.dev = hops.first().map(|hop| hop.interface_index);
                }
                _ => {}
            }
        }
        route.to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
        Some(route)
    }

    /// True for a route to exactly this address.
    pub(crate) fn is_host_route(&self, address: IpAddr) -> bool {
        self.to.addr() == address && self.to.prefix_len() == host_length(address)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// What a route to be made looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRoute {
    pub(crate) to: IpNet,
    pub(crate) dev: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) table: u32,
}

/// The main table.
pub(crate) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What to do about a route that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Replace,
}

fn message(route: &NewRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    // The attribute counts where the header says "unspecified": a byte holds few tables.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(route.table));
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_none() && route.to.addr().is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    if route.to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.to.addr().into()));
    }
    message.attributes.push(RouteAttribute::Oif(route.dev));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// Adds a route.
pub(crate) fn add(route: &NewRoute, existing: Existing) -> Request {
    let flags = NLM_F_CREATE | if existing == Existing::Refuse { NLM_F_EXCL } else { NLM_F_REPLACE };
    Request::new(
        RouteNetlinkMessage::NewRoute(message(route)),
        flags,
        format!("adding the route to {}", route.to),
    )
}

/// Asks which route the host takes to an address: the table's entry, not what follows from it.
pub(crate) fn lookup(address: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(address);
    message.header.destination_prefix_length = host_length(address);
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(address.into()));
    Request::new(RouteNetlinkMessage::GetRoute(message), 0, format!("looking up the route to {address}"))
}

/// The kernel's answers to [`lookup`] when nothing leads there.
pub(crate) const NO_ROUTE: &[i32] = &[
    nix::libc::ENETUNREACH,
    nix::libc::EHOSTUNREACH,
    nix::libc::ESRCH,
    nix::libc::EACCES,
    nix::libc::EINVAL,
];

/// All routes of a family, all tables.
pub(crate) fn all(netlink: &mut Netlink, family: AddressFamily) -> Result<Vec<Route>, WiringError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let routes = netlink.dump(&RouteNetlinkMessage::GetRoute(message), "listing routes")?;
    Ok(routes
        .into_iter()
        .filter_map(|message| match &message {
            RouteNetlinkMessage::NewRoute(route) if route.header.flags.contains(RouteFlags::Cloned) => None,
            _ => Route::of(Some(message)),
        })
        .collect())
}

/// The addresses to which host routes lead through an interface.
pub(crate) fn host_routes_through(netlink: &mut Netlink, dev: u32) -> Result<Vec<IpAddr>, WiringError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let routes = all(netlink, family)?.into_iter().filter(|route| {
            route.dev == Some(dev)
                && route.kind == RouteType::Unicast
                && route.table == MAIN
                && route.is_host_route(route.to.addr())
        });
        found.extend(routes.map(|route| route.to.addr()));
    }
    Ok(found)
}

/// Gives an interface an address of its own, /32 or /128, usable at once.
pub(crate) fn add_address(index: u32, address: IpAddr) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = host_length(address);
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    Request::new(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("adding the address {address}"),
    )
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) index: u32,
    pub(crate) net: IpNet,
    /// True while the address can't be used: duplicate address detection runs or found another holder.
    pub(crate) unusable: bool,
    pub(crate) flags: AddressFlags,
}

/// All addresses of a namespace.
pub(crate) fn addresses(netlink: &mut Netlink) -> Result<Vec<Assigned>, WiringError> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for answer in netlink.dump(&request, "listing addresses")? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let (mut local, mut address, mut flags) = (None, None, AddressFlags::empty());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(bits) => flags = *bits,
                _ => {}
            }
        }
        let Some(ip) = local.or(address) else { continue };
        let Ok(net) = IpNet::new(ip, message.header.prefix_len) else { continue };
        let unusable = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
        found.push(Assigned { index: message.header.index, net, unusable, flags });
    }
    Ok(found)
}
