use super::{
    Change, Kind, Page, Result, Store, StoreError, Versioned, Written,
    db::{Scope, Tx, args, retried, statements},
    events::Deed,
    mutation::{self, SomeOf, changed, corrupt, listing, rows_wanted, stored, timestamp},
    pools::{self, OwnNeed},
    recovery,
    subnets::{self, SubnetRow},
    tiling::{self, Tile, Use},
};
use ipam_api::{
    line::{Extent, Line, Offset},
    names::{ReservationName, SubnetPath},
    wire::{ExtentKind, FieldError, Listing, Range, Reservation, ReservationSpec},
};
use std::net::IpAddr;

macro_rules! select_reservation {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.name, r.first, r.next, r.reason, r.for_nodes, r.platform, r.version, r.created_at
             FROM reservation AS r ",
            $rest
        )
    };
}

const BY_NAME: &str = select_reservation!("WHERE r.subnet = $1 AND r.name = $2");
const PAGE: &str = select_reservation!("WHERE r.subnet = $1 AND r.name > $2 ORDER BY r.name LIMIT $3");
const NODES_INSIDE: &str = "SELECT n.name FROM node AS n
    WHERE n.subnet = $1 AND ((n.own4 >= $2 AND n.own4 < $3) OR (n.own6 >= $2 AND n.own6 < $3))
    ORDER BY n.name";
const INSERT: &str = "INSERT INTO reservation
        (subnet, name, first, next, reason, for_nodes, platform, version, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, 0, (SELECT value FROM counter WHERE name = 'change'), $7) RETURNING id";
const UPDATE: &str = "UPDATE reservation
    SET first = $2, next = $3, reason = $4, for_nodes = $5, version = version + 1 WHERE id = $1";
const DELETE: &str = "DELETE FROM reservation WHERE id = $1";

const LONGEST_REASON: usize = 256;

statements!(NODES_INSIDE, DELETE);

#[derive(Debug, sqlx::FromRow)]
struct ReservationRow {
    id: i64,
    name: String,
    first: i64,
    next: i64,
    reason: String,
    for_nodes: i64,
    platform: i64,
    version: i64,
    created_at: i64,
}

impl ReservationRow {
    fn extent(&self) -> Result<Extent> {
        tiling::extent(self.first, self.next)
    }

    fn view(&self, subnet: &SubnetRow) -> Result<Versioned<Reservation>> {
        let extent = self.extent()?;
        let range =
            Range::of(subnet.line()?, extent).ok_or_else(|| corrupt("reservation outside its subnet"))?;
        let value = Reservation {
            subnet: subnet.path()?,
            name: stored(&self.name)?,
            range,
            size: extent.size(),
            reason: self.reason.clone(),
            for_nodes: self.for_nodes != 0,
            platform: self.platform != 0,
            created_at: timestamp(self.created_at)?,
        };
        Ok(Versioned { value, version: self.version.cast_unsigned() })
    }
}

