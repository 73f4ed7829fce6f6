//! People who plan: they scale pools, resize blocks, make and drop pools and reservations, each on condition that
//! what they change is as they read it, and look at maps.

use crate::{
    history::{Ask, Edit, Tiles},
    link::Link,
    seed::{Chance, Seed},
    world::World,
};
use anyhow::Result;
use ipam_api::{
    client::{Answer, Apply, Client, ClientError, ETag, Page, Precondition, Write},
    names::{PoolName, ReservationName, SubnetPath},
    quantity::Surge,
    wire::{
        Alignment, Contiguity, ExtentInfo, Listing, NodeAddress, Plan, PlanRequest, Pool, PoolDemand,
        PoolPatch, PoolSpec, PoolSubnet, Reservation, ReservationSpec,
    },
};
use serde::Serialize;
use std::{net::IpAddr, thread, time::Duration};

/// A subnet as planners know it.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) path: SubnetPath,
    pub(crate) first: IpAddr,
    pub(crate) size: u64,
    /// A range that planners reserve and free.
    pub(crate) playground: Vec<IpAddr>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Planner<'a> {
    link: &'a Link,
    seed: Seed,
    grounds: &'a [Ground],
    pools: &'a [PoolName],
    /// The last edit of a pool, to be asked for again.
    last: Option<(PoolName, PoolSpec, Write)>,
}

/// How an edit says what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// What is to be changed.
    Patch,
    /// All of it.
    Whole,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    EditPool,
    TryPool,
    MakePool,
    DropPool,
    Reserve,
    Free,
    Plan,
    Map,
    Again,
    Rest,
}

impl<'a> Planner<'a> {
    /// One who edits these pools and makes others.
    pub(crate) fn new(link: &'a Link, seed: Seed, grounds: &'a [Ground], pools: &'a [PoolName]) -> Self {
        Self { link, seed, grounds, pools, last: None }
    }

    /// Plans until all is over.
    pub(crate) fn run(mut self, world: &World) {
        for step in 0.. {
            if world.is_over() {
                return;
            }
            if let Err(error) = self.step(self.seed.chance(self.link.actor(), step)) {
                world.fails(error);
            }
        }
    }

    fn step(&mut self, mut chance: Chance) -> Result<()> {
        let step = chance.weighted(&[
            (250, Step::EditPool),
            (60, Step::TryPool),
            (60, Step::MakePool),
            (60, Step::DropPool),
            (60, Step::Reserve),
            (60, Step::Free),
            (60, Step::Plan),
            (120, Step::Map),
            (60, Step::Again),
            (210, Step::Rest),
        ]);
        let ground = &self.grounds[usize::try_from(chance.below(self.grounds.len() as u64))?];
        let spare: PoolName = format!("spare-{}", chance.below(3)).parse()?;
        let reserved: ReservationName = format!("kept-{}", chance.below(3)).parse()?;
        match step {
            Step::EditPool | Step::TryPool => {
                let name = &self.pools[usize::try_from(chance.below(self.pools.len() as u64))?];
                let Some((spec, etag)) = self.pool(name) else { return Ok(()) };
                let spec = edited(spec, &mut chance)?;
                let mut write = Write::if_unchanged(etag);
                if matches!(step, Step::TryPool) {
                    write.apply = Apply::DryRun;
                }
                self.put_pool(name, &spec, &write, chance.one_of(&[Form::Patch, Form::Whole]));
                self.last = Some((name.clone(), spec, write));
            }
            Step::MakePool => {
                let spec = new_pool(ground, &mut chance)?;
                let write = Write::create();
                self.put_pool(&spare, &spec, &write, Form::Whole);
                self.last = Some((spare, spec, write));
            }
            Step::DropPool => {
                let Some((_, etag)) = self.pool(&spare) else { return Ok(()) };
                self.delete_pool(&spare, etag);
            }
            Step::Reserve => {
                let spec = reservation(ground, &mut chance)?;
                let write = match self.reservation(ground, &reserved) {
                    Some(etag) => Write::if_unchanged(etag),
                    None => Write::create(),
                };
                self.put_reservation(ground, &reserved, &spec, &write);
            }
            Step::Free => {
                let Some(etag) = self.reservation(ground, &reserved) else { return Ok(()) };
                self.delete_reservation(ground, &reserved, etag);
            }
            Step::Plan => self.plan(ground, &mut chance)?,
            Step::Map => drop(self.map(ground)),
            Step::Again => {
                if let Some((name, spec, write)) = &self.last {
                    self.put_pool(name, spec, write, Form::Whole);
                }
            }
            Step::Rest => thread::sleep(Duration::from_millis(chance.within(1, 20))),
        }
        Ok(())
    }

