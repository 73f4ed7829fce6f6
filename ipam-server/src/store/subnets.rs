mod platform;
mod row;
mod rules;

pub(super) use platform::PREFIX as PLATFORM_PREFIX;
pub(super) use row::{SubnetRow, by_id, find, get, line};

use super::{
    Change, Page, Result, Store, StoreError, Versioned, Written,
    db::{Scope, Tx, args, retried},
    events::Deed,
    mutation::{self, SomeOf, changed, cut, listing, rows_wanted, stored},
    pools::{self, OwnNeed},
    tiling,
    vnets::{self, VnetRow, overlap},
};
use ipam_api::{
    line::Line,
    names::{SubnetPath, VnetName},
    wire::{ExtentInfo, ExtentKind, Listing, Range, Subnet, SubnetSpec},
};
use ipnet::IpNet;
use std::net::IpAddr;

const SIBLINGS: &str = "SELECT name, cidr4, cidr6 FROM subnet WHERE vnet = $1 ORDER BY name";
const INSERT: &str = "INSERT INTO subnet
        (vnet, name, cidr4, cidr6, gateway4, gateway6, reserve_platform, length, version, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, (SELECT value FROM counter WHERE name = 'change'), $9)
    RETURNING id";
const UPDATE: &str =
    "UPDATE subnet SET gateway4 = $2, gateway6 = $3, reserve_platform = $4, version = version + 1
    WHERE id = $1";
const POOLS: &str = "SELECT p.name FROM pool AS p WHERE p.id IN
        (SELECT pool FROM pool_subnet WHERE subnet = $1 UNION SELECT pool FROM block WHERE subnet = $1)
    ORDER BY p.name";
const RESERVATIONS: &str = "SELECT name FROM reservation WHERE subnet = $1 AND platform = 0 ORDER BY name";
const DELETE_HISTORY: &str = "DELETE FROM allocation WHERE subnet = $1";
const DELETE_EXTENTS: &str = "DELETE FROM extent WHERE subnet = $1";
const DELETE_RESERVATIONS: &str = "DELETE FROM reservation WHERE subnet = $1";
const DELETE: &str = "DELETE FROM subnet WHERE id = $1";

macro_rules! select_extent {
    ($rest:literal) => {
        concat!(
            "SELECT e.first, e.next, e.kind, r.name AS reservation, n.name AS node, p.name AS pool
             FROM extent AS e
             LEFT JOIN reservation AS r ON r.id = e.reservation
             LEFT JOIN block AS b ON b.id = e.block
             LEFT JOIN pool AS p ON p.id = b.pool
             LEFT JOIN node AS n ON n.id = COALESCE(e.node, b.node) ",
            $rest
        )
    };
}
const EXTENTS: &str =
    select_extent!("WHERE e.subnet = $1 AND e.kind <> 'end' AND e.first > $2 ORDER BY e.first LIMIT $3");
const EXTENT_AT: &str = select_extent!("WHERE e.subnet = $1 AND e.first = $2");

impl Store {
    /// Makes a subnet, or changes what may change of it.
    pub async fn put_subnet(
        &self,
        path: &SubnetPath,
        spec: &SubnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Subnet>>> {
        let line = rules::line(&spec.cidrs, "/cidrs")?;
        let gateways = rules::gateways(line, &spec.gateways)?;
        let wanted = platform::wanted(line, &gateways, spec.reserve_platform);
        rules::check_room(spec, line, &wanted)?;
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let vnet = vnets::get(&mut tx, &path.vnet).await?;
            let old = find(&mut tx, path).await?;
            mutation::check(
                &change.precondition,
                &format!("subnet {path}"),
                old.as_ref().map(|old| old.version),
            )?;
            let was = old.as_ref().map(SubnetRow::view).transpose()?;
            match old {
                Some(old) => {
                    let was = old.spec()?;
                    if was.cidrs != line.cidrs() {
                        return Err(StoreError::Exists(format!(
                            "subnet {path} exists with {}: its CIDRs are fixed at creation; delete it and create it anew, or name the same",
                            old.line()?
                        )));
                    }
                    if was.gateways != gateways || was.reserve_platform != spec.reserve_platform {
                        let lacked = pools::own_need(&mut tx, old.id).await?;
                        let [gateway4, gateway6] = by_family(&gateways);
                        tx.execute(UPDATE, args![old.id, gateway4, gateway6, spec.reserve_platform]).await?;
                        platform::settle(&mut tx, &old, &wanted, self.now()).await?;
                        check_lack(&mut tx, &old, lacked).await?;
                        changed(&mut tx).await?;
                    }
                }
                None => {
                    check_place(&mut tx, &vnet, line).await?;
                    let id = insert(&mut tx, &vnet, path, line, &gateways, spec.reserve_platform, self.now())
                        .await?;
                    let row = by_id(&mut tx, id).await?;
                    platform::settle(&mut tx, &row, &wanted, self.now()).await?;
                    changed(&mut tx).await?;
                }
            }
            let view = get(&mut tx, path).await?.view()?;
            self.finish(tx, change, &deed(path, was.as_deref(), Some(&view.value))?).await?;
            Ok(if was.is_none() { Written::Created(view) } else { Written::Updated(view) })
        };
        retried!(self.db, attempt())
    }

