//! A node's own addresses: where they may lie, and what gives way to them.

use super::{
    super::{
        Result, Shortage, StoreError,
        db::{Tx, args, statements},
        mutation::corrupt,
        pools::{self, KnownPool, Member, OwnNeed},
        subnets::{self, SubnetRow},
        tiling::{self, Tile, Use},
    },
    row::NodeRow,
};
use ipam_api::{
    line::{Extent, Line, Offset},
    planning::Misfit,
    wire::SubnetShortage,
};
use std::net::IpAddr;

const HOLDER4: &str = "SELECT name FROM node WHERE subnet = $1 AND own4 = $2 AND name <> $3";
const HOLDER6: &str = "SELECT name FROM node WHERE subnet = $1 AND own6 = $2 AND name <> $3";
const RESERVATION: &str = "SELECT name, platform FROM reservation WHERE id = $1";
const BLOCK: &str =
    "SELECT b.pool, n.name FROM block AS b LEFT JOIN node AS n ON n.id = b.node WHERE b.id = $1";
const MOVE_BLOCK: &str = "UPDATE block SET subnet = $2 WHERE id = $1 AND node IS NULL";
const FOR_NODES: &str =
    "SELECT first, next FROM reservation WHERE subnet = $1 AND for_nodes = 1 ORDER BY first";
const USED: &str = "SELECT own4 FROM node WHERE subnet = $1 AND own4 >= $2 AND own4 < $3
    UNION SELECT own6 FROM node WHERE subnet = $1 AND own6 >= $2 AND own6 < $3
    ORDER BY 1";
const SMALLEST_FREE: &str = "SELECT e.first FROM extent AS e WHERE e.subnet = $1 AND e.kind = 'free'
    ORDER BY e.next - e.first, e.first LIMIT 1";

statements!(HOLDER4, HOLDER6, RESERVATION, BLOCK, MOVE_BLOCK, FOR_NODES, USED, SMALLEST_FREE);

/// Offsets of a node's own addresses; at least one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) v4: Option<Offset>,
    pub(super) v6: Option<Offset>,
}

impl Own {
    pub(super) fn of_row(row: &NodeRow) -> Self {
        let offset = |own: Option<i64>| own.map(|own| Offset(own.cast_unsigned()));
        Self { v4: offset(row.own4), v6: offset(row.own6) }
    }

    /// One offset in every family of a line.
    fn both(line: Line, offset: Offset) -> Self {
        Self { v4: line.v4().map(|_| offset), v6: line.v6().map(|_| offset) }
    }

    /// The distinct offsets, v4's first.
    pub(super) fn offsets(self) -> Vec<Offset> {
        let mut offsets: Vec<_> = self.v4.into_iter().chain(self.v6).collect();
        offsets.dedup();
        offsets
    }

    fn address(self, line: Line, offset: Offset) -> String {
        let v4 = self.v4.filter(|&own| own == offset).and_then(|own| line.v4_at(own)).map(IpAddr::V4);
        let v6 = self.v6.filter(|&own| own == offset).and_then(|own| line.v6_at(own)).map(IpAddr::V6);
        v4.or(v6).map_or_else(|| offset.to_string(), |address| address.to_string())
    }
}

/// The subnet of a pool that a node's addresses lie in, and where there.
pub(super) async fn locate(tx: &mut Tx, pool: &KnownPool, addresses: &[IpAddr]) -> Result<(SubnetRow, Own)> {
    let mut subnets = subnets_of(tx, pool).await?;
    let (at, own) = find(pool, &subnets, addresses)?;
    Ok((subnets.swap_remove(at), own))
}

/// The subnets of a pool, in the order of its members.
pub(super) async fn subnets_of(tx: &mut Tx, pool: &KnownPool) -> Result<Vec<SubnetRow>> {
    let mut subnets = Vec::with_capacity(pool.members.len());
    for member in &pool.members {
        subnets.push(subnets::by_id(tx, member.subnet).await?);
    }
    Ok(subnets)
}

/// Which of a pool's subnets a node's addresses lie in, and where there.
pub(super) fn find(pool: &KnownPool, subnets: &[SubnetRow], addresses: &[IpAddr]) -> Result<(usize, Own)> {
    let lines = subnets.iter().map(SubnetRow::line).collect::<Result<Vec<_>>>()?;
    let Some(first) = addresses.first() else {
        return Err(corrupt("addresses are looked for where none are"));
    };
    let Some(at) = lines.iter().position(|line| holds(*line, *first)) else {
        let paths = subnets.iter().zip(&lines);
        let paths = paths.map(|(row, line)| Ok(format!("{} ({line})", row.path()?)));
        return Err(StoreError::invalid(
            "/addresses/0",
            format!(
                "{first} is in no subnet of pool {}: give an address in {}, or add its subnet to the pool",
                pool.name,
                paths.collect::<Result<Vec<_>>>()?.join(" or ")
            ),
        ));
    };
    Ok((at, on_line(lines[at], addresses)?))
}

