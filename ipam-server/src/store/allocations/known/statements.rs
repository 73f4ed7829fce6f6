//! What is written of known nodes, and what must be so for it.
//!
//! A statement holds by what it reads: the node's row and its block's are locked in their newest versions and must be
//! the known ones, and so must the subnet's; the address's row must be of an older word; the extent around it is a
//! foreign key, and that the attachment holds no other address a unique index. Nobody plans meanwhile, or nothing is
//! confirmed.

#[cfg(test)]
use crate::store::db::Sql;
use crate::store::{
    book::in_place,
    db::statements,
    usage::{added, slot},
};

// Words that the nodes' rows and their blocks' confirm.
macro_rules! confirmed {
    ($with:expr, $words:expr, $lock:literal) => {
        concat!(
            $with,
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

// The columns of a word, in the order of `words`.
macro_rules! word {
    () => {
        "word (node, version, claim, boot_seq, floor_seq, boot_id, machine, block_version, at_offset, network,
               container_id, if_name, seq, extent_first, extent_next, pod_namespace, pod_name, pod_uid, subnet_version)"
    };
}

// To SQLite every value is one by itself: to take them out of JSON takes a third as long as to write them.
macro_rules! confirmed_by_sqlite {
    ($rows:tt) => {
        confirmed!(
            concat!(
                "WITH ",
                word!(),
                " AS (VALUES ",
                rows!($rows, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
                "), confirmed AS "
            ),
            "word",
            ""
        )
    };
}

// Locks are taken in the order of all who write: the plan, then nodes by their ids.
macro_rules! confirmed_by_postgres {
    () => {
        confirmed!(
            "WITH confirmed AS MATERIALIZED",
            concat!(
                "unnest($2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[], $8::TEXT[],
                        $9::BIGINT[], $10::BIGINT[], $11::TEXT[], $12::TEXT[], $13::TEXT[], $14::BIGINT[],
                        $15::BIGINT[], $16::BIGINT[], $17::TEXT[], $18::TEXT[], $19::TEXT[], $20::BIGINT[]) AS ",
                word!()
            ),
            "WHERE (SELECT pg_try_advisory_xact_lock_shared(1229996365, 1))
             ORDER BY node.id FOR NO KEY UPDATE OF node, block"
        )
    };
}

// An address that somebody holds, or of which there is a newer word, would get no state, which may not be.
macro_rules! take {
    ($now:literal, $if:expr) => {
        concat!(
            "
            INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name,
                                    pod_namespace, pod_name, pod_uid, since, claim, boot_seq, seq,
                                    node, block, extent_first, extent_next)
            SELECT subnet, at_offset, 'held', name, network, container_id, if_name, pod_namespace, pod_name, pod_uid,
                   CAST(",
            $now,
            " AS BIGINT), claim, boot_seq, seq, id, block, extent_first, extent_next
            FROM confirmed WHERE ",
            $if,
            "
            ",
            in_place!(
                "CASE WHEN allocation.state = 'released' AND (allocation.claim <> excluded.claim
                    OR (allocation.boot_seq, allocation.seq) < (excluded.boot_seq, excluded.seq))
                THEN excluded.state END"
            )
        )
    };
}

macro_rules! give_back {
    ($now:literal, $if:expr) => {
        concat!(
            "
            UPDATE allocation
            SET state = 'released', since = CAST(",
            $now,
            " AS BIGINT), seq = confirmed.seq,
                node = NULL, block = NULL, extent_first = NULL, extent_next = NULL
            FROM confirmed
            WHERE allocation.subnet = confirmed.subnet AND allocation.at_offset = confirmed.at_offset
                AND allocation.node = confirmed.id AND allocation.network = confirmed.network
                AND allocation.container_id = confirmed.container_id AND allocation.if_name = confirmed.if_name
                AND allocation.claim = confirmed.claim AND allocation.boot_seq = confirmed.boot_seq
                AND allocation.seq < confirmed.seq AND ",
            $if
        )
    };
}

// How many words there are: where others are confirmed, as none is while somebody plans, nothing is done.
macro_rules! all_confirmed {
    () => {
        "(SELECT COUNT(*) FROM confirmed) = $24"
    };
}

// How many more are used ($21 to $23) in which subnet by which pool, of what was confirmed or written.
macro_rules! counted {
    ($used:literal) => {
        concat!(
            ", counted AS (
                INSERT INTO usage (subnet, pool, slot, used)
                SELECT change.subnet, change.pool, ",
            slot!(),
            ", ",
            $used,
            "
                FROM unnest($21::BIGINT[], $22::BIGINT[], $23::BIGINT[]) AS change (subnet, pool, used)
                WHERE ",
            all_confirmed!(),
            "
                ",
            added!(),
            ")"
        )
    };
}

/// PostgreSQL: attachments begin to hold addresses that nobody holds; a row for each, with since when it had rested if it
/// was another's. It sees for that what was there before, where there was something.
pub(super) const TAKE: &str = concat!(
    confirmed_by_postgres!(),
    counted!("change.used"),
    take!("$1", all_confirmed!()),
    "
    RETURNING CASE WHEN allocation.xmax <> 0 THEN
        (SELECT before.since FROM allocation AS before
         WHERE before.subnet = allocation.subnet AND before.at_offset = allocation.at_offset
             AND (before.network, before.container_id, before.if_name)
                 <> (allocation.network, allocation.container_id, allocation.if_name)) END AS rested_since"
);

/// PostgreSQL: attachments give back what they hold; a row for each. Where one does not the count gets what may not be null.
pub(super) const GIVE_BACK: &str = concat!(
    confirmed_by_postgres!(),
    ", written AS (",
    give_back!("$1", all_confirmed!()),
    "
    RETURNING allocation.block)",
    counted!("CASE (SELECT COUNT(*) FROM written) WHEN $24 THEN change.used END"),
    "
    SELECT CAST(NULL AS BIGINT) AS rested_since FROM written"
);

// So many rows of values.
macro_rules! rows {
    (1, $row:literal) => { $row };
    (4, $row:literal) => { concat!($row, ", ", $row, ", ", $row, ", ", $row) };
    (16, $row:literal) => { rows!(@four 4, $row) };
    (64, $row:literal) => { rows!(@four 16, $row) };
    (256, $row:literal) => { rows!(@four 64, $row) };
    (@four $quarter:tt, $row:literal) => {
        concat!(
            rows!($quarter, $row), ", ", rows!($quarter, $row), ", ",
            rows!($quarter, $row), ", ", rows!($quarter, $row)
        )
    };
}

/// How many rows the texts of a statement of SQLite's take. Those that are not needed are of no node.
pub(super) const SIZES: [usize; 5] = [1, 4, 16, 64, MOST];

/// How many rows a statement writes, at most.
pub(super) const MOST: usize = 256;

macro_rules! sized {
    ($text:ident) => {
        [$text!(1), $text!(4), $text!(16), $text!(64), $text!(256)]
    };
}

macro_rules! rested_before {
    ($rows:tt) => {
        concat!(
            "WITH taker (subnet, at_offset, network, container_id, if_name) AS (VALUES ",
            rows!($rows, "(?, ?, ?, ?, ?)"),
            ")
            SELECT before.since AS rested_since
            FROM taker JOIN allocation AS before
                ON before.subnet = taker.subnet AND before.at_offset = taker.at_offset
            WHERE (before.network, before.container_id, before.if_name)
                <> (taker.network, taker.container_id, taker.if_name)"
        )
    };
}

macro_rules! take_by_sqlite {
    ($rows:tt) => {
        concat!(confirmed_by_sqlite!($rows), take!("?", "true"))
    };
}

macro_rules! give_back_by_sqlite {
    ($rows:tt) => {
        concat!(confirmed_by_sqlite!($rows), give_back!("?", "true"))
    };
}

/// SQLite: since when addresses rest that other attachments are about to take.
pub(super) const SIZED_RESTED: [&str; 5] = sized!(rested_before);

/// SQLite: attachments begin to hold addresses that nobody holds.
pub(super) const SIZED_TAKE: [&str; 5] = sized!(take_by_sqlite);

/// SQLite: attachments give back what they hold.
pub(super) const SIZED_GIVE_BACK: [&str; 5] = sized!(give_back_by_sqlite);

/// SQLite: how many more are used in which subnet by which pool, if the statement before this one wrote as many rows as it
/// was to; else this one ends at what may not be null, and nothing was done.
pub(super) const COUNT: &str = concat!(
    "INSERT INTO usage (subnet, pool, slot, used)
    SELECT change.value ->> 0, change.value ->> 1, 0, CASE changes() WHEN ? THEN change.value ->> 2 END
    FROM json_each(?) AS change WHERE true
    ",
    added!()
);

statements!(
    Sql { sqlite: SIZED_TAKE[0], postgres: TAKE },
    Sql { sqlite: SIZED_GIVE_BACK[0], postgres: GIVE_BACK },
    Sql { sqlite: SIZED_RESTED[0], postgres: TAKE },
    Sql { sqlite: COUNT, postgres: TAKE }
);
