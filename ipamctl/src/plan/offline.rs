//! Plans that ask no service: the planner itself, on an imagined subnet that is
//! empty but for the platform's addresses.

use crate::{
    context::Context,
    failure::Failure,
    output::{
        View, count,
        document::Document,
        joined, optional,
        table::{Column, Table, column},
    },
};
use ipam_api::{
    line::{Extent, Line},
    names::{PoolName, SubnetPath},
    planning::{self, BlockShape, FreeMap, PlanError, PoolDemand, PoolShare, SubnetSupply, Supplies},
    quantity::{Headroom, MaxPods, NodeCount, Surge},
    wire::{Alignment, Contiguity},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The pool asked about.
#[derive(Clone, Copy)]
pub(super) struct Demand {
    pub(super) max_pods: MaxPods,
    pub(super) nodes: NodeCount,
    pub(super) surge: Surge,
    pub(super) headroom: Headroom,
    pub(super) alignment: Alignment,
    pub(super) contiguous: Contiguity,
}

/// What a subnet is to the pool.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Sizing {
    /// Whether it holds the pool.
    fits: bool,
    /// The subnet asked about; absent where the smallest prefix was looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidrs: Vec<IpNet>,
    /// Length of the smallest IPv4 prefix that holds the pool, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    smallest_prefix: Option<u8>,
    /// The same for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    smallest_prefix6: Option<u8>,
    /// Addresses of the subnet.
    size: u64,
    /// Those of them the platform keeps.
    reserved: u64,
    nodes: u64,
    surge: u64,
    block_size: u64,
    /// Addresses the pool needs: a block and the node's own for each.
    need: u64,
    /// Addresses left beyond that, where it fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// Nodes that would fit beyond the pool, where it fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_nodes: Option<u64>,
    /// Most nodes that would fit, with their surge on top, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_that_fit: Option<u64>,
}

const COLUMNS: &[Column<Sizing>] = &[
    column("SUBNET", Sizing::subnet),
    column("SIZE", |sizing| sizing.size.to_string()),
    column("RESERVED", |sizing| sizing.reserved.to_string()),
    column("NODES", |sizing| sizing.nodes.to_string()),
    column("SURGE", |sizing| sizing.surge.to_string()),
    column("BLOCK SIZE", |sizing| sizing.block_size.to_string()),
    column("NEED", |sizing| sizing.need.to_string()),
    column("LEFT", |sizing| optional(sizing.left.as_ref())),
    column("MORE NODES", |sizing| optional(sizing.more_nodes.as_ref())),
    column("FITS", |sizing| if sizing.fits { "yes" } else { "no" }.to_owned()),
];

/// Answers for these CIDRs, or with the smallest prefix.
pub(super) fn run(context: &Context, demand: Demand, cidrs: &[IpNet]) -> Result<(), Failure> {
    let sizing = if cidrs.is_empty() { demand.smallest()? } else { demand.within(cidrs)? };
    let document = Document::of(&sizing)?;
    context.show(&View::new(document, vec![Table::rows(COLUMNS, [&sizing])]))?;
    if sizing.fits {
        return Ok(());
    }
    Err(Failure::DoesNotFit { sentence: sizing.sentence(), shortages: Vec::new() })
}

impl Demand {
    fn shape(&self) -> BlockShape {
        BlockShape::new(self.max_pods, self.headroom, self.alignment, self.contiguous)
    }

    fn blocks(&self) -> u64 {
        self.nodes.get() + self.surge.of(self.nodes)
    }

    fn within(&self, cidrs: &[IpNet]) -> Result<Sizing, Failure> {
        let line = Line::of(cidrs).map_err(|error| Failure::Usage(error.to_string()))?;
        let sizing = self.on(line)?;
        let (v4, v6) = if sizing.fits { (None, None) } else { (self.smallest_v4()?, self.smallest_v6()?) };
        Ok(Sizing {
            cidrs: line.cidrs(),
            smallest_prefix: line.v4().and(v4.as_ref().map(|(prefix, _)| *prefix)),
            smallest_prefix6: line.v6().and(v6.as_ref().map(|(prefix, _)| *prefix)),
            ..sizing
        })
    }

