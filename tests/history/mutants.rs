//! Histories that no service may have: the checker must catch each, or it could not fail.

use crate::{
    checker::{Rule, check},
    history::{Ask, Call, Edit, End, Heard, History, Life, Look, Noted, Said, Tick, Tiles},
};
use ipam_api::{
    names::Attachment,
    wire::{BootSeq, Claim, ExtentInfo, ExtentKind, ProblemType, Range},
};
use std::net::{IpAddr, Ipv4Addr};

fn at(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn pod(name: &str) -> Attachment {
    Attachment {
        network: "pods".parse().unwrap(),
        container_id: name.parse().unwrap(),
        if_name: "eth0".parse().unwrap(),
    }
}

fn life(vm: &str, last: u8, holder: &str, from: u64, until: Option<u64>) -> Life {
    let (vm, holder) = (vm.to_owned(), pod(holder));
    Life { vm, address: at(last), holder, from: Tick(from), until: until.map(Tick) }
}

fn look(heard: Heard, journal: &[(u8, &str, bool, bool)], ledger: &[(u8, &str)]) -> Look {
    let noted = |&(last, holder, live, acked): &(u8, &str, bool, bool)| Noted {
        address: at(last),
        holder: pod(holder),
        live,
        acked,
    };
    Look {
        at: Tick(50),
        node: "n1".parse().unwrap(),
        claim: Claim(1),
        boot: BootSeq(1),
        heard,
        journal: journal.iter().map(noted).collect(),
        ledger: ledger.iter().map(|(last, holder)| (at(*last), pod(holder))).collect(),
    }
}

fn edit(asked: u64, expects: Option<&str>, becomes: Option<&str>, said: Said) -> Call {
    let text = |text: &str| text.to_owned();
    let edit = Edit { what: text("pools/a"), expects: expects.map(text), becomes: becomes.map(text) };
    Call { actor: text("planner"), asked: Tick(asked), answered: Tick(asked + 1), ask: Ask::Edit(edit), said }
}

fn read(asked: u64, said: Said) -> Call {
    Call {
        actor: "planner".to_owned(),
        asked: Tick(asked),
        answered: Tick(asked + 1),
        ask: Ask::Read("pools/a".to_owned()),
        said,
    }
}

fn is(version: &str, value: &str) -> Said {
    Said::Done { version: Some(version.to_owned()), value: value.to_owned() }
}

fn gone() -> Said {
    Said::Done { version: None, value: String::new() }
}

fn unheard() -> Said {
    Said::Nothing("no answer in time".to_owned())
}

fn missing() -> Said {
    Said::Refused(ProblemType::NotFound, "there is no pool a".to_owned())
}

fn extent(first: u8, last: u8, kind: ExtentKind, owner: Option<&str>) -> ExtentInfo {
    ExtentInfo {
        range: Range { first: at(first), last: at(last), first6: None, last6: None },
        size: u64::from(last - first) + 1,
        kind,
        owner: owner.map(str::to_owned),
    }
}

fn tiles(extents: &[ExtentInfo]) -> Tiles {
    Tiles { at: Tick(60), subnet: "v/a".parse().unwrap(), first: at(0), size: 16, extents: extents.to_vec() }
}

/// Everything in order: an address that changed hands, a node heard, a pool edited with an answer lost on the way.
fn sound() -> History {
    let whole = [
        extent(0, 3, ExtentKind::Reserved, Some("reservation/x")),
        extent(4, 11, ExtentKind::Block, Some("node/n1")),
        extent(12, 15, ExtentKind::Free, None),
    ];
    History {
        lives: vec![
            life("n1", 4, "a", 1, Some(5)),
            life("n1", 4, "b", 6, Some(90)),
            life("n1", 5, "c", 7, None),
        ],
        calls: vec![
            edit(10, None, Some("1 node"), is("1", "1 node")),
            edit(20, Some("1"), Some("2 nodes"), unheard()),
            read(30, is("2", "2 nodes")),
            edit(40, Some("2"), None, gone()),
            read(42, missing()),
        ],
        looks: vec![look(
            Heard::Whole,
            &[(4, "b", true, true), (5, "c", true, false), (6, "d", false, true), (7, "e", true, true)],
            &[(4, "b"), (5, "c"), (7, "e")],
        )],
        tiles: vec![tiles(&whole)],
        end: End {
            at: Tick(80),
            ledger: [(4, "b"), (5, "c"), (7, "e")]
                .map(|(last, holder)| (at(last), "n1".parse().unwrap(), pod(holder)))
                .into(),
            blocks: vec![("n1".parse().unwrap(), vec![(at(4), at(11))])],
            leftovers: Vec::new(),
        },
    }
}

/// Fails unless just this rule is found broken in the sound history with this change.
fn breaks(rule: Rule, change: impl FnOnce(&mut History)) {
    let mut history = sound();
    change(&mut history);
    let mut found: Vec<Rule> = check(&history).into_iter().map(|violation| violation.rule).collect();
    found.dedup();
    assert_eq!(found, [rule], "{:#?}", check(&history));
}

#[test]
fn a_sound_history_is_sound() {
    assert_eq!(check(&sound()), []);
}

#[test]
fn two_holders_are_caught() {
    breaks(Rule::OneHolder, |history| history.lives[0].until = Some(Tick(7)));
    // On another node, and within the life of a third.
    breaks(Rule::OneHolder, |history| history.lives.push(life("n2", 4, "x", 20, Some(30))));
    breaks(Rule::OneHolder, |history| {
        history.lives.push(life("n2", 5, "x", 2, Some(3)));
        history.lives.push(life("n2", 5, "y", 70, Some(71)));
    });
}

#[test]
fn what_is_lost_is_caught() {
    // Acknowledged, and the ledger knows nothing of it, or another.
    breaks(Rule::NothingLost, |history| {
        history.looks.push(look(Heard::InPart, &[(4, "b", true, true)], &[]));
        history.looks.swap(0, 1);
    });
    breaks(Rule::NothingLost, |history| {
        history.looks.push(look(Heard::InPart, &[(4, "b", true, true)], &[(4, "z")]));
        history.looks.swap(0, 1);
    });
    // Taken back, and there again.
    breaks(Rule::NothingLost, |history| {
        history.looks.push(look(Heard::InPart, &[(6, "d", false, true)], &[(6, "d")]));
        history.looks.swap(0, 1);
    });
    // In the end a pod lives that the ledger does not have.
    breaks(Rule::NothingLost, |history| drop(history.end.ledger.remove(1)));
    // An edit that nobody has changed since.
    breaks(Rule::NothingLost, |history| {
        history.calls.push(edit(50, None, Some("3 nodes"), is("3", "3 nodes")));
        history.calls.push(read(52, missing()));
    });
    breaks(Rule::NothingLost, |history| {
        history.calls.push(edit(50, None, Some("3 nodes"), is("3", "3 nodes")));
        history.calls.push(edit(54, Some("3"), Some("4 nodes"), is("4", "4 nodes")));
        history.calls.push(read(56, is("3", "3 nodes")));
    });
    breaks(Rule::NothingLost, |history| history.calls[0].said = is("1", "7 nodes"));
}

#[test]
fn a_retry_that_changed_something_is_caught() {
    // A release that came again took the address from the node that was heard.
    breaks(Rule::RetriesChangeNothing, |history| {
        history.looks.push(look(Heard::Whole, &[(5, "c", true, false)], &[]));
        history.looks.swap(0, 1);
    });
    // A hold that came again gave one.
    breaks(Rule::RetriesChangeNothing, |history| {
        history.looks.push(look(Heard::Whole, &[(5, "c", true, false)], &[(5, "c"), (9, "x")]));
        history.looks.swap(0, 1);
    });
    // One edit was made twice.
    breaks(Rule::RetriesChangeNothing, |history| {
        history.calls.push(edit(50, None, Some("3 nodes"), is("3", "3 nodes")));
        history.calls.push(edit(51, Some("3"), Some("4 nodes"), is("4", "4 nodes")));
        history.calls.push(edit(51, Some("3"), Some("4 nodes"), is("5", "4 nodes")));
    });
    // A version came back with another thing.
    breaks(Rule::RetriesChangeNothing, |history| {
        history.calls.push(edit(50, None, Some("1 node"), is("1", "1 node")));
    });
    // Something is there that nobody asked for.
    breaks(Rule::RetriesChangeNothing, |history| history.calls.push(read(60, is("9", "9 nodes"))));
}

#[test]
fn a_subnet_that_is_not_tiled_is_caught() {
    let change = |change: fn(&mut Vec<ExtentInfo>)| {
        breaks(Rule::Tiled, |history| {
            let mut changed = history.tiles[0].clone();
            change(&mut changed.extents);
            history.tiles.insert(0, changed);
        });
    };
    change(|extents| drop(extents.remove(1)));
    change(|extents| drop(extents.pop()));
    change(|extents| drop(extents.remove(0)));
    change(|extents| extents[1] = extent(4, 12, ExtentKind::Block, Some("node/n1")));
    change(|extents| {
        extents[2] = extent(12, 13, ExtentKind::Free, None);
        extents.push(extent(14, 15, ExtentKind::Free, None));
    });
    // A block that is another's.
    breaks(Rule::Tiled, |history| history.end.blocks[0].1[0] = (at(4), at(12)));
    breaks(Rule::Tiled, |history| history.end.blocks[0].1[0] = (at(4), at(10)));
}

#[test]
fn what_nobody_has_is_caught() {
    breaks(Rule::Agreed, |history| {
        history.end.ledger.push((at(9), "n1".parse().unwrap(), pod("x")));
    });
    breaks(Rule::NothingLeft, |history| history.end.leftovers.push("node n1 is Deleting".to_owned()));
    breaks(Rule::NoDefect, |history| {
        history.calls.push(read(70, Said::Defect("a defect of the service".to_owned())));
    });
}