fn holds(line: Line, address: IpAddr) -> bool {
    line.cidrs().iter().any(|cidr| cidr.contains(&address))
}

/// Where addresses, one a family, lie on a line.
pub(super) fn on_line(line: Line, addresses: &[IpAddr]) -> Result<Own> {
    let mut own = Own { v4: None, v6: None };
    for (i, &address) in addresses.iter().enumerate() {
        let offset = line.offset_of(address).map_err(|_| {
            let cure = if holds(line, address) {
                format!(
                    "it lies beyond the {} addresses that are planned: choose a lower one or leave it out",
                    line.length()
                )
            } else {
                "give addresses of one subnet of the pool".to_owned()
            };
            StoreError::invalid(&format!("/addresses/{i}"), format!("{address} is not in {line}; {cure}"))
        })?;
        let family = if address.is_ipv4() { &mut own.v4 } else { &mut own.v6 };
        *family = Some(offset);
    }
    Ok(own)
}

/// An address of a subnet for a node that brings none: one set aside for nodes, else
/// one from the smallest hole.
pub(super) async fn choose(tx: &mut Tx, subnet: &SubnetRow) -> Result<Option<Own>> {
    let line = subnet.line()?;
    for (first, next) in tx.fetch_all::<(i64, i64)>(FOR_NODES, args![subnet.id]).await? {
        let used: Vec<(i64,)> = tx.fetch_all(USED, args![subnet.id, first, next]).await?;
        let lowest = used.iter().zip(first..).take_while(|((used,), at)| used == at).count();
        let lowest = first + i64::try_from(lowest).unwrap_or(i64::MAX);
        if lowest < next {
            return Ok(Some(Own::both(line, Offset(lowest.cast_unsigned()))));
        }
    }
    let free: Option<(i64,)> = tx.fetch_optional(SMALLEST_FREE, args![subnet.id]).await?;
    Ok(free.map(|(first,)| Own::both(line, Offset(first.cast_unsigned()))))
}

/// What has to happen for a node to have its own addresses.
#[derive(Debug)]
pub(super) struct Entry {
    /// Offsets to reserve for it.
    reserve: Vec<Offset>,
    /// Planned blocks that lie there, with their pools.
    aside: Vec<(i64, i64)>,
    /// How many offsets its own addresses have.
    offsets: usize,
}

impl Entry {
    /// Whether it is one offset, where nothing is free nor planned: that of a reservation, or of another node.
    pub(super) fn is_set_aside(&self) -> bool {
        self.offsets == 1 && self.reserve.is_empty() && self.aside.is_empty()
    }
}

/// Whether a node may have these own addresses.
pub(super) async fn admit(tx: &mut Tx, subnet: &SubnetRow, own: Own, name: &str) -> Result<Entry> {
    let line = subnet.line()?;
    for (sql, offset) in [(HOLDER4, own.v4), (HOLDER6, own.v6)] {
        let Some(offset) = offset else { continue };
        let holder: Option<(String,)> = tx.fetch_optional(sql, args![subnet.id, offset.0, name]).await?;
        if let Some((holder,)) = holder {
            return Err(StoreError::Overlap(format!(
                "{} is the own address of node {holder}: give another, or delete that node first",
                own.address(line, offset)
            )));
        }
    }
    let mut entry = Entry { reserve: Vec::new(), aside: Vec::new(), offsets: own.offsets().len() };
    for offset in own.offsets() {
        let address = own.address(line, offset);
        match tiling::at(tx, subnet.id, offset).await?.usage {
            Use::Free => entry.reserve.push(offset),
            Use::Node(_) => {}
            Use::Reservation(id) => {
                let (reservation, platform): (String, i64) = tx.fetch_one(RESERVATION, args![id]).await?;
                if platform != 0 {
                    return Err(StoreError::Overlap(format!(
                        "{address} is kept out of use by {reservation} of subnet {}: give another address",
                        subnet.path()?
                    )));
                }
            }
            Use::Block(id) | Use::Leaving { block: id, .. } => {
                let (pool, node): (i64, Option<String>) = tx.fetch_one(BLOCK, args![id]).await?;
                if let Some(node) = node {
                    return Err(StoreError::Overlap(format!(
                        "{address} lies in the block of node {node}: give an address outside it"
                    )));
                }
                entry.reserve.push(offset);
                if !entry.aside.iter().any(|&(block, _)| block == id) {
                    entry.aside.push((id, pool));
                }
            }
        }
    }
    Ok(entry)
}

