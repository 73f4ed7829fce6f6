//! Forgetting connections: what the kernel remembers of a flow decides its packets' way before any rule does.
//!
//! A UDP client that goes on sending keeps its entry alive for ever. One from before a port led to a pod goes
//! on to the host, and one of a pod that is gone goes on to its address. The layout is that of
//! `nfnetlink_conntrack.h`. Best effort: who forgets nothing has waited no longer than before.

use super::{
    nfnetlink::{Attributes, Message, Netfilter, attribute},
    sysctl,
};
use crate::ports::Protocol;
use std::net::IpAddr;

const SUBSYSTEM: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Which parts of the tuples count, as bits; kernels before 5.8 know no filter and send everything.
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const IP_SRC: u32 = 1;
const PROTO_NUM: u32 = 1 << 3;
const PROTO_DST_PORT: u32 = 1 << 5;
const NLA_F_NESTED: u16 = 0x8000;

/// What of the connections is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Those that an address began.
    From(IpAddr),
    /// Those that an address answers, whatever address they were sent to.
    AnsweredBy(IpAddr),
    /// Either.
    With(IpAddr),
    /// Those sent to a UDP port, in the family of `pod`, that it does not answer.
    NotLeadingTo { port: u16, pod: IpAddr },
}

impl Question {
    fn family(self) -> u8 {
        let (Self::From(address)
        | Self::AnsweredBy(address)
        | Self::With(address)
        | Self::NotLeadingTo { pod: address, .. }) = self;
        // AF_INET and AF_INET6.
        if address.is_ipv4() { 2 } else { 10 }
    }

    /// With tuple and filter for the kernel to choose by, where it can.
    fn message(self) -> Message {
        let choose = |kind, tuple: &Attributes, flags, bits: u32| {
            let filter = Attributes::default().with(flags, &bits.to_ne_bytes());
            Attributes::default().with_list(kind, tuple).with_list(CTA_FILTER, &filter)
        };
        let attributes = match self {
            Self::From(address) => choose(CTA_TUPLE_ORIG, &source(address), CTA_FILTER_ORIG_FLAGS, IP_SRC),
            Self::AnsweredBy(address) => {
                choose(CTA_TUPLE_REPLY, &source(address), CTA_FILTER_REPLY_FLAGS, IP_SRC)
            }
            Self::With(_) => Attributes::default(),
            Self::NotLeadingTo { port, .. } => {
                let ports = Attributes::default()
                    .with(CTA_PROTO_NUM, &[Protocol::Udp.number()])
                    .with(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                let tuple = Attributes::default().with_list(CTA_TUPLE_PROTO, &ports);
                choose(CTA_TUPLE_ORIG, &tuple, CTA_FILTER_ORIG_FLAGS, PROTO_NUM | PROTO_DST_PORT)
            }
        };
        Message { kind: (SUBSYSTEM, IPCTNL_MSG_CT_GET), family: self.family(), flags: 0, attributes }
    }

    /// Whether a connection is meant, whatever the kernel chose by.
    fn means(self, connection: &[u8]) -> bool {
        let tuple = |kind| attribute(connection, kind).unwrap_or_default();
        let (began, answered) = (tuple(CTA_TUPLE_ORIG), tuple(CTA_TUPLE_REPLY));
        match self {
            Self::From(address) => is_from(began, address),
            Self::AnsweredBy(address) => is_from(answered, address),
            Self::With(address) => is_from(began, address) || is_from(answered, address),
            Self::NotLeadingTo { port, pod } => {
                let ports = attribute(began, CTA_TUPLE_PROTO).unwrap_or_default();
                attribute(ports, CTA_PROTO_NUM) == Some(&[Protocol::Udp.number()])
                    && attribute(ports, CTA_PROTO_DST_PORT) == Some(&port.to_be_bytes())
                    && !is_from(answered, pod)
            }
        }
    }
}

/// A tuple with this source.
fn source(address: IpAddr) -> Attributes {
    let (kind, octets) = octets(address);
    let addresses = Attributes::default().with(kind, &octets);
    Attributes::default().with_list(CTA_TUPLE_IP, &addresses)
}

fn is_from(tuple: &[u8], address: IpAddr) -> bool {
    let (kind, octets) = octets(address);
    attribute(tuple, CTA_TUPLE_IP).and_then(|addresses| attribute(addresses, kind)) == Some(&octets[..])
}

fn octets(address: IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (CTA_IP_V4_SRC, address.octets().to_vec()),
        IpAddr::V6(address) => (CTA_IP_V6_SRC, address.octets().to_vec()),
    }
}

/// Forgets what a pod that is gone had to do with; how many connections.
pub(crate) fn forget_pod(addresses: &[IpAddr]) -> usize {
    let questions = addresses.iter().flat_map(|address| match address {
        IpAddr::V4(_) => vec![Question::From(*address), Question::AnsweredBy(*address)],
        // Asked for one address of IPv6, the kernel sends the connections of all others (up to 6.18 at least).
        IpAddr::V6(_) => vec![Question::With(*address)],
    });
    forget(questions)
}

/// Forgets what was sent to UDP ports that lead to a pod's address from now on; how many connections.
pub(crate) fn forget_ports(ports: impl Iterator<Item = (u16, IpAddr)>) -> usize {
    forget(ports.map(|(port, pod)| Question::NotLeadingTo { port, pod }))
}

fn forget(questions: impl Iterator<Item = Question>) -> usize {
    // Where nothing tracks connections the question alone would make the kernel load what does.
    let count = sysctl::read("net/netfilter/nf_conntrack_count").ok().flatten();
    if count.is_none_or(|count| count == "0") {
        return 0;
    }
    let Ok(mut socket) = Netfilter::open("forgetting connections") else { return 0 };
    let mut forgotten = 0;
    for question in questions {
        let Ok(connections) = socket.dump(&question.message()) else { continue };
        let found = connections.iter().filter(|found| question.means(found));
        let messages: Vec<Message> = found.map(|found| deletion(question.family(), found)).collect();
        if socket.attempt(&messages).is_ok() {
            forgotten += messages.len();
        }
    }
    forgotten
}

/// Deletes just this connection: with its id no other that has taken its place.
fn deletion(family: u8, connection: &[u8]) -> Message {
    let mut attributes = Attributes::default();
    for kind in [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID] {
        if let Some(value) = attribute(connection, kind) {
            let nested = if kind == CTA_TUPLE_ORIG { NLA_F_NESTED } else { 0 };
            attributes = attributes.with(kind | nested, value);
        }
    }
    Message { kind: (SUBSYSTEM, IPCTNL_MSG_CT_DELETE), family, flags: 0, attributes }
}