    fn smallest(&self) -> Result<Sizing, Failure> {
        let (v4, v6) = (self.smallest_v4()?, self.smallest_v6()?);
        let smallest_prefix = v4.as_ref().map(|(prefix, _)| *prefix);
        let smallest_prefix6 = v6.as_ref().map(|(prefix, _)| *prefix);
        match v4.or(v6) {
            Some((_, sizing)) => Ok(Sizing { smallest_prefix, smallest_prefix6, ..sizing }),
            None => Err(Failure::DoesNotFit {
                sentence: format!(
                    "{} addresses fit into no subnet: lower nodes, surge or pods a node",
                    self.shape().demand(self.blocks())
                ),
                shortages: Vec::new(),
            }),
        }
    }

    fn smallest_v4(&self) -> Result<Option<(u8, Sizing)>, Failure> {
        self.first_that_fits((0..=32).rev(), |prefix| {
            Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix).ok().map(IpNet::V4)
        })
    }

    fn smallest_v6(&self) -> Result<Option<(u8, Sizing)>, Failure> {
        self.first_that_fits((80..=128).rev(), |prefix| {
            Ipv6Net::new(Ipv6Addr::UNSPECIFIED, prefix).ok().map(IpNet::V6)
        })
    }

    fn first_that_fits(
        &self,
        prefixes: impl Iterator<Item = u8>,
        network: impl Fn(u8) -> Option<IpNet>,
    ) -> Result<Option<(u8, Sizing)>, Failure> {
        let need = self.shape().demand(self.blocks());
        for prefix in prefixes {
            let Some(line) = network(prefix).and_then(|network| Line::of(&[network]).ok()) else { continue };
            if line.length() - reserved(line) >= need {
                let sizing = self.on(line)?;
                if sizing.fits {
                    return Ok(Some((prefix, sizing)));
                }
            }
        }
        Ok(None)
    }

    /// What the planner says of an empty subnet with this line.
    fn on(&self, line: Line) -> Result<Sizing, Failure> {
        let contradiction = |what: &dyn std::fmt::Display| Failure::Other(format!("cannot plan: {what}"));
        let subnet: SubnetPath = "plan/subnet".parse().map_err(|error| contradiction(&error))?;
        let name: PoolName = "plan".parse().map_err(|error| contradiction(&error))?;
        let shape = self.shape();
        let mut free = FreeMap::from_extents([line.extent()]);
        for extent in line.platform() {
            free.take(extent).map_err(|error| contradiction(&error))?;
        }
        let supply = SubnetSupply { line: None, free, own_spare: 0, own_promised: 0 };
        let pool = PoolDemand {
            name,
            shape,
            nodes: self.nodes,
            surge: self.surge,
            shares: vec![PoolShare::new(subnet.clone(), None)],
        };
        let sizing = Sizing {
            fits: true,
            cidrs: Vec::new(),
            smallest_prefix: None,
            smallest_prefix6: None,
            size: line.length(),
            reserved: reserved(line),
            nodes: self.nodes.get(),
            surge: self.surge.of(self.nodes),
            block_size: shape.size(),
            need: shape.demand(self.blocks()),
            left: None,
            more_nodes: None,
            nodes_that_fit: None,
        };
        match planning::plan(Supplies::from([(subnet.clone(), supply)]), &[pool]) {
            Ok(plan) => {
                let left = plan.subnets.get(&subnet).map(|supply| {
                    let spare = supply.free.free().saturating_sub(self.blocks());
                    let bound = spare / shape.node_size();
                    (spare, supply.free.fits(&shape, bound).min(bound))
                });
                let (left, more_nodes) = left.unzip();
                Ok(Sizing { left, more_nodes, ..sizing })
            }
            Err(PlanError::Short(shortfall)) => {
                let nodes_that_fit = shortfall.shortages.first().map(|shortage| shortage.nodes_that_fit);
                Ok(Sizing { fits: false, nodes_that_fit, ..sizing })
            }
            Err(PlanError::Invalid(error)) => Err(Failure::Usage(error.to_string())),
        }
    }
}