/// A registration takes no address that the nodes still planned need for themselves.
pub(super) async fn check_lack(tx: &mut Tx, subnet: &SubnetRow, before: OwnNeed) -> Result<()> {
    let after = pools::own_need(tx, subnet.id).await?;
    if after.lack() <= before.lack() {
        return Ok(());
    }
    let path = subnet.path()?;
    let lack = after.lack();
    let detail = format!(
        "the nodes still planned in {path} would lack {lack} addresses of their own: give the node an address inside a reservation with forNodes, one offset for both families, or lower the nodes of a pool"
    );
    let largest_free = subnets::by_id(tx, subnet.id).await?.largest_free.cast_unsigned();
    let OwnNeed { need, have } = after;
    let numbers = SubnetShortage { subnet: path, need, have, largest_free, nodes_that_fit: have };
    Err(StoreError::Exhausted(shortage(detail, numbers)))
}

/// Reserves a node's own addresses and moves planned blocks aside.
pub(super) async fn settle_in(tx: &mut Tx, subnet: &SubnetRow, entry: &Entry, node: i64) -> Result<()> {
    let mut lifted = Vec::new();
    for &(block, _) in &entry.aside {
        lifted.extend(
            tiling::of_block(tx, block).await?.stays.into_iter().map(|extent| Tile::new(extent, Use::Free)),
        );
    }
    tiling::retile(tx, subnet.id, lifted).await?;
    let own =
        entry.reserve.iter().map(|&offset| Tile::new(Extent::single(offset), Use::Node(node))).collect();
    tiling::retile(tx, subnet.id, own).await?;
    for &(block, pool) in &entry.aside {
        place_again(tx, subnet, block, pool).await?;
    }
    Ok(())
}

/// Finds a planned block another place: in its subnet, else where its pool may go.
async fn place_again(tx: &mut Tx, subnet: &SubnetRow, block: i64, pool: i64) -> Result<()> {
    let pool = pools::by_id(tx, pool).await?;
    let shape = pools::shape(&pool.spec);
    let mut supply = pools::supply(tx, subnet).await?;
    let misfit = match supply.free.place(&shape) {
        Ok(extents) => return put(tx, subnet.id, block, &extents).await,
        Err(misfit) => misfit,
    };
    let spread = |member: &&Member| member.asked.nodes.is_none();
    if pool.members.iter().filter(spread).any(|member| member.subnet == subnet.id) {
        for member in pool.members.iter().filter(spread).filter(|member| member.subnet != subnet.id) {
            let other = subnets::by_id(tx, member.subnet).await?;
            let mut supply = pools::supply(tx, &other).await?;
            if supply.room(&shape, 1) == 1
                && let Ok(extents) = supply.free.place(&shape)
            {
                tx.execute(MOVE_BLOCK, args![block, other.id]).await?;
                return put(tx, other.id, block, &extents).await;
            }
        }
    }
    let path = subnet.path()?;
    let detail = format!(
        "the address lies in what is planned for a node of pool {}, and that plan finds no other place in {path} ({misfit}): give another address, or lower the pool's nodes",
        pool.name
    );
    let numbers = SubnetShortage {
        subnet: path,
        need: shape.size(),
        have: supply.free.free(),
        largest_free: supply.free.largest(),
        nodes_that_fit: 0,
    };
    Err(refusal(misfit, detail, numbers))
}

async fn put(tx: &mut Tx, subnet: i64, block: i64, extents: &[Extent]) -> Result<()> {
    let tiles = extents.iter().map(|&extent| Tile::new(extent, Use::Block(block))).collect();
    tiling::retile(tx, subnet, tiles).await
}

/// A block that finds no place, in the store's words.
fn refusal(misfit: Misfit, detail: String, numbers: SubnetShortage) -> StoreError {
    let shortage = shortage(detail, numbers);
    match misfit {
        Misfit::Exhausted { .. } => StoreError::Exhausted(shortage),
        Misfit::NoContiguous { .. } => StoreError::NoContiguousBlock(shortage),
    }
}

/// A shortage in one subnet.
pub(super) fn shortage(detail: String, numbers: SubnetShortage) -> Box<Shortage> {
    Box::new(Shortage {
        detail,
        need: numbers.need,
        have: numbers.have,
        largest_free: numbers.largest_free,
        nodes_that_fit: numbers.nodes_that_fit,
        subnets: vec![numbers],
    })
}
