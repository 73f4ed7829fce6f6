//! Forgetting connections: what the kernel remembers of a flow decides its packets' way before any rule does.
//!
//! A UDP client that goes on sending keeps its entry alive for ever. One from before a port led to a pod goes
//! on to the host, and one of a pod that is gone goes on to its address. The layout is that of
//! `nfnetlink_conntrack.h`. Best effort, and slow: each
//! question is a walk through the table of the whole machine, so no runtime is made to wait for one.

use super::{
    detached,
    nfnetlink::{Attributes, Message, Netfilter, attribute},
    sysctl,
};
use crate::ports::{PortMapping, Protocol};
use std::{collections::BTreeMap, io, iter, net::IpAddr};

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
const NLA_F_NESTED: u16 = 0x8000;
/// `IPPROTO_UDP`, as an attribute has it.
const UDP: [u8; 1] = [17];

/// Connections to be forgotten: a walk through the kernel's table for each of these.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    /// Those that an address of IPv4 began.
    From(IpAddr),
    /// Those that it answers, whatever address they were sent to.
    AnsweredBy(IpAddr),
    /// Either, of an address of IPv6: asked for one of these, the kernel sends the connections of all others (up
    /// to 6.18 at least).
    With(IpAddr),
    /// Those sent to UDP ports, in the family of `pod`, that it does not answer.
    Astray { ports: Vec<u16>, pod: IpAddr },
}

impl Question {
    fn family(&self) -> u8 {
        let (Self::From(address)
        | Self::AnsweredBy(address)
        | Self::With(address)
        | Self::Astray { pod: address, .. }) = self;
        // AF_INET and AF_INET6.
        if address.is_ipv4() { 2 } else { 10 }
    }

    /// With tuple and filter for the kernel to choose by, where it can.
    fn message(&self) -> Message {
        let choose = |kind, tuple: &Attributes, flags, bits: u32| {
            let filter = Attributes::default().with(flags, &bits.to_ne_bytes());
            Attributes::default().with_list(kind, tuple).with_list(CTA_FILTER, &filter)
        };
        let attributes = match self {
            Self::From(address) => choose(CTA_TUPLE_ORIG, &source(*address), CTA_FILTER_ORIG_FLAGS, IP_SRC),
            Self::AnsweredBy(address) => {
                choose(CTA_TUPLE_REPLY, &source(*address), CTA_FILTER_REPLY_FLAGS, IP_SRC)
            }
            Self::With(_) => Attributes::default(),
            Self::Astray { .. } => {
                let protocol = Attributes::default().with(CTA_PROTO_NUM, &UDP);
                let tuple = Attributes::default().with_list(CTA_TUPLE_PROTO, &protocol);
                choose(CTA_TUPLE_ORIG, &tuple, CTA_FILTER_ORIG_FLAGS, PROTO_NUM)
            }
        };
        Message { kind: (SUBSYSTEM, IPCTNL_MSG_CT_GET), family: self.family(), flags: 0, attributes }
    }

