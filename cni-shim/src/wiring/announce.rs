//! Telling the segment where an address is now: gratuitous ARP, unsolicited neighbour advertisement.

use super::{
    Uplink, detached,
    frame::{advertisement, gratuitous_arp},
};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsRawFd,
    process::Stdio,
};

/// Sends one announcement per address on the uplink. Failures come back as warnings, in words: the pod
/// works without, and a neighbour with an old entry finds out by itself a little later.
///
/// Closing the packet socket waits for the kernel's readers (some 10 ms), so call it where nobody
/// waits: in the agent, or in a process of its own ([`detached`]).
#[must_use]
pub fn announce(uplink: &Uplink, addresses: &[IpAddr]) -> Vec<String> {
    let Some(mac) = uplink.mac else {
        return vec![format!("nothing announced: {} has no Ethernet address", uplink.name)];
    };
    let frames: Vec<(IpAddr, Result<Vec<u8>, String>)> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => (IpAddr::V4(*address), Ok(gratuitous_arp(mac, *address))),
            IpAddr::V6(address) => {
                let frame = source(uplink).map(|source| advertisement(mac, source, *address));
                (IpAddr::V6(*address), frame)
            }
        })
        .collect();
    send(uplink, frames)
}

/// Starts [`announce`] in a process of its own: `<this program> announce --uplink NAME ADDRESS…`.
///
/// # Errors
/// When the process can't be started.
pub fn detached(uplink: &Uplink, addresses: &[IpAddr]) -> io::Result<()> {
    let words = ["announce", "--uplink", &uplink.name].map(str::to_owned);
    let words = words.into_iter().chain(addresses.iter().map(ToString::to_string));
    detached::start(words, Stdio::null())
}

fn send(uplink: &Uplink, frames: Vec<(IpAddr, Result<Vec<u8>, String>)>) -> Vec<String> {
    let all = |why: String| vec![format!("nothing announced on {}: {why}", uplink.name)];
    let target = match link_address(&uplink.name) {
        Ok(target) => target,
        Err(why) => return all(why),
    };
    // Protocol 0: this socket sends and never receives.
    let socket = match socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None) {
        Ok(socket) => socket,
        Err(errno) => return all(errno.desc().to_owned()),
    };
    let mut warnings = Vec::new();
    for (address, frame) in frames {
        let sent = frame.and_then(|frame| {
            sendto(socket.as_raw_fd(), &frame, &target, MsgFlags::MSG_DONTWAIT)
                .map_err(|errno| errno.desc().to_owned())
        });
        if let Err(why) = sent {
            warnings.push(format!("{address} not announced on {}: {why}", uplink.name));
        }
    }
    warnings
}

/// The packet-socket address of an interface, as the C library lists it.
pub(super) fn link_address(name: &str) -> Result<LinkAddr, String> {
    getifaddrs()
        .map_err(|errno| errno.desc().to_owned())?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or_else(|| "there is no such interface".to_owned())
}

/// The address that an advertisement is sent from: a link-local one where there is one.
fn source(uplink: &Uplink) -> Result<Ipv6Addr, String> {
    let own = uplink.addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    own.clone()
        .find(|address| address.is_unicast_link_local())
        .or_else(|| own.clone().next())
        .ok_or_else(|| "the interface has no IPv6 address to send from".to_owned())
}
