//! Pools as the database has them, and as the API shows them.

use super::super::{
    Kind, Result, StoreError, Versioned,
    db::{Sql, Tx, args, column, over, statements},
    mutation::{corrupt, stored, timestamp},
};
use ipam_api::{
    names::PoolName,
    planning::{BlockShape, Quota},
    quantity::{Headroom, MaxPods, NodeCount, RestSeconds, Surge},
    wire::{Alignment, Contiguity, NodeAddress, Pool, PoolSpec, PoolStatus, PoolSubnet},
};
use std::{collections::HashMap, ops::Deref};

macro_rules! select_pool {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.name, p.max_pods, p.nodes, p.surge, p.headroom, p.alignment, p.contiguous,
                 p.node_address, p.rest_seconds, p.version, p.created_at
             FROM pool AS p ",
            $rest
        )
    };
}

macro_rules! count_pool {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.name, p.max_pods, p.nodes, p.surge, p.headroom, p.alignment, p.contiguous,
                 p.node_address, p.rest_seconds, p.version, p.created_at,
                 (SELECT COUNT(*) FROM block AS b WHERE b.pool = p.id) AS blocks,
                 (SELECT COUNT(*) FROM node AS n WHERE n.pool = p.id) AS claimed,
                 (SELECT COUNT(*) FROM node AS n WHERE n.pool = p.id AND n.state = 'deleting') AS deleting,
                 (SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT)
                  FROM extent AS e CROSS JOIN block AS b
                  WHERE e.leaving IS NOT NULL AND b.id = e.block AND b.pool = p.id) AS leaving
             FROM pool AS p ",
            $rest
        )
    };
}

const KNOWN: &str = select_pool!("WHERE p.name = $1");
const BY_NAME: &str = count_pool!("WHERE p.name = $1");
const BY_ID: &str = count_pool!("WHERE p.id = $1");
const ALL: &str = count_pool!("ORDER BY p.name");
pub(super) const PAGE: &str = count_pool!("WHERE p.name > $1 ORDER BY p.name LIMIT $2");

statements!(KNOWN, SHARES);

const SHARES: Sql = over!(
    "SELECT ps.pool, ps.subnet, v.name, s.name, ps.nodes FROM ",
    "$1",
    " AS wanted CROSS JOIN pool_subnet AS ps CROSS JOIN subnet AS s CROSS JOIN vnet AS v
    WHERE ps.pool = CAST(wanted.value ->> 0 AS BIGINT) AND s.id = ps.subnet AND v.id = s.vnet
    ORDER BY ps.pool, ps.position"
);

/// A pool without its subnets.
#[derive(Debug, Clone, sqlx::FromRow)]
struct PoolRow {
    id: i64,
    name: String,
    max_pods: i64,
    nodes: i64,
    surge: String,
    headroom: i64,
    alignment: String,
    contiguous: String,
    node_address: String,
    rest_seconds: i64,
    version: i64,
    created_at: i64,
}

/// How much of a pool there is; counting takes the longer the larger it is.
#[derive(Debug, Clone, sqlx::FromRow)]
struct CountedRow {
    #[sqlx(flatten)]
    pool: PoolRow,
    blocks: i64,
    claimed: i64,
    deleting: i64,
    leaving: i64,
}

/// A subnet of a pool.
#[derive(Debug, Clone)]
pub(in crate::store) struct Member {
    pub(in crate::store) subnet: i64,
    pub(in crate::store) asked: PoolSubnet,
}

impl Member {
    pub(in crate::store) fn quota(&self) -> Quota {
        self.asked.nodes.map_or(Quota::Spread, Quota::Exactly)
    }
}

/// A pool as it was made.
#[derive(Debug, Clone)]
pub(in crate::store) struct KnownPool {
    pub(in crate::store) id: i64,
    pub(in crate::store) name: PoolName,
    pub(in crate::store) spec: PoolSpec,
    /// In the order of `spec.subnets`.
    pub(in crate::store) members: Vec<Member>,
    pub(in crate::store) version: i64,
    created_at: i64,
}

/// A pool with what there is of it.
#[derive(Debug, Clone)]
pub(in crate::store) struct StoredPool {
    known: KnownPool,
    pub(in crate::store) blocks: u64,
    pub(in crate::store) claimed: u64,
    pub(in crate::store) deleting: u64,
    /// Addresses that its blocks have given up and nodes have not confirmed.
    pub(in crate::store) leaving: u64,
}

impl Deref for StoredPool {
    type Target = KnownPool;

    fn deref(&self) -> &KnownPool {
        &self.known
    }
}

/// The shape of a pool's blocks.
pub(in crate::store) fn shape(spec: &PoolSpec) -> BlockShape {
    BlockShape::new(spec.max_pods, spec.headroom, spec.alignment, spec.contiguous)
}

impl StoredPool {
    /// Blocks it plans: nodes and surge.
    pub(in crate::store) fn wanted(&self) -> u64 {
        self.spec.nodes.get() + self.spec.surge.of(self.spec.nodes)
    }

    pub(in crate::store) fn over_by(&self) -> u64 {
        self.claimed.saturating_sub(self.wanted())
    }