impl Store {
    /// Makes a reservation, or changes it to what is asked for.
    pub async fn put_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        spec: &ReservationSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Reservation>>> {
        check_reason(spec)?;
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let subnet = subnets::get(&mut tx, subnet).await?;
            let extent = extent_of(subnet.line()?, spec)?;
            let old = find(&mut tx, &subnet, name).await?;
            mutation::check(
                &change.precondition,
                &title(&subnet, name)?,
                old.as_ref().map(|old| old.version),
            )?;
            refuse_platform(&subnet, name, old.as_ref())?;
            let lacked = pools::own_need(&mut tx, subnet.id).await?;
            match &old {
                None => {
                    recovery::refuse(&mut tx).await?;
                    check_free(&mut tx, &subnet, extent, &format!("reservation {name}")).await?;
                    let (first, next) = (extent.first().0, extent.next().0);
                    let args = args![
                        subnet.id,
                        name.as_str(),
                        first,
                        next,
                        spec.reason.as_str(),
                        spec.for_nodes,
                        self.now()
                    ];
                    let (id,): (i64,) = tx.fetch_one(INSERT, args).await?;
                    tiling::retile(&mut tx, subnet.id, vec![Tile::new(extent, Use::Reservation(id))]).await?;
                    changed(&mut tx).await?;
                }
                Some(old) => {
                    let was = old.extent()?;
                    let same =
                        was == extent && old.reason == spec.reason && (old.for_nodes != 0) == spec.for_nodes;
                    if !same {
                        recovery::refuse(&mut tx).await?;
                        resize(&mut tx, &subnet, old, extent).await?;
                        let (first, next) = (extent.first().0, extent.next().0);
                        tx.execute(UPDATE, args![old.id, first, next, spec.reason.as_str(), spec.for_nodes])
                            .await?;
                        changed(&mut tx).await?;
                    }
                }
            }
            check_lack(&mut tx, &subnet, name, lacked).await?;
            let view = get(&mut tx, &subnet, name).await?.view(&subnet)?;
            let was = old.as_ref().map(|old| old.view(&subnet)).transpose()?;
            self.finish(tx, change, &deed(&subnet, name, was.as_deref(), Some(&view.value))?).await?;
            Ok(if old.is_some() { Written::Updated(view) } else { Written::Created(view) })
        };
        retried!(self.db, attempt())
    }

    /// A reservation.
    pub async fn reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
    ) -> Result<Versioned<Reservation>> {
        let mut tx = self.db.read().await?;
        let subnet = subnets::get(&mut tx, subnet).await?;
        get(&mut tx, &subnet, name).await?.view(&subnet)
    }

    /// Reservations of a subnet by name.
    pub async fn reservations(&self, subnet: &SubnetPath, page: &Page) -> Result<Listing<Reservation>> {
        let mut tx = self.db.read().await?;
        let subnet = subnets::get(&mut tx, subnet).await?;
        let args = args![subnet.id, mutation::name_after(page), rows_wanted(page)];
        let rows: Vec<ReservationRow> = tx.fetch_all(PAGE, args).await?;
        listing(rows, page, |row| row.name.clone(), |row| Ok(row.view(&subnet)?.value))
    }

    /// Deletes a reservation that covers no registered node's address.
    pub async fn delete_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        change: &Change,
    ) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let subnet = subnets::get(&mut tx, subnet).await?;
            let old = get(&mut tx, &subnet, name).await?;
            mutation::check(&change.precondition, &title(&subnet, name)?, Some(old.version))?;
            refuse_platform(&subnet, name, Some(&old))?;
            let extent = old.extent()?;
            refuse_uncovering(&mut tx, &subnet, &old, extent).await?;
            tiling::retile(&mut tx, subnet.id, vec![Tile::new(extent, Use::Free)]).await?;
            tx.execute(DELETE, args![old.id]).await?;
            changed(&mut tx).await?;
            self.finish(tx, change, &deed(&subnet, name, Some(&old.view(&subnet)?.value), None)?).await
        };
        retried!(self.db, attempt())
    }
}

fn deed(
    subnet: &SubnetRow,
    name: &ReservationName,
    was: Option<&Reservation>,
    became: Option<&Reservation>,
) -> Result<Deed> {
    Deed::of(format!("reservation/{}/{name}", subnet.path()?), was, became)
}

fn title(subnet: &SubnetRow, name: &ReservationName) -> Result<String> {
    Ok(format!("reservation {}/{name}", subnet.path()?))
}

async fn find(tx: &mut Tx, subnet: &SubnetRow, name: &ReservationName) -> Result<Option<ReservationRow>> {
    tx.fetch_optional(BY_NAME, args![subnet.id, name.as_str()]).await
}

async fn get(tx: &mut Tx, subnet: &SubnetRow, name: &ReservationName) -> Result<ReservationRow> {
    let missing = format!("{}/{name}", subnet.path()?);
    find(tx, subnet, name).await?.ok_or(StoreError::NotFound(Kind::Reservation, missing))
}

fn check_reason(spec: &ReservationSpec) -> Result<()> {
    let wrong = if spec.reason.trim().is_empty() {
        "reason is empty: say why these addresses are kept out of planning"
    } else if spec.reason.chars().count() > LONGEST_REASON {
        "reason is longer than 256 characters: shorten it"
    } else {
        return Ok(());
    };
    Err(StoreError::invalid("/reason", wrong))
}

/// The extent a reservation's addresses are.
fn extent_of(line: Line, spec: &ReservationSpec) -> Result<Extent> {
    let mut errors = Vec::new();
    let mut offset = |pointer: &str, address: IpAddr| match line.offset_of(address) {
        Ok(offset) => offset,
        Err(error) => {
            let detail = format!("{error}: give an address of the subnet");
            errors.push(FieldError { pointer: pointer.to_owned(), detail });
            Offset(0)
        }
    };
    let (first, last) = (offset("/first", spec.first), offset("/last", spec.last));
    if !errors.is_empty() {
        return Err(StoreError::Invalid(errors));
    }
    if spec.first.is_ipv4() != spec.last.is_ipv4() {
        return Err(StoreError::invalid(
            "/last",
            format!("{} is not of the family of {}: give both ends in one family", spec.last, spec.first),
        ));
    }
    Extent::inclusive(first, last).ok_or_else(|| {
        StoreError::invalid(
            "/last",
            format!("{} is before {}: give the lower address as first", spec.last, spec.first),
        )
    })
}

