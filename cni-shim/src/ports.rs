//! Host ports: the ports of a node by which its pods are reached as well. Pure.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// What a mapping means that names none.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in IP headers.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Why a text names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give tcp, udp or sctp")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;
    /// In any case: Kubernetes writes `TCP`, CNI `tcp`.
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let is_it = |protocol: &Self| protocol.to_string().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(is_it).ok_or(UnknownProtocol)
    }
}

/// A port of the node that leads to one of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// At which of the node's addresses: `None` for all, `0.0.0.0` and `::` for all of a family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's port.
    pub container_port: NonZeroU16,
}

impl PortMapping {
    /// What it says for one of the pod's addresses, with the node's addresses of that family; `None` where it
    /// is about the other.
    #[must_use]
    pub fn towards(self, pod: IpAddr) -> Option<Self> {
        let any: IpAddr = match pod {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let host_ip = self.host_ip.unwrap_or(any);
        (host_ip.is_ipv4() == pod.is_ipv4()).then_some(Self { host_ip: Some(host_ip), ..self })
    }

    /// Whether some packet would match both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let meet = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => {
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            }
            (None, _) | (_, None) => true,
        };
        meet && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host_port, .. } = self;
        match self.host_ip {
            Some(address) => write!(f, "{protocol} {}", SocketAddr::new(address, host_port.get())),
            None => write!(f, "{protocol} {host_port}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `tcp 8080 80` or `tcp 127.0.0.1 8080 80`.
    pub(crate) fn mapping(text: &str) -> PortMapping {
        let words: Vec<&str> = text.split(' ').collect();
        let (host_ip, ports) =
            if words.len() == 4 { (words[1].parse().ok(), &words[2..]) } else { (None, &words[1..]) };
        PortMapping {
            protocol: words[0].parse().unwrap(),
            host_ip,
            host_port: ports[0].parse().unwrap(),
            container_port: ports[1].parse().unwrap(),
        }
    }

    #[test]
    fn mappings_overlap_where_a_packet_would_match_both() {
        let overlap = |a, b| {
            let (a, b) = (mapping(a), mapping(b));
            assert_eq!(a.overlaps(b), b.overlaps(a));
            a.overlaps(b)
        };
        assert!(overlap("tcp 80 1", "tcp 80 2"));
        assert!(overlap("tcp 80 1", "tcp fd00::1 80 1"));
        assert!(overlap("tcp 0.0.0.0 80 1", "tcp 10.0.0.1 80 1"));
        assert!(overlap("udp 10.0.0.1 80 1", "udp 10.0.0.1 80 2"));
        assert!(!overlap("tcp 80 1", "udp 80 1"));
        assert!(!overlap("tcp 80 1", "tcp 81 1"));
        assert!(!overlap("tcp 0.0.0.0 80 1", "tcp :: 80 1"));
        assert!(!overlap("tcp 127.0.0.1 80 1", "tcp 10.0.0.1 80 1"));
    }

    #[test]
    fn a_mapping_is_about_the_families_it_names() {
        let (v4, v6) = ("10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap());
        let told = |text, pod| mapping(text).towards(pod).map(|mapping| mapping.to_string());
        assert_eq!(told("tcp 80 1", v4).unwrap(), "tcp 0.0.0.0:80");
        assert_eq!(told("tcp 80 1", v6).unwrap(), "tcp [::]:80");
        assert_eq!(told("sctp 10.0.0.1 80 1", v4).unwrap(), "sctp 10.0.0.1:80");
        assert_eq!(told("sctp 10.0.0.1 80 1", v6), None);
        assert_eq!(mapping("udp 53 53").to_string(), "udp 53");
    }
}