    /// A subnet.
    pub async fn subnet(&self, path: &SubnetPath) -> Result<Versioned<Subnet>> {
        let mut tx = self.db.read().await?;
        get(&mut tx, path).await?.view()
    }

    /// Subnets of a VNet by name.
    pub async fn subnets(&self, vnet: &VnetName, page: &Page) -> Result<Listing<Subnet>> {
        let mut tx = self.db.read().await?;
        let vnet = vnets::get(&mut tx, vnet).await?;
        let args = args![vnet.id, mutation::name_after(page), rows_wanted(page)];
        let rows: Vec<SubnetRow> = tx.fetch_all(row::PAGE, args).await?;
        listing(rows, page, |row| row.name.clone(), |row| Ok(row.view()?.value))
    }

    /// Deletes a subnet in which nothing but the platform's addresses is reserved.
    pub async fn delete_subnet(&self, path: &SubnetPath, change: &Change) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let subnet = get(&mut tx, path).await?;
            mutation::check(&change.precondition, &format!("subnet {path}"), Some(subnet.version))?;
            for (what, sql) in [("pool", POOLS), ("reservation", RESERVATIONS)] {
                let rows: Vec<(String,)> = tx.fetch_all(sql, args![subnet.id]).await?;
                let names: Vec<_> = rows.into_iter().map(|(name,)| name).collect();
                if !names.is_empty() {
                    return Err(StoreError::InUse(format!(
                        "subnet {path} is used by {} (delete first what uses it)",
                        SomeOf::new(what, &names)
                    )));
                }
            }
            for sql in [DELETE_HISTORY, DELETE_EXTENTS, DELETE_RESERVATIONS, DELETE] {
                tx.execute(sql, args![subnet.id]).await?;
            }
            changed(&mut tx).await?;
            self.finish(tx, change, &deed(path, Some(&subnet.view()?.value), None)?).await
        };
        retried!(self.db, attempt())
    }

    /// The tiles of a subnet in order.
    pub async fn extents(&self, path: &SubnetPath, page: &Page) -> Result<Listing<ExtentInfo>> {
        let after: i64 = match &page.after {
            None => -1,
            Some(text) => text.parse().map_err(|_| {
                StoreError::invalid(
                    "query:after",
                    "after is not what a list answered as next: leave it out to begin anew",
                )
            })?,
        };
        let mut tx = self.db.read().await?;
        let subnet = get(&mut tx, path).await?;
        let line = subnet.line()?;
        let rows: Vec<ExtentRow> = tx.fetch_all(EXTENTS, args![subnet.id, after, rows_wanted(page)]).await?;
        let (rows, next) = cut(rows, page, |row| row.first.to_string());
        Ok(Listing { items: rows.iter().map(|row| row.info(line)).collect::<Result<_>>()?, next })
    }
}

fn deed(path: &SubnetPath, was: Option<&Subnet>, became: Option<&Subnet>) -> Result<Deed> {
    Deed::of(format!("subnet/{path}"), was, became)
}

/// The platform's addresses take none that the nodes still planned need for themselves.
async fn check_lack(tx: &mut Tx, subnet: &SubnetRow, before: OwnNeed) -> Result<()> {
    let lack = pools::own_need(tx, subnet.id).await?.lack();
    if lack <= before.lack() {
        return Ok(());
    }
    Err(StoreError::InUse(format!(
        "with these gateways and reservePlatform the nodes still planned in {} would lack {lack} addresses of their own: choose a gateway inside what is reserved, or lower the nodes of a pool there",
        subnet.path()?
    )))
}