/// Addresses the platform keeps of a line.
fn reserved(line: Line) -> u64 {
    line.platform().into_iter().map(Extent::size).sum()
}

impl Sizing {
    /// The smallest prefixes that hold the pool and are shorter than those asked about.
    fn prefixes(&self) -> Vec<String> {
        let shorter = |prefix: u8, v6: bool| {
            let same = self.cidrs.iter().filter(|cidr| matches!(cidr, IpNet::V6(_)) == v6);
            same.map(IpNet::prefix_len).all(|asked| prefix < asked)
        };
        let v4 = self.smallest_prefix.filter(|prefix| shorter(*prefix, false));
        let v6 = self.smallest_prefix6.filter(|prefix| shorter(*prefix, true));
        let v4 = v4.map(|prefix| format!("/{prefix} (IPv4)"));
        v4.into_iter().chain(v6.map(|prefix| format!("/{prefix} (IPv6)"))).collect()
    }

    fn subnet(&self) -> String {
        if self.cidrs.is_empty() { self.prefixes().join(" or ") } else { joined(&self.cidrs) }
    }

    /// Why it does not fit, and the cure.
    fn sentence(&self) -> String {
        let Self { nodes, surge, need, size, reserved, .. } = self;
        let larger = match self.prefixes().join(" and a ") {
            none if none.is_empty() => "lower nodes, surge or pods a node".to_owned(),
            prefixes => format!("take a {prefixes} or larger"),
        };
        format!(
            "{} and {surge} for surge do not fit into {}: they need {need} addresses and {} are there, \
             enough for {}: {larger}",
            count(*nodes, "node", "nodes"),
            joined(&self.cidrs),
            size - reserved,
            count(self.nodes_that_fit.unwrap_or(0), "node", "nodes"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(nodes: u64, max_pods: u64) -> Demand {
        Demand {
            max_pods: max_pods.try_into().unwrap(),
            nodes: nodes.try_into().unwrap(),
            surge: Surge::Count(1),
            headroom: Headroom::default(),
            alignment: Alignment::Exact,
            contiguous: Contiguity::Preferred,
        }
    }

    #[test]
    fn fifty_nodes_of_thirty_pods_take_a_slash_21() {
        let sizing = demand(50, 30).smallest().unwrap();
        assert_eq!((sizing.need, sizing.reserved), (1581, 5));
        assert_eq!((sizing.smallest_prefix, sizing.smallest_prefix6), (Some(21), Some(117)));
    }

    #[test]
    fn what_is_said_to_fit_beyond_does_and_one_more_does_not() {
        for alignment in [Alignment::Exact, Alignment::Prefix] {
            for contiguous in [Contiguity::Preferred, Contiguity::Required] {
                for max_pods in [1, 7, 30, 31, 32, 33, 110, 250] {
                    let demand = Demand { alignment, contiguous, ..demand(3, max_pods) };
                    let line = Line::of(&["10.0.0.0/20".parse().unwrap()]).unwrap();
                    let more = demand.on(line).unwrap().more_nodes.unwrap();
                    let with = |more: u64| Demand { nodes: (3 + more).try_into().unwrap(), ..demand };
                    assert!(with(more).on(line).unwrap().fits, "{max_pods} {alignment:?}");
                    let over = with(more + 1).on(line).unwrap();
                    assert!(!over.fits, "{max_pods} {alignment:?}");
                    assert_eq!(over.nodes_that_fit, Some(3 + more), "{max_pods} {alignment:?}");
                }
            }
        }
    }

    #[test]
    fn the_prefix_above_the_smallest_does_not_hold_it() {
        for nodes in [0, 1, 9, 100, 5000] {
            for alignment in [Alignment::Exact, Alignment::Prefix] {
                let demand = Demand { alignment, ..demand(nodes, 30) };
                let prefix = demand.smallest().unwrap().smallest_prefix.unwrap();
                let longer = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix + 1).unwrap();
                assert!(!demand.within(&[longer.into()]).unwrap().fits, "{nodes}");
            }
        }
    }
}
