//! Nodes as the database has them, and as the API shows them.

use super::super::{
    Result, Versioned,
    db::{Sql, Tx, args, column, over, rows, statements},
    mutation::{age_seconds, corrupt, stored, timestamp},
    subnets, tiling, tokens,
};
use ipam_api::{
    ledger::Footprint,
    line::{Extent, Line, Offset},
    names::{NodeName, PoolName, SubnetPath},
    planning::joined,
    quantity::{MaxPods, RestSeconds},
    wire::{
        Allocator, Block, BlockVersion, Boot, BootSeq, Claim, Conflict, Network, Node, NodeCredential,
        NodeState, Range, RestingAddress,
    },
};
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    ops::Deref,
};

// What each node has of its own.
macro_rules! own_columns {
    () => {
        "n.id, n.name, n.pool, n.subnet, n.own4, n.own6, n.uid, n.mac, n.allocator, n.state,
             n.deletion, n.claim, n.boot_id, n.boot_seq, n.last_contact, n.claimed_at, n.version,
             b.id AS block, b.version AS block_version"
    };
}

// What it shares with many others.
macro_rules! home_columns {
    () => {
        "p.name AS pool_name, p.max_pods, p.rest_seconds,
             v.name AS vnet_name, v.address_space,
             s.name AS subnet_name, s.cidr4, s.cidr6, s.gateway4, s.gateway6"
    };
}

macro_rules! select_node {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            own_columns!(),
            ", ",
            home_columns!(),
            " FROM node AS n
             JOIN pool AS p ON p.id = n.pool
             JOIN subnet AS s ON s.id = n.subnet
             JOIN vnet AS v ON v.id = s.vnet
             JOIN block AS b ON b.node = n.id ",
            $rest
        )
    };
}

macro_rules! select_own {
    ($rest:literal) => {
        concat!("SELECT ", own_columns!(), " FROM node AS n JOIN block AS b ON b.node = n.id ", $rest)
    };
}

// CROSS JOIN: SQLite keeps the order, and so begins with the list, whatever it believes to be in the tables.

const BY_NAME: &str = select_node!("WHERE n.name = $1");
pub(super) const BY_ID: &str = select_node!("WHERE n.id = $1");
pub(super) const PAGE: &str = select_own!("WHERE n.name > $1 ORDER BY n.name LIMIT $2");
pub(super) const PAGE_OF_POOL: &str = select_own!(
    "WHERE n.pool = (SELECT id FROM pool WHERE name = $3) AND n.name > $1 ORDER BY n.name LIMIT $2"
);

/// New nodes by their claims.
const BY_CLAIMS: Sql = over!(
    concat!("SELECT ", own_columns!(), " FROM "),
    "$1",
    " AS wanted CROSS JOIN node AS n CROSS JOIN block AS b
    WHERE n.claim = CAST(wanted.value ->> 0 AS BIGINT) AND b.node = n.id
    ORDER BY n.claim"
);

/// Pools, each with a subnet that nodes of it are in.
const HOMES: Sql = over!(
    concat!("SELECT p.id AS pool, s.id AS subnet, ", home_columns!(), " FROM "),
    "$1",
    " AS wanted CROSS JOIN pool AS p CROSS JOIN subnet AS s CROSS JOIN vnet AS v
    WHERE p.id = CAST(wanted.value ->> 0 AS BIGINT) AND s.id = CAST(wanted.value ->> 1 AS BIGINT)
        AND v.id = s.vnet"
);

// What a block's tile holds and what of it rests is one reading of its part of the ledger: a JSON list of the number and
// of `[offset, since]`, those after the time that is named with the block.
macro_rules! tiles {
    ($list:literal, $values:literal, $group:literal) => {
        concat!(
            "WITH wanted AS MATERIALIZED (
                SELECT CAST(value ->> 0 AS BIGINT) AS block, CAST(value ->> 1 AS BIGINT) AS rests_since FROM ",
            $list,
            ")
            SELECT e.block, e.first, e.next, e.leaving,
                CAST((SELECT ",
            $values,
            "(COUNT(*) FILTER (WHERE a.state = 'held'), ",
            $group,
            "(",
            $values,
            "(a.at_offset, a.since))
                    FILTER (WHERE a.state = 'released' AND a.since > wanted.rests_since))
                 FROM allocation AS a
                 WHERE a.subnet = e.subnet AND a.at_offset >= e.first AND a.at_offset < e.next) AS TEXT) AS ledger
            FROM wanted CROSS JOIN extent AS e
            WHERE e.block = wanted.block
            ORDER BY e.first"
        )
    };
}

