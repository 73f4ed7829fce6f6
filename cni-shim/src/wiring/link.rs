//! Interfaces: what we read of them and the requests that make and change them.

use super::{
    Mac, WiringError,
    netlink::{Netlink, Request},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkMessage,
    },
};
use std::os::fd::RawFd;

/// Index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// What we read of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Whether the other end of its cable is up as well.
    pub(crate) carrier: bool,
    pub(crate) veth: bool,
    /// Index of the other end, in the other end's namespace.
    pub(crate) peer: Option<u32>,
}

impl Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            veth: false,
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::Address(bytes) => link.mac = Mac::from_slice(&bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(peer) => link.peer = Some(peer),
                LinkAttribute::LinkInfo(infos) => {
                    link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                _ => {}
            }
        }
        link
    }

    pub(crate) fn of(message: Option<RouteNetlinkMessage>) -> Option<Self> {
        match message {
            Some(RouteNetlinkMessage::NewLink(message)) => Some(Self::from(message)),
            _ => None,
        }
    }
}

/// The interface of that name, if there is one.
pub(crate) fn by_name(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, WiringError> {
    Ok(Link::of(netlink.one(get(name))?.unless(&[nix::libc::ENODEV])?))
}

/// The interface of that index, if there is one.
pub(crate) fn by_index(netlink: &mut Netlink, index: u32) -> Result<Option<Link>, WiringError> {
    Ok(Link::of(netlink.one(get_index(index))?.unless(&[nix::libc::ENODEV])?))
}

/// All interfaces.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Link>, WiringError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let links = netlink.dump(&RouteNetlinkMessage::GetLink(message), "listing interfaces")?;
    Ok(links.into_iter().filter_map(|message| Link::of(Some(message))).collect())
}

pub(crate) fn get(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(RouteNetlinkMessage::GetLink(message), 0, format!("reading interface {name}"))
}

pub(crate) fn get_index(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(RouteNetlinkMessage::GetLink(message), 0, format!("reading interface {index}"))
}

/// One end of a pair to be made.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// Makes a pair, the pod's end already in the namespace of `netns`. Both ends stay down: with `IFF_UP`
/// in this request the kernel refuses (ENOTCONN, the peer is not up yet).
pub(crate) fn create_pair(host: &End<'_>, pod: &End<'_>, netns: RawFd, mtu: u32) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(pod.name.to_owned()),
        LinkAttribute::Address(pod.mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(netns),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(host.name.to_owned()),
        LinkAttribute::Address(host.mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request::new(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("making the pair {} and {} (pod)", host.name, pod.name),
    )
}

/// Gives an interface its alias.
pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    Request::new(RouteNetlinkMessage::SetLink(message), 0, format!("setting the alias {alias}"))
}

/// Keeps the kernel from giving an interface a link-local IPv6 address.
pub(crate) fn without_link_local(index: u32) -> Request {
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(IN6_ADDR_GEN_MODE_NONE.into()),
    ])]));
    Request::new(
        RouteNetlinkMessage::SetLink(message),
        0,
        "switching off link-local addresses of the host end",
    )
}

/// Takes an interface up.
pub(crate) fn set_up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = LinkFlags::Up;
    Request::new(RouteNetlinkMessage::SetLink(message), 0, format!("taking interface {index} up"))
}

/// Deletes an interface; of a pair, both ends.
pub(crate) fn delete(index: u32, name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    message.header.index = index;
    Request::new(RouteNetlinkMessage::DelLink(message), 0, format!("deleting interface {name}"))
}
