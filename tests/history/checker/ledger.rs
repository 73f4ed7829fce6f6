//! What the ledger said beside what nodes had been told, and beside what was on their wires in the end.

use super::{Rule, Violation};
use crate::history::{Heard, History, Look, Noted};
use ipam_api::names::{Attachment, NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut violations: Vec<Violation> = history.looks.iter().flat_map(look).collect();
    violations.extend(end(history));
    violations
}

fn look(look: &Look) -> Vec<Violation> {
    let ledger: BTreeMap<IpAddr, &Attachment> =
        look.ledger.iter().map(|(address, holder)| (*address, holder)).collect();
    let about = |address: IpAddr| [address.to_string(), format!("\"{}\"", look.node)];
    let told = |what: String, address| {
        let Look { at, node, claim, boot, .. } = look;
        Violation::new(
            Rule::NothingLost,
            format!("{at} {node} (claim {claim}, boot {boot}): {what}"),
            about(address),
        )
        .seen(look.at)
    };
    let mut violations = Vec::new();
    for Noted { address, holder, live, .. } in look.journal.iter().filter(|noted| noted.acked) {
        let found = ledger.get(address).copied();
        if *live && found != Some(holder) {
            let what = format!("{address} of {holder} was acknowledged, and the ledger has {found:?}");
            violations.push(told(what, *address));
        }
        if !*live && found.is_some() {
            let what = format!("{address} was taken back from {holder}, and the ledger has {found:?}");
            violations.push(told(what, *address));
        }
    }
    if look.heard == Heard::Whole {
        let live: BTreeMap<IpAddr, &Attachment> = look
            .journal
            .iter()
            .filter(|noted| noted.live)
            .map(|noted| (noted.address, &noted.holder))
            .collect();
        if live != ledger {
            let differ: BTreeSet<IpAddr> = live
                .keys()
                .chain(ledger.keys())
                .copied()
                .filter(|address| live.get(address) != ledger.get(address))
                .collect();
            // The node has said nothing new since it was heard: what changed came of something older.
            let story = format!(
                "{} {} was heard, and journal and ledger differ at {differ:?}: {live:?} and {ledger:?}",
                look.at, look.node
            );
            let about = differ.iter().map(ToString::to_string).chain([format!("\"{}\"", look.node)]);
            violations.push(Violation::new(Rule::RetriesChangeNothing, story, about).seen(look.at));
        }
    }
    violations
}

/// In the end the ledger has what is on the wires, and nothing else.
fn end(history: &History) -> Vec<Violation> {
    let at = history.end.at;
    let wires: BTreeMap<IpAddr, &Attachment> = history
        .lives
        .iter()
        .filter(|life| life.from < at && life.until.is_none_or(|until| until > at))
        .map(|life| (life.address, &life.holder))
        .collect();
    let ledger: BTreeMap<IpAddr, &Attachment> =
        history.end.ledger.iter().map(|(address, _, holder)| (*address, holder)).collect();
    let mut violations = Vec::new();
    if ledger.len() != history.end.ledger.len() {
        violations.push(Violation::new(Rule::OneHolder, "the ledger lists an address twice".to_owned(), []));
    }
    for (address, holder) in &wires {
        if ledger.get(address) != Some(holder) {
            let story =
                format!("in the end {address} is {holder}'s, and the ledger has {:?}", ledger.get(address));
            violations.push(Violation::new(Rule::NothingLost, story, [address.to_string()]));
        }
    }
    for (address, node, holder) in &history.end.ledger {
        if !wires.contains_key(address) && !is_begun(history, *address, node, holder) {
            let story = format!("in the end the ledger has {address} as {holder}'s, who lives nowhere");
            violations.push(Violation::new(Rule::Agreed, story, [address.to_string()]));
        }
    }
    violations
}

/// Whether a node's journal has an address as held in the end: by an ADD that was killed before it wired it.
fn is_begun(history: &History, address: IpAddr, node: &NodeName, holder: &Attachment) -> bool {
    let of_node = |look: &&Look| look.node == *node && look.at < history.end.at;
    let last = history.looks.iter().rev().find(of_node);
    last.is_some_and(|look| {
        look.journal.iter().any(|noted| noted.live && noted.address == address && noted.holder == *holder)
    })
}
