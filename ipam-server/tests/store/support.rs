//! A store on a database of its own, and what every test says in few words.

use ipam_api::{
    names::SubnetPath,
    wire::{Allocator, NodeSpec, PoolSpec, PoolSubnet, ReservationSpec, Severity, SubnetSpec, VnetSpec},
};
use ipam_server::{
    clock::Clock,
    store::{Change, Commit, DatabaseUrl, NodeFilter, Page, Store, StoreError, Turn},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};
use testdb::{Make, Raw, TestDatabase};

/// A clock that tests set.
#[derive(Debug)]
pub(crate) struct SetClock(Mutex<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl SetClock {
    pub(crate) fn pass(&self, seconds: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_secs(seconds);
    }
}

/// A store, its clock and its database.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) database: TestDatabase,
    /// For what is asked past the store, again and again.
    raw: tokio::sync::Mutex<Raw>,
}

/// The turn, as soon as the server has noticed that whoever had it has gone.
pub(crate) async fn turn(store: &Store) -> Turn {
    loop {
        if let Some(turn) = store.take_turn().await.unwrap() {
            return turn;
        }
        tokio::task::yield_now().await;
    }
}

async fn open(url: &str, clock: &Arc<SetClock>) -> Store {
    Store::open(&parse::<DatabaseUrl>(url), clock.clone()).await.unwrap()
}

pub(crate) fn parse<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn all<T: std::str::FromStr<Err: Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| parse(text)).collect()
}

pub(crate) fn keep() -> Change {
    Change::default()
}

pub(crate) fn dry() -> Change {
    Change { commit: Commit::DryRun, ..Change::default() }
}

pub(crate) fn page() -> Page {
    Page { limit: 1000, after: None }
}

pub(crate) fn vnet(space: &[&str]) -> VnetSpec {
    VnetSpec { address_space: all(space), service_cidrs: vec![] }
}

pub(crate) fn subnet(cidrs: &[&str]) -> SubnetSpec {
    SubnetSpec { cidrs: all(cidrs), gateways: vec![], reserve_platform: true }
}

pub(crate) fn reservation(first: &str, last: &str) -> ReservationSpec {
    ReservationSpec { first: parse(first), last: parse(last), reason: "a test".to_owned(), for_nodes: false }
}

/// A pool of blocks of `max_pods` in these subnets, without surge.
pub(crate) fn pool(subnets: &[&str], max_pods: u64, nodes: u64) -> PoolSpec {
    let subnets = subnets.iter().map(|path| PoolSubnet { subnet: parse::<SubnetPath>(path), nodes: None });
    serde_json::from_value(serde_json::json!({
        "subnets": subnets.collect::<Vec<_>>(), "maxPods": max_pods, "nodes": nodes, "surge": 0,
    }))
    .unwrap()
}