/// An extent with its owner's name.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ExtentRow {
    first: i64,
    next: i64,
    kind: String,
    reservation: Option<String>,
    node: Option<String>,
    pool: Option<String>,
}

impl ExtentRow {
    pub(super) fn info(&self, line: Line) -> Result<ExtentInfo> {
        let extent = tiling::extent(self.first, self.next)?;
        let kind = match self.kind.as_str() {
            "free" => ExtentKind::Free,
            "reserved" => ExtentKind::Reserved,
            "block" => ExtentKind::Block,
            other => return Err(mutation::corrupt(format!("extent of kind {other}"))),
        };
        let owner = match (&self.reservation, &self.node, &self.pool) {
            (Some(name), _, _) => Some(format!("reservation/{name}")),
            (None, Some(name), _) => Some(format!("node/{name}")),
            (None, None, Some(name)) => Some(format!("pool/{name}")),
            (None, None, None) => None,
        };
        let range =
            Range::of(line, extent).ok_or_else(|| mutation::corrupt(format!("{extent} is not on {line}")))?;
        Ok(ExtentInfo { range, size: extent.size(), kind, owner })
    }
}

/// The tile that begins at an offset, with its owner's name.
pub(super) async fn extent_info(tx: &mut Tx, subnet: i64, line: Line, first: u64) -> Result<ExtentInfo> {
    let row: ExtentRow = tx.fetch_one(EXTENT_AT, args![subnet, first]).await?;
    row.info(line)
}

fn by_family(gateways: &[IpAddr]) -> [Option<String>; 2] {
    let of = |v4: bool| gateways.iter().find(|gateway| gateway.is_ipv4() == v4).map(ToString::to_string);
    [of(true), of(false)]
}

async fn insert(
    tx: &mut Tx,
    vnet: &VnetRow,
    path: &SubnetPath,
    line: Line,
    gateways: &[IpAddr],
    reserve_platform: bool,
    now: i64,
) -> Result<i64> {
    let [gateway4, gateway6] = by_family(gateways);
    let args = args![
        vnet.id,
        path.subnet.as_str(),
        line.v4().map(|net| net.to_string()),
        line.v6().map(|net| net.to_string()),
        gateway4,
        gateway6,
        reserve_platform,
        line.length(),
        now,
    ];
    let (id,): (i64,) = tx.fetch_one(INSERT, args).await?;
    tiling::start(tx, id, line.length()).await?;
    Ok(id)
}

/// The line of a subnet to be made with the platform's addresses and default gateways.
pub(super) fn check_new(cidrs: &[IpNet]) -> Result<Line> {
    let spec = SubnetSpec { cidrs: cidrs.to_vec(), gateways: Vec::new(), reserve_platform: true };
    let line = rules::line(cidrs, "/cidrs")?;
    let gateways = rules::gateways(line, &spec.gateways)?;
    rules::check_room(&spec, line, &platform::wanted(line, &gateways, spec.reserve_platform))?;
    Ok(line)
}

/// A subnet lies in its VNet and overlaps no sibling.
pub(super) async fn check_place(tx: &mut Tx, vnet: &VnetRow, line: Line) -> Result<()> {
    let space = vnet.address_space()?;
    for (i, cidr) in line.cidrs().into_iter().enumerate() {
        if !space.iter().any(|around| around.contains(&cidr)) {
            let space: Vec<_> = space.iter().map(ToString::to_string).collect();
            return Err(StoreError::invalid(
                &format!("/cidrs/{i}"),
                format!(
                    "{cidr} is not inside VNet {} ({}): choose a CIDR inside it",
                    vnet.name,
                    space.join(", ")
                ),
            ));
        }
    }
    let siblings: Vec<(String, Option<String>, Option<String>)> =
        tx.fetch_all(SIBLINGS, args![vnet.id]).await?;
    for (name, cidr4, cidr6) in siblings {
        for other in [cidr4, cidr6].into_iter().flatten() {
            let other = stored(&other)?;
            if let Some(cidr) = line.cidrs().into_iter().find(|&cidr| overlap(cidr, other)) {
                return Err(StoreError::Overlap(format!(
                    "{cidr} overlaps {other} of subnet {}/{name}: choose a CIDR apart from it",
                    vnet.name
                )));
            }
        }
    }
    Ok(())
}
