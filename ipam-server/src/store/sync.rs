//! A node's whole journal against the ledger (P3), and the end of its claim (P6).

use super::{
    Actor, NodeCall, Result, Store, StoreError,
    allocations::{needs_stamp, refused, unknown_node},
    book::{Book, Holder, Row, Tenancy},
    db::{Scope, Sql, Tx, args, over, retried},
    events::{self, Deed},
    measures::Operation,
    mutation::{changed, corrupt},
    nodes, tiling, told,
};
use ipam_api::{
    ledger::{self, Entry, Listing, SyncDecision, Verdict},
    line::Offset,
    names::Attachment,
    wire::{
        Allocator, BlockVersion, Conflict, EntryResult, FieldError, Problem, ProblemType, SyncAnswer,
        SyncEntry, SyncOutcome, SyncRequest,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// On no line: where an address lies that the node's subnet has not.
const NOWHERE: Offset = Offset(u64::MAX);

const FORGET_CONFLICTS: &str = "DELETE FROM conflict WHERE node = $1";

const SAVE_CONFLICTS: Sql = over!(
    "INSERT INTO conflict (subnet, at_offset, node, mac, seen_at)
    SELECT CAST(value ->> 0 AS BIGINT), CAST(value ->> 1 AS BIGINT), CAST(value ->> 2 AS BIGINT), value ->> 3,
           CAST(value ->> 4 AS BIGINT)
    FROM ",
    "$1",
    " WHERE true
    ON CONFLICT (subnet, at_offset)
    DO UPDATE SET node = excluded.node, mac = excluded.mac, seen_at = excluded.seen_at"
);

impl Store {
    /// Brings the ledger in step with a node's journal (P3), takes a fresh claim
    /// up, and confirms the node's deletion (P6).
    ///
    /// # Errors
    /// A stale claim; an address listed twice. Nothing of the sync happened then.
    pub async fn sync(&self, call: &NodeCall, request: &SyncRequest, by: &Actor) -> Result<SyncAnswer> {
        let _timer = self.db.measures().time(Operation::Sync);
        let done = retried!(self.db, self.sync_in(Scope::Nodes, call, request, by))?;
        if let Some(answer) = done {
            return Ok(answer);
        }
        let done = retried!(self.db, self.sync_in(Scope::Plan, call, request, by))?;
        done.ok_or_else(|| corrupt("a sync that plans asked for what it had"))
    }

    /// `None` where it would end a claim or give back what a block was leaving: that has to be planned.
    async fn sync_in(
        &self,
        scope: Scope,
        call: &NodeCall,
        request: &SyncRequest,
        by: &Actor,
    ) -> Result<Option<SyncAnswer>> {
        let now = self.clock.now();
        let mut tx = self.db.write(scope).await?;
        let mut book = Book::default();
        book.load_holders(&mut tx, &BTreeSet::from([&call.node])).await?;
        let holder = match (&call.stamp, book.holder(&call.node)) {
            (_, None) => return Err(unknown_node(call)),
            (None, Some(_)) => return Err(needs_stamp(&call.node)),
            (Some(_), Some(holder)) if holder.allocator == Allocator::Service => {
                return Err(StoreError::StaleClaim(format!(
                    "the service picks the addresses of node {}: it has no journal to sync",
                    call.node
                )));
            }
            (Some(_), Some(holder)) => holder.clone(),
        };
        book.load_block(&mut tx, holder.block).await?;
        book.load_held_by(&mut tx, holder.id).await?;
        let Some(stamp) = &call.stamp else { return Err(needs_stamp(&call.node)) };
        let listing = listing(&holder, stamp.block, request)?;
        let holder = book.admit(&call.node, stamp, now)?;

        let mut rows = BTreeMap::new();
        for extent in holder.footprint.extents() {
            for row in book.rows_in(holder.subnet, extent.first(), extent.next()) {
                rows.insert(row.offset(), row.word()?);
            }
        }
        let decision = ledger::sync(&holder.ledger, &holder.footprint, &rows, &listing);
        if (decision.confirms_deletion || decision.confirms_shrink) && !tx.may_plan() {
            return Ok(None);
        }
        apply(&mut book, &holder, &decision, request, &listing, now)?;
        book.save(&mut tx).await?;
        if decision.newer {
            told::note(&mut tx, &holder, &listing, &decision, now).await?;
            save_conflicts(&mut tx, &holder, request, now).await?;
        }
        let node = if decision.confirms_deletion {
            let was = nodes::node_view(&mut tx, &call.node, now).await?;
            nodes::free_node(&mut tx, holder.id, now).await?;
            if let Some(was) = &was {
                events::note(&mut tx, &[(by, &Deed::freed(was)?)], now.as_millisecond()).await?;
            }
            None
        } else if decision.confirms_shrink {
            let was = nodes::node_view(&mut tx, &call.node, now).await?;
            tiling::let_go(&mut tx, holder.subnet, holder.block).await?;
            changed(&mut tx).await?;
            let is = nodes::node_view(&mut tx, &call.node, now).await?;
            let deed = Deed::of_node(was.as_ref(), is.as_ref())?;
            events::note(&mut tx, &[(by, &deed)], now.as_millisecond()).await?;
            is
        } else {
            nodes::node_view(&mut tx, &call.node, now).await?
        };
        tx.commit().await?;
        self.db.measures().rested(book.rested());
        if node.is_none() {
            self.cache.forget();
        }
        Ok(Some(SyncAnswer { items: results(request, &decision), node }))
    }
}

fn listing(holder: &Holder, block: BlockVersion, request: &SyncRequest) -> Result<Listing> {
    let mut seen = HashMap::new();
    let mut errors = Vec::new();
    let mut entries = Vec::with_capacity(request.entries.len());
    for (index, entry) in request.entries.iter().enumerate() {
        let at = holder.line.offset_of(entry.address).unwrap_or(NOWHERE);
        // One offset has an address of each family.
        let address = holder.line.address_at(at).unwrap_or(entry.address);
        if let Some(first) = seen.insert(address, index) {
            errors.push(FieldError {
                pointer: format!("/entries/{index}/address"),
                detail: format!(
                    "{} is listed already as entry {first}; a journal has one entry an address",
                    entry.address
                ),
            });
        }
        entries.push(Entry { at, attachment: attachment(entry), state: entry.state, seq: entry.seq });
    }
    if errors.is_empty() {
        Ok(Listing { as_of: request.as_of_seq, block, entries, deletion: request.deletion.clone() })
    } else {
        Err(StoreError::Invalid(errors))
    }
}

fn attachment(entry: &SyncEntry) -> Attachment {
    Attachment {
        network: entry.network.clone(),
        container_id: entry.container_id.clone(),
        if_name: entry.if_name.clone(),
    }
}

fn apply(
    book: &mut Book,
    holder: &Holder,
    decision: &SyncDecision,
    request: &SyncRequest,
    listing: &Listing,
    now: Timestamp,
) -> Result<()> {
    let ends: BTreeSet<Offset> = decision.ends.iter().copied().collect();
    book.end(holder.id, now, |row| ends.contains(&row.offset()));
    let told: HashMap<Offset, &SyncEntry> =
        listing.entries.iter().map(|entry| entry.at).zip(&request.entries).collect();
    for (offset, word) in &decision.writes {
        let entry = told.get(offset);
        let tenancy = Tenancy {
            holder,
            attachment: &word.attachment,
            pod: entry.and_then(|entry| entry.pod.as_ref()),
            stamp: word.stamp,
            since: entry.map_or(now, |entry| ago(now, entry.age_seconds)),
        };
        let row = if word.is_held() {
            Row::held(*offset, &tenancy)
        } else {
            Some(Row::released_by(*offset, &tenancy))
        };
        if let Some(row) = row {
            book.put(row);
        }
    }
    if decision.node != holder.ledger {
        book.change_holder(Holder { ledger: decision.node.clone(), ..holder.clone() });
    }
    Ok(())
}

/// Ages travel as durations, because the clocks of nodes differ.
fn ago(now: Timestamp, seconds: u64) -> Timestamp {
    let age = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH)
}

async fn save_conflicts(tx: &mut Tx, holder: &Holder, request: &SyncRequest, now: Timestamp) -> Result<()> {
    tx.execute(FORGET_CONFLICTS, args![holder.id]).await?;
    // One an offset, whichever of its addresses it is about: the last one heard.
    let mut heard: BTreeMap<Offset, &Conflict> = BTreeMap::new();
    for conflict in &request.conflicts {
        let offset = holder.line.offset_of(conflict.address).ok().filter(|&offset| holder.has(offset));
        let Some(offset) = offset else { continue };
        let last = heard.entry(offset).or_insert(conflict);
        if conflict.age_seconds < last.age_seconds {
            *last = conflict;
        }
    }
    let rows: Vec<Json> = heard
        .iter()
        .map(|(offset, conflict)| {
            let seen = ago(now, conflict.age_seconds).as_millisecond();
            json!([holder.subnet, offset, holder.id, conflict.mac, seen])
        })
        .collect();
    if !rows.is_empty() {
        tx.execute(SAVE_CONFLICTS, args![Json::from(rows).to_string()]).await?;
    }
    Ok(())
}

fn results(request: &SyncRequest, decision: &SyncDecision) -> Vec<EntryResult> {
    request
        .entries
        .iter()
        .zip(&decision.verdicts)
        .map(|(entry, verdict)| {
            let (result, problem) = match verdict {
                Verdict::Kept => (SyncOutcome::Kept, None),
                Verdict::Released => (SyncOutcome::Released, None),
                Verdict::Refused(taken) => {
                    let detail = refused(&(*taken).into(), entry.address).to_string();
                    (SyncOutcome::Refused, Some(Problem::new(ProblemType::AddressTaken, detail)))
                }
            };
            EntryResult {
                network: entry.network.clone(),
                container_id: entry.container_id.clone(),
                if_name: entry.if_name.clone(),
                address: entry.address,
                result,
                problem,
            }
        })
        .collect()
}
