//! Neighbours: permanent ones on a pair, proxies on the uplink.

use super::{
    Mac, WiringError,
    netlink::{Netlink, Request, family_of},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use std::net::IpAddr;

fn message(index: u32, address: IpAddr, state: NeighbourState, flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address);
    message.header.ifindex = index;
    message.header.state = state;
    message.header.flags = flags;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// A neighbour that is never asked for and never forgotten. Replaces what is there.
pub(crate) fn permanent(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut message = message(index, address, NeighbourState::Permanent, NeighbourFlags::empty());
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let what = format!("setting the neighbour {address} ({mac})");
    Request::new(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, what)
}

/// Makes the interface answer for an address. No error if it does already.
pub(crate) fn proxy(index: u32, address: IpAddr) -> Request {
    let message = message(index, address, NeighbourState::Permanent, NeighbourFlags::Proxy);
    Request::new(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        format!("answering for {address} on the uplink"),
    )
}

/// Ends that; ENOENT when it did not.
pub(crate) fn delete_proxy(index: u32, address: IpAddr) -> Request {
    let message = message(index, address, NeighbourState::Permanent, NeighbourFlags::Proxy);
    let what = format!("no longer answering for {address} on the uplink");
    Request::new(RouteNetlinkMessage::DelNeighbour(message), 0, what)
}

/// Asks whether an interface answers for an address; ENOENT when it does not.
pub(crate) fn get_proxy(index: u32, address: IpAddr) -> Request {
    let message = message(index, address, NeighbourState::None, NeighbourFlags::Proxy);
    let what = format!("asking who answers for {address}");
    Request::new(RouteNetlinkMessage::GetNeighbour(message), 0, what)
}

/// Asks for the neighbour of an address; ENOENT when there is none.
pub(crate) fn get(index: u32, address: IpAddr) -> Request {
    let message = message(index, address, NeighbourState::None, NeighbourFlags::empty());
    Request::new(RouteNetlinkMessage::GetNeighbour(message), 0, format!("reading the neighbour {address}"))
}

/// The MAC of a permanent neighbour in an answer to [`get`].
pub(crate) fn permanent_mac(answer: Option<RouteNetlinkMessage>) -> Option<Mac> {
    let Some(RouteNetlinkMessage::NewNeighbour(message)) = answer else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_slice(bytes),
        _ => None,
    })
}

/// The MACs of all permanent neighbours, with the interfaces that they are at.
pub(crate) fn permanents(netlink: &mut Netlink) -> Result<Vec<(u32, Mac)>, WiringError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        let answers = netlink.dump(&RouteNetlinkMessage::GetNeighbour(request), "listing neighbours")?;
        for answer in answers {
            let index = match &answer {
                RouteNetlinkMessage::NewNeighbour(message) => message.header.ifindex,
                _ => continue,
            };
            found.extend(permanent_mac(Some(answer)).map(|mac| (index, mac)));
        }
    }
    Ok(found)
}

/// All addresses that an interface answers for.
pub(crate) fn proxies(netlink: &mut Netlink, index: u32) -> Result<Vec<IpAddr>, WiringError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        request.header.flags = NeighbourFlags::Proxy;
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let answers =
            netlink.dump(&RouteNetlinkMessage::GetNeighbour(request), "listing proxy neighbours")?;
        for answer in answers {
            let RouteNetlinkMessage::NewNeighbour(answer) = answer else { continue };
            if answer.header.ifindex != index || !answer.header.flags.contains(NeighbourFlags::Proxy) {
                continue;
            }
            found.extend(answer.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    Some(IpAddr::V4(*address))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    Some(IpAddr::V6(*address))
                }
                _ => None,
            }));
        }
    }
    Ok(found)
}
