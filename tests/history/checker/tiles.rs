//! Extents cover each subnet, and blocks are their nodes'.

use super::{Rule, Violation};
use crate::history::{History, Tiles};
use ipam_api::wire::{ExtentInfo, ExtentKind};
use std::net::IpAddr;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut violations: Vec<Violation> = history.tiles.iter().filter_map(tiling).collect();
    violations.extend(blocks(history));
    violations
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn span(extent: &ExtentInfo) -> (u128, u128) {
    (number(extent.range.first), number(extent.range.last) + 1)
}

fn tiling(tiles: &Tiles) -> Option<Violation> {
    let wrong = |what: String| {
        let story = format!("{} {}: {what}", tiles.at, tiles.subnet);
        Some(Violation::new(Rule::Tiled, story, [tiles.subnet.to_string()]))
    };
    let mut next = number(tiles.first);
    let mut before = None;
    for extent in &tiles.extents {
        let (first, end) = span(extent);
        if first != next || end <= first || end - first != u128::from(extent.size) {
            return wrong(format!("{:?} of {} does not follow on {before:?}", extent.range, extent.size));
        }
        if extent.kind == ExtentKind::Free && before == Some(ExtentKind::Free) {
            return wrong(format!("{:?} is a second free extent in a row", extent.range));
        }
        before = Some(extent.kind);
        next = end;
    }
    let size = next - number(tiles.first);
    if size != u128::from(tiles.size) {
        return wrong(format!("its extents have {size} addresses of {}", tiles.size));
    }
    None
}

/// In the end each block is made of extents that say whose they are, and no extent says so of another.
fn blocks(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The last look at each subnet by then.
    let mut last: Vec<&Tiles> = Vec::new();
    for tiles in history.tiles.iter().filter(|tiles| tiles.at < history.end.at) {
        last.retain(|other| other.subnet != tiles.subnet);
        last.push(tiles);
    }
    let mut owned: Vec<(String, u128, u128)> = last
        .iter()
        .flat_map(|tiles| &tiles.extents)
        .filter(|extent| extent.kind == ExtentKind::Block)
        .filter_map(|extent| {
            let owner = extent.owner.as_deref()?.strip_prefix("node/")?;
            let (first, end) = span(extent);
            Some((owner.to_owned(), first, end))
        })
        .collect();
    for (node, ranges) in &history.end.blocks {
        for &(first, last) in ranges {
            let (mut from, end) = (number(first), number(last) + 1);
            while from < end {
                let is_next =
                    |(owner, first, _): &(String, u128, u128)| owner == node.as_str() && *first == from;
                let Some(at) = owned.iter().position(is_next) else { break };
                from = owned.swap_remove(at).2;
            }
            if from != end {
                let story = format!("{first} to {last} is {node}'s, and its extents reach to {from:x}");
                violations.push(Violation::new(Rule::Tiled, story, [node.to_string()]));
            }
        }
    }
    if !history.end.blocks.is_empty() {
        violations.extend(owned.iter().map(|(owner, first, _)| {
            let story = format!("the extent at {first:x} is {owner}'s, but not of its block");
            Violation::new(Rule::Tiled, story, [owner.clone()])
        }));
    }
    violations
}