    /// A pool as it is, where there is one and it is heard.
    pub(crate) fn pool(&self, name: &PoolName) -> Option<(PoolSpec, ETag)> {
        let ask = Ask::Read(format!("pools/{name}"));
        let tell = |pool: &Pool| text(&pool.spec);
        let answer = self.link.call(ask, tell, async |client| client.pool(name).await).done()?;
        Some((answer.value.spec, answer.etag?))
    }

    /// Puts a pool, or patches it to the same.
    pub(crate) fn put_pool(&self, name: &PoolName, spec: &PoolSpec, write: &Write, form: Form) {
        let what = format!("pools/{name}");
        let patch = PoolPatch {
            max_pods: Some(spec.max_pods),
            nodes: Some(spec.nodes),
            headroom: Some(spec.headroom),
            rest_seconds: Some(spec.rest_seconds),
            ..PoolPatch::default()
        };
        self.edit(
            what,
            write,
            spec,
            |pool: &Pool| text(&pool.spec),
            async |client| match form {
                Form::Patch => client.patch_pool(name, &patch, write).await,
                Form::Whole => client.put_pool(name, spec, write).await,
            },
        );
    }

    fn delete_pool(&self, name: &PoolName, etag: ETag) {
        let write = Write::if_unchanged(etag);
        self.erase(format!("pools/{name}"), &write, async |client| client.delete_pool(name, &write).await);
    }

    /// A reservation's version, where there is one and it is heard.
    pub(crate) fn reservation(&self, ground: &Ground, name: &ReservationName) -> Option<ETag> {
        let ask = Ask::Read(path(ground, name));
        let tell = |found: &Reservation| as_asked(found);
        let read = async |client: &Client| client.reservation(&ground.path, name).await;
        self.link.call(ask, tell, read).done()?.etag
    }

    fn put_reservation(
        &self,
        ground: &Ground,
        name: &ReservationName,
        spec: &ReservationSpec,
        write: &Write,
    ) {
        self.edit(path(ground, name), write, spec, as_asked, async |client| {
            client.put_reservation(&ground.path, name, spec, write).await
        });
    }

    fn delete_reservation(&self, ground: &Ground, name: &ReservationName, etag: ETag) {
        let write = Write::if_unchanged(etag);
        self.erase(path(ground, name), &write, async |client| {
            client.delete_reservation(&ground.path, name, &write).await
        });
    }

    /// Looks at all extents of a subnet; `None` where they are not heard.
    pub(crate) fn map(&self, ground: &Ground) -> Option<Vec<ExtentInfo>> {
        let ask = Ask::Look(format!("subnets/{}/extents", ground.path));
        let tell = |listing: &Listing<ExtentInfo>| format!("{} extents", listing.items.len());
        let page = Page::largest();
        let answer = self.link.call(ask, tell, async |client| client.extents(&ground.path, &page).await);
        let listing = answer.done()?.value;
        // Only what was read at once is a picture of one moment.
        if listing.next.is_some() {
            return None;
        }
        let tiles = Tiles {
            at: self.link.recorder().tick(),
            subnet: ground.path.clone(),
            first: ground.first,
            size: ground.size,
            extents: listing.items.clone(),
        };
        self.link.recorder().with(|history| history.tiles.push(tiles));
        Some(listing.items)
    }

    fn plan(&self, ground: &Ground, chance: &mut Chance) -> Result<()> {
        let spec = new_pool(ground, chance)?;
        let demand = PoolDemand {
            name: format!("spare-{}", chance.below(3)).parse()?,
            subnets: spec.subnets,
            max_pods: spec.max_pods,
            nodes: spec.nodes,
            surge: spec.surge,
            headroom: spec.headroom,
            alignment: spec.alignment,
            contiguous: spec.contiguous,
            node_address: spec.node_address,
        };
        let request = PlanRequest { subnets: Vec::new(), pools: vec![demand] };
        let ask = Ask::Look("plan".to_owned());
        drop(self.link.call(
            ask,
            |plan: &Plan| format!("fits: {}", plan.fits),
            async |client| client.plan(&request).await,
        ));
        Ok(())
    }