const TILES: Sql = Sql {
    sqlite: tiles!("json_each($1)", "json_array", "json_group_array"),
    postgres: tiles!("jsonb_array_elements($1::jsonb)", "json_build_array", "json_agg"),
};

const CONFLICTS: Sql = over!(
    "SELECT c.node, c.at_offset, c.mac, c.seen_at FROM ",
    "$1",
    " AS wanted CROSS JOIN conflict AS c
    WHERE c.node = CAST(wanted.value ->> 0 AS BIGINT)
    ORDER BY c.at_offset"
);

statements!(BY_NAME, BY_ID, BY_CLAIMS, HOMES, TILES, CONFLICTS);

/// A node with its block, without what it shares with others.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct OwnRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) pool: i64,
    pub(super) subnet: i64,
    pub(super) own4: Option<i64>,
    pub(super) own6: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) mac: Option<String>,
    allocator: String,
    pub(super) state: String,
    pub(super) deletion: Option<String>,
    pub(super) claim: i64,
    boot_id: Option<String>,
    boot_seq: i64,
    last_contact: Option<i64>,
    claimed_at: i64,
    pub(super) version: i64,
    pub(super) block: i64,
    block_version: i64,
}

/// Pool, subnet and VNet of a node.
#[derive(Debug, Clone, sqlx::FromRow)]
struct HomeRow {
    pool_name: String,
    max_pods: i64,
    rest_seconds: i64,
    vnet_name: String,
    address_space: String,
    subnet_name: String,
    cidr4: Option<String>,
    cidr6: Option<String>,
    gateway4: Option<String>,
    gateway6: Option<String>,
}

/// A node with what its answer needs of its pool, subnet and block.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct NodeRow {
    #[sqlx(flatten)]
    own: OwnRow,
    #[sqlx(flatten)]
    home: HomeRow,
}

impl Deref for NodeRow {
    type Target = OwnRow;

    fn deref(&self) -> &OwnRow {
        &self.own
    }
}

impl NodeRow {
    pub(super) fn line(&self) -> Result<Line> {
        self.home.line()
    }

    pub(super) fn pool_name(&self) -> &str {
        &self.home.pool_name
    }

    pub(super) fn subnet_path(&self) -> String {
        self.home.subnet_path()
    }

    /// Its own addresses, v4 first.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>> {
        Ok(self.own.addresses_on(self.line()?))
    }
}

impl HomeRow {
    fn line(&self) -> Result<Line> {
        subnets::line(self.cidr4.as_deref(), self.cidr6.as_deref())
    }

    fn subnet_path(&self) -> String {
        format!("{}/{}", self.vnet_name, self.subnet_name)
    }
}

/// The same by row ids.
#[derive(Debug, sqlx::FromRow)]
struct HomeOf {
    pool: i64,
    subnet: i64,
    #[sqlx(flatten)]
    home: HomeRow,
}

/// What the answers of nodes of one pool in one subnet share.
#[derive(Debug, Clone)]
struct Home {
    pool: PoolName,
    subnet: SubnetPath,
    line: Line,
    network: Network,
    max_pods: MaxPods,
    rest_seconds: RestSeconds,
}

impl Home {
    fn of(row: &HomeRow) -> Result<Self> {
        let line = row.line()?;
        let address_space: Vec<IpNet> = serde_json::from_str(&row.address_space).map_err(corrupt)?;
        let gateways = [&row.gateway4, &row.gateway6].into_iter().flatten();
        Ok(Self {
            pool: stored(&row.pool_name)?,
            subnet: stored(&row.subnet_path())?,
            line,
            network: Network {
                cidrs: line.cidrs(),
                gateways: gateways.map(|text| stored(text)).collect::<Result<_>>()?,
                address_space,
            },
            max_pods: MaxPods::try_from(row.max_pods.cast_unsigned()).map_err(corrupt)?,
            rest_seconds: RestSeconds::try_from(row.rest_seconds.cast_unsigned()).map_err(corrupt)?,
        })
    }
}

