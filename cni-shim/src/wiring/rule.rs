//! Policy rules: an interface of a pod that has a default route already gets its routes in a table of its
//! own, which a rule leads to from its addresses. Without one the pod's answers would leave by the other
//! interface, and the host drops what a pod sends from addresses that do not lead to that one.

use super::{
    WiringError,
    netlink::{Netlink, Request, family_of, host_length},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use std::net::IpAddr;

/// Where our rules stand: before the main table's (32766).
const PRIORITY: u32 = 1000;

/// What marks a table as an interface's own.
const OWN: u32 = 0x8000_0000;

/// The table of an interface that has one of its own. The kernel empties it when the interface goes.
pub(crate) fn own_table(index: u32) -> u32 {
    OWN | index
}

fn message(from: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_of(from);
    message.header.src_len = host_length(from);
    message.header.action = RuleAction::ToTable;
    message.attributes =
        vec![RuleAttribute::Source(from), RuleAttribute::Priority(PRIORITY), RuleAttribute::Table(table)];
    message
}

/// Has what is sent from an address follow the routes of a table.
pub(crate) fn add(from: IpAddr, table: u32) -> Request {
    let what = format!("adding the rule from {from} to table {table}");
    Request::new(RouteNetlinkMessage::NewRule(message(from, table)), NLM_F_CREATE | NLM_F_EXCL, what)
}

/// Ends that; ENOENT when it did not.
pub(crate) fn delete(from: IpAddr, table: u32) -> Request {
    let what = format!("removing the rule from {from} to table {table}");
    Request::new(RouteNetlinkMessage::DelRule(message(from, table)), 0, what)
}

/// Our rules of a family: the addresses and the tables they lead to.
pub(crate) fn all(netlink: &mut Netlink, family: AddressFamily) -> Result<Vec<(IpAddr, u32)>, WiringError> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    let answers = netlink.dump(&RouteNetlinkMessage::GetRule(request), "listing policy rules")?;
    Ok(answers.into_iter().filter_map(ours).collect())
}

fn ours(message: RouteNetlinkMessage) -> Option<(IpAddr, u32)> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let (mut from, mut table, mut priority) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => from = Some(*address),
            RuleAttribute::Table(number) => table = Some(*number),
            RuleAttribute::Priority(number) => priority = Some(*number),
            _ => {}
        }
    }
    let (from, table) = (from?, table?);
    let is_ours =
        priority == Some(PRIORITY) && table & OWN != 0 && message.header.src_len == host_length(from);
    is_ours.then_some((from, table))
}
