//! Telling the segment where an address is now: gratuitous ARP, unsolicited neighbour advertisement.

use super::{Mac, Uplink, detached};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

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
            IpAddr::V6(address) => (IpAddr::V6(*address), advertisement(uplink, mac, *address)),
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
    detached::start(words.into_iter().chain(addresses.iter().map(ToString::to_string)))
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
fn link_address(name: &str) -> Result<LinkAddr, String> {
    getifaddrs()
        .map_err(|errno| errno.desc().to_owned())?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or_else(|| "there is no such interface".to_owned())
}

/// An ARP request of an address for itself (RFC 5227, "ARP announcement").
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    // The least Ethernet carries, without its checksum.
    frame.resize(60, 0);
    frame
}

/// An unsolicited advertisement with the override flag (RFC 4861, 7.2.6).
fn advertisement(uplink: &Uplink, mac: Mac, address: Ipv6Addr) -> Result<Vec<u8>, String> {
    let own = uplink.addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let source = own
        .clone()
        .find(|address| address.is_unicast_link_local())
        .or_else(|| own.clone().next())
        .ok_or_else(|| "the interface has no IPv6 address to send from".to_owned())?;
    let everyone = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0];
    message.extend(0x2000_0000u32.to_be_bytes());
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.0);
    let checksum = icmpv6_checksum(source, everyone, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([NEXT_HEADER_ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(everyone.octets());
    frame.extend(message);
    Ok(frame)
}

fn ethernet(to: [u8; 6], from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(to);
    frame.extend(from.0);
    frame.extend(kind.to_be_bytes());
    frame
}

/// The Internet checksum over pseudo header and message (RFC 8200, 8.1).
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + message.len());
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, NEXT_HEADER_ICMPV6]);
    bytes.extend(message);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let (a, b) = ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
        let mut message = vec![136, 0, 0, 0, 1, 2, 3];
        let sum = icmpv6_checksum(a, b, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(icmpv6_checksum(a, b, &message), 0);
    }
}
