//! Holds and releases of nodes that are known from before: decided in memory as if no other word were newer, then
//! written by statements that find out whether it is so. Where one word is not confirmed it is as if none of its
//! transaction had been tried.

mod statements;

#[cfg(test)]
pub(in crate::store) use statements::statements;

use super::{Mutation, Outcome, decide};
use crate::store::{
    Result, StoreError, Written,
    book::{Holder, KnownHolders, Position, Row, Tenancy},
    db::{Column, Db, Engine, List, Value, args, rows},
};
use ipam_api::{
    ledger::{self, BootChange, Hold, Release},
    line::Offset,
    names::Attachment,
    wire::{Allocation, Allocator, NodeState},
};
use jiff::Timestamp;
use statements::{COUNT, GIVE_BACK, MOST, SIZED_GIVE_BACK, SIZED_RESTED, SIZED_TAKE, SIZES, TAKE};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// A mutation as it would be written.
struct Draft<'a> {
    /// Which of the mutations it is.
    index: usize,
    holder: Arc<Holder>,
    attachment: &'a Attachment,
    position: Position,
    row: Row,
    deed: Deed,
}

enum Deed {
    Take(Box<Allocation>),
    GiveBack,
}

/// Commits those mutations that can be decided so; `None` for each other, of which nothing has happened.
///
/// # Errors
/// The database does not answer: what became of them is not known.
pub(in crate::store) async fn commit(
    db: &Db,
    known: &KnownHolders,
    now: Timestamp,
    mutations: &[Mutation],
) -> Result<Vec<Option<Outcome>>> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    outcomes.resize_with(mutations.len(), || None);
    let drafts = drafts(known, now, mutations);
    if drafts.is_empty() {
        return Ok(outcomes);
    }
    let (takes, returns): (Vec<Draft<'_>>, Vec<Draft<'_>>) =
        drafts.into_iter().partition(|draft| matches!(draft.deed, Deed::Take(_)));
    let mut done = Vec::with_capacity(takes.len() + returns.len());
    match db.engine() {
        Engine::Sqlite => {
            if answers(db, now, by_values(now, &takes, &returns)?).await?.is_some() {
                done.extend(takes.into_iter().chain(returns));
            }
        }
        Engine::Postgres => {
            for (sql, drafts) in [(TAKE, takes), (GIVE_BACK, returns)] {
                if !drafts.is_empty()
                    && answers(db, now, vec![by_arrays(sql, now, &drafts)]).await? == Some(drafts.len())
                {
                    done.extend(drafts);
                }
            }
        }
    }
    for draft in done {
        outcomes[draft.index] = Some(match draft.deed {
            Deed::Take(allocation) => Outcome::Held(Box::new(Written::Created(*allocation))),
            Deed::GiveBack => Outcome::Released,
        });
    }
    Ok(outcomes)
}

/// One word an address and an attachment: what comes after it is decided after it. As many as a statement takes.
fn drafts<'a>(known: &KnownHolders, now: Timestamp, mutations: &'a [Mutation]) -> Vec<Draft<'a>> {
    let (mut positions, mut attachments) = (HashSet::new(), HashSet::new());
    let mut drafts = Vec::with_capacity(mutations.len());
    for (index, mutation) in mutations.iter().enumerate() {
        let Some(draft) = draft(known, now, index, mutation) else { continue };
        let new = attachments.insert((draft.holder.id, draft.attachment));
        if positions.insert(draft.position) && new && drafts.len() < MOST {
            drafts.push(draft);
        }
    }
    drafts
}

fn draft<'a>(
    known: &KnownHolders,
    now: Timestamp,
    index: usize,
    mutation: &'a Mutation,
) -> Option<Draft<'a>> {
    let call = mutation.call();
    let stamp = call.stamp.as_ref()?;
    let holder = known.get(&call.node)?;
    if holder.allocator != Allocator::Node || holder.ledger.state != NodeState::Active || holder.is_quiet(now)
    {
        return None;
    }
    let admission = holder.ledger.admit(stamp).ok()?;
    if admission.boot != BootChange::Same || admission.node != holder.ledger {
        return None;
    }
    let offset: Offset = decide::offset_in_block(&holder, mutation.address()?)?;
    let slot = holder.footprint.slot(stamp.block, offset, None);
    let attachment = mutation.attachment();
    let tenancy = |pod| Tenancy { holder: &holder, attachment, pod, stamp: stamp.stamp, since: now };
    let (row, deed) = match mutation {
        Mutation::Hold { spec, .. } => {
            let verdict = ledger::hold(&holder.ledger, stamp.stamp, attachment, &slot, None);
            if verdict != Ok(Hold::Take) {
                return None;
            }
            let row = Row::held(offset, &tenancy(spec.pod.as_ref()))?;
            let allocation = row.allocation(holder.addresses_at(offset)).ok()?;
            (row, Deed::Take(Box::new(allocation)))
        }
        Mutation::Release { .. } => {
            if ledger::release(&holder.ledger, stamp.stamp, &slot) != Release::Record {
                return None;
            }
            (Row::released_by(offset, &tenancy(None)), Deed::GiveBack)
        }
    };
    Some(Draft { index, position: row.position(), attachment, row, deed, holder })
}

