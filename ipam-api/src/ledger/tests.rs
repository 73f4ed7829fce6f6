use super::*;
use crate::{
    line::{Extent, Offset},
    wire::{AllocationState, EntryState, NodeStamp, NodeState, Seq, Stamp},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const BLOCK: u64 = 3;
type Rows = BTreeMap<Offset, Row<u8>>;

fn active() -> NodeLedger {
    let mut node = NodeLedger::claimed(Claim(4), BlockVersion(2));
    node.state = NodeState::Active;
    node.boot = BootSeq(1);
    node
}

fn stamp(seq: u64) -> Stamp {
    Stamp { claim: Claim(4), boot: BootSeq(1), seq: Seq(seq) }
}

fn call(claim: u64, boot: u64, block: u64) -> NodeStamp {
    NodeStamp {
        stamp: Stamp { claim: Claim(claim), boot: BootSeq(boot), seq: Seq(1) },
        block: BlockVersion(block),
        boot_id: Some(format!("id-{boot}")),
        machine: Some("m".to_owned()),
    }
}

fn row(attachment: u8, seq: u64, state: AllocationState) -> Row<u8> {
    Row { attachment, stamp: stamp(seq), state }
}

fn block() -> Footprint {
    Footprint::whole(Extent::new(Offset(0), Offset(BLOCK)).into_iter().collect())
}

fn entry(at: u64, attachment: u8, state: EntryState, seq: u64) -> Entry<u8> {
    Entry { at: Offset(at), attachment, state, seq: Seq(seq) }
}

fn listing(as_of: u64, entries: Vec<Entry<u8>>) -> Listing<u8> {
    Listing { as_of: Seq(as_of), block: BlockVersion(2), entries, deletion: None }
}

#[test]
fn only_the_current_life_of_a_node_may_speak() {
    let node = active().admit(&call(4, 3, 2)).unwrap().node;
    assert_eq!(
        (node.boot, node.boot_id.as_deref(), node.machine.as_deref()),
        (BootSeq(3), Some("id-3"), Some("m"))
    );
    assert!(matches!(node.admit(&call(3, 3, 2)), Err(Stale::Claim { .. })));
    assert!(matches!(node.admit(&call(5, 3, 2)), Err(Stale::Claim { .. })));
    assert!(matches!(node.admit(&call(4, 2, 2)), Err(Stale::Boot { .. })));
    assert!(matches!(node.admit(&call(4, 3, 3)), Err(Stale::Block { .. })));
    assert!(node.admit(&call(4, 3, 1)).is_ok(), "an older block version is fine");
    let stranger = NodeStamp { machine: Some("n".to_owned()), ..call(4, 3, 2) };
    assert_eq!(node.admit(&stranger), Err(Stale::Machine));
    let same_number = NodeStamp { boot_id: Some("other".to_owned()), ..call(4, 3, 2) };
    assert!(matches!(node.admit(&same_number), Err(Stale::BootId { .. })));
    let same_boot = NodeStamp { boot_id: Some("id-3".to_owned()), ..call(4, 4, 2) };
    assert!(matches!(node.admit(&same_boot), Err(Stale::BootId { .. })));
}

#[test]
fn a_newer_boot_ends_the_earlier_one_and_its_floor() {
    let mut node = active();
    node.floor = Seq(70);
    let next = node.admit(&call(4, 2, 2)).unwrap();
    assert_eq!((next.boot, next.node.floor), (BootChange::Newer, Seq(0)));
    assert_eq!(node.admit(&call(4, 1, 2)).unwrap().boot, BootChange::Same);
    let first = NodeLedger::claimed(Claim(4), BlockVersion(2)).admit(&call(4, 7, 2)).unwrap();
    assert_eq!(first.boot, BootChange::Same, "nothing was before the first boot");
}

#[test]
fn the_newest_request_has_the_address() {
    use AllocationState::{Held, Released};
    let node = active();
    let held = row(1, 5, Held);
    let at = |row| Slot::InBlock(row);
    assert_eq!(hold(&node, stamp(5), &1, &at(None), None), Ok(Hold::Take));
    assert_eq!(hold(&node, stamp(5), &1, &at(Some(&held)), None), Ok(Hold::AlreadyHeld));
    assert_eq!(hold(&node, stamp(4), &1, &at(Some(&held)), None), Ok(Hold::NotNewer(Held)));
    assert_eq!(hold(&node, stamp(4), &2, &at(Some(&held)), None), Ok(Hold::NotNewer(Released)));
    assert_eq!(hold(&node, stamp(6), &2, &at(Some(&held)), None), Ok(Hold::Take));
    assert_eq!(hold(&node, stamp(6), &1, &at(None), Some(&held)), Ok(Hold::Take));
    assert_eq!(
        hold(&node, stamp(4), &1, &at(None), Some(&held)),
        Ok(Hold::NotNewer(Released)),
        "it moved on"
    );
    assert_eq!(release(&node, stamp(6), &at(Some(&held))), Release::Record);
    assert_eq!(release(&node, stamp(6), &at(None)), Release::Record, "its hold may still come");
    assert_eq!(release(&node, stamp(5), &at(Some(&held))), Release::NotNewer);
    let floor = NodeLedger { floor: Seq(9), ..node };
    assert_eq!(hold(&floor, stamp(9), &2, &at(None), None), Ok(Hold::NotNewer(Released)));
    assert_eq!(release(&floor, stamp(9), &at(Some(&held))), Release::NotNewer);
}

#[test]
fn an_address_of_others_is_taken() {
    let node = active();
    let mut former = row(1, 900, AllocationState::Held);
    former.stamp.claim = Claim(3);
    assert_eq!(hold(&node, stamp(5), &1, &Slot::Outside, None), Err(Taken::OutsideBlock.into()));
    assert_eq!(hold(&node, stamp(5), &1, &Slot::InBlock(Some(&former)), None), Err(Taken::OtherClaim.into()));
    assert_eq!(release(&node, stamp(5), &Slot::InBlock(Some(&former))), Release::Nothing);
    assert_eq!(release::<u8>(&node, stamp(5), &Slot::Outside), Release::Nothing);
    let rows = Rows::from([(Offset(0), former.clone())]);
    let decision = sync(
        &node,
        &block(),
        &rows,
        &listing(9, vec![entry(0, 1, EntryState::Wired, 5), entry(7, 2, EntryState::Wired, 6)]),
    );
    assert_eq!(
        decision.verdicts,
        [Verdict::Refused(Taken::OtherClaim), Verdict::Refused(Taken::OutsideBlock)]
    );
    assert!(decision.ends.is_empty() && decision.writes.is_empty());
    former.state = AllocationState::Released;
    assert_eq!(
        hold(&node, stamp(5), &1, &Slot::InBlock(Some(&former)), None),
        Ok(Hold::Take),
        "a former claim's stamps do not count"
    );
}

#[test]
fn nothing_new_before_the_first_sync_nor_after_the_deletion() {
    let planned = NodeLedger { state: NodeState::Planned, ..active() };
    let deleting = NodeLedger { state: NodeState::Deleting, deletion: Some("d".to_owned()), ..active() };
    let held = row(1, 5, AllocationState::Held);
    assert_eq!(hold(&planned, stamp(5), &1, &Slot::InBlock(None), None), Err(Stale::NotTakenUp.into()));
    assert_eq!(hold(&deleting, stamp(5), &1, &Slot::InBlock(None), None), Err(Stale::Deleting.into()));
    assert_eq!(hold(&deleting, stamp(5), &1, &Slot::InBlock(Some(&held)), None), Ok(Hold::AlreadyHeld));
    assert_eq!(release(&deleting, stamp(6), &Slot::InBlock(Some(&held))), Release::Record);
    assert_eq!((planned.ending(), deleting.ending()), (Ending::Now, Ending::OnConfirmation));
    let taken_up = sync(&planned, &block(), &Rows::new(), &listing(3, vec![]));
    assert_eq!((taken_up.node.state, taken_up.node.floor), (NodeState::Active, Seq(3)));
}

/// Offsets 0 and 1 stay, 2 leaves since version 2, which is the current one.
fn shrinking() -> Footprint {
    let extent = |first, next| Extent::new(Offset(first), Offset(next)).unwrap();
    let leaving = Leaving { extent: extent(2, 3), since: BlockVersion(2) };
    Footprint { stays: vec![extent(0, 2)], leaves: vec![leaving] }
}

#[test]
fn what_a_block_gives_up_is_held_by_nodes_that_do_not_know_it() {
    let (node, block) = (active(), shrinking());
    let held = row(1, 5, AllocationState::Held);
    let asks = |version, at, row| {
        hold(&node, stamp(6), &2, &block.slot(BlockVersion(version), Offset(at), row), None)
    };
    assert_eq!(asks(1, 2, None), Ok(Hold::Take));
    assert_eq!(asks(2, 2, None), Err(Taken::Leaving.into()));
    assert_eq!(asks(2, 1, None), Ok(Hold::Take));
    assert_eq!(asks(1, 3, None), Err(Taken::OutsideBlock.into()));
    let known = block.slot(BlockVersion(2), Offset(2), Some(&held));
    assert_eq!(hold(&node, stamp(5), &1, &known, None), Ok(Hold::AlreadyHeld), "a replay");
    assert_eq!(hold(&node, stamp(4), &1, &known, None), Ok(Hold::NotNewer(AllocationState::Held)));
    assert_eq!(release(&node, stamp(6), &known), Release::Record);
}

#[test]
fn only_a_listing_of_the_current_version_without_life_confirms_a_smaller_block() {
    let (node, block, none) = (active(), shrinking(), Rows::new());
    let confirms = |rows: &Rows, version, entries| {
        let listing = Listing { block: BlockVersion(version), ..listing(9, entries) };
        sync(&node, &block, rows, &listing).confirms_shrink
    };
    let elsewhere = || vec![entry(1, 1, EntryState::Wired, 5), entry(2, 2, EntryState::Released, 6)];
    assert!(confirms(&none, 2, elsewhere()));
    assert!(!confirms(&none, 1, elsewhere()), "the node may have given out more since");
    for state in [EntryState::Intent, EntryState::Wired, EntryState::Releasing] {
        assert!(!confirms(&none, 2, vec![entry(2, 2, state, 5)]), "{state:?}");
    }
    let at = |seq| Rows::from([(Offset(2), row(3, seq, AllocationState::Held))]);
    assert!(confirms(&at(8), 2, vec![]), "the listing ends it");
    assert!(!confirms(&at(10), 2, vec![]), "made after the listing");
    let whole = sync(&node, &self::block(), &none, &listing(9, vec![]));
    assert!(!whole.confirms_shrink, "nothing leaves");
    let late = NodeLedger { floor: Seq(9), ..active() };
    assert!(!sync(&late, &block, &none, &listing(9, vec![])).confirms_shrink, "a late listing");
}

#[test]
fn a_pod_found_where_a_block_shrank_is_on_record() {
    let found = listing(9, vec![entry(2, 1, EntryState::Wired, 5)]);
    let decision = sync(&active(), &shrinking(), &Rows::new(), &found);
    assert_eq!((decision.verdicts, decision.writes.len()), (vec![Verdict::Kept], 1));
}

#[test]
fn a_deletion_is_confirmed_by_an_empty_journal_that_names_it() {
    let node = NodeLedger { state: NodeState::Deleting, deletion: Some("d".to_owned()), ..active() };
    let says = |entries, deletion: Option<&str>| Listing {
        deletion: deletion.map(str::to_owned),
        ..listing(9, entries)
    };
    let confirms =
        |rows: &Rows, listing: Listing<u8>| sync(&node, &block(), rows, &listing).confirms_deletion;
    let none = Rows::new();
    let released = || vec![entry(0, 1, EntryState::Released, 5)];
    assert!(confirms(&none, says(released(), Some("d"))));
    assert!(!confirms(&none, says(released(), None)));
    assert!(!confirms(&none, says(released(), Some("e"))));
    assert!(!confirms(&none, says(vec![entry(0, 1, EntryState::Releasing, 5)], Some("d"))));
    assert!(
        !confirms(&none, says(vec![entry(7, 1, EntryState::Wired, 5)], Some("d"))),
        "refused, but it runs"
    );
    let older = Rows::from([(Offset(1), row(1, 8, AllocationState::Held))]);
    let newer = Rows::from([(Offset(1), row(1, 10, AllocationState::Held))]);
    assert!(confirms(&older, says(vec![], Some("d"))));
    assert!(!confirms(&newer, says(vec![], Some("d"))));
}

#[test]
fn a_sync_ends_what_is_older_and_unlisted() {
    let rows = Rows::from([
        (Offset(0), row(1, 5, AllocationState::Held)),
        (Offset(1), row(2, 12, AllocationState::Held)),
    ]);
    let decision = sync(&active(), &block(), &rows, &listing(9, vec![entry(2, 1, EntryState::Intent, 8)]));
    assert_eq!(decision.ends, [Offset(0)]);
    assert_eq!(decision.writes, [(Offset(2), row(1, 8, AllocationState::Held))]);
    assert_eq!(decision.verdicts, [Verdict::Kept]);
    let late = sync(&decision.node, &block(), &rows, &listing(9, vec![]));
    assert!(late.ends.is_empty() && late.writes.is_empty() && !late.confirms_deletion);
}

#[test]
fn a_sync_heals_a_row_that_ended_by_mistake() {
    let rows = Rows::from([(Offset(0), row(1, 5, AllocationState::Released))]);
    let decision = sync(&active(), &block(), &rows, &listing(9, vec![entry(0, 1, EntryState::Wired, 5)]));
    assert_eq!(decision.writes, [(Offset(0), row(1, 5, AllocationState::Held))]);
}

#[test]
fn two_attachments_may_swap_addresses_in_one_sync() {
    let rows = Rows::from([
        (Offset(0), row(1, 1, AllocationState::Held)),
        (Offset(1), row(2, 2, AllocationState::Held)),
    ]);
    let swapped = vec![entry(0, 2, EntryState::Wired, 5), entry(1, 1, EntryState::Wired, 6)];
    let decision = sync(&active(), &block(), &rows, &listing(9, swapped));
    assert_eq!(decision.ends, [Offset(0), Offset(1)]);
    assert_eq!(decision.writes.len(), 2);
}

/// One request of a node.
#[derive(Debug, Clone)]
enum Request {
    Hold(u8, u64, u64),
    Release(u8, u64, u64),
    Sync(Listing<u8>),
}

/// Takes one request as the store does, and checks what its database would.
fn receive(node: &mut NodeLedger, rows: &mut Rows, request: &Request) {
    let write = |rows: &mut Rows, at: Offset, row: Row<u8>| {
        let twice = |(other, held): (&Offset, &Row<u8>)| {
            *other != at && held.is_held() && row.is_held() && held.attachment == row.attachment
        };
        assert!(!rows.iter().any(twice), "an attachment holds one address");
        rows.insert(at, row);
    };
    match request {
        Request::Hold(attachment, at, seq) => {
            let at = Offset(*at);
            let elsewhere = rows
                .iter()
                .find(|(other, row)| **other != at && row.is_held() && row.attachment == *attachment)
                .map(|(&other, row)| (other, row.clone()));
            let slot = Slot::InBlock(rows.get(&at));
            let other = elsewhere.as_ref().map(|(_, row)| row);
            if hold(node, stamp(*seq), attachment, &slot, other) == Ok(Hold::Take) {
                if let Some(row) = elsewhere.and_then(|(other, _)| rows.get_mut(&other)) {
                    row.state = AllocationState::Released;
                }
                write(rows, at, row(*attachment, *seq, AllocationState::Held));
            }
        }
        Request::Release(attachment, at, seq) => {
            let slot = Slot::InBlock(rows.get(&Offset(*at)));
            if release(node, stamp(*seq), &slot) == Release::Record {
                write(rows, Offset(*at), row(*attachment, *seq, AllocationState::Released));
            }
        }
        Request::Sync(listing) => {
            let decision = sync(node, &block(), rows, listing);
            for at in &decision.ends {
                rows.get_mut(at).unwrap().state = AllocationState::Released;
            }
            for (at, row) in decision.writes {
                write(rows, at, row);
            }
            *node = decision.node;
        }
    }
}

/// What a node did, one address operation or sync a step, and so what it sent.
fn history(steps: &[(u8, u64, bool)]) -> (BTreeMap<u64, Entry<u8>>, Vec<Request>) {
    let (mut journal, mut sent): (BTreeMap<u64, Entry<u8>>, Vec<Request>) = Default::default();
    for (seq, &(attachment, at, syncs)) in (1..).zip(steps) {
        let has = |journal: &BTreeMap<u64, Entry<u8>>, pod| {
            journal
                .values()
                .find(|entry| entry.state.is_live() && entry.attachment == pod)
                .map(|entry| entry.at.0)
        };
        let is_live = journal.get(&at).is_some_and(|entry| entry.state.is_live());
        if syncs {
            sent.push(Request::Sync(listing(seq, journal.values().cloned().collect())));
        } else if let Some(at) = has(&journal, attachment) {
            journal.insert(at, entry(at, attachment, EntryState::Released, seq));
            sent.push(Request::Release(attachment, at, seq));
        } else if !is_live {
            journal.insert(at, entry(at, attachment, EntryState::Wired, seq));
            sent.push(Request::Hold(attachment, at, seq));
        }
    }
    (journal, sent)
}

fn live(journal: &BTreeMap<u64, Entry<u8>>) -> BTreeMap<u64, u8> {
    journal
        .iter()
        .filter(|(_, entry)| entry.state.is_live())
        .map(|(&at, entry)| (at, entry.attachment))
        .collect()
}

fn held(rows: &Rows) -> BTreeMap<u64, u8> {
    rows.iter().filter(|(_, row)| row.is_held()).map(|(at, row)| (at.0, row.attachment)).collect()
}

proptest! {
    #[test]
    fn any_order_with_doubles_ends_in_the_newest_of_each_address(
        steps in prop::collection::vec((0u8..4, 0..BLOCK, prop::bool::weighted(0.15)), 1..14),
        doubles in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        order in any::<prop::sample::Selector>(),
    ) {
        let (journal, sent) = history(&steps);
        let mut delivered = sent.clone();
        if !sent.is_empty() {
            delivered.extend(doubles.iter().map(|double| double.get(&sent).clone()));
        }
        let (mut node, mut rows) = (active(), Rows::new());
        let mut left: Vec<usize> = (0..delivered.len()).collect();
        while !left.is_empty() {
            let next = order.select(left.iter().copied());
            left.retain(|&index| index != next);
            receive(&mut node, &mut rows, &delivered[next]);
        }
        prop_assert_eq!(held(&rows), live(&journal));
    }

    #[test]
    fn whatever_was_lost_a_sync_makes_good(
        steps in prop::collection::vec((0u8..4, 0..BLOCK, prop::bool::weighted(0.15)), 1..14),
        arrivals in prop::collection::vec(any::<prop::sample::Index>(), 0..14),
        late in prop::collection::vec(any::<prop::sample::Index>(), 0..14),
    ) {
        let (journal, sent) = history(&steps);
        prop_assume!(!sent.is_empty());
        let (mut node, mut rows) = (active(), Rows::new());
        for arrival in &arrivals {
            receive(&mut node, &mut rows, arrival.get(&sent));
        }
        // As after the loss of a journal: only what lives is listed.
        let listed = journal.values().filter(|entry| entry.state.is_live()).cloned().collect();
        let last = Request::Sync(listing(99, listed));
        receive(&mut node, &mut rows, &last);
        prop_assert_eq!(held(&rows), live(&journal));
        for arrival in &late {
            receive(&mut node, &mut rows, arrival.get(&sent));
            prop_assert_eq!(held(&rows), live(&journal), "nothing late changes anything");
        }
    }
}
