//! Forgetting connections: what the kernel remembers of a flow decides its packets' way before any rule does.
//!
//! A UDP client that goes on sending keeps its entry alive for ever. One from before a port led to a pod goes
//! on to the host, and one of a pod that is gone goes on to its address. The layout is that of
//! `nfnetlink_conntrack.h`. Best effort, and slow: each
//! question is a walk through the table of the whole machine, so no runtime is made to wait for one.

use super::{
    Host, detached,
    nfnetlink::{Attributes, Message, Netfilter, Object, attribute},
    route, sysctl,
};
use crate::ports::{PortMapping, Protocol};
use std::{collections::BTreeMap, fmt, fs::File, io, iter, net::IpAddr, process::Stdio, str::FromStr};

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
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
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
    /// Those sent to UDP ports of these addresses of the node, in the family of `pod`, that it does not answer. What
    /// goes to the same port elsewhere is other pods' talk with name servers and the like.
    Astray { at: Vec<(IpAddr, u16)>, pod: IpAddr },
    /// Those by UDP that one of these pods, of one family, began under its own address, and that were sent where it
    /// said: what others led elsewhere would lose its way.
    Bare(Vec<IpAddr>),
}

impl Question {
    fn family(&self) -> u8 {
        let is_v4 = match self {
            Self::From(address)
            | Self::AnsweredBy(address)
            | Self::With(address)
            | Self::Astray { pod: address, .. } => address.is_ipv4(),
            Self::Bare(pods) => pods.first().is_some_and(IpAddr::is_ipv4),
        };
        // AF_INET and AF_INET6.
        if is_v4 { 2 } else { 10 }
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
            Self::Astray { .. } | Self::Bare(_) => {
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
            Self::Astray { at, pod } => {
                let parts = attribute(began, CTA_TUPLE_PROTO).unwrap_or_default();
                let port = attribute(parts, CTA_PROTO_DST_PORT);
                let is_there = |(address, wanted): &(IpAddr, u16)| {
                    port == Some(&wanted.to_be_bytes()) && is_to(began, *address)
                };
                attribute(parts, CTA_PROTO_NUM) == Some(&UDP)
                    && at.iter().any(is_there)
                    && !is_from(answered, *pod)
            }
            Self::Bare(pods) => {
                let parts = attribute(began, CTA_TUPLE_PROTO).unwrap_or_default();
                attribute(parts, CTA_PROTO_NUM) == Some(&UDP)
                    && pods.iter().any(|pod| is_from(began, *pod) && is_to(answered, *pod))
                    && pods.first().is_some_and(|pod| goes_where_it_was_sent(began, answered, pod.is_ipv4()))
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

fn is_to(tuple: &[u8], address: IpAddr) -> bool {
    let kind = if address.is_ipv4() { CTA_IP_V4_DST } else { CTA_IP_V6_DST };
    let found = attribute(tuple, CTA_TUPLE_IP).and_then(|addresses| attribute(addresses, kind));
    found == Some(&octets(address).1[..])
}

/// Whether whoever answers is whom it was sent to.
fn goes_where_it_was_sent(began: &[u8], answered: &[u8], v4: bool) -> bool {
    let (source, destination) =
        if v4 { (CTA_IP_V4_SRC, CTA_IP_V4_DST) } else { (CTA_IP_V6_SRC, CTA_IP_V6_DST) };
    let part = |tuple, kind| attribute(tuple, CTA_TUPLE_IP).and_then(|addresses| attribute(addresses, kind));
    part(began, destination).is_some() && part(began, destination) == part(answered, source)
}

fn octets(address: IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (CTA_IP_V4_SRC, address.octets().to_vec()),
        IpAddr::V6(address) => (CTA_IP_V6_SRC, address.octets().to_vec()),
    }
}

/// A UDP port of the node that leads to a pod from now on: `PORT=POD` in words, `PORT@ADDRESS=POD` where it is one
/// address of the node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    /// The node's port.
    pub port: u16,
    /// At which of the node's addresses; `None` for all of the pod's family.
    pub at: Option<IpAddr>,
    /// One address of the pod.
    pub pod: IpAddr,
}

impl fmt::Display for Led {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        if let Some(at) = self.at {
            write!(f, "@{at}")?;
        }
        write!(f, "={}", self.pod)
    }
}

impl FromStr for Led {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (at, pod) = text.split_once('=')?;
            let (port, at) = match at.split_once('@') {
                Some((port, at)) => (port, Some(at.parse().ok()?)),
                None => (at, None),
            };
            Some(Self { port: port.parse().ok()?, at, pod: pod.parse().ok()? })
        };
        read().ok_or("give PORT=POD or PORT@ADDRESS=POD")
    }
}

