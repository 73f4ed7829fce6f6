//! Holds and releases of nodes that are known from before: decided in memory as if no other word were newer, then
//! written by one statement that finds out whether it is so. What it does not confirm is as if it had not been tried.
//!
//! The statement holds by what it reads: the node's row and its block's are locked in their newest versions and
//! must be the known ones, and so must the subnet's; the address's row must be of an older word; the extent around it is a
//! foreign key, and that the attachment holds no other address a unique index. Nobody plans meanwhile, or nothing is
//! confirmed.

use super::{Mutation, Outcome, decide};
use crate::store::{
    Result, StoreError, Written,
    book::{Holder, KnownHolders, Position, Row, Tenancy, in_place},
    db::{Column, Db, Engine, List, Sql, args, statements},
};
use ipam_api::{
    ledger::{self, BootChange, Hold, Release},
    line::Offset,
    names::Attachment,
    wire::{Allocation, Allocator, NodeState},
};
use jiff::Timestamp;
use std::{collections::HashSet, sync::Arc};

// Words that the nodes' rows and their blocks' confirm; $1 is the time, the list follows.
macro_rules! confirmed {
    ($words:literal, $free:literal, $lock:literal) => {
        concat!(
            "WITH confirmed AS ",
            $free,
            " (
                SELECT node.id, node.name, node.subnet, node.claim, node.boot_seq, block.id AS block, word.at_offset,
                       word.network, word.container_id, word.if_name, word.seq, word.extent_first, word.extent_next,
                       word.pod_namespace, word.pod_name, word.pod_uid
                FROM ",
            $words,
            "
                JOIN node ON node.id = word.node AND node.version = word.version AND node.claim = word.claim
                    AND node.boot_seq = word.boot_seq AND node.floor_seq = word.floor_seq AND node.state = 'active'
                    AND node.boot_id IS NOT DISTINCT FROM word.boot_id
                    AND node.machine IS NOT DISTINCT FROM word.machine
                JOIN block ON block.node = node.id AND block.version = word.block_version
                JOIN subnet ON subnet.id = node.subnet AND subnet.version = word.subnet_version
                ",
            $lock,
            "
            )"
        )
    };
}

macro_rules! confirmed_by_sqlite {
    () => {
        confirmed!(
            "(SELECT value ->> 0 AS node, value ->> 1 AS version, value ->> 2 AS claim, value ->> 3 AS boot_seq,
                     value ->> 4 AS floor_seq, value ->> 5 AS boot_id, value ->> 6 AS machine,
                     value ->> 7 AS block_version, value ->> 8 AS at_offset, value ->> 9 AS network,
                     value ->> 10 AS container_id, value ->> 11 AS if_name, value ->> 12 AS seq,
                     value ->> 13 AS extent_first, value ->> 14 AS extent_next, value ->> 15 AS pod_namespace,
                     value ->> 16 AS pod_name, value ->> 17 AS pod_uid, value ->> 18 AS subnet_version
              FROM json_each($2)) AS word",
            "",
            ""
        )
    };
}

// Locks are taken in the order of all who write: the plan, then nodes by their ids.
macro_rules! confirmed_by_postgres {
    () => {
        confirmed!(
            "unnest($2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[], $8::TEXT[],
                    $9::BIGINT[], $10::BIGINT[], $11::TEXT[], $12::TEXT[], $13::TEXT[], $14::BIGINT[],
                    $15::BIGINT[], $16::BIGINT[], $17::TEXT[], $18::TEXT[], $19::TEXT[],
                    $20::BIGINT[])
                 AS word (node, version, claim, boot_seq, floor_seq, boot_id, machine, block_version, at_offset,
                          network, container_id, if_name, seq, extent_first, extent_next, pod_namespace, pod_name,
                          pod_uid, subnet_version)",
            "MATERIALIZED",
            "WHERE (SELECT pg_try_advisory_xact_lock_shared(1229996365, 1))
             ORDER BY node.id FOR NO KEY UPDATE OF node, block"
        )
    };
}

macro_rules! take {
    ($confirmed:expr, $rested_since:literal) => {
        concat!(
            $confirmed,
            "
            INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name,
                                    pod_namespace, pod_name, pod_uid, since, claim, boot_seq, seq,
                                    node, block, extent_first, extent_next)
            SELECT subnet, at_offset, 'held', name, network, container_id, if_name, pod_namespace, pod_name, pod_uid,
                   CAST($1 AS BIGINT), claim, boot_seq, seq, id, block, extent_first, extent_next
            FROM confirmed WHERE true
            ",
            in_place!(),
            "
            WHERE allocation.state = 'released' AND (allocation.claim <> excluded.claim
                OR (allocation.boot_seq, allocation.seq) < (excluded.boot_seq, excluded.seq))
            RETURNING subnet, at_offset, ",
            $rested_since,
            " AS rested_since"
        )
    };
}

/// Attachments begin to hold addresses that nobody holds; which, and since when another's had rested.
const TAKE: Sql = Sql {
    // It would see what is written here; RESTED asks before.
    sqlite: take!(confirmed_by_sqlite!(), "NULL"),
    // It sees what was there before.
    postgres: take!(
        confirmed_by_postgres!(),
        "(SELECT before.since FROM allocation AS before
          WHERE before.subnet = allocation.subnet AND before.at_offset = allocation.at_offset
            AND (before.network, before.container_id, before.if_name)
             <> (allocation.network, allocation.container_id, allocation.if_name))"
    ),
};