/// How many rows a transaction gave; `None` if it was undone.
async fn answers(
    db: &Db,
    now: Timestamp,
    statements: Vec<(&'static str, Vec<Value>)>,
) -> Result<Option<usize>> {
    match db.at_once::<(Option<i64>,)>(statements).await {
        Ok(rows) => {
            let rows = rows.concat();
            let rests: Vec<i64> =
                rows.iter().filter_map(|(since,)| Some(now.as_millisecond() - (*since)?)).collect();
            db.measures().rested(&rests);
            Ok(Some(rows.len()))
        }
        Err(StoreError::Unavailable(why)) => Err(StoreError::Unavailable(why)),
        Err(error) => {
            // Something has changed since, or an attachment holds another address: that takes more than a statement.
            tracing::debug!(%error, "not confirmed");
            Ok(None)
        }
    }
}

/// PostgreSQL's statement, an array for each column.
fn by_arrays(sql: &'static str, now: Timestamp, drafts: &[Draft<'_>]) -> (&'static str, Vec<Value>) {
    let [mut subnets, mut pools, mut more] = [const { Vec::new() }; 3];
    for ((subnet, pool), used) in used(drafts) {
        subnets.push(Some(subnet));
        pools.push(Some(pool));
        more.push(Some(used));
    }
    let rows = more.len();
    let used = List::new(vec![Column::Ints(subnets), Column::Ints(pools), Column::Ints(more)], rows);
    (sql, args![now.as_millisecond(), words(drafts, drafts.len()), used, drafts.len() as u64])
}

/// SQLite's statements, each value by itself.
fn by_values(
    now: Timestamp,
    takes: &[Draft<'_>],
    returns: &[Draft<'_>],
) -> Result<Vec<(&'static str, Vec<Value>)>> {
    let mut statements = Vec::with_capacity(5);
    if let Some((size, room)) = size(takes) {
        statements.push((SIZED_RESTED[size], args![takers(takes, room)]));
    }
    for (texts, drafts) in [(SIZED_TAKE, takes), (SIZED_GIVE_BACK, returns)] {
        let Some((size, room)) = size(drafts) else { continue };
        let used: Vec<_> =
            used(drafts).into_iter().map(|((subnet, pool), used)| (subnet, pool, used)).collect();
        statements.push((texts[size], args![words(drafts, room), now.as_millisecond()]));
        statements.push((COUNT, args![drafts.len() as u64, rows(&used)?]));
    }
    Ok(statements)
}

/// The text of a statement for so many drafts: which, and for how many rows it has room.
fn size(drafts: &[Draft<'_>]) -> Option<(usize, usize)> {
    let room = |(_, room): &(usize, usize)| drafts.len() <= *room;
    SIZES.into_iter().enumerate().find(room).filter(|_| !drafts.is_empty())
}

/// How many more addresses are used (fewer: below zero), by the row ids of subnet and pool.
fn used(drafts: &[Draft<'_>]) -> BTreeMap<(i64, i64), i64> {
    let mut used = BTreeMap::new();
    for Draft { holder, deed, .. } in drafts {
        *used.entry((holder.subnet, holder.pool)).or_default() += match deed {
            Deed::Take(_) => 1,
            Deed::GiveBack => -1,
        };
    }
    used
}

type Ints = fn(&Draft<'_>) -> Option<i64>;
type Texts = fn(&Draft<'_>) -> Option<String>;

fn ints(drafts: &[Draft<'_>], of: Ints) -> Column {
    Column::Ints(drafts.iter().map(of).collect())
}

fn texts(drafts: &[Draft<'_>], of: Texts) -> Column {
    Column::Texts(drafts.iter().map(of).collect())
}

/// The words of the drafts with what they count on, in so many rows.
fn words(drafts: &[Draft<'_>], rows: usize) -> List {
    let ints = |of: Ints| ints(drafts, of);
    let texts = |of: Texts| texts(drafts, of);
    let columns = vec![
        ints(|draft| Some(draft.holder.id)),
        ints(|draft| Some(draft.holder.version)),
        ints(|draft| Some(draft.row.claim)),
        ints(|draft| Some(draft.row.boot_seq)),
        ints(|draft| Some(draft.holder.ledger.floor.0.cast_signed())),
        texts(|draft| draft.holder.ledger.boot_id.clone()),
        texts(|draft| draft.holder.ledger.machine.clone()),
        ints(|draft| Some(draft.holder.ledger.block.0.cast_signed())),
        ints(|draft| Some(draft.row.at_offset)),
        texts(|draft| Some(draft.row.network.clone())),
        texts(|draft| Some(draft.row.container_id.clone())),
        texts(|draft| Some(draft.row.if_name.clone())),
        ints(|draft| Some(draft.row.seq)),
        ints(|draft| draft.row.extent_first),
        ints(|draft| draft.row.extent_next),
        texts(|draft| draft.row.pod_namespace.clone()),
        texts(|draft| draft.row.pod_name.clone()),
        texts(|draft| draft.row.pod_uid.clone()),
        ints(|draft| Some(draft.holder.subnet_version)),
    ];
    List::new(columns, rows)
}

/// Which attachments are about to take which addresses, in so many rows.
fn takers(drafts: &[Draft<'_>], rows: usize) -> List {
    let columns = vec![
        ints(drafts, |draft| Some(draft.row.subnet)),
        ints(drafts, |draft| Some(draft.row.at_offset)),
        texts(drafts, |draft| Some(draft.row.network.clone())),
        texts(drafts, |draft| Some(draft.row.container_id.clone())),
        texts(drafts, |draft| Some(draft.row.if_name.clone())),
    ];
    List::new(columns, rows)
}