/// What is to be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgetting {
    /// Addresses of pods that are gone.
    pub pods: Vec<IpAddr>,
    /// UDP ports of the node that lead to a pod from now on.
    pub udp: Vec<Led>,
    /// Addresses of pods that are masqueraded from now on.
    pub bare: Vec<IpAddr>,
}

impl Forgetting {
    /// All that a pod had to do with.
    #[must_use]
    pub fn pod(addresses: &[IpAddr]) -> Self {
        Self { pods: addresses.to_vec(), ..Self::default() }
    }

    /// What pods that are masqueraded from now on go on sending by UDP under their own addresses. What they have by
    /// TCP goes on until it ends: in the midst of it another address would end it.
    #[must_use]
    pub fn bare(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { bare: addresses.into_iter().collect(), ..Self::default() }
    }

    /// What was sent to a pod's UDP ports before they were its own.
    #[must_use]
    pub fn ports(addresses: &[IpAddr], ports: &[PortMapping]) -> Self {
        let mut udp = Vec::new();
        for mapping in ports.iter().filter(|mapping| mapping.protocol == Protocol::Udp) {
            let towards = |pod: &IpAddr| {
                let at = mapping.towards(*pod)?.host_ip.filter(|at| !at.is_unspecified());
                Some(Led { port: mapping.host_port.get(), at, pod: *pod })
            };
            udp.extend(addresses.iter().filter_map(towards));
        }
        Self { udp, ..Self::default() }
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
        let own = if self.udp.is_empty() { Vec::new() } else { own_addresses() };
        for question in self.questions(&own) {
            let meant = |found: Object<'_>| {
                let found = found.attributes;
                question.means(found).then(|| deletion(question.family(), found))
            };
            let Ok(messages) = socket.dump(&question.message(), meant) else { continue };
            // What is not forgotten by this ends with its own time.
            drop(socket.attempt(&messages));
        }
    }

    /// Starts [`Forgetting::forget`] in a process of its own: `<this program> forget [--pod ADDRESS]…
    /// [--udp PORT[@ADDRESS]=POD]…`; what is `bare` is not for it. It keeps `lock` until it has ended.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn detached(&self, lock: Option<File>) -> io::Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let pods = self.pods.iter().flat_map(|pod| ["--pod".to_owned(), pod.to_string()]);
        let udp = self.udp.iter().flat_map(|led| ["--udp".to_owned(), led.to_string()]);
        let words = iter::once("forget".to_owned()).chain(pods).chain(udp);
        detached::start(words, lock.map_or_else(Stdio::null, Stdio::from))
    }

    /// `own` are the node's addresses.
    fn questions(&self, own: &[IpAddr]) -> Vec<Question> {
        let pods = self.pods.iter().flat_map(|pod| match pod {
            IpAddr::V4(_) => vec![Question::From(*pod), Question::AnsweredBy(*pod)],
            IpAddr::V6(_) => vec![Question::With(*pod)],
        });
        let mut by_pod: BTreeMap<IpAddr, Vec<(IpAddr, u16)>> = BTreeMap::new();
        for Led { port, at, pod } in &self.udp {
            let all = own.iter().filter(|own| own.is_ipv4() == pod.is_ipv4());
            let at: Vec<IpAddr> = at.map_or_else(|| all.copied().collect(), |at| vec![at]);
            by_pod.entry(*pod).or_default().extend(at.into_iter().map(|at| (at, *port)));
        }
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = self.bare.iter().copied().partition(IpAddr::is_ipv4);
        let bare = [v4, v6].into_iter().filter(|pods| !pods.is_empty()).map(Question::Bare);
        let astray = by_pod.into_iter().map(|(pod, at)| Question::Astray { at, pod });
        pods.chain(astray).chain(bare).collect()
    }
}