pub(crate) fn node(pool: &str, addresses: &[&str]) -> NodeSpec {
    NodeSpec {
        pool: parse(pool),
        addresses: all(addresses),
        mac: None,
        uid: None,
        replace: false,
        allocator: Allocator::Node,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(SetClock(Mutex::new("2026-01-02T03:04:05Z".parse().unwrap())));
        let database = TestDatabase::new(async |url| open(&url, &clock).await.close().await).await;
        let store = open(&database.url(), &clock).await;
        let raw = tokio::sync::Mutex::new(database.connect().await);
        Self { store, clock, database, raw }
    }

    /// With VNet `v` of `10.0.0.0/8` and `fd00::/16` and these subnets in it.
    pub(crate) async fn with_subnets(subnets: &[(&str, &[&str])]) -> Self {
        let world = Self::new().await;
        world.store.put_vnet(&parse("v"), &vnet(&["10.0.0.0/8", "fd00::/16"]), &keep()).await.unwrap();
        for (name, cidrs) in subnets {
            world.store.put_subnet(&parse(&format!("v/{name}")), &subnet(cidrs), &keep()).await.unwrap();
        }
        world
    }

    /// Another replica's store.
    pub(crate) async fn another(&self) -> Store {
        open(&self.database.url(), &self.clock).await
    }

    /// What the background work does, with events kept for so many days.
    pub(crate) async fn prune(&self, keep_days: i64) {
        let mut turn = turn(&self.store).await;
        self.store.prune(&mut turn, SignedDuration::from_hours(24 * keep_days)).await.unwrap();
    }

    /// Closes the store and opens the database anew.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await;
        self.store = open(&self.database.url(), &self.clock).await;
    }

    /// A connection of its own, as any other program would have it.
    pub(crate) async fn connection(&self) -> Raw {
        self.database.connect().await
    }

    pub(crate) async fn sql(&self, sql: &str) -> u64 {
        self.raw.lock().await.execute(sql).await.unwrap()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.raw.lock().await.number(sql).await
    }

    /// Every row of every table, as text.
    pub(crate) async fn dump(&self) -> String {
        dump(&mut *self.raw.lock().await).await
    }

    /// The tiles of a subnet as `first-last kind owner`.
    pub(crate) async fn tiles(&self, path: &str) -> Vec<String> {
        let items = self.store.extents(&parse(path), &page()).await.unwrap().items;
        items
            .iter()
            .map(|item| {
                let kind = serde_json::to_value(item.kind).unwrap();
                let owner = item.owner.as_ref().map_or(String::new(), |owner| format!(" {owner}"));
                format!("{}-{} {}{owner}", item.range.first, item.range.last, kind.as_str().unwrap())
            })
            .collect()
    }

    /// How many addresses the nodes still planned in each subnet lack for themselves, by the subnet's name.
    pub(crate) async fn own_lacks(&self) -> BTreeMap<String, i64> {
        let mut connection = self.raw.lock().await;
        let names = connection.column("SELECT s.name FROM subnet s ORDER BY s.id").await;
        let lacks = connection.column::<i64>(&format!("SELECT {OWN_LACK} FROM subnet s ORDER BY s.id")).await;
        names.into_iter().zip(lacks.into_iter().map(|lack| lack.max(0))).collect()
    }

    /// Tiling and everything that hangs on it, read from the raw tables.
    pub(crate) async fn check(&self) {
        let mut connection = self.raw.lock().await;
        // PostgreSQL knows no moment in which a committed one is broken.
        if Make::wanted() == Make::Sqlite {
            let broken: Vec<String> = connection.column("PRAGMA foreign_key_check").await;
            assert_eq!(broken, [""; 0], "broken foreign keys");
        }
        for (rule, sql) in RULES {
            let wrong = connection.number(sql).await;
            assert_eq!(wrong, 0, "{rule}\n{}", dump(&mut connection).await);
        }
        // What capacity knows by the plan's version is what the tables say now.
        for subnet in self.store.capacity().await.unwrap().subnets {
            for (number, which) in [
                (subnet.free, "e.kind = 'free'"),
                (subnet.reserved, "e.kind = 'reserved'"),
                (subnet.planned, "e.block IN (SELECT id FROM block WHERE node IS NULL)"),
                (subnet.claimed, "e.block IN (SELECT id FROM block WHERE node IS NOT NULL)"),
                (
                    subnet.deleting,
                    "e.block IN (SELECT b.id FROM block AS b JOIN node AS n ON n.id = b.node WHERE n.state = 'deleting')",
                ),
                (subnet.leaving, "e.leaving IS NOT NULL"),
            ] {
                let sql = format!(
                    "SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT) FROM extent AS e
                     JOIN subnet AS s ON s.id = e.subnet JOIN vnet AS v ON v.id = s.vnet
                     WHERE v.name || '/' || s.name = '{}' AND {which}",
                    subnet.subnet
                );
                let now = connection.number(&sql).await;
                assert_eq!(number, now.cast_unsigned(), "{} of {which}", subnet.subnet);
            }
        }
        self.check_lists(&mut connection).await;
        // The doctor asks the same and more, and must not cry wolf.
        let mut findings = self.store.consistency().await.unwrap().findings;
        findings.retain(|found| {
            (found.severity == Severity::Broken || found.code == "usage") && found.code != "refused-addresses"
        });
        assert_eq!(findings, [], "{}", dump(&mut connection).await);
    }
}

impl World {
    /// What is counted of pools and nodes is what the tables say.
    async fn check_lists(&self, connection: &mut Raw) {
        let pools = self.store.capacity().await.unwrap().pools.into_iter().map(|pool| {
            format!("{} {} {} {} {}", pool.pool, pool.blocks, pool.claimed, pool.deleting, pool.leaving)
        });
        assert_eq!(pools.collect::<Vec<_>>(), connection.column::<String>(POOLS).await);

        let nodes = self.store.nodes(&NodeFilter::default(), &page()).await.unwrap().items;
        let held = nodes.iter().map(|node| format!("{} {}", node.name, node.allocations));
        assert_eq!(held.collect::<Vec<_>>(), connection.column::<String>(HELD).await);
        let resting = nodes.iter().flat_map(|node| {
            node.resting.iter().map(|resting| format!("{} {}", node.name, resting.age_seconds))
        });
        let now = self.clock.now().as_millisecond().to_string();
        let sql = RESTING.replace("$now", &now);
        assert_eq!(resting.collect::<Vec<_>>(), connection.column::<String>(&sql).await);
    }
}

