//! The first two chunks of an SCTP association (RFC 9260), through raw sockets: INIT, and INIT ACK with the answer in
//! its cookie. That is all that a firewall needs to see of one.

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const STATE_COOKIE: u16 = 7;
const PORT: u16 = 49_152;
const TAG: u32 = 0x1234_5678;

/// A raw socket; the standard library's type serves for sending and receiving.
fn raw(family: AddressFamily) -> Result<UdpSocket> {
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
    Ok(UdpSocket::from(raw))
}

/// Answers every INIT to this port, in both families.
pub(super) fn answer(port: u16, words: impl Fn(IpAddr) -> String + Clone + Send + 'static) -> Result<()> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let (socket, words) = (raw(family)?, words.clone());
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some(init) = Packet::of(&buffer[..length], from) else { continue };
                if init.chunk == INIT && init.to == port {
                    let cookie = words(from.ip()).into_bytes();
                    let ack = packet(port, init.from, init.tag, INIT_ACK, &cookie);
                    drop(socket.send_to(&ack, SocketAddr::new(from.ip(), 0)));
                }
            }
        });
    }
    Ok(())
}

/// Sends an INIT and returns what its acknowledgement says.
pub(super) fn ask(to: SocketAddr, patience: Duration) -> Result<Vec<u8>> {
    let socket = raw(if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 })?;
    let end = Instant::now() + patience;
    socket.send_to(&packet(PORT, to.port(), 0, INIT, &[]), SocketAddr::new(to.ip(), 0))?;
    let mut buffer = [0; 2048];
    loop {
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.context("no answer in time")?))?;
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(ack) = Packet::of(&buffer[..length], from)
            && ack.chunk == INIT_ACK
            && (ack.from, ack.to, from.ip()) == (to.port(), PORT, to.ip())
        {
            return Ok(ack.cookie);
        }
    }
}

/// What of a received packet matters.
struct Packet {
    from: u16,
    to: u16,
    chunk: u8,
    tag: u32,
    cookie: Vec<u8>,
}

impl Packet {
    /// IPv4 comes with its header, IPv6 without.
    fn of(received: &[u8], from: SocketAddr) -> Option<Self> {
        let header = if from.is_ipv4() { usize::from(received.first()? & 15) * 4 } else { 0 };
        let sctp = received.get(header..)?;
        let word = |at: usize| Some(u16::from_be_bytes(sctp.get(at..at + 2)?.try_into().ok()?));
        let cookie = match word(32) {
            Some(STATE_COOKIE) => sctp.get(36..32 + usize::from(word(34)?))?.to_vec(),
            _ => Vec::new(),
        };
        let tag = u32::from_be_bytes(sctp.get(16..20)?.try_into().ok()?);
        Some(Self { from: word(0)?, to: word(2)?, chunk: *sctp.get(12)?, tag, cookie })
    }
}

/// Common header and one chunk, with a cookie where there is one.
fn packet(from: u16, to: u16, verification: u32, chunk: u8, cookie: &[u8]) -> Vec<u8> {
    let parameter = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(verification.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0]);
    packet.extend(((20 + parameter) as u16).to_be_bytes());
    packet.extend(TAG.to_be_bytes());
    packet.extend(65_536u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1u32.to_be_bytes());
    if parameter > 0 {
        packet.extend(STATE_COOKIE.to_be_bytes());
        packet.extend((parameter as u16).to_be_bytes());
        packet.extend(cookie);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        }
    }
    !crc
}
