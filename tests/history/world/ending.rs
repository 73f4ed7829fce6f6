//! The end of a run: everybody is heard, what is there is written down, and everything is taken away.

use super::setting::Setting;
use crate::{
    history::{End, Recorder},
    link::Link,
    machine::{self, holder},
    planner::Planner,
    seed::Seed,
};
use anyhow::{Result, anyhow};
use ipam_api::{
    client::{AllocationFilter, Page, all_pages},
    wire::{Allocation, Capacity, ExtentInfo, ExtentKind, Node, Range},
};
use jiff::Timestamp;

impl Setting {
    /// Hears everybody, notes what there is, and takes everything away.
    pub(super) fn end(&self, seed: Seed, recorder: &Recorder) -> Result<()> {
        let chance = seed.chance("end", 0);
        for machine in &self.machines {
            machine.reconcile(&chance).map_err(|end| broken(end, machine.name.as_str()))?;
        }
        let link = &self.planners[0];
        let planner = Planner::new(link, seed, &self.grounds, &self.pools);
        planner.read_all()?;
        for ground in &self.grounds {
            planner.map(ground).ok_or_else(|| anyhow!("no map of {}", ground.path))?;
        }
        let ledger = allocations(link)?.into_iter().filter_map(|one| {
            let address = one.addresses.first()?.address;
            Some((address, one.node.clone(), holder(&one)))
        });
        let blocks = nodes(link)?.into_iter().map(|node| {
            let span = |range: &Range| (range.first, range.last);
            let ranges = node.block.ranges.iter().chain(&node.block.leaving).map(span).collect();
            (node.name, ranges)
        });
        let end = End {
            ledger: ledger.collect(),
            blocks: blocks.collect(),
            at: recorder.tick(),
            leftovers: Vec::new(),
        };
        let mut leftovers = Vec::new();
        let used: u64 = self.capacity()?.subnets.iter().map(|subnet| subnet.used).sum();
        if used != end.ledger.len() as u64 {
            leftovers.push(format!("{used} addresses are counted as used, {} are held", end.ledger.len()));
        }
        for machine in &self.machines {
            leftovers.extend(machine.wind_up(&chance).map_err(|end| broken(end, machine.name.as_str()))?);
        }
        planner.wind_up()?;
        leftovers.extend(self.left(link, &planner)?);
        recorder.with(|history| history.end = End { leftovers, ..end });
        Ok(())
    }

    /// What the service takes for now.
    pub(super) fn service_now(&self) -> Result<Timestamp> {
        Ok(self.capacity()?.as_of)
    }

    fn capacity(&self) -> Result<Capacity> {
        self.planners[0].found("capacity", async |client| client.capacity().await)
    }

    fn left(&self, link: &Link, planner: &Planner<'_>) -> Result<Vec<String>> {
        let mut left: Vec<String> = allocations(link)?
            .iter()
            .map(|one| format!("{} of node {} is held", holder(one), one.node))
            .collect();
        for ground in &self.grounds {
            let extents = planner.map(ground).ok_or_else(|| anyhow!("no map of {}", ground.path))?;
            let kept = |extent: &&ExtentInfo| match (extent.kind, extent.owner.as_deref()) {
                (ExtentKind::Free, _) => false,
                (ExtentKind::Reserved, Some(owner)) => {
                    owner != "reservation/nodes" && !owner.starts_with("reservation/platform")
                }
                _ => true,
            };
            left.extend(extents.iter().filter(kept).map(|extent| format!("{}: {extent:?}", ground.path)));
        }
        Ok(left)
    }
}

fn broken(end: machine::End, node: &str) -> anyhow::Error {
    match end {
        machine::End::Died => anyhow!("{node} died when all was over"),
        machine::End::Failed(why) => anyhow!("{node} cannot be heard in the end: {why}"),
        machine::End::Broken(error) => error.context(format!("node {node}")),
    }
}

fn allocations(link: &Link) -> Result<Vec<Allocation>> {
    let filter = AllocationFilter::default();
    let pages = link.found_all("allocations", async |client| {
        all_pages(async |page: Page| client.allocations(&filter, &page).await).await
    })?;
    Ok(pages)
}

fn nodes(link: &Link) -> Result<Vec<Node>> {
    link.found_all("nodes", async |client| all_pages(async |page: Page| client.nodes(&page).await).await)
}
