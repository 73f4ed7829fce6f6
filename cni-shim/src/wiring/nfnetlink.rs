//! Questions to `nf_tables`: the comments of the rules in our table, and what the chains of others do.
//!
//! Written by hand because it is two dumps; the layout is that of
//! linux/netfilter/nfnetlink.h and `nf_tables.h`, and of nft's user data
//! (a list of type, length, value, one byte each for type and length).

use super::WiringError;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use std::{fmt, io};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const BUFFER: usize = 64 * 1024;
const ATTEMPTS: u32 = 8;
const WHAT: &str = "reading nftables rules";

/// A rule: its chain, and its comment where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) comment: Option<String>,
}

/// The families whose chains see what is forwarded between interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Both of the next two.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    fn of(number: u8) -> Option<Self> {
        match number {
            NFPROTO_INET => Some(Self::Inet),
            NFPROTO_IPV4 => Some(Self::Ip),
            NFPROTO_IPV6 => Some(Self::Ip6),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Inet => NFPROTO_INET,
            Self::Ip => NFPROTO_IPV4,
            Self::Ip6 => NFPROTO_IPV6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

/// A chain of anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Where the kernel calls it; none for one that rules jump to.
    hook: Option<u32>,
    /// What becomes of what no rule decides about.
    policy: Option<u32>,
}

impl Chain {
    /// Whether it drops whatever is forwarded and no rule of it speaks of.
    pub(crate) fn drops_forwarded(&self) -> bool {
        (self.hook, self.policy) == (Some(NF_INET_FORWARD), Some(NF_DROP))
    }
}

/// The rules of a table of family inet; none where there is no such table.
pub(crate) fn rules(table: &str) -> Result<Vec<Rule>, WiringError> {
    Ok(dump(NFT_MSG_GETRULE, NFPROTO_INET, Some(table))?
        .iter()
        .map(|message| rule(&message.attributes))
        .collect())
}

/// All chains of the families that forward.
pub(crate) fn chains() -> Result<Vec<Chain>, WiringError> {
    Ok(dump(NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, None)?.iter().filter_map(chain).collect())
}

/// Whether a rule of the table compares an interface's name with this beginning, `vn*` with `vn`.
pub(crate) fn names_interface(family: Family, table: &str, beginning: &str) -> Result<bool, WiringError> {
    let mut value = ((4 + beginning.len()) as u16).to_ne_bytes().to_vec();
    value.extend(NFTA_DATA_VALUE.to_ne_bytes());
    value.extend(beginning.as_bytes());
    value.resize(value.len().next_multiple_of(4), 0);
    let rules = dump(NFT_MSG_GETRULE, family.number(), Some(table))?;
    // An attribute begins at a multiple of four, wherever it is nested.
    Ok(rules.iter().any(|rule| {
        (0..rule.attributes.len()).step_by(4).any(|at| rule.attributes[at..].starts_with(&value))
    }))
}

/// One object of a dump.
struct Message {
    family: u8,
    attributes: Vec<u8>,
}

fn dump(kind: u16, family: u8, table: Option<&str>) -> Result<Vec<Message>, WiringError> {
    let fail = |source| WiringError::io(WHAT, source);
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(|error| {
        if error.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT) {
            WiringError::Unsupported {
                what: "nftables in the kernel".to_owned(),
                cure: "load the kernel module nf_tables".to_owned(),
            }
        } else {
            fail(error)
        }
    })?;
    socket.bind_auto().map_err(fail)?;
    for sequence in 1..=ATTEMPTS {
        socket.send(&request(kind, family, table, sequence), 0).map_err(fail)?;
        if let Some(messages) = answers(&socket, sequence).map_err(fail)? {
            return Ok(messages);
        }
    }
    Err(fail(io::Error::other("the rules keep changing while they are read")))
}

fn request(kind: u16, family: u8, table: Option<&str>, sequence: u32) -> Vec<u8> {
    let mut attributes = Vec::new();
    if let Some(table) = table {
        // With the zero at its end.
        attributes.extend(((4 + table.len() + 1) as u16).to_ne_bytes());
        attributes.extend(NFTA_RULE_TABLE.to_ne_bytes());
        attributes.extend(table.as_bytes());
        attributes.resize((attributes.len() + 1).next_multiple_of(4), 0);
    }
    let length = HEADER + FAMILY_HEADER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend((NFNL_SUBSYS_NFTABLES << 8 | kind).to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// All objects of one dump; none when it was interrupted by a change.
fn answers(socket: &Socket, sequence: u32) -> io::Result<Option<Vec<Message>>> {
    let (mut messages, mut interrupted) = (Vec::new(), false);
    loop {
        let mut buffer = Vec::with_capacity(BUFFER);
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let mut rest = buffer.as_slice();
        while let Some(header) = rest.get(..HEADER) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            let Some(body) = rest.get(HEADER..length) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if number != sequence {
                continue;
            }
            interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                NLMSG_DONE => return Ok((!interrupted).then_some(messages)),
                NLMSG_ERROR => {
                    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return match code.saturating_abs() {
                        nix::libc::ENOENT => Ok(Some(Vec::new())),
                        // The ruleset changed under the dump.
                        nix::libc::EAGAIN | nix::libc::EINTR => Ok(None),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
                _ => messages.extend(body.split_at_checked(FAMILY_HEADER).map(|(header, attributes)| {
                    Message { family: header[0], attributes: attributes.to_vec() }
                })),
            }
        }
    }
}

/// Attributes with their values, as far as they make sense.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn rule(bytes: &[u8]) -> Rule {
    let mut rule = Rule { chain: String::new(), comment: None };
    for (kind, value) in attributes(bytes) {
        match kind {
            NFTA_RULE_CHAIN => rule.chain = text(value),
            NFTA_RULE_USERDATA => rule.comment = comment(value),
            _ => {}
        }
    }
    rule
}

fn chain(message: &Message) -> Option<Chain> {
    let mut chain = Chain {
        family: Family::of(message.family)?,
        table: String::new(),
        name: String::new(),
        hook: None,
        policy: None,
    };
    for (kind, value) in attributes(&message.attributes) {
        match kind {
            NFTA_CHAIN_TABLE => chain.table = text(value),
            NFTA_CHAIN_NAME => chain.name = text(value),
            NFTA_CHAIN_HOOK => {
                let number = attributes(value).find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM);
                chain.hook = number.and_then(|(_, value)| be32(value));
            }
            NFTA_CHAIN_POLICY => chain.policy = be32(value),
            _ => {}
        }
    }
    Some(chain)
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == NFTNL_UDATA_RULE_COMMENT {
            return Some(text(value));
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_behind_other_user_data() {
        let data = [1, 2, 9, 9, 0, 3, b'h', b'i', 0];
        assert_eq!(comment(&data).unwrap(), "hi");
        assert!(comment(&[1, 2, 9]).is_none());
        assert!(comment(&[0, 200, b'x']).is_none());
    }
}