impl OwnRow {
    pub(super) fn allocator(&self) -> Result<Allocator> {
        match self.allocator.as_str() {
            "node" => Ok(Allocator::Node),
            "service" => Ok(Allocator::Service),
            other => Err(corrupt(format!("allocator {other}"))),
        }
    }

    pub(super) fn state(&self) -> Result<NodeState> {
        match self.state.as_str() {
            "planned" => Ok(NodeState::Planned),
            "active" => Ok(NodeState::Active),
            "deleting" => Ok(NodeState::Deleting),
            other => Err(corrupt(format!("node state {other}"))),
        }
    }

    fn addresses_on(&self, line: Line) -> Vec<IpAddr> {
        let v4 = self.own4.and_then(|own| line.v4_at(Offset(own.cast_unsigned()))).map(IpAddr::V4);
        let v6 = self.own6.and_then(|own| line.v6_at(Offset(own.cast_unsigned()))).map(IpAddr::V6);
        v4.into_iter().chain(v6).collect()
    }

    fn view(&self, home: &Home, parts: &Parts, now: i64) -> Result<Versioned<Node>> {
        let line = home.line;
        let nowhere = || corrupt(format!("block of node {} leaves its subnet", self.name));
        let Lot { footprint, held, resting } = parts.lots.get(&self.block).cloned().unwrap_or_default();
        let leaving = footprint.leaves.iter().map(|leaving| leaving.extent).collect();
        let ranges = |extents: Vec<Extent>| -> Result<Vec<Range>> {
            joined(extents).into_iter().map(|extent| Range::of(line, extent).ok_or_else(nowhere)).collect()
        };
        let resting = resting.into_iter().map(|(at, since)| {
            let address = line.address_at(Offset(at.cast_unsigned())).ok_or_else(nowhere)?;
            Ok(RestingAddress { address, age_seconds: age_seconds(since, now) })
        });
        let conflicts = parts.conflicts.get(&self.id).into_iter().flatten().map(|(at, mac, seen)| {
            let address = line.address_at(Offset(at.cast_unsigned())).ok_or_else(nowhere)?;
            Ok(Conflict { address, mac: mac.clone(), age_seconds: age_seconds(*seen, now) })
        });
        let boot = (self.boot_seq > 0).then(|| Boot {
            id: self.boot_id.clone().unwrap_or_default(),
            seq: BootSeq(self.boot_seq.cast_unsigned()),
        });
        let value = Node {
            name: stored(&self.name)?,
            pool: home.pool.clone(),
            subnet: home.subnet.clone(),
            addresses: self.addresses_on(line),
            mac: self.mac.clone(),
            uid: self.uid.clone(),
            claim: Claim(self.claim.cast_unsigned()),
            block: Block {
                version: BlockVersion(self.block_version.cast_unsigned()),
                ranges: ranges(footprint.stays)?,
                leaving: ranges(leaving)?,
            },
            network: home.network.clone(),
            max_pods: home.max_pods,
            rest_seconds: home.rest_seconds,
            allocator: self.allocator()?,
            boot,
            state: self.state()?,
            deletion: self.deletion.clone(),
            resting: resting.collect::<Result<_>>()?,
            conflicts: conflicts.collect::<Result<_>>()?,
            allocations: held,
            last_contact: self.last_contact.map(timestamp).transpose()?,
            credential: parts.credentials.get(&self.name).cloned(),
            claimed_at: timestamp(self.claimed_at)?,
        };
        Ok(Versioned { value, version: self.version.cast_unsigned() })
    }
}

/// A tile of a block, and of the ledger what lies on it.
#[derive(Debug, sqlx::FromRow)]
struct TileOfBlock {
    block: i64,
    first: i64,
    next: i64,
    leaving: Option<i64>,
    ledger: String,
}

/// What the ledger has of a tile: how many addresses are held, and offsets that rest with since when.
type OnTile = (u64, Option<Vec<(i64, i64)>>);

/// A node's block, and what of it is in use.
#[derive(Debug, Clone, Default)]
struct Lot {
    footprint: Footprint,
    held: u64,
    /// In the order of addresses.
    resting: Vec<(i64, i64)>,
}

