use crate::store::{
    Result, StoreError,
    db::{Sql, Tx, args, column, over, statements},
    tiling,
};
use ipam_api::{
    ledger::{Footprint, NodeLedger},
    line::{Line, Offset},
    names::NodeName,
    wire::{Allocator, BlockVersion, BootSeq, Claim, HeldAddress, NodeState, Seq},
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use sqlx::FromRow;
use std::{collections::BTreeSet, net::IpAddr};

/// How exactly `lastContact` is kept: writing it with every request would double the hot path's writes.
const CONTACT_RESOLUTION_SECONDS: i64 = 5;

/// A node with its block: who can hold addresses.
#[derive(Debug, Clone)]
pub(in crate::store) struct Holder {
    pub(in crate::store) id: i64,
    pub(in crate::store) name: NodeName,
    /// Of what people edit of it.
    pub(in crate::store) version: i64,
    pub(in crate::store) pool: i64,
    pub(in crate::store) subnet: i64,
    /// Its gateways may change.
    pub(in crate::store) subnet_version: i64,
    pub(in crate::store) line: Line,
    /// In the order of the line's CIDRs.
    pub(in crate::store) gateways: Vec<IpAddr>,
    pub(in crate::store) allocator: Allocator,
    /// What orders its requests.
    pub(in crate::store) ledger: NodeLedger,
    pub(in crate::store) last_contact: Option<Timestamp>,
    pub(in crate::store) block: i64,
    /// Where the block lies.
    pub(in crate::store) footprint: Footprint,
}

impl Holder {
    /// Both families of an offset, as an allocation shows them.
    pub(in crate::store) fn addresses_at(&self, offset: Offset) -> Vec<HeldAddress> {
        self.line
            .cidrs()
            .into_iter()
            .zip(self.line.addresses_at(offset))
            .zip(&self.gateways)
            .map(|((cidr, address), gateway)| HeldAddress {
                address,
                prefix_length: cidr.prefix_len(),
                gateway: *gateway,
            })
            .collect()
    }

    /// Whether it was heard long enough ago for the next word to be noted.
    pub(in crate::store) fn is_quiet(&self, now: Timestamp) -> bool {
        self.last_contact.is_none_or(|last| now.duration_since(last).as_secs() >= CONTACT_RESOLUTION_SECONDS)
    }

    /// Whether the offset lies in the block, be it leaving or not.
    pub(in crate::store) fn has(&self, offset: Offset) -> bool {
        self.footprint.has(offset)
    }
}

#[derive(FromRow)]
struct HolderRow {
    id: i64,
    name: String,
    version: i64,
    pool: i64,
    subnet: i64,
    subnet_version: i64,
    cidr4: Option<String>,
    cidr6: Option<String>,
    gateway4: Option<String>,
    gateway6: Option<String>,
    allocator: String,
    state: String,
    deletion: Option<String>,
    machine: Option<String>,
    claim: i64,
    boot_id: Option<String>,
    boot_seq: i64,
    floor_seq: i64,
    last_contact: Option<i64>,
    block: i64,
    block_version: i64,
    /// A JSON list of `[first, next, leaving]`.
    extents: Option<String>,
}

macro_rules! holders {
    ($list:literal, $group:literal, $lock:literal) => {
        concat!(
            "SELECT node.id, node.name, node.version, node.pool, node.subnet, subnet.version AS subnet_version,
                 subnet.cidr4, subnet.cidr6, subnet.gateway4, subnet.gateway6, node.allocator, node.state, node.deletion,
                 node.machine, node.claim, node.boot_id, node.boot_seq, node.floor_seq, node.last_contact, block.id AS block, block.version AS block_version,
                 (SELECT ",
            $group,
            " FROM extent WHERE extent.block = block.id) AS extents
             FROM ",
            $list,
            " AS wanted CROSS JOIN node CROSS JOIN block CROSS JOIN subnet
             WHERE node.name = wanted.value ->> 0 AND block.node = node.id AND subnet.id = node.subnet ",
            $lock
        )
    };
}

// What a node holds is changed by one transaction at a time (Scope::Nodes), its node's row is the lock. Extents are
// changed by whoever plans alone, so they are what they were when the wait for that lock began.
const HOLDERS: Sql = Sql {
    sqlite: holders!(
        "json_each($1)",
        "json_group_array(json_array(extent.first, extent.next, extent.leaving))",
        ""
    ),
    postgres: holders!(
        "jsonb_array_elements($1::jsonb)",
        "CAST(json_agg(json_build_array(extent.first, extent.next, extent.leaving)) AS TEXT)",
        "ORDER BY node.id FOR NO KEY UPDATE OF node"
    ),
};

const SAVE_HOLDERS: Sql = over!(
    "UPDATE node
    SET state = changed.value ->> 1, machine = changed.value ->> 2, boot_id = changed.value ->> 3,
        boot_seq = CAST(changed.value ->> 4 AS BIGINT), floor_seq = CAST(changed.value ->> 5 AS BIGINT),
        last_contact = CAST(changed.value ->> 6 AS BIGINT)
    FROM ",
    "$1",
    " AS changed
    WHERE node.id = CAST(changed.value ->> 0 AS BIGINT)"
);

statements!(HOLDERS, SAVE_HOLDERS);

pub(super) async fn load(tx: &mut Tx, names: &BTreeSet<&NodeName>) -> Result<Vec<Holder>> {
    let rows: Vec<HolderRow> = tx.fetch_all(HOLDERS, args![column(names)?]).await?;
    rows.into_iter().map(holder).collect()
}

fn footprint(extents: &str) -> Result<Footprint> {
    let mut extents: Vec<(i64, i64, Option<i64>)> = serde_json::from_str(extents).map_err(unreadable)?;
    extents.sort_unstable();
    let mut footprint = Footprint::default();
    for (first, next, leaving) in extents {
        tiling::add(&mut footprint, first, next, leaving)?;
    }
    Ok(footprint)
}

fn holder(row: HolderRow) -> Result<Holder> {
    let cidrs: Vec<IpNet> = row
        .cidr4
        .iter()
        .chain(&row.cidr6)
        .map(|text| text.parse().map_err(unreadable))
        .collect::<Result<_>>()?;
    Ok(Holder {
        id: row.id,
        name: row.name.parse().map_err(unreadable)?,
        version: row.version,
        pool: row.pool,
        subnet: row.subnet,
        subnet_version: row.subnet_version,
        line: Line::of(&cidrs).map_err(unreadable)?,
        gateways: row
            .gateway4
            .iter()
            .chain(&row.gateway6)
            .map(|text| text.parse().map_err(unreadable))
            .collect::<Result<_>>()?,
        allocator: match row.allocator.as_str() {
            "service" => Allocator::Service,
            _ => Allocator::Node,
        },
        ledger: NodeLedger {
            claim: Claim(row.claim.cast_unsigned()),
            boot: BootSeq(row.boot_seq.cast_unsigned()),
            boot_id: row.boot_id,
            machine: row.machine,
            floor: Seq(row.floor_seq.cast_unsigned()),
            block: BlockVersion(row.block_version.cast_unsigned()),
            state: match row.state.as_str() {
                "planned" => NodeState::Planned,
                "deleting" => NodeState::Deleting,
                _ => NodeState::Active,
            },
            deletion: row.deletion,
        },
        last_contact: row.last_contact.and_then(|at| Timestamp::from_millisecond(at).ok()),
        block: row.block,
        footprint: row.extents.as_deref().map(footprint).transpose()?.unwrap_or_default(),
    })
}

pub(super) async fn save(tx: &mut Tx, holders: impl Iterator<Item = &Holder>) -> Result<()> {
    let changed: Vec<Json> = holders
        .map(|holder| {
            let last_contact = holder.last_contact.map(Timestamp::as_millisecond);
            let NodeLedger { state, machine, boot_id, boot, floor, .. } = &holder.ledger;
            let state = match state {
                NodeState::Planned => "planned",
                NodeState::Active => "active",
                NodeState::Deleting => "deleting",
            };
            json!([holder.id, state, machine, boot_id, boot, floor, last_contact])
        })
        .collect();
    if !changed.is_empty() {
        tx.execute(SAVE_HOLDERS, args![Json::from(changed).to_string()]).await?;
    }
    Ok(())
}

/// What the table holds is not what was written to it.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database(sqlx::Error::Decode(Box::new(error)))
}
