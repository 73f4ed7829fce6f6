//! Addresses of a subnet that no pod or VM can have: which, why, and their reservations.

use super::{
    super::{
        Result, StoreError,
        db::{Tx, args},
        mutation::SomeOf,
        reservations,
        tiling::{self, Tile, Use},
    },
    row::SubnetRow,
};
use ipam_api::line::{Extent, Line, Offset};
use std::net::IpAddr;

/// Names of the platform's reservations begin so; no other's do.
pub(in crate::store) const PREFIX: &str = "platform-";

const PRESENT: &str = "SELECT id, name, first, next FROM reservation WHERE subnet = $1 AND platform = 1";
const INSERT: &str = "INSERT INTO reservation
        (subnet, name, first, next, reason, for_nodes, platform, version, created_at)
    VALUES ($1, $2, $3, $4, $5, 0, 1, (SELECT value FROM counter WHERE name = 'change'), $6) RETURNING id";
const DELETE: &str = "DELETE FROM reservation WHERE id = $1";

/// A reservation the platform needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Wanted {
    pub(super) name: &'static str,
    pub(in crate::store) extent: Extent,
    reason: &'static str,
}

/// What of a line is kept out of planning from the start.
///
/// Without `reserve_platform` that is only what cannot work as a host's address
/// on a shared segment: the network address (IPv6: subnet-router anycast, RFC 4291),
/// the IPv4 broadcast address, and the gateways.
pub(in crate::store) fn wanted(line: Line, gateways: &[IpAddr], reserve_platform: bool) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    let mut add = |name, extent: Option<Extent>, reason| {
        if let Some(extent) = extent
            && !all.iter().any(|other: &Wanted| other.extent.overlaps(extent))
        {
            all.push(Wanted { name, extent, reason });
        }
    };
    if reserve_platform {
        for extent in line.platform() {
            if extent.first() == Offset(0) {
                let reason = "the platform's: network, gateway and two more addresses";
                add("platform-first", Some(extent), reason);
            } else {
                add(
                    "platform-last",
                    Some(extent),
                    "the platform's: the last address, on IPv4 the broadcast address",
                );
            }
        }
    } else {
        let v4 = line.v4().filter(|net| net.prefix_len() <= 30);
        let v6 = line.v6().filter(|net| net.prefix_len() <= 126);
        if v4.is_some() || v6.is_some() {
            add(
                "platform-network",
                Some(Extent::single(Offset(0))),
                "the network address, IPv6: any router's",
            );
        }
        let broadcast = v4.and_then(|net| line.offset_of(net.broadcast().into()).ok());
        add("platform-broadcast", broadcast.map(Extent::single), "the broadcast address");
    }
    for &gateway in gateways {
        let name = if gateway.is_ipv4() { "platform-gateway4" } else { "platform-gateway6" };
        // One outside the line is outside of planning anyway.
        add(name, line.offset_of(gateway).ok().map(Extent::single), "the gateway");
    }
    all
}

#[derive(Debug, sqlx::FromRow)]
struct Present {
    id: i64,
    name: String,
    first: i64,
    next: i64,
}

/// Brings the platform's reservations of a subnet in step with what is wanted.
pub(super) async fn settle(tx: &mut Tx, subnet: &SubnetRow, wanted: &[Wanted], now: i64) -> Result<()> {
    let mut missing: Vec<_> = wanted.iter().collect();
    let mut freed = Vec::new();
    for present in tx.fetch_all::<Present>(PRESENT, args![subnet.id]).await? {
        let extent = tiling::extent(present.first, present.next)?;
        let stays = missing.iter().position(|w| w.name == present.name && w.extent == extent);
        if let Some(index) = stays {
            missing.swap_remove(index);
            continue;
        }
        let nodes = reservations::nodes_inside(tx, subnet.id, extent).await?;
        if !nodes.is_empty() {
            return Err(StoreError::InUse(format!(
                "{} covers the own address of {}; delete that first",
                present.name,
                SomeOf::new("node", &nodes)
            )));
        }
        freed.push(Tile::new(extent, Use::Free));
        tx.execute(DELETE, args![present.id]).await?;
    }
    tiling::retile(tx, subnet.id, freed).await?;

    let mut taken = Vec::new();
    for Wanted { name, extent, reason } in missing {
        reservations::check_free(tx, subnet, *extent, "the platform's addresses").await?;
        let nodes = reservations::nodes_inside(tx, subnet.id, *extent).await?;
        if !nodes.is_empty() {
            return Err(StoreError::InUse(format!(
                "{reason} is the own address of {}; choose another or delete that first",
                SomeOf::new("node", &nodes)
            )));
        }
        let (first, next) = (extent.first().0, extent.next().0);
        let (id,): (i64,) = tx.fetch_one(INSERT, args![subnet.id, *name, first, next, *reason, now]).await?;
        taken.push(Tile::new(*extent, Use::Reservation(id)));
    }
    tiling::retile(tx, subnet.id, taken).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(cidrs: &[&str], gateways: &[&str], reserve: bool) -> Vec<String> {
        let line = Line::of(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>()).unwrap();
        let gateways: Vec<_> = gateways.iter().map(|g| g.parse().unwrap()).collect();
        wanted(line, &gateways, reserve).iter().map(|w| format!("{} {}", w.name, w.extent)).collect()
    }

    #[test]
    fn the_platform_has_the_first_four_and_with_v4_the_last() {
        assert_eq!(
            extents(&["10.0.0.0/24"], &["10.0.0.1"], true),
            ["platform-first 0-3", "platform-last 255-255"]
        );
        assert_eq!(extents(&["fd00::/64"], &["fd00::1"], true), ["platform-first 0-3"]);
        // The line ends before the IPv4 CIDR does.
        assert_eq!(
            extents(&["10.0.0.0/16", "fd00::/120"], &["10.0.0.1", "fd00::1"], true),
            ["platform-first 0-3", "platform-last 255-255"]
        );
    }

    #[test]
    fn gateways_elsewhere_are_kept_out_too() {
        assert_eq!(
            extents(&["10.0.0.0/24", "fd00::/64"], &["10.0.0.254", "fd00::1"], true),
            ["platform-first 0-3", "platform-last 255-255", "platform-gateway4 254-254"]
        );
        // Behind the end of the line.
        assert_eq!(
            extents(&["10.0.0.0/24", "fd00::/64"], &["10.0.0.1", "fd00::1:0"], true),
            ["platform-first 0-3", "platform-last 255-255"]
        );
    }

    #[test]
    fn without_the_platform_only_what_cannot_work_is_kept_out() {
        assert_eq!(
            extents(&["10.0.0.0/24"], &["10.0.0.1"], false),
            ["platform-network 0-0", "platform-broadcast 255-255", "platform-gateway4 1-1"]
        );
        assert_eq!(
            extents(&["fd00::/64"], &["fd00::1"], false),
            ["platform-network 0-0", "platform-gateway6 1-1"]
        );
        assert_eq!(extents(&["10.0.0.0/31"], &["10.0.0.1"], false), ["platform-gateway4 1-1"]);
    }
}