/// What hangs on nodes.
#[derive(Debug, Default)]
struct Parts {
    /// By the row ids of the blocks.
    lots: HashMap<i64, Lot>,
    /// By the row ids of the nodes.
    conflicts: HashMap<i64, Vec<(i64, String, i64)>>,
    /// By name: a token may be there before its node.
    credentials: HashMap<String, NodeCredential>,
}

impl Parts {
    async fn of(tx: &mut Tx, nodes: &[(&OwnRow, &Home)], now: i64) -> Result<Self> {
        let rests = |home: &Home| home.rest_seconds.get().cast_signed() * 1000;
        let blocks: Vec<_> = nodes.iter().map(|(row, home)| (row.block, now - rests(home))).collect();
        let mut parts = Self::default();
        for tile in tx.fetch_all::<TileOfBlock>(TILES, args![rows(&blocks)?]).await? {
            let lot = parts.lots.entry(tile.block).or_default();
            tiling::add(&mut lot.footprint, tile.first, tile.next, tile.leaving)?;
            let (held, resting): OnTile = serde_json::from_str(&tile.ledger).map_err(corrupt)?;
            lot.held += held;
            lot.resting.extend(resting.into_iter().flatten());
        }
        for lot in parts.lots.values_mut() {
            lot.resting.sort_unstable();
        }
        let ids = column(nodes.iter().map(|(row, _)| row.id))?;
        let conflicts: Vec<(i64, i64, String, i64)> = tx.fetch_all(CONFLICTS, args![ids]).await?;
        for (node, at, mac, seen) in conflicts {
            parts.conflicts.entry(node).or_default().push((at, mac, seen));
        }
        let names: Vec<&str> = nodes.iter().map(|(row, _)| row.name.as_str()).collect();
        parts.credentials = tokens::shown_by_nodes(tx, &names, now).await?;
        Ok(parts)
    }
}

/// Nodes as the API shows them, in the order of their rows.
pub(super) async fn views(tx: &mut Tx, rows: &[OwnRow], now: i64) -> Result<Vec<Versioned<Node>>> {
    let homes = homes(tx, rows).await?;
    let nowhere = |row: &OwnRow| corrupt(format!("node {} is nowhere", row.name));
    let homes_of = rows.iter().map(|row| homes.get(&(row.pool, row.subnet)).ok_or_else(|| nowhere(row)));
    let homes_of: Vec<&Home> = homes_of.collect::<Result<_>>()?;
    let nodes: Vec<(&OwnRow, &Home)> = rows.iter().zip(homes_of).collect();
    let parts = Parts::of(tx, &nodes, now).await?;
    nodes.into_iter().map(|(row, home)| row.view(home, &parts, now)).collect()
}

/// What nodes share, by the row ids of their pools and subnets.
async fn homes(tx: &mut Tx, nodes: &[OwnRow]) -> Result<HashMap<(i64, i64), Home>> {
    let wanted: BTreeSet<(i64, i64)> = nodes.iter().map(|node| (node.pool, node.subnet)).collect();
    let wanted: Vec<_> = wanted.into_iter().collect();
    let found: Vec<HomeOf> = tx.fetch_all(HOMES, args![rows(&wanted)?]).await?;
    found.into_iter().map(|of| Ok(((of.pool, of.subnet), Home::of(&of.home)?))).collect()
}

/// One node as the API shows it.
pub(super) async fn view(tx: &mut Tx, row: &NodeRow, now: i64) -> Result<Versioned<Node>> {
    let home = Home::of(&row.home)?;
    let parts = Parts::of(tx, &[(&row.own, &home)], now).await?;
    row.own.view(&home, &parts, now)
}

/// The nodes of these claims, in their order.
pub(super) async fn of_claims(tx: &mut Tx, claims: impl Iterator<Item = i64>) -> Result<Vec<OwnRow>> {
    tx.fetch_all(BY_CLAIMS, args![column(claims)?]).await
}

/// The node of this name, if there is one.
pub(super) async fn find(tx: &mut Tx, name: &NodeName) -> Result<Option<NodeRow>> {
    tx.fetch_optional(BY_NAME, args![name.as_str()]).await
}