    fn edit<T>(
        &self,
        what: String,
        write: &Write,
        becomes: &impl Serialize,
        tell: impl FnOnce(&T) -> String,
        request: impl AsyncFnOnce(&Client) -> Result<Answer<T>, ClientError>,
    ) {
        // What is only tried is no edit: if it were kept, nobody would have made the version that is read next.
        let ask = match write.apply {
            Apply::DryRun => Ask::Look(format!("dry run of {what}")),
            Apply::Really => Ask::Edit(Edit { what, expects: expects(write), becomes: Some(text(becomes)) }),
        };
        drop(self.link.call(ask, tell, request));
    }

    fn erase(
        &self,
        what: String,
        write: &Write,
        request: impl AsyncFnOnce(&Client) -> Result<Answer<()>, ClientError>,
    ) {
        let ask = Ask::Edit(Edit { what, expects: expects(write), becomes: None });
        drop(self.link.call(ask, |()| String::new(), request));
    }

    /// Deletes what planners have made.
    pub(crate) fn wind_up(&self) -> Result<()> {
        let spares = (0..3).map(|n| format!("spare-{n}").parse()).collect::<Result<Vec<PoolName>, _>>()?;
        for name in spares.iter().chain(self.pools) {
            if let Some((_, etag)) = self.pool(name) {
                self.delete_pool(name, etag);
            }
        }
        for ground in self.grounds {
            for n in 0..3 {
                let name = format!("kept-{n}").parse()?;
                if let Some(etag) = self.reservation(ground, &name) {
                    self.delete_reservation(ground, &name, etag);
                }
            }
        }
        Ok(())
    }

    /// Reads all that planners edit.
    pub(crate) fn read_all(&self) -> Result<()> {
        for n in 0..3 {
            drop(self.pool(&format!("spare-{n}").parse()?));
            for ground in self.grounds {
                drop(self.reservation(ground, &format!("kept-{n}").parse()?));
            }
        }
        self.pools.iter().for_each(|name| drop(self.pool(name)));
        Ok(())
    }
}

fn path(ground: &Ground, name: &ReservationName) -> String {
    format!("subnets/{}/reservations/{name}", ground.path)
}

fn expects(write: &Write) -> Option<String> {
    match &write.precondition {
        Precondition::Unchanged(etag) => Some(etag.as_str().to_owned()),
        Precondition::None | Precondition::Absent => None,
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn as_asked(found: &Reservation) -> String {
    text(&ReservationSpec {
        first: found.range.first,
        last: found.range.last,
        reason: found.reason.clone(),
        for_nodes: found.for_nodes,
    })
}

/// The pool with another number of nodes, larger or smaller blocks.
fn edited(mut spec: PoolSpec, chance: &mut Chance) -> Result<PoolSpec> {
    let was = spec.clone();
    while spec == was {
        match chance.below(4) {
            0 | 1 => spec.nodes = chance.within(3, 9).try_into()?,
            2 => spec.max_pods = chance.within(4, 11).try_into()?,
            _ => spec.headroom = chance.below(4).try_into()?,
        }
    }
    Ok(spec)
}

fn new_pool(ground: &Ground, chance: &mut Chance) -> Result<PoolSpec> {
    Ok(PoolSpec {
        subnets: vec![PoolSubnet { subnet: ground.path.clone(), nodes: None }],
        max_pods: chance.within(1, 20).try_into()?,
        nodes: chance.below(4).try_into()?,
        surge: Surge::Count(u32::try_from(chance.below(2))?),
        headroom: chance.below(3).try_into()?,
        alignment: chance.one_of(&[Alignment::Exact, Alignment::Exact, Alignment::Prefix]),
        contiguous: chance.one_of(&[Contiguity::Preferred, Contiguity::Required]),
        node_address: NodeAddress::External,
        rest_seconds: chance.below(200).try_into()?,
    })
}

fn reservation(ground: &Ground, chance: &mut Chance) -> Result<ReservationSpec> {
    let at = chance.below(ground.playground.len() as u64 - 8);
    let address = |n: u64| Ok::<_, anyhow::Error>(ground.playground[usize::try_from(n)?]);
    Ok(ReservationSpec {
        first: address(at)?,
        last: address(at + chance.below(8))?,
        reason: format!("number {}", chance.below(1000)),
        for_nodes: false,
    })
}