    pub(super) fn view(self) -> Result<Versioned<Pool>> {
        let status = PoolStatus {
            block_size: shape(&self.spec).size(),
            blocks: self.blocks,
            claimed: self.claimed,
            deleting: self.deleting,
            over_by: self.over_by(),
            leaving: self.leaving,
        };
        let KnownPool { name, spec, version, created_at, .. } = self.known;
        let value = Pool { name, spec, status, created_at: timestamp(created_at)? };
        Ok(Versioned { value, version: version.cast_unsigned() })
    }
}

impl KnownPool {
    fn new(row: &PoolRow, members: Vec<Member>) -> Result<Self> {
        let spec = PoolSpec {
            subnets: members.iter().map(|member| member.asked.clone()).collect(),
            max_pods: MaxPods::try_from(row.max_pods.cast_unsigned()).map_err(corrupt)?,
            nodes: NodeCount::try_from(row.nodes.cast_unsigned()).map_err(corrupt)?,
            surge: stored::<Surge>(&row.surge)?,
            headroom: Headroom::try_from(row.headroom.cast_unsigned()).map_err(corrupt)?,
            alignment: match row.alignment.as_str() {
                "exact" => Alignment::Exact,
                "prefix" => Alignment::Prefix,
                other => return Err(corrupt(format!("alignment {other}"))),
            },
            contiguous: match row.contiguous.as_str() {
                "preferred" => Contiguity::Preferred,
                "required" => Contiguity::Required,
                other => return Err(corrupt(format!("contiguous {other}"))),
            },
            node_address: match row.node_address.as_str() {
                "external" => NodeAddress::External,
                "assigned" => NodeAddress::Assigned,
                other => return Err(corrupt(format!("node_address {other}"))),
            },
            rest_seconds: RestSeconds::try_from(row.rest_seconds.cast_unsigned()).map_err(corrupt)?,
        };
        let (version, created_at) = (row.version, row.created_at);
        Ok(Self { id: row.id, name: stored(&row.name)?, spec, members, version, created_at })
    }
}

async fn with_members(tx: &mut Tx, rows: &[&PoolRow]) -> Result<Vec<KnownPool>> {
    let mut members: HashMap<i64, Vec<Member>> = HashMap::new();
    let found: Vec<(i64, i64, String, String, Option<i64>)> =
        tx.fetch_all(SHARES, args![column(rows.iter().map(|row| row.id))?]).await?;
    for (pool, subnet, vnet, name, nodes) in found {
        let nodes =
            nodes.map(|nodes| NodeCount::try_from(nodes.cast_unsigned())).transpose().map_err(corrupt)?;
        let asked = PoolSubnet { subnet: stored(&format!("{vnet}/{name}"))?, nodes };
        members.entry(pool).or_default().push(Member { subnet, asked });
    }
    rows.iter().map(|row| KnownPool::new(row, members.remove(&row.id).unwrap_or_default())).collect()
}

async fn counted(tx: &mut Tx, rows: Vec<CountedRow>) -> Result<Vec<StoredPool>> {
    let pools: Vec<&PoolRow> = rows.iter().map(|row| &row.pool).collect();
    let known = with_members(tx, &pools).await?;
    let with_counts = |(known, row): (KnownPool, CountedRow)| StoredPool {
        known,
        blocks: row.blocks.cast_unsigned(),
        claimed: row.claimed.cast_unsigned(),
        deleting: row.deleting.cast_unsigned(),
        leaving: row.leaving.cast_unsigned(),
    };
    Ok(known.into_iter().zip(rows).map(with_counts).collect())
}

async fn one(tx: &mut Tx, row: Option<CountedRow>) -> Result<Option<StoredPool>> {
    Ok(counted(tx, row.into_iter().collect()).await?.into_iter().next())
}

/// The pool of this name as it was made, if there is one; as quick for a large one as for a small one.
pub(in crate::store) async fn known(tx: &mut Tx, name: &PoolName) -> Result<Option<KnownPool>> {
    let Some(row) = tx.fetch_optional::<PoolRow>(KNOWN, args![name.as_str()]).await? else { return Ok(None) };
    Ok(with_members(tx, &[&row]).await?.into_iter().next())
}

/// The pool of this name, if there is one.
pub(in crate::store) async fn find(tx: &mut Tx, name: &PoolName) -> Result<Option<StoredPool>> {
    let row = tx.fetch_optional(BY_NAME, args![name.as_str()]).await?;
    one(tx, row).await
}

/// The pool of this name.
pub(in crate::store) async fn get(tx: &mut Tx, name: &PoolName) -> Result<StoredPool> {
    find(tx, name).await?.ok_or_else(|| StoreError::NotFound(Kind::Pool, name.to_string()))
}

/// The pool of this row id.
pub(in crate::store) async fn by_id(tx: &mut Tx, id: i64) -> Result<StoredPool> {
    let row = tx.fetch_one(BY_ID, args![id]).await?;
    one(tx, Some(row)).await?.ok_or_else(|| corrupt(format!("pool {id} is gone")))
}

/// All pools by name.
pub(in crate::store) async fn all(tx: &mut Tx) -> Result<Vec<StoredPool>> {
    let rows = tx.fetch_all(ALL, args![]).await?;
    counted(tx, rows).await
}

/// The pools that follow a name.
pub(super) async fn after(tx: &mut Tx, name: String, limit: i64) -> Result<Vec<StoredPool>> {
    let rows = tx.fetch_all(PAGE, args![name, limit]).await?;
    counted(tx, rows).await
}
