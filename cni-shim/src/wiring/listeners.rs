//! Whether a program on the host listens on a port.
//!
//! Asked by binding, which the kernel decides as it would for anyone, and which nobody can see: nothing listens
//! on the socket.

use crate::ports::{PortMapping, Protocol};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    path::Path,
};

/// There as soon as the kernel speaks SCTP; asking for a socket would make it load the module.
const SCTP: &str = "/proc/thread-self/net/sctp";

/// Whether a socket of the host has the port of a mapping, at an address of the node that it is about.
#[must_use]
pub fn has(mapping: PortMapping, at: IpAddr) -> bool {
    let (kind, protocol) = match mapping.protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp if !Path::new(SCTP).exists() => return false,
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let try_out = || {
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        if at.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        if kind == SockType::Stream {
            // Connections that have ended do not count, those who wait for new ones do.
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        }
        let address = SocketAddr::new(at, mapping.host_port.get());
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
    };
    // An address that the host does not have, a family that it does not speak: nobody listens there.
    try_out() == Err(Errno::EADDRINUSE)
}

#[cfg(test)]
mod tests {
    use crate::ports::tests::mapping;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_listener_is_seen_wherever_it_would_get_the_packets() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let has = |protocol: &str, port: u16, at: &str| {
            super::has(mapping(&format!("{protocol} {port} 1")), at.parse().unwrap())
        };
        for (protocol, port) in
            [("tcp", tcp.local_addr().unwrap().port()), ("udp", udp.local_addr().unwrap().port())]
        {
            for (at, seen) in [("127.0.0.1", true), ("0.0.0.0", true), ("127.0.0.2", false), ("::", false)] {
                assert_eq!(has(protocol, port, at), seen, "{protocol} {at}");
            }
            assert!(!has(protocol, port, "192.0.2.1"), "the host has no such address");
        }
        let both = TcpListener::bind("[::]:0");
        // Where there is IPv6 it takes both families.
        if let Ok(both) = both {
            assert!(has("tcp", both.local_addr().unwrap().port(), "0.0.0.0"));
        }
    }
}
