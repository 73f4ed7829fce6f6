//! What we ask `nf_tables` itself: the rules of our table with their comments, what the chains of others do, and
//! the elements of our maps, which are changed here too, without a program in between.
//!
//! The layout is that of `nf_tables.h`, and of nft's user data (a list of type, length, value, one byte each
//! for type and length).

use super::{
    WiringError,
    nfnetlink::{Attributes, Message, NLM_F_CREATE, Netfilter, Object, attribute, attributes},
};
use std::{fmt, io, slice};

const SUBSYSTEM: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
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
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

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
    dump(NFT_MSG_GETRULE, NFPROTO_INET, in_table(table), |found| Some(rule(found.attributes)))
}

/// All chains of the families that forward.
pub(crate) fn chains() -> Result<Vec<Chain>, WiringError> {
    dump(NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, Attributes::default(), chain)
}

/// Whether a rule of the table compares an interface's name with this beginning, `vn*` with `vn`.
pub(crate) fn names_interface(family: Family, table: &str, beginning: &str) -> Result<bool, WiringError> {
    let mut value = ((4 + beginning.len()) as u16).to_ne_bytes().to_vec();
    value.extend(NFTA_DATA_VALUE.to_ne_bytes());
    value.extend(beginning.as_bytes());
    value.resize(value.len().next_multiple_of(4), 0);
    // An attribute begins at a multiple of four, wherever it is nested.
    let names = |rule: Object<'_>| {
        let mut places = (0..rule.attributes.len()).step_by(4);
        places.any(|at| rule.attributes[at..].starts_with(&value)).then_some(())
    };
    Ok(!dump(NFT_MSG_GETRULE, family.number(), in_table(table), names)?.is_empty())
}

fn in_table(table: &str) -> Attributes {
    Attributes::default().with_text(NFTA_RULE_TABLE, table)
}

fn dump<T>(
    kind: u16,
    family: u8,
    attributes: Attributes,
    take: impl FnMut(Object<'_>) -> Option<T>,
) -> Result<Vec<T>, WiringError> {
    let question = Message { kind: (SUBSYSTEM, kind), family, flags: 0, attributes };
    Netfilter::open("reading nftables rules")?.dump(&question, take)
}

fn chain(object: Object<'_>) -> Option<Chain> {
    let mut chain = Chain {
        family: Family::of(object.family)?,
        table: String::new(),
        name: String::new(),
        hook: None,
        policy: None,
    };
    for (kind, value) in attributes(object.attributes) {
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

fn rule(bytes: &[u8]) -> Rule {
    Rule {
        chain: attribute(bytes, NFTA_RULE_CHAIN).map(text).unwrap_or_default(),
        comment: attribute(bytes, NFTA_RULE_USERDATA).and_then(comment),
    }
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

/// An element of a map, or of a set, which has no data. Fields of key and data are filled up to four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: String,
    pub(crate) key: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Element {
    fn attributes(&self, kind: u16) -> Attributes {
        let value = |bytes: &[u8]| Attributes::default().with(NFTA_DATA_VALUE, bytes);
        let element = Attributes::default().with_list(NFTA_SET_ELEM_KEY, &value(&self.key));
        // What goes is told by its key alone.
        if kind == NFT_MSG_NEWSETELEM && !self.data.is_empty() {
            return element.with_list(NFTA_SET_ELEM_DATA, &value(&self.data));
        }
        element
    }
}

/// As few messages as there can be: neighbours of one set share one, for a socket takes only so much at once.
fn messages<'a>(
    table: &'a str,
    elements: &'a [Element],
    kind: u16,
    flags: u16,
) -> impl Iterator<Item = Message> + 'a {
    /// Of the largest elements, well below the 64 KiB that a list may have.
    const TOGETHER: usize = 256;
    let of_one_set = elements.chunk_by(|one, next| one.set == next.set);
    of_one_set.flat_map(|elements| elements.chunks(TOGETHER)).map(move |elements| {
        let list = elements.iter().fold(Attributes::default(), |list, element| {
            list.with_list(NFTA_LIST_ELEM, &element.attributes(kind))
        });
        Message {
            kind: (SUBSYSTEM, kind),
            family: NFPROTO_INET,
            flags,
            attributes: Attributes::default()
                .with_text(NFTA_SET_ELEM_LIST_TABLE, table)
                .with_text(NFTA_SET_ELEM_LIST_SET, &elements[0].set)
                .with_list(NFTA_SET_ELEM_LIST_ELEMENTS, &list),
        }
    })
}

/// The elements of these sets and maps of a table; none of those that are not there.
pub(crate) fn elements(table: &str, sets: &[&str]) -> Result<Vec<Element>, WiringError> {
    let mut socket = Netfilter::open("reading the elements of our nftables maps")?;
    let mut elements = Vec::new();
    for set in sets {
        let question = Message {
            kind: (SUBSYSTEM, NFT_MSG_GETSETELEM),
            family: NFPROTO_INET,
            flags: 0,
            attributes: Attributes::default()
                .with_text(NFTA_SET_ELEM_LIST_TABLE, table)
                .with_text(NFTA_SET_ELEM_LIST_SET, set),
        };
        let lists = socket.dump(&question, |answer| {
            let list = attribute(answer.attributes, NFTA_SET_ELEM_LIST_ELEMENTS)?;
            Some(attributes(list).filter_map(|(_, bytes)| element(set, bytes)).collect::<Vec<_>>())
        })?;
        elements.extend(lists.into_iter().flatten());
    }
    Ok(elements)
}

/// Which of these elements are there, told by their keys; a question each, however many others there are.
pub(crate) fn present<'a>(table: &str, elements: &'a [Element]) -> Result<Vec<&'a Element>, WiringError> {
    let mut socket = Netfilter::open("looking for elements of our nftables maps")?;
    let mut present = Vec::new();
    for element in elements {
        let mut question = messages(table, slice::from_ref(element), NFT_MSG_GETSETELEM, 0);
        if question.next().map(|question| socket.has(&question)).transpose()? == Some(true) {
            present.push(element);
        }
    }
    Ok(present)
}

fn element(set: &str, bytes: &[u8]) -> Option<Element> {
    let value = |kind| attribute(attribute(bytes, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    let set = set.to_owned();
    Some(Element { set, key: value(NFTA_SET_ELEM_KEY)?, data: value(NFTA_SET_ELEM_DATA).unwrap_or_default() })
}

/// Takes elements out of their sets and puts others in, all or none.
///
/// # Errors
/// ENOENT where one to be taken out, or a set, is not there.
pub(crate) fn change(table: &str, out: &[Element], into: &[Element]) -> io::Result<()> {
    let messages: Vec<Message> = messages(table, out, NFT_MSG_DELSETELEM, 0)
        .chain(messages(table, into, NFT_MSG_NEWSETELEM, NLM_F_CREATE))
        .collect();
    if messages.is_empty() {
        return Ok(());
    }
    let socket =
        Netfilter::open("changing our nftables maps").map_err(|error| io::Error::other(error.to_string()));
    socket?.transact(SUBSYSTEM, &messages)
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
