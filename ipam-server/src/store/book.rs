//! The rows of the ledger that a transaction touches: loaded by few statements,
//! changed in memory by the rules of `ipam_api::ledger`, written back by few.

mod holder;
mod known;
mod row;

pub(super) use holder::Holder;
pub(super) use known::KnownHolders;
pub(super) use row::{Row, Tenancy};

use super::{
    Result, StoreError,
    db::{Sql, Tx, args, over, rows, statements},
    mutation::corrupt,
    usage,
};
use ipam_api::{
    ledger::BootChange,
    line::Offset,
    names::{Attachment, NodeName},
    wire::NodeStamp,
};
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where an address is: its subnet and its offset there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    pub(super) subnet: i64,
    pub(super) offset: Offset,
}

/// Nodes and ledger rows of one transaction.
#[derive(Debug, Default)]
pub(super) struct Book {
    holders: HashMap<NodeName, Holder>,
    rows: BTreeMap<Position, Row>,
    changed_rows: BTreeSet<Position>,
    /// Positions whose holder in the table is not the one that is to be written.
    vacated: BTreeSet<Position>,
    changed_holders: BTreeSet<NodeName>,
    usage: usage::Changes,
    /// How long addresses had rested that others took, in milliseconds.
    rested: Vec<i64>,
}

macro_rules! rows_named {
    ($at:literal, $of:literal) => {
        concat!(
            "SELECT allocation.* FROM ",
            $at,
            " AS wanted CROSS JOIN allocation
            WHERE allocation.subnet = CAST(wanted.value ->> 0 AS BIGINT)
                AND allocation.at_offset = CAST(wanted.value ->> 1 AS BIGINT)
            UNION ALL
            SELECT allocation.* FROM ",
            $of,
            " AS wanted CROSS JOIN allocation
            WHERE allocation.node = CAST(wanted.value ->> 0 AS BIGINT)
                AND allocation.network = wanted.value ->> 1
                AND allocation.container_id = wanted.value ->> 2
                AND allocation.if_name = wanted.value ->> 3"
        )
    };
}

// Rows of addresses ($1), and those that attachments hold ($2); one that is both comes twice.
const ROWS_NAMED: Sql = Sql {
    sqlite: rows_named!("json_each($1)", "json_each($2)"),
    postgres: rows_named!("jsonb_array_elements($1::jsonb)", "jsonb_array_elements($2::jsonb)"),
};

const ROWS_HELD_BY: &str = "SELECT * FROM allocation WHERE node = $1";

const ROWS_OF_BLOCK: &str = "
SELECT allocation.*
FROM extent
JOIN allocation ON allocation.subnet = extent.subnet
    AND allocation.at_offset >= extent.first AND allocation.at_offset < extent.next
WHERE extent.block = $1";

const VACATE: Sql = over!(
    "UPDATE allocation
    SET state = 'released', node = NULL, block = NULL, extent_first = NULL, extent_next = NULL
    FROM ",
    "$1",
    " AS vacated
    WHERE allocation.subnet = CAST(vacated.value ->> 0 AS BIGINT)
        AND allocation.at_offset = CAST(vacated.value ->> 1 AS BIGINT)"
);

/// A row that is there gets every value of the one that was to be inserted; which state, is to be said.
macro_rules! in_place {
    ($state:expr) => {
        concat!(
            "ON CONFLICT (subnet, at_offset) DO UPDATE SET
        state = ",
            $state,
            ", node_name = excluded.node_name, network = excluded.network,
        container_id = excluded.container_id, if_name = excluded.if_name,
        pod_namespace = excluded.pod_namespace, pod_name = excluded.pod_name, pod_uid = excluded.pod_uid,
        since = excluded.since, claim = excluded.claim, boot_seq = excluded.boot_seq, seq = excluded.seq,
        node = excluded.node, block = excluded.block,
        extent_first = excluded.extent_first, extent_next = excluded.extent_next"
        )
    };
}
pub(super) use in_place;