    /// Whether a connection is meant, whatever the kernel chose by.
    fn means(&self, connection: &[u8]) -> bool {
        let tuple = |kind| attribute(connection, kind).unwrap_or_default();
        let (began, answered) = (tuple(CTA_TUPLE_ORIG), tuple(CTA_TUPLE_REPLY));
        match self {
            Self::From(address) => is_from(began, *address),
            Self::AnsweredBy(address) => is_from(answered, *address),
            Self::With(address) => is_from(began, *address) || is_from(answered, *address),
            Self::Astray { ports, pod } => {
                let parts = attribute(began, CTA_TUPLE_PROTO).unwrap_or_default();
                let port = attribute(parts, CTA_PROTO_DST_PORT);
                attribute(parts, CTA_PROTO_NUM) == Some(&UDP)
                    && ports.iter().any(|wanted| port == Some(&wanted.to_be_bytes()))
                    && !is_from(answered, *pod)
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

/// What is to be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgetting {
    /// Addresses of pods that are gone.
    pub pods: Vec<IpAddr>,
    /// UDP ports of the node that lead to a pod from now on.
    pub udp: Vec<(u16, IpAddr)>,
}

impl Forgetting {
    /// All that a pod had to do with.
    #[must_use]
    pub fn pod(addresses: &[IpAddr]) -> Self {
        Self { pods: addresses.to_vec(), udp: Vec::new() }
    }

    /// What was sent to a pod's UDP ports before they were its own.
    #[must_use]
    pub fn ports(addresses: &[IpAddr], ports: &[PortMapping]) -> Self {
        let mut udp = Vec::new();
        for mapping in ports.iter().filter(|mapping| mapping.protocol == Protocol::Udp) {
            let pods = addresses.iter().filter(|pod| mapping.towards(**pod).is_some());
            udp.extend(pods.map(|pod| (mapping.host_port.get(), *pod)));
        }
        Self { pods: Vec::new(), udp }
    }

    /// Whether there is something to be done. Where nothing tracks connections the question alone would make
    /// the kernel load what does.
    fn is_due(&self) -> bool {
        let tracked = sysctl::read("net/netfilter/nf_conntrack_count").ok().flatten();
        tracked.is_some_and(|count| count != "0") && *self != Self::default()
    }

    /// Forgets it, here and now: some 0.1 s for each walk through a large table.
    pub fn forget(&self) {
        if !self.is_due() {
            return;
        }
        let Ok(mut socket) = Netfilter::open("forgetting connections") else { return };
        for question in self.questions() {
            let Ok(connections) = socket.dump(&question.message()) else { continue };
            let found =
                connections.iter().map(|one| &one.attributes[..]).filter(|found| question.means(found));
            let messages: Vec<Message> = found.map(|found| deletion(question.family(), found)).collect();
            // What is not forgotten by this ends with its own time.
            drop(socket.attempt(&messages));
        }
    }

    /// Starts [`Forgetting::forget`] in a process of its own: `<this program> forget [--pod ADDRESS]…
    /// [--udp PORT=ADDRESS]…`.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn detached(&self) -> io::Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let pods = self.pods.iter().flat_map(|pod| ["--pod".to_owned(), pod.to_string()]);
        let udp = self.udp.iter().flat_map(|(port, pod)| ["--udp".to_owned(), format!("{port}={pod}")]);
        detached::start(iter::once("forget".to_owned()).chain(pods).chain(udp))
    }

    fn questions(&self) -> Vec<Question> {
        let pods = self.pods.iter().flat_map(|pod| match pod {
            IpAddr::V4(_) => vec![Question::From(*pod), Question::AnsweredBy(*pod)],
            IpAddr::V6(_) => vec![Question::With(*pod)],
        });
        let mut by_pod: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
        for (port, pod) in &self.udp {
            by_pod.entry(*pod).or_default().push(*port);
        }
        pods.chain(by_pod.into_iter().map(|(pod, ports)| Question::Astray { ports, pod })).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tests::mapping;

    fn tuple(kind: u16, source: IpAddr, port: u16) -> Attributes {
        let protocol =
            Attributes::default().with(CTA_PROTO_NUM, &UDP).with(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        let (of_family, octets) = octets(source);
        let addresses = Attributes::default().with(of_family, &octets);
        let both =
            Attributes::default().with_list(CTA_TUPLE_IP, &addresses).with_list(CTA_TUPLE_PROTO, &protocol);
        Attributes::default().with_list(kind, &both)
    }

    #[test]
    fn connections_are_chosen_by_who_began_and_who_answers() {
        let [vm, pod, node]: [IpAddr; 3] =
            ["10.240.0.20", "10.240.1.0", "10.240.0.10"].map(|text| text.parse().unwrap());
        let connection = |from, answers| {
            let [began, answered] =
                [tuple(CTA_TUPLE_ORIG, from, 8053), tuple(CTA_TUPLE_REPLY, answers, 5053)];
            [began.as_bytes(), answered.as_bytes()].concat()
        };
        let (led, straight) = (connection(vm, pod), connection(vm, node));
        assert!(Question::AnsweredBy(pod).means(&led) && !Question::From(pod).means(&led));
        assert!(Question::With(pod).means(&led) && Question::From(pod).means(&connection(pod, vm)));
        assert!(!Question::With(pod).means(&straight));
        let astray = |ports: &[u16]| Question::Astray { ports: ports.to_vec(), pod };
        assert!(astray(&[53, 8053]).means(&straight));
        assert!(!astray(&[8053]).means(&led), "it leads to the pod already");
        assert!(!astray(&[5053]).means(&straight));
        // What is cut says less, and upsets nobody.
        assert!((0..straight.len() / 2).all(|end| !astray(&[8053]).means(&straight[..end])));
    }

    #[test]
    fn udp_ports_alone_are_forgotten_and_in_the_families_they_are_of() {
        let pods: [IpAddr; 2] = ["10.240.1.0".parse().unwrap(), "fd00::1".parse().unwrap()];
        let ports = [mapping("udp 53 1"), mapping("tcp 80 1"), mapping("udp 10.240.0.10 7 7")];
        let udp = Forgetting::ports(&pods, &ports).udp;
        assert_eq!(udp, [(53, pods[0]), (53, pods[1]), (7, pods[0])]);
        assert_eq!(Forgetting { udp, ..Forgetting::pod(&pods) }.questions().len(), 5);
    }
}