fn refuse_platform(subnet: &SubnetRow, name: &ReservationName, old: Option<&ReservationRow>) -> Result<()> {
    match old {
        Some(old) if old.platform != 0 => Err(StoreError::InUse(format!(
            "{} is the platform's: it goes with the subnet's reservePlatform and gateways, so change those",
            title(subnet, name)?
        ))),
        None if name.as_str().starts_with(subnets::PLATFORM_PREFIX) => Err(StoreError::invalid(
            "path:reservation",
            format!("names that begin with {} are the platform's: choose another", subnets::PLATFORM_PREFIX),
        )),
        _ => Ok(()),
    }
}

/// A reservation takes no address that the nodes still planned need for themselves.
async fn check_lack(tx: &mut Tx, subnet: &SubnetRow, name: &ReservationName, before: OwnNeed) -> Result<()> {
    let lack = pools::own_need(tx, subnet.id).await?.lack();
    if lack <= before.lack() {
        return Ok(());
    }
    Err(StoreError::InUse(format!(
        "with reservation {name} the nodes still planned in {} would lack {lack} addresses of their own: set forNodes, choose fewer addresses, or lower the nodes of a pool there",
        subnet.path()?
    )))
}

/// Moves a reservation: what it leaves becomes free, what it gains must be.
async fn resize(tx: &mut Tx, subnet: &SubnetRow, old: &ReservationRow, new: Extent) -> Result<()> {
    let was = old.extent()?;
    let mut edits = vec![Tile::new(new, Use::Reservation(old.id))];
    for lost in minus(was, new) {
        refuse_uncovering(tx, subnet, old, lost).await?;
        edits.push(Tile::new(lost, Use::Free));
    }
    for gained in minus(new, was) {
        check_free(tx, subnet, gained, &format!("reservation {}", old.name)).await?;
    }
    tiling::retile(tx, subnet.id, edits).await
}

/// What of `a` is not in `b`.
fn minus(a: Extent, b: Extent) -> impl Iterator<Item = Extent> {
    let below = Extent::new(a.first(), a.next().min(b.first()));
    let above = Extent::new(a.first().max(b.next()), a.next());
    below.into_iter().chain(above)
}

async fn refuse_uncovering(
    tx: &mut Tx,
    subnet: &SubnetRow,
    old: &ReservationRow,
    lost: Extent,
) -> Result<()> {
    let nodes = nodes_inside(tx, subnet.id, lost).await?;
    if nodes.is_empty() {
        return Ok(());
    }
    Err(StoreError::InUse(format!(
        "reservation {}/{} covers the own address of {}; delete first what is registered there",
        subnet.path()?,
        old.name,
        SomeOf::new("node", &nodes)
    )))
}

/// Names of the nodes with an own address in an extent.
pub(super) async fn nodes_inside(tx: &mut Tx, subnet: i64, extent: Extent) -> Result<Vec<String>> {
    let args = args![subnet, extent.first().0, extent.next().0];
    let rows: Vec<(String,)> = tx.fetch_all(NODES_INSIDE, args).await?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

/// Nothing but nodes' own addresses is in an extent that a reservation is to cover.
pub(super) async fn check_free(tx: &mut Tx, subnet: &SubnetRow, extent: Extent, who: &str) -> Result<()> {
    let tiles = tiling::inside(tx, subnet.id, extent).await?;
    let taken = |usage| matches!(usage, Use::Reservation(_) | Use::Block(_) | Use::Leaving { .. });
    let Some(tile) = tiles.iter().find(|tile| taken(tile.usage)) else {
        return Ok(());
    };
    let line = subnet.line()?;
    let info = subnets::extent_info(tx, subnet.id, line, tile.extent.first().0).await?;
    let owner = info.owner.unwrap_or_default();
    let (kind, name) = owner.split_once('/').unwrap_or(("", &owner));
    let range = format!("{} to {}", info.range.first, info.range.last);
    Err(match (info.kind, kind) {
        (ExtentKind::Block, "pool") => StoreError::InUse(format!(
            "{who} would cover {range}, planned for a node of pool {name}: choose other addresses, or lower the pool's nodes first and raise them again after"
        )),
        (ExtentKind::Block, _) => StoreError::InUse(format!(
            "{who} would cover {range}, the block of node {name}: choose other addresses or delete the node first"
        )),
        _ => StoreError::Overlap(format!(
            "{who} would overlap reservation {name} ({range}): choose other addresses or change that reservation first"
        )),
    })
}