// Whoever holds an address by then keeps it, even if all else failed: a row that is held is never another's at once.
const SAVE_ROWS: Sql = over!(
    "INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name,
                             pod_namespace, pod_name, pod_uid, since, claim, boot_seq, seq,
                             node, block, extent_first, extent_next)
    SELECT CAST(value ->> 0 AS BIGINT), CAST(value ->> 1 AS BIGINT), value ->> 2, value ->> 3, value ->> 4,
           value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9,
           CAST(value ->> 10 AS BIGINT), CAST(value ->> 11 AS BIGINT), CAST(value ->> 12 AS BIGINT),
           CAST(value ->> 13 AS BIGINT), CAST(value ->> 14 AS BIGINT), CAST(value ->> 15 AS BIGINT),
           CAST(value ->> 16 AS BIGINT), CAST(value ->> 17 AS BIGINT)
    FROM ",
    "$1",
    concat!(
        " WHERE true ",
        in_place!("excluded.state"),
        "
    WHERE allocation.state = 'released' OR excluded.state = 'released'"
    )
);

statements!(ROWS_NAMED, ROWS_HELD_BY, ROWS_OF_BLOCK, VACATE, SAVE_ROWS; holder);

impl Book {
    /// Loads nodes with their blocks.
    pub(super) async fn load_holders(&mut self, tx: &mut Tx, names: &BTreeSet<&NodeName>) -> Result<()> {
        for holder in holder::load(tx, names).await? {
            self.holders.insert(holder.name.clone(), holder);
        }
        Ok(())
    }

    /// Loads the rows of these addresses, and what these attachments of nodes hold.
    pub(super) async fn load_rows(
        &mut self,
        tx: &mut Tx,
        positions: &BTreeSet<Position>,
        attachments: &BTreeSet<(i64, &Attachment)>,
    ) -> Result<()> {
        let positions: Vec<_> = positions.iter().map(|at| (at.subnet, at.offset)).collect();
        let attachments: Vec<_> =
            attachments.iter().map(|(node, at)| (node, &at.network, &at.container_id, &at.if_name)).collect();
        let found = tx.fetch_all(ROWS_NAMED, args![rows(&positions)?, rows(&attachments)?]).await?;
        self.keep(found);
        Ok(())
    }

    /// Loads all that a node holds.
    pub(super) async fn load_held_by(&mut self, tx: &mut Tx, holder: i64) -> Result<()> {
        let rows = tx.fetch_all(ROWS_HELD_BY, args![holder]).await?;
        self.keep(rows);
        Ok(())
    }

    /// Loads every row of a block's addresses.
    pub(super) async fn load_block(&mut self, tx: &mut Tx, block: i64) -> Result<()> {
        let rows = tx.fetch_all(ROWS_OF_BLOCK, args![block]).await?;
        self.keep(rows);
        Ok(())
    }

    fn keep(&mut self, rows: Vec<Row>) {
        for row in rows {
            // What this transaction changed already is newer than what it reads again.
            self.rows.entry(row.position()).or_insert(row);
        }
    }

    /// A node, if it is registered.
    pub(super) fn holder(&self, name: &NodeName) -> Option<&Holder> {
        self.holders.get(name)
    }

    /// Changes a node.
    pub(super) fn change_holder(&mut self, holder: Holder) {
        self.changed_holders.insert(holder.name.clone());
        self.holders.insert(holder.name.clone(), holder);
    }

