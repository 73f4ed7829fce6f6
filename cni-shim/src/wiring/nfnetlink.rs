//! One question to `nf_tables`: the comments of the rules in our table.
//!
//! Written by hand because it is a single dump; the layout is that of
//! linux/netfilter/nfnetlink.h and `nf_tables.h`, and of nft's user data
//! (a list of type, length, value, one byte each for type and length).

use super::WiringError;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use std::io;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETRULE: u16 = 7;
const NFPROTO_INET: u8 = 1;
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
const WHAT: &str = "reading our nftables rules";

/// A rule: its chain, and its comment where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) comment: Option<String>,
}

/// The rules of a table of family inet; none where there is no such table.
pub(crate) fn rules(table: &str) -> Result<Vec<Rule>, WiringError> {
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
        socket.send(&request(table, sequence), 0).map_err(fail)?;
        if let Some(rules) = answers(&socket, sequence).map_err(fail)? {
            return Ok(rules);
        }
    }
    Err(fail(io::Error::other("the rules keep changing while they are read")))
}

fn request(table: &str, sequence: u32) -> Vec<u8> {
    let mut attribute = table.as_bytes().to_vec();
    attribute.push(0);
    let attribute_length = 4 + attribute.len();
    let length = HEADER + FAMILY_HEADER + attribute_length.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend((NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE).to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([NFPROTO_INET, 0, 0, 0]);
    bytes.extend((attribute_length as u16).to_ne_bytes());
    bytes.extend(NFTA_RULE_TABLE.to_ne_bytes());
    bytes.extend(attribute);
    bytes.resize(length, 0);
    bytes
}

/// All rules of one dump; none when it was interrupted by a change.
fn answers(socket: &Socket, sequence: u32) -> io::Result<Option<Vec<Rule>>> {
    let (mut rules, mut interrupted) = (Vec::new(), false);
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
                NLMSG_DONE => return Ok((!interrupted).then_some(rules)),
                NLMSG_ERROR => {
                    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return match code.saturating_abs() {
                        nix::libc::ENOENT => Ok(Some(Vec::new())),
                        // The ruleset changed under the dump.
                        nix::libc::EAGAIN | nix::libc::EINTR => Ok(None),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
                _ => rules.extend(body.get(FAMILY_HEADER..).map(rule)),
            }
        }
    }
}

fn rule(attributes: &[u8]) -> Rule {
    let mut rule = Rule { chain: String::new(), comment: None };
    let mut rest = attributes;
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let Some(value) = rest.get(4..length) else { break };
        match kind {
            NFTA_RULE_CHAIN => rule.chain = text(value),
            NFTA_RULE_USERDATA => rule.comment = comment(value),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    rule
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