/// Since when addresses rest that other attachments are about to take.
const RESTED: &str = concat!(
    confirmed_by_sqlite!(),
    "
    SELECT before.subnet, before.at_offset, before.since AS rested_since
    FROM confirmed JOIN allocation AS before
        ON before.subnet = confirmed.subnet AND before.at_offset = confirmed.at_offset
    WHERE before.since <= $1 AND (before.network, before.container_id, before.if_name)
        <> (confirmed.network, confirmed.container_id, confirmed.if_name)"
);

macro_rules! give_back {
    ($confirmed:expr) => {
        concat!(
            $confirmed,
            "
            UPDATE allocation
            SET state = 'released', since = CAST($1 AS BIGINT), seq = confirmed.seq,
                node = NULL, block = NULL, extent_first = NULL, extent_next = NULL
            FROM confirmed
            WHERE allocation.subnet = confirmed.subnet AND allocation.at_offset = confirmed.at_offset
                AND allocation.node = confirmed.id AND allocation.network = confirmed.network
                AND allocation.container_id = confirmed.container_id AND allocation.if_name = confirmed.if_name
                AND allocation.claim = confirmed.claim AND allocation.boot_seq = confirmed.boot_seq
                AND allocation.seq < confirmed.seq
            RETURNING allocation.subnet, allocation.at_offset, CAST(NULL AS BIGINT) AS rested_since"
        )
    };
}

/// Attachments give back what they hold; which.
const GIVE_BACK: Sql =
    Sql { sqlite: give_back!(confirmed_by_sqlite!()), postgres: give_back!(confirmed_by_postgres!()) };

statements!(TAKE, GIVE_BACK, Sql { sqlite: RESTED, postgres: TAKE.postgres });

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

/// What the database answers of an address that it wrote.
#[derive(sqlx::FromRow)]
struct Confirmed {
    subnet: i64,
    at_offset: i64,
    rested_since: Option<i64>,
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
    let written = match write(db, now, &drafts).await {
        Ok(written) => written,
        Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
        Err(error) => {
            // Something has changed since, or an attachment holds another address: that takes more than a statement.
            tracing::debug!(%error, "not confirmed");
            return Ok(outcomes);
        }
    };
    for draft in drafts {
        if written.contains(&draft.position) {
            outcomes[draft.index] = Some(match draft.deed {
                Deed::Take(allocation) => Outcome::Held(Box::new(Written::Created(*allocation))),
                Deed::GiveBack => Outcome::Released,
            });
        }
    }
    Ok(outcomes)
}

/// One word an address and an attachment: what comes after it is decided after it.
fn drafts<'a>(known: &KnownHolders, now: Timestamp, mutations: &'a [Mutation]) -> Vec<Draft<'a>> {
    let (mut positions, mut attachments) = (HashSet::new(), HashSet::new());
    let mut drafts = Vec::with_capacity(mutations.len());
    for (index, mutation) in mutations.iter().enumerate() {
        let Some(draft) = draft(known, now, index, mutation) else { continue };
        let new = attachments.insert((draft.holder.id, draft.attachment));
        if positions.insert(draft.position) && new {
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

/// Writes what is confirmed; whose rows were written.
async fn write(db: &Db, now: Timestamp, drafts: &[Draft<'_>]) -> Result<HashSet<Position>> {
    let (takes, returns): (Vec<&Draft<'_>>, Vec<&Draft<'_>>) =
        drafts.iter().partition(|draft| matches!(draft.deed, Deed::Take(_)));
    let words = |drafts: &[&Draft<'_>]| args![now.as_millisecond(), list(drafts)];
    let mut statements = Vec::with_capacity(3);
    let asks = !takes.is_empty() && db.engine() == Engine::Sqlite;
    if !takes.is_empty() {
        if asks {
            statements.push((Sql::from(RESTED), words(&takes)));
        }
        statements.push((TAKE, words(&takes)));
    }
    if !returns.is_empty() {
        statements.push((GIVE_BACK, words(&returns)));
    }
    let mut found: Vec<Vec<Confirmed>> = db.at_once(statements).await?;
    let asked = if asks { found.remove(0) } else { Vec::new() };
    let written: HashSet<Position> = found.iter().flatten().map(Confirmed::position).collect();
    let rested: Vec<i64> = asked
        .iter()
        .chain(found.iter().flatten())
        .filter(|row| written.contains(&row.position()))
        .filter_map(|row| Some(now.as_millisecond() - row.rested_since?))
        .collect();
    db.measures().rested(&rested);
    Ok(written)
}

/// The words of the drafts with what they count on.
fn list(drafts: &[&Draft<'_>]) -> List {
    let ints =
        |of: fn(&Draft<'_>) -> Option<i64>| Column::Ints(drafts.iter().map(|draft| of(draft)).collect());
    let texts =
        |of: fn(&Draft<'_>) -> Option<String>| Column::Texts(drafts.iter().map(|draft| of(draft)).collect());
    List(vec![
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
    ])
}

impl Confirmed {
    fn position(&self) -> Position {
        Position { subnet: self.subnet, offset: Offset(self.at_offset.cast_unsigned()) }
    }
}