    /// Lets a node's request in: notes its boot and machine, and ends what earlier boots held.
    ///
    /// The rows that the node holds must be loaded where the boot may be a later one.
    ///
    /// # Errors
    /// The request is stale; nothing changes.
    pub(super) fn admit(&mut self, node: &NodeName, stamp: &NodeStamp, now: Timestamp) -> Result<Holder> {
        let holder = self.holders.get(node).cloned().ok_or_else(|| {
            StoreError::StaleClaim(format!("node {node} is not registered; register it again"))
        })?;
        let admission =
            holder.ledger.admit(stamp).map_err(|stale| StoreError::StaleClaim(stale.to_string()))?;
        if admission.boot == BootChange::Newer {
            self.end(holder.id, now, |_| true);
        }
        let quiet = holder.is_quiet(now);
        let admitted = Holder {
            last_contact: if quiet { Some(now) } else { holder.last_contact },
            ledger: admission.node,
            ..holder.clone()
        };
        if quiet || admitted.ledger != holder.ledger {
            self.change_holder(admitted.clone());
        }
        Ok(admitted)
    }

    /// Ends what a node's attachments hold, where `which` says so; the rows keep their stamps.
    pub(super) fn end(&mut self, holder: i64, now: Timestamp, which: impl Fn(&Row) -> bool) {
        let ended: Vec<Row> =
            self.held_by(holder).filter(|row| which(row)).map(|row| row.released(row.stamp(), now)).collect();
        for row in ended {
            self.put(row);
        }
    }

    /// The row of an address.
    pub(super) fn row(&self, at: Position) -> Option<&Row> {
        self.rows.get(&at)
    }

    /// The rows that a node's attachments hold.
    pub(super) fn held_by(&self, holder: i64) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(move |row| row.node == Some(holder))
    }

    /// All rows in an extent of a subnet.
    pub(super) fn rows_in(&self, subnet: i64, first: Offset, next: Offset) -> impl Iterator<Item = &Row> {
        self.rows
            .range(Position { subnet, offset: first }..Position { subnet, offset: next })
            .map(|(_, row)| row)
    }

    /// How long addresses had rested that others took, in milliseconds.
    pub(super) fn rested(&self) -> &[i64] {
        &self.rested
    }

    /// Writes a row.
    pub(super) fn put(&mut self, row: Row) {
        let at = row.position();
        if let Some(before) = self.rows.get(&at).filter(|before| row.is_held() && !before.is_held())
            && !before.is_of_same(&row)
        {
            self.rested.push(row.since - before.since);
        }
        if let Some(block) = row.block {
            *self.usage.entry(block).or_default() += 1;
        }
        if let Some(before) = self.rows.insert(at, row).filter(Row::is_held) {
            if let Some(block) = before.block {
                *self.usage.entry(block).or_default() -= 1;
            }
            self.vacated.insert(at);
        }
        self.changed_rows.insert(at);
    }

    /// Writes everything changed. What ends goes before what begins, because an
    /// attachment holds one address at a time; an address that goes from one
    /// attachment to another does both.
    pub(super) async fn save(&mut self, tx: &mut Tx) -> Result<()> {
        let vacated = std::mem::take(&mut self.vacated);
        let vacated: Vec<Json> = vacated
            .into_iter()
            .filter(|at| self.rows.get(at).is_some_and(Row::is_held))
            .map(|at| json!([at.subnet, at.offset.0]))
            .collect();
        if !vacated.is_empty() {
            tx.execute(VACATE, args![Json::from(vacated).to_string()]).await?;
        }
        let (held, released): (Vec<&Row>, Vec<&Row>) = std::mem::take(&mut self.changed_rows)
            .into_iter()
            .filter_map(|at| self.rows.get(&at))
            .partition(|row| row.is_held());
        for rows in [released, held] {
            if !rows.is_empty() {
                let count = rows.len() as u64;
                let json = Json::from_iter(rows.into_iter().map(Row::to_json));
                if tx.execute(SAVE_ROWS, args![json.to_string()]).await? != count {
                    return Err(corrupt("an address that was to be held is held by another"));
                }
            }
        }
        usage::note(tx, &std::mem::take(&mut self.usage)).await?;
        let changed = std::mem::take(&mut self.changed_holders);
        holder::save(tx, changed.iter().filter_map(|name| self.holders.get(name))).await
    }
}
