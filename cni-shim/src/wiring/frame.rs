//! Frames of ARP and neighbour discovery. Pure: bytes in, bytes out.

use super::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(super) const NEXT_HEADER_ICMPV6: u8 = 58;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// Where the payload begins in an Ethernet frame.
pub(super) const ETHERNET: usize = 14;
/// Where a message begins behind an IPv6 header without extensions.
pub(super) const IPV6: usize = 40;

/// Ethernet and IPv4 (RFC 826).
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];
const BROADCAST: [u8; 6] = [0xff; 6];
/// What no router lets through (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ARP request of an address for itself (RFC 5227, "ARP announcement").
pub(super) fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, address, address)
}

/// An ARP request for an address that changes nobody's neighbours (RFC 5227, "ARP probe").
pub(super) fn arp_probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// An ARP request for an address.
pub(super) fn arp_request(mac: Mac, from: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    frame.extend(ARP_HEADER);
    frame.extend(ARP_REQUEST);
    frame.extend(mac.0);
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    // The least Ethernet carries, without its checksum.
    frame.resize(60, 0);
    frame
}

/// An unsolicited advertisement with the override flag (RFC 4861, 7.2.6).
pub(super) fn advertisement(mac: Mac, source: Ipv6Addr, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0];
    message.extend(0x2000_0000u32.to_be_bytes());
    message.extend(address.octets());
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    icmpv6(mac, source, ALL_NODES, message)
}

/// A solicitation that changes nobody's neighbours and is answered to all nodes (RFC 4862, 5.4.2).
pub(super) fn solicitation(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    icmpv6(mac, Ipv6Addr::UNSPECIFIED, solicited_node(address), message)
}

/// The group that whoever has the address listens to (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// A message of `ICMPv6` to a group, with its checksum set.
fn icmpv6(mac: Mac, source: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let checksum = icmpv6_checksum(source, group, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([NEXT_HEADER_ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
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

/// Which address a frame shows to be somebody's, and whose: who answers for it or asks in its name. `None` for every
/// other frame and for what is not in order. Who only asks whether an address is free (RFC 5227, 2.1.1; RFC 4862, 5.4)
/// has not got it: scanners ask so for a whole subnet.
pub(super) fn holder(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let kind: [u8; 2] = bytes(frame, 12)?;
    let payload = frame.get(ETHERNET..)?;
    let (address, mac) = match u16::from_be_bytes(kind) {
        ETHERTYPE_ARP => arp_holder(payload)?,
        ETHERTYPE_IPV6 => ndp_holder(payload, Mac(bytes(frame, 6)?))?,
        _ => return None,
    };
    mac.is_assignable().then_some((address, mac))
}

fn arp_holder(packet: &[u8]) -> Option<(IpAddr, Mac)> {
    let operation: [u8; 2] = bytes(packet, 6)?;
    let sender = Ipv4Addr::from(bytes::<4>(packet, 14)?);
    if !packet.starts_with(&ARP_HEADER) || !matches!(operation, ARP_REQUEST | ARP_REPLY) {
        return None;
    }
    (!sender.is_unspecified()).then_some((sender.into(), Mac(bytes(packet, 8)?)))
}

fn ndp_holder(packet: &[u8], sender: Mac) -> Option<(IpAddr, Mac)> {
    let [version, .., next_header, hop_limit]: [u8; 8] = bytes(packet, 0)?;
    if (version >> 4, next_header, hop_limit) != (6, NEXT_HEADER_ICMPV6, HOP_LIMIT) {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(bytes(packet, 4)?));
    let source = Ipv6Addr::from(bytes::<16>(packet, 8)?);
    let destination = Ipv6Addr::from(bytes::<16>(packet, 24)?);
    let message = packet.get(IPV6..IPV6 + length)?;
    let [kind, code]: [u8; 2] = bytes(message, 0)?;
    let target = Ipv6Addr::from(bytes::<16>(message, 8)?);
    if code != 0 || icmpv6_checksum(source, destination, message) != 0 {
        return None;
    }
    match kind {
        ADVERTISEMENT => Some((target.into(), link_layer_address(message.get(24..)?).unwrap_or(sender))),
        _ => None,
    }
}

/// The target's link-layer address among the options of an advertisement (RFC 4861, 4.6).
fn link_layer_address(mut options: &[u8]) -> Option<Mac> {
    loop {
        let [kind, eights]: [u8; 2] = bytes(options, 0)?;
        if eights == 0 {
            return None;
        }
        if kind == TARGET_LINK_LAYER_ADDRESS {
            return Some(Mac(bytes(options, 2)?));
        }
        options = options.get(usize::from(eights) * 8..)?;
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let (a, b) = ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
        let mut message = vec![136, 0, 0, 0, 1, 2, 3];
        let sum = icmpv6_checksum(a, b, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(icmpv6_checksum(a, b, &message), 0);
    }

    #[test]
    fn the_group_of_an_address_ends_as_the_address_does() {
        let group = solicited_node("fd00:10::12:3456".parse().unwrap());
        assert_eq!(group, "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        let frame = solicitation(MINE, "fd00:10::12:3456".parse().unwrap());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn who_announces_it_or_asks_in_its_name_has_it_and_who_asks_whether_it_is_free_has_not() {
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = ("10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap());
        let other = "10.0.0.9".parse().unwrap();
        assert_eq!(holder(&gratuitous_arp(MINE, v4)), Some((v4.into(), MINE)));
        assert_eq!(holder(&arp_request(MINE, v4, other)), Some((v4.into(), MINE)));
        assert_eq!(holder(&arp_probe(MINE, v4)), None);
        assert_eq!(holder(&solicitation(MINE, v6)), None);
        assert_eq!(holder(&advertisement(MINE, "fe80::1".parse().unwrap(), v6)), Some((v6.into(), MINE)));
    }

    #[test]
    fn what_came_through_a_router_or_is_damaged_says_nothing() {
        let v6: Ipv6Addr = "fd00::7".parse().unwrap();
        let told = advertisement(MINE, "fe80::1".parse().unwrap(), v6);
        for (at, value) in [(ETHERNET + 7, 254), (ETHERNET + IPV6 + 23, 8), (ETHERNET + 6, 17)] {
            let mut other = told.clone();
            other[at] = value;
            assert_eq!(holder(&other), None, "byte {at}");
        }
        // A group's address is no machine's.
        assert_eq!(holder(&gratuitous_arp(Mac([0xff; 6]), "10.0.0.7".parse().unwrap())), None);
    }

    /// Any bytes, and any change to what is in order.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let told = |address: u128| {
            let v6 = Ipv6Addr::from_bits(address);
            let v4 = Ipv4Addr::from_bits(address as u32);
            [
                advertisement(MINE, v6, v6),
                solicitation(MINE, v6),
                arp_probe(MINE, v4),
                gratuitous_arp(MINE, v4),
            ]
        };
        let changed = (any::<u128>(), 0..4usize, any::<prop::sample::Index>(), any::<u8>(), 0..120usize);
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            changed.prop_map(move |(address, which, at, value, length)| {
                let mut frame = told(address)[which].clone();
                let at = at.index(frame.len());
                frame[at] = value;
                frame.truncate(length);
                frame
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_frame_is_too_strange(frame in frames()) {
            let _ = holder(&frame);
        }

        #[test]
        fn options_before_the_address_are_skipped(eights in 1u8..4, rest in any::<u8>()) {
            let mut options = vec![14, eights];
            options.resize(usize::from(eights) * 8, rest);
            options.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
            options.extend(MINE.0);
            prop_assert_eq!(link_layer_address(&options), Some(MINE));
        }
    }
}