/// The node's addresses; none where the kernel does not tell them.
fn own_addresses() -> Vec<IpAddr> {
    let found = Host::open().and_then(|mut host| route::addresses(&mut host.netlink));
    found.unwrap_or_default().iter().map(|assigned| assigned.net.addr()).collect()
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

    fn tuple(kind: u16, source: IpAddr, to: IpAddr, port: u16) -> Attributes {
        let protocol =
            Attributes::default().with(CTA_PROTO_NUM, &UDP).with(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        let (of_family, octets) = octets(source);
        let (to_family, to) = (of_family + 1, super::octets(to).1);
        let addresses = Attributes::default().with(of_family, &octets).with(to_family, &to);
        let both =
            Attributes::default().with_list(CTA_TUPLE_IP, &addresses).with_list(CTA_TUPLE_PROTO, &protocol);
        Attributes::default().with_list(kind, &both)
    }

    #[test]
    fn connections_are_chosen_by_who_began_and_who_answers() {
        let [vm, pod, node, away]: [IpAddr; 4] =
            ["10.240.0.20", "10.240.1.0", "10.240.0.10", "192.0.2.53"].map(|text| text.parse().unwrap());
        let between = |from, to, answers| {
            let [began, answered] =
                [tuple(CTA_TUPLE_ORIG, from, to, 8053), tuple(CTA_TUPLE_REPLY, answers, from, 5053)];
            [began.as_bytes(), answered.as_bytes()].concat()
        };
        let connection = |from, answers| between(from, node, answers);
        let (led, straight) = (connection(vm, pod), connection(vm, node));
        assert!(Question::AnsweredBy(pod).means(&led) && !Question::From(pod).means(&led));
        assert!(Question::With(pod).means(&led) && Question::From(pod).means(&connection(pod, vm)));
        assert!(!Question::With(pod).means(&straight));
        let astray =
            |ports: &[u16]| Question::Astray { at: ports.iter().map(|port| (node, *port)).collect(), pod };
        assert!(astray(&[53, 8053]).means(&straight));
        assert!(!astray(&[8053]).means(&led), "it leads to the pod already");
        assert!(!astray(&[5053]).means(&straight));
        assert!(!astray(&[8053]).means(&between(vm, away, away)), "it goes past the node");
        let bare = |connection: &[u8]| Question::Bare(vec![away, pod]).means(connection);
        assert!(bare(&between(pod, away, away)), "it goes out under the pod's own address");
        assert!(!bare(&between(pod, node, away)), "somebody leads it elsewhere");
        let [began, answered] =
            [tuple(CTA_TUPLE_ORIG, pod, away, 53), tuple(CTA_TUPLE_REPLY, away, node, 5053)];
        assert!(!bare(&[began.as_bytes(), answered.as_bytes()].concat()), "it is masqueraded");
        assert!(!bare(&between(vm, away, away)), "it is nobody's of them");
        // What is cut says less, and upsets nobody.
        assert!((0..straight.len() / 2).all(|end| !astray(&[8053]).means(&straight[..end])));
    }

    #[test]
    fn udp_ports_alone_are_forgotten_and_in_the_families_they_are_of() {
        let pods: [IpAddr; 2] = ["10.240.1.0".parse().unwrap(), "fd00::1".parse().unwrap()];
        let ports = [mapping("udp 53 1"), mapping("tcp 80 1"), mapping("udp 10.240.0.10 7 7")];
        let udp = Forgetting::ports(&pods, &ports).udp;
        let words: Vec<String> = udp.iter().map(Led::to_string).collect();
        assert_eq!(words, ["53=10.240.1.0", "53=fd00::1", "7@10.240.0.10=10.240.1.0"]);
        assert!(udp.iter().zip(&words).all(|(led, text)| text.parse() == Ok(*led)));
        let own = ["127.0.0.1", "10.240.0.10", "fd00::a"].map(|text| text.parse().unwrap());
        let questions = Forgetting { udp, ..Forgetting::pod(&pods) }.questions(&own);
        assert_eq!(questions.len(), 5);
        let bare = Forgetting::bare(pods).questions(&own);
        assert_eq!(bare, pods.map(|pod| Question::Bare(vec![pod])), "a walk for each family");
        let at = [(own[0], 53), (own[1], 53), (own[1], 7)].to_vec();
        assert!(questions.contains(&Question::Astray { at, pod: pods[0] }), "{questions:?}");
        assert!(questions.contains(&Question::Astray { at: vec![(own[2], 53)], pod: pods[1] }));
    }
}
