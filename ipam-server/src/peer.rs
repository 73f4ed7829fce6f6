//! Who is at the other end of a connection, as far as the connection itself tells.

use ipam_api::names::NodeName;
use std::{fmt, net::SocketAddr};

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Where it is.
    pub place: Place,
    /// What its client certificate says, where it showed one that our CA signed.
    pub certificate: Option<Certificate>,
}

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Across a network.
    Network(SocketAddr),
    /// At our unix socket: the user id that the kernel vouches for, if it told.
    Socket(Option<u32>),
    /// Nobody told: a request that came over no connection.
    #[default]
    Unknown,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Socket(_) => f.write_str("unix socket"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A client certificate whose chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// It names one node.
    OfNode(NodeName),
    /// It names none, or several; why it counts for nothing.
    Useless(String),
}

impl Certificate {
    /// By the DNS names among its subject alternative names (RFC 5280, section 4.2.1.6).
    pub(crate) fn of_names<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let names: Vec<&str> = names.collect();
        match names.as_slice() {
            [name] => match name.parse() {
                Ok(node) => Self::OfNode(node),
                Err(why) => Self::Useless(format!("the client certificate's name is no node's: {why}")),
            },
            [] => {
                Self::Useless("the client certificate has no DNS name: it has to have the node's".to_owned())
            }
            several => Self::Useless(format!(
                "the client certificate has {} DNS names: it has to have the node's alone",
                several.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_one_nodes_or_nobodys() {
        let of = |names: &[&'static str]| Certificate::of_names(names.iter().copied());
        assert_eq!(of(&["node-1.example"]), Certificate::OfNode("node-1.example".parse().unwrap()));
        for (names, why) in
            [(&[][..], "no DNS name"), (&["a", "b"], "2 DNS names"), (&["*.example"], "is no node's")]
        {
            assert!(matches!(of(names), Certificate::Useless(text) if text.contains(why)), "{names:?}");
        }
    }
}