const POOLS: &str = "SELECT p.name
        || ' ' || CAST((SELECT COUNT(*) FROM block AS b WHERE b.pool = p.id) AS TEXT)
        || ' ' || CAST((SELECT COUNT(*) FROM node AS n WHERE n.pool = p.id) AS TEXT)
        || ' ' || CAST((SELECT COUNT(*) FROM node AS n WHERE n.pool = p.id AND n.state = 'deleting') AS TEXT)
        || ' ' || CAST((SELECT COALESCE(SUM(e.next - e.first), 0) FROM extent AS e JOIN block AS b ON b.id = e.block
                        WHERE b.pool = p.id AND e.leaving IS NOT NULL) AS TEXT)
    FROM pool AS p ORDER BY p.name";

const HELD: &str =
    "SELECT n.name || ' ' || CAST((SELECT COUNT(*) FROM allocation AS a WHERE a.node = n.id) AS TEXT)
    FROM node AS n ORDER BY n.name";

/// In the order of addresses.
const RESTING: &str = "SELECT n.name || ' ' || CAST(($now - a.since) / 1000 AS TEXT)
    FROM node AS n JOIN block AS b ON b.node = n.id JOIN pool AS p ON p.id = b.pool JOIN extent AS e ON e.block = b.id
    JOIN allocation AS a ON a.subnet = e.subnet AND a.at_offset >= e.first AND a.at_offset < e.next
    WHERE a.state = 'released' AND a.since > $now - p.rest_seconds * 1000
    ORDER BY n.name, a.at_offset";

async fn dump(connection: &mut Raw) -> String {
    let mut out = String::new();
    for (table, sql) in DUMPS {
        let sql = match Make::wanted() {
            Make::Sqlite => sql.to_owned(),
            Make::Postgres => sql.replace("json_array", "json_build_array").replace(") FROM", ")::TEXT FROM"),
        };
        for row in connection.column::<String>(&sql).await {
            writeln!(out, "{table} {row}").unwrap();
        }
    }
    out
}

const DUMPS: [(&str, &str); 13] = [
    (
        "vnet",
        "SELECT json_array(id, name, address_space, service_cidrs, version, created_at) FROM vnet ORDER BY id",
    ),
    (
        "subnet",
        "SELECT json_array(id, vnet, name, cidr4, cidr6, gateway4, gateway6, reserve_platform, length, version) FROM subnet ORDER BY id",
    ),
    (
        "reservation",
        "SELECT json_array(id, subnet, name, first, next, reason, for_nodes, platform, version) FROM reservation ORDER BY id",
    ),
    (
        "pool",
        "SELECT json_array(id, name, max_pods, nodes, surge, headroom, alignment, contiguous, node_address, rest_seconds, version) FROM pool ORDER BY id",
    ),
    (
        "pool_subnet",
        "SELECT json_array(pool, position, subnet, nodes) FROM pool_subnet ORDER BY pool, position",
    ),
    ("counter", "SELECT json_array(name, value) FROM counter ORDER BY name"),
    (
        "node",
        "SELECT json_array(id, name, pool, subnet, own4, own6, uid, mac, machine, allocator, state, deletion, claim, boot_id, boot_seq, floor_seq, claimed_at, version) FROM node ORDER BY id",
    ),
    ("former_vm", "SELECT json_array(node, uid, ended_at) FROM former_vm ORDER BY node, uid"),
    ("block", "SELECT json_array(id, pool, subnet, node, version) FROM block ORDER BY id"),
    (
        "extent",
        "SELECT json_array(subnet, first, next, kind, reservation, node, block, leaving) FROM extent ORDER BY subnet, first",
    ),
    (
        "allocation",
        "SELECT json_array(subnet, at_offset, state, node_name, network, container_id, if_name, since, claim, boot_seq, seq, node, block) FROM allocation ORDER BY subnet, at_offset",
    ),
    (
        "token",
        "SELECT json_array(id, hash, name, role, node, pool, uses_left, node_token_seconds, created_at, created_by, expires_at, last_used_at) FROM token ORDER BY id",
    ),
    (
        "event",
        "SELECT json_array(id, at, actor, token, source, request_id, action, subject, was, became) FROM event ORDER BY id",
    ),
];

/// Planned blocks, less the free addresses and those set aside for nodes at which no node is.
const OWN_LACK: &str = "CAST(
      (SELECT COUNT(*) FROM block b WHERE b.subnet = s.id AND b.node IS NULL)
    - (SELECT COALESCE(SUM(e.next - e.first), 0) FROM extent e WHERE e.subnet = s.id AND e.kind = 'free')
    - (SELECT COALESCE(SUM(r.next - r.first - (
           SELECT COUNT(DISTINCT CASE f.column1 WHEN 4 THEN n.own4 ELSE n.own6 END)
           FROM node n, (VALUES (4), (6)) f WHERE n.subnet = s.id
             AND CASE f.column1 WHEN 4 THEN n.own4 ELSE n.own6 END >= r.first
             AND CASE f.column1 WHEN 4 THEN n.own4 ELSE n.own6 END < r.next)), 0)
       FROM reservation r WHERE r.subnet = s.id AND r.for_nodes = 1) AS BIGINT)";

