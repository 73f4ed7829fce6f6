//! A node's whole journal against the ledger.

use super::{Footprint, NodeLedger, Row, Taken};
use crate::{
    line::Offset,
    names::Attachment,
    wire::{AllocationState, BlockVersion, EntryState, NodeState, Seq, Stamp},
};
use std::collections::{BTreeMap, BTreeSet};

/// One entry of a journal as the node listed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry<A = Attachment> {
    /// The address.
    pub at: Offset,
    /// Who has it, or had it last.
    pub attachment: A,
    /// The entry's state.
    pub state: EntryState,
    /// The entry's sequence number.
    pub seq: Seq,
}

/// A node's journal as it sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listing<A = Attachment> {
    /// Drawn under the journal's lock before the listing.
    pub as_of: Seq,
    /// The version of the block that the node worked with when it made the listing.
    pub block: BlockVersion,
    /// Every entry.
    pub entries: Vec<Entry<A>>,
    /// The deletion it confirms if nothing is left.
    pub deletion: Option<String>,
}

/// The ledger's word on one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The attachment holds the address.
    Kept,
    /// It does not.
    Released,
    /// It may not hold it.
    Refused(Taken),
}

/// What becomes of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyncDecision<A = Attachment> {
    /// Whether the listing was newer than the last one; otherwise it is only answered.
    pub newer: bool,
    /// The node as it is afterwards: floor raised, claim taken up.
    pub node: NodeLedger,
    /// Live rows that end, keeping attachment and stamp; to be done before `writes`, so
    /// that no attachment holds two addresses meanwhile. Rows that another attachment takes are among them.
    pub ends: Vec<Offset>,
    /// Rows to write, each in place of what is there. Unchanged ones are not among them.
    pub writes: Vec<(Offset, Row<A>)>,
    /// One verdict an entry, in the order listed.
    pub verdicts: Vec<Verdict>,
    /// Whether it confirms the deletion: the block is empty and its node stays away from it.
    pub confirms_deletion: bool,
    /// Whether it confirms that nothing lives in what the block gives up: it can be given to others.
    pub confirms_shrink: bool,
}

/// Decides a sync of a node as [admitted](NodeLedger::admit); rows of earlier
/// boots have ended if it said so.
///
/// `block` is where the node's block lies, `rows` every row in it, of whichever
/// claim. What lives in a part that the block gives up is held like everything
/// else: a node that found it there says the truth. A listing that is not newer than the last one changes nothing and
/// gets the current answer. Otherwise it is the truth about all that was said
/// up to `as_of`, and the rows of later requests stand.
#[must_use]
pub fn sync<A: Clone + Ord>(
    node: &NodeLedger,
    block: &Footprint,
    rows: &BTreeMap<Offset, Row<A>>,
    listing: &Listing<A>,
) -> SyncDecision<A> {
    let as_of = Stamp { seq: listing.as_of, ..node.floor() };
    let mut after = rows.clone();
    let newer = as_of > node.floor();
    let mut node = node.clone();
    if newer {
        node.floor = listing.as_of;
        if node.state == NodeState::Planned {
            node.state = NodeState::Active;
        }
        adopt(&node, block, &mut after, as_of, &listing.entries);
    }
    let verdicts = listing.entries.iter().map(|entry| verdict(&node, block, &after, entry)).collect();
    let confirms_deletion = newer
        && node.state == NodeState::Deleting
        && node.deletion.is_some()
        && node.deletion == listing.deletion
        && !listing.entries.iter().any(|entry| entry.state.is_live())
        && !after.values().any(Row::is_held);
    let confirms_shrink = newer && block.is_given_up(&node, &after, listing);
    let ends = rows
        .iter()
        .filter(|(at, row)| row.is_held() && !after.get(at).is_some_and(|now| holds_on(row, now)))
        .map(|(&at, _)| at)
        .collect();
    let writes =
        after.into_iter().filter(|(at, row)| rows.get(at).is_none_or(|was| is_rewritten(was, row))).collect();
    SyncDecision { newer, node, ends, writes, verdicts, confirms_deletion, confirms_shrink }
}

/// Brings the rows in step with a listing that is newer than the last one.
fn adopt<A: Clone + Ord>(
    node: &NodeLedger,
    block: &Footprint,
    rows: &mut BTreeMap<Offset, Row<A>>,
    as_of: Stamp,
    entries: &[Entry<A>],
) {
    let listed: BTreeSet<Offset> = entries.iter().map(|entry| entry.at).collect();
    for (at, row) in rows.iter_mut() {
        if row.stamp.claim == node.claim && row.stamp <= as_of && !listed.contains(at) {
            row.state = AllocationState::Released;
        }
    }
    let mut oldest_first: Vec<&Entry<A>> =
        entries.iter().filter(|entry| refusal(node, block, rows, entry).is_none()).collect();
    oldest_first.sort_by_key(|entry| entry.seq);
    for entry in oldest_first {
        let stamp = Stamp { seq: entry.seq, ..as_of };
        let stands = rows
            .get(&entry.at)
            .is_some_and(|row| row.stamp.claim == node.claim && row.stamp > as_of && row.stamp >= stamp);
        if !stands {
            let state = if entry.state.is_live() { AllocationState::Held } else { AllocationState::Released };
            rows.insert(entry.at, Row { attachment: entry.attachment.clone(), stamp, state });
        }
    }
    // An attachment moved after the listing was made is at its newest place only.
    let mut newest: BTreeMap<A, (Stamp, Offset)> = BTreeMap::new();
    for (&at, row) in rows.iter().filter(|(_, row)| row.is_held()) {
        let last = newest.entry(row.attachment.clone()).or_insert((row.stamp, at));
        *last = (*last).max((row.stamp, at));
    }
    for (&at, row) in rows.iter_mut().filter(|(_, row)| row.stamp.claim == node.claim) {
        if newest.get(&row.attachment).is_some_and(|&last| last.1 != at) {
            row.state = AllocationState::Released;
        }
    }
}

fn refusal<A>(
    node: &NodeLedger,
    block: &Footprint,
    rows: &BTreeMap<Offset, Row<A>>,
    entry: &Entry<A>,
) -> Option<Taken> {
    if !block.has(entry.at) {
        return Some(Taken::OutsideBlock);
    }
    rows.get(&entry.at)
        .filter(|row| row.is_held() && row.stamp.claim != node.claim)
        .map(|_| Taken::OtherClaim)
}

fn verdict<A: PartialEq>(
    node: &NodeLedger,
    block: &Footprint,
    rows: &BTreeMap<Offset, Row<A>>,
    entry: &Entry<A>,
) -> Verdict {
    if let Some(taken) = refusal(node, block, rows, entry) {
        return if entry.state.is_live() { Verdict::Refused(taken) } else { Verdict::Released };
    }
    match rows.get(&entry.at) {
        Some(row) if row.is_held() && row.attachment == entry.attachment => Verdict::Kept,
        _ => Verdict::Released,
    }
}

fn holds_on<A: PartialEq>(was: &Row<A>, now: &Row<A>) -> bool {
    now.is_held() && now.attachment == was.attachment
}

/// Whether a row says more than that the same hold ended, which `ends` says.
fn is_rewritten<A: PartialEq>(was: &Row<A>, now: &Row<A>) -> bool {
    was.attachment != now.attachment || was.stamp != now.stamp || (now.is_held() && !was.is_held())
}
