//! How large a subnet has to be.

use super::{FreeMap, InvalidDemand, Plan, PlanError, PoolDemand, SubnetSupply, Supplies, plan};
use crate::{line::Line, names::SubnetPath};
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;

/// How many addresses of an IPv4 subnet the platform keeps.
const PLATFORM_V4: u64 = 5;

impl SubnetSupply {
    /// A subnet in which nothing is reserved but the platform's addresses.
    #[must_use]
    pub fn empty(line: Line) -> Self {
        let mut free = FreeMap::from_extents([line.extent()]);
        for extent in line.platform() {
            // They are on the line and apart, so there is nothing to refuse.
            let _ = free.take(extent);
        }
        Self { line: Some(line), free, own_spare: 0, own_promised: 0 }
    }
}

/// The smallest subnet that holds a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Length of the IPv4 prefix, 0 to 29.
    pub prefix: u8,
    /// Addresses of such a subnet, 8 to 2^32.
    pub addresses: u64,
    /// Addresses needed: blocks, nodes' own and the platform's.
    pub need: u64,
    /// The plan in it: the proof that it fits.
    pub plan: Plan,
}

/// The smallest IPv4 subnet, empty but for the platform's addresses, that holds
/// these pools; all their shares name `subnet`. Found by planning, since aligned
/// blocks may not all find a place where their sum would. `None` if even 2^32 addresses are too few.
///
/// # Errors
/// The demand makes no sense.
pub fn smallest_v4(subnet: &SubnetPath, pools: &[PoolDemand]) -> Result<Option<Proposal>, InvalidDemand> {
    let demand: u64 = pools.iter().map(|pool| pool.shape.demand(pool.blocks())).sum();
    let need = demand.saturating_add(PLATFORM_V4);
    for prefix in (0..=32u8).rev() {
        let Ok(net) = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix) else { continue };
        let Ok(line) = Line::of(&[IpNet::V4(net)]) else { continue };
        if need > line.length() {
            continue;
        }
        let supplies = Supplies::from([(subnet.clone(), SubnetSupply::empty(line))]);
        match plan(supplies, pools) {
            Ok(plan) => return Ok(Some(Proposal { prefix, addresses: line.length(), need, plan })),
            Err(PlanError::Invalid(invalid)) => return Err(invalid),
            Err(PlanError::Short(_)) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        planning::{BlockShape, PoolShare},
        wire::{Alignment, Contiguity},
    };

    fn line(cidrs: &[&str]) -> Line {
        Line::of(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    fn smallest(nodes: u64, surge: u64, max_pods: u64, alignment: Alignment) -> Option<Proposal> {
        let subnet: SubnetPath = "any/any".parse().unwrap();
        let pool = PoolDemand {
            name: "workers".parse().unwrap(),
            shape: BlockShape::new(
                max_pods.try_into().unwrap(),
                0.try_into().unwrap(),
                alignment,
                Contiguity::Required,
            ),
            nodes: nodes.try_into().unwrap(),
            surge: surge.try_into().unwrap(),
            shares: vec![PoolShare::new(subnet.clone(), None)],
        };
        smallest_v4(&subnet, &[pool]).unwrap()
    }

    #[test]
    fn an_empty_subnet_has_all_but_the_platforms_addresses() {
        let free = |cidrs: &[&str]| SubnetSupply::empty(line(cidrs)).free.free();
        assert_eq!(free(&["10.0.0.0/24"]), 251);
        assert_eq!(free(&["10.0.0.0/24", "fd00::/64"]), 251);
        assert_eq!(free(&["fd00::/120"]), 252);
        assert_eq!(free(&["10.0.0.0/30"]), 0);
    }

    #[test]
    fn known_sizes() {
        let known = [
            // nodes, surge, pods, addresses with the platform's, prefix
            (50, 1, 30, 1_581 + 5, 21),
            (60, 1, 30, 1_891 + 5, 21),
            (65, 1, 30, 2_046 + 5, 20),
            (0, 0, 30, 5, 29),
            (1, 0, 1, 2 + 5, 29),
            (5_000, 1, 250, 1_255_251 + 5, 11),
        ];
        for (nodes, surge, pods, need, prefix) in known {
            let found = smallest(nodes, surge, pods, Alignment::Exact).unwrap();
            assert_eq!((found.need, found.prefix), (need, prefix), "{nodes}+{surge} x {pods}");
            assert_eq!(found.addresses, 1 << (32 - prefix));
        }
    }

    #[test]
    fn aligned_blocks_are_really_placed() {
        // 7 x 33 + 5 = 236 addresses would fit a /24, and there are 8 aligned slots
        // of 32, but the platform's addresses spoil the first and the last.
        let found = smallest(6, 1, 30, Alignment::Prefix).unwrap();
        assert_eq!((found.need, found.prefix), (236, 23));
        let found = smallest(5, 1, 30, Alignment::Prefix).unwrap();
        assert_eq!((found.need, found.prefix), (203, 24));
        for extent in found.plan.pools[0].shares[0].take.iter().flatten() {
            assert_eq!((extent.size(), extent.first().0 % 32), (32, 0));
        }
    }

    #[test]
    fn more_than_ipv4_has_is_no_subnet() {
        assert_eq!(smallest(1_000_000, 1, 65_536, Alignment::Exact), None);
    }
}