/// Each counts what breaks it.
const RULES: [(&str, &str); 11] = [
    (
        "every tile ends where the next begins",
        "SELECT COUNT(*) FROM extent e WHERE next IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM extent f WHERE f.subnet = e.subnet AND f.first = e.next)",
    ),
    (
        "tiles cover the line",
        "SELECT COUNT(*) FROM subnet s WHERE s.length <> (SELECT SUM(next - first) FROM extent WHERE subnet = s.id)",
    ),
    (
        "no two free neighbours",
        "SELECT COUNT(*) FROM extent e JOIN extent f ON f.subnet = e.subnet AND f.first = e.next
         WHERE e.kind = 'free' AND f.kind = 'free'",
    ),
    (
        "blocks have their size, but those of nodes being deleted",
        "SELECT COUNT(*) FROM block b JOIN pool p ON p.id = b.pool LEFT JOIN node n ON n.id = b.node
         WHERE p.alignment = 'exact' AND n.state IS DISTINCT FROM 'deleting' AND p.max_pods + p.headroom <>
           (SELECT COALESCE(SUM(next - first), 0) FROM extent WHERE block = b.id AND leaving IS NULL)",
    ),
    (
        "what leaves has left the block's version, and a shim may know it",
        "SELECT COUNT(*) FROM extent e JOIN block b ON b.id = e.block LEFT JOIN node n ON n.id = b.node
         WHERE e.leaving IS NOT NULL
           AND (e.leaving > b.version OR n.id IS NULL OR n.allocator <> 'node' OR n.state = 'planned')",
    ),
    (
        "a block that nobody has is not several tiles side by side",
        "SELECT COUNT(*) FROM block b JOIN extent e ON e.block = b.id
         JOIN extent f ON f.subnet = e.subnet AND f.first = e.next AND f.block = b.id WHERE b.node IS NULL",
    ),
    (
        "a reservation is one tile, where it says",
        "SELECT COUNT(*) FROM reservation r WHERE
           (SELECT COUNT(*) FROM extent WHERE reservation = r.id) <> 1 OR NOT EXISTS
           (SELECT 1 FROM extent e WHERE e.reservation = r.id AND e.first = r.first AND e.next = r.next)",
    ),
    (
        "own addresses lie in reserved tiles",
        "SELECT COUNT(*) FROM node n, (SELECT 4 AS family UNION SELECT 6) f
         WHERE CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM extent e WHERE e.subnet = n.subnet AND e.kind = 'reserved'
              AND e.first <= CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END
              AND CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END < e.next)",
    ),
    (
        "a node's tile is one of its addresses",
        "SELECT COUNT(*) FROM extent e JOIN node n ON n.id = e.node
         WHERE e.next <> e.first + 1 OR (n.own4 IS DISTINCT FROM e.first AND n.own6 IS DISTINCT FROM e.first) OR n.subnet <> e.subnet",
    ),
    (
        "every node has a block in its subnet and pool",
        "SELECT COUNT(*) FROM node n WHERE NOT EXISTS
           (SELECT 1 FROM block b WHERE b.node = n.id AND b.subnet = n.subnet AND b.pool = n.pool)",
    ),
    (
        "what is held lies in its node's block",
        "SELECT COUNT(*) FROM allocation a WHERE a.state = 'held' AND NOT EXISTS
           (SELECT 1 FROM extent e JOIN block b ON b.id = e.block
            WHERE b.node = a.node AND e.subnet = a.subnet AND e.first <= a.at_offset AND a.at_offset < e.next)",
    ),
];

/// The sentence of a refusal, with its kind.
pub(crate) fn refusal<T: Debug>(result: Result<T, StoreError>) -> String {
    let error = result.unwrap_err();
    let kind = format!("{error:?}");
    let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    match &error {
        StoreError::Invalid(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
            format!("Invalid {}", fields.join("; "))
        }
        _ => format!("{kind} {error}"),
    }
}

/// Asserts that a refusal has these words.
#[track_caller]
pub(crate) fn says<T: Debug>(result: Result<T, StoreError>, words: &[&str]) {
    let text = refusal(result);
    for word in words {
        assert!(text.contains(word), "{text:?} has no {word:?}");
    }
}
