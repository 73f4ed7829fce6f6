//! Wiring: from a reserved address to a pod that can talk, and back.
//!
//! Transparent mode (the default) joins pod and node with a veth pair and
//! routes each pod address to it; the node answers for exactly these addresses
//! on its uplink. The order of a caller:
//!
//! 1. [`Host::open`] and [`Pod::open`] before any thread starts (entering a
//!    namespace is a matter of the calling thread);
//! 2. [`uplink::find`], [`host::prepare`];
//! 3. [`transparent::wire`], later [`check::check`] and
//!    [`transparent::unwire`]; the agent uses [`transparent::reassert`] and
//!    [`survey::survey`];
//! 4. [`announce::announce`] after the answer is on its way.
//!
//! [`probe::probe`] asks the segment who else has an address.
//!
//! Everything is synchronous and belongs to the calling thread: one netlink
//! socket a namespace, opened once, requests batched.

pub mod announce;
pub mod check;
pub mod conntrack;
mod detached;
mod error;
pub mod firewall;
pub mod forward_drop;
mod frame;
pub mod host;
pub mod host_ports;
pub mod identity;
mod link;
pub mod listeners;
pub mod masquerade;
mod neighbour;
pub mod neighbour_table;
mod netlink;
mod netns;
mod nfnetlink;
mod nft;
mod nftables;
pub mod own_address;
pub mod probe;
mod route;
mod rule;
pub mod survey;
pub mod sysctl;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transparent;
pub mod turn;
pub mod uplink;

pub use crate::mac::{InvalidMac, Mac};
pub use error::WiringError;
pub use identity::HostEnd;
pub use netns::{Host, Pod};
pub use turn::Turn;
pub use uplink::Uplink;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = route::MAIN;

/// The next hop of every pod's IPv4 default route: a link-local address that
/// nobody owns; a permanent neighbour gives it the MAC of the host end.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The next hop of every pod's IPv6 default route, likewise.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The next hop that a pod uses for the family of `address`.
#[must_use]
pub fn gateway_for(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}
