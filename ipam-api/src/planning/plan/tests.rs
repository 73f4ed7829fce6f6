use super::*;
use crate::{
    line::{Line, Offset},
    planning::{
        FreeMap, PoolShare,
        naive::{Bitmap, bitmaps, shape, shapes},
    },
    quantity::Surge,
    wire::{Alignment, Contiguity},
};
use proptest::prelude::*;

fn path(index: usize) -> SubnetPath {
    format!("prod/s{index}").parse().unwrap()
}

fn supply(free: FreeMap, own_spare: u64, own_promised: u64) -> SubnetSupply {
    SubnetSupply { line: None, free, own_spare, own_promised }
}

fn pool(shape: BlockShape, nodes: u64, surge: u64, numbers: &[Option<u64>]) -> PoolDemand {
    let count = |nodes: u64| NodeCount::try_from(nodes).unwrap();
    PoolDemand {
        name: "workers".parse().unwrap(),
        shape,
        nodes: count(nodes),
        surge: surge.try_into().unwrap(),
        shares: numbers
            .iter()
            .enumerate()
            .map(|(i, number)| PoolShare::new(path(i), number.map(count)))
            .collect(),
    }
}

/// Subnets of so many free addresses, numbered from 0.
fn open(sizes: &[u64]) -> Supplies {
    let whole = |size: &u64| FreeMap::from_extents(Extent::sized(Offset(0), *size));
    sizes.iter().enumerate().map(|(i, size)| (path(i), supply(whole(size), 0, 0))).collect()
}

fn exact(size: u64) -> BlockShape {
    shape(size, Alignment::Exact, Contiguity::Required)
}

/// The pool after its plan was applied; the first `claim` unclaimed blocks of each share claimed.
fn applied(demand: &PoolDemand, planned: &PoolPlan, claim: usize) -> PoolDemand {
    let mut next = demand.clone();
    for (share, planned) in next.shares.iter_mut().zip(&planned.shares) {
        for index in planned.give_back.iter().rev() {
            share.unclaimed.remove(*index);
        }
        share.unclaimed.extend(planned.take.iter().cloned());
        let claimed = claim.min(share.unclaimed.len());
        share.unclaimed.drain(..claimed);
        share.claimed += claimed as u64;
    }
    next
}

fn blocks(plan: &Plan) -> Vec<u64> {
    plan.pools[0].shares.iter().map(|share| share.blocks).collect()
}

fn given_back(plan: &Plan) -> Vec<usize> {
    plan.pools[0].shares.iter().map(|share| share.give_back.len()).collect()
}

fn shortage_of(result: Result<Plan, PlanError>) -> Shortage {
    match result {
        Err(PlanError::Short(shortfall)) => shortfall.shortages[0].clone(),
        other => panic!("not a shortage: {other:?}"),
    }
}

#[test]
fn blocks_and_own_addresses_must_both_fit() {
    // 8 blocks of 30 and 8 own addresses are 248.
    let demand = |nodes| [pool(exact(30), nodes, 1, &[None])];
    let done = plan(open(&[248]), &demand(7)).unwrap();
    assert_eq!(blocks(&done), [8]);
    let subnet = &done.subnets[&path(0)];
    assert_eq!((subnet.free.free(), subnet.own_promised), (8, 8));

    let short = shortage_of(plan(open(&[247]), &demand(7)));
    assert_eq!(short.kind, ShortageKind::Exhausted);
    assert_eq!((short.need, short.have, short.largest_free, short.nodes_that_fit), (248, 247, 247, 6));
    assert_eq!(short.subnets[0].nodes_that_fit, 7);
}

#[test]
fn reserved_addresses_meet_own_addresses_first() {
    let demand = [pool(exact(30), 7, 1, &[None])];
    let mut subnets = open(&[240]);
    assert!(plan(subnets.clone(), &demand).is_err());
    subnets.get_mut(&path(0)).unwrap().own_spare = 8;
    assert_eq!(blocks(&plan(subnets.clone(), &demand).unwrap()), [8]);
    // What others were promised is not there twice.
    subnets.get_mut(&path(0)).unwrap().own_promised = 1;
    let short = shortage_of(plan(subnets.clone(), &demand));
    assert_eq!((short.need, short.have, short.nodes_that_fit), (248, 247, 6));
    // Spare addresses beyond one a block help nobody.
    let supply = subnets.get_mut(&path(0)).unwrap();
    (supply.own_spare, supply.own_promised) = (1_000, 0);
    let short = shortage_of(plan(subnets, &[pool(exact(30), 8, 1, &[None])]));
    assert_eq!((short.need, short.have, short.nodes_that_fit), (279, 249, 7));
}

#[test]
fn holes_that_are_too_small_are_not_exhaustion() {
    let holes = (0..20).filter_map(|i| Extent::sized(Offset(i * 40), 20));
    let subnets = Supplies::from([(path(0), supply(FreeMap::from_extents(holes), 0, 0))]);
    let short = shortage_of(plan(subnets.clone(), &[pool(exact(30), 3, 0, &[None])]));
    assert_eq!(short.kind, ShortageKind::NoContiguous);
    assert_eq!((short.need, short.have, short.largest_free, short.nodes_that_fit), (93, 400, 20, 0));
    let split = shape(30, Alignment::Exact, Contiguity::Preferred);
    assert_eq!(blocks(&plan(subnets, &[pool(split, 3, 0, &[None])]).unwrap()), [3]);
}

#[test]
fn nodes_are_spread_evenly_and_a_full_subnet_passes_its_share_on() {
    let demand = [pool(exact(9), 10, 1, &[None, None, None])];
    assert_eq!(blocks(&plan(open(&[1000, 1000, 1000]), &demand).unwrap()), [4, 4, 3]);
    assert_eq!(blocks(&plan(open(&[20, 1000, 1000]), &demand).unwrap()), [2, 5, 4]);
    assert_eq!(blocks(&plan(open(&[0, 0, 1000]), &demand).unwrap()), [0, 0, 11]);
    let short = shortage_of(plan(open(&[20, 30, 40]), &demand));
    assert_eq!((short.need, short.have, short.nodes_that_fit), (110, 90, 8));
    let need: Vec<_> = short.subnets.iter().map(|s| (s.need, s.have, s.nodes_that_fit)).collect();
    assert_eq!(need, [(40, 20, 2), (40, 30, 3), (30, 40, 4)]);
}

#[test]
fn numbers_of_subnets_are_honoured() {
    let wide = || open(&[1000, 1000, 1000]);
    let of = |nodes, surge, numbers: &[Option<u64>]| pool(exact(9), nodes, surge, numbers);
    assert_eq!(blocks(&plan(wide(), &[of(10, 1, &[Some(6), None, None])]).unwrap()), [6, 3, 2]);
    assert_eq!(blocks(&plan(wide(), &[of(10, 4, &[Some(6), Some(3), Some(1)])]).unwrap()), [8, 4, 2]);
    assert_eq!(blocks(&plan(wide(), &[of(10, 0, &[Some(6), Some(2), Some(0)])]).unwrap()), [7, 3, 0]);

    // A subnet with a number passes nothing on, and only it is short.
    let short = shortage_of(plan(open(&[50, 1000, 1000]), &[of(10, 1, &[Some(6), None, None])]));
    assert_eq!((short.need, short.have, short.nodes_that_fit), (60, 50, 9));
    assert_eq!(short.subnets.len(), 1);

    let invalid = plan(wide(), &[of(5, 1, &[Some(6), None])]).unwrap_err();
    assert!(invalid.to_string().contains("ask for 6 nodes and nodes is 5"), "{invalid}");
}

#[test]
fn lowering_gives_back_the_end_of_the_plan_and_never_claimed_blocks() {
    let demand = pool(exact(9), 10, 0, &[None]);
    let done = plan(open(&[1000]), std::slice::from_ref(&demand)).unwrap();
    let mut lower = applied(&demand, &done.pools[0], 4);
    let mut subnets = done.subnets;
    subnets.get_mut(&path(0)).unwrap().own_promised = 6;

    lower.nodes = 7.try_into().unwrap();
    let done = plan(subnets.clone(), &[lower.clone()]).unwrap();
    assert_eq!((blocks(&done), &done.pools[0].shares[0].give_back), (vec![7], &vec![3, 4, 5]));
    assert_eq!(done.subnets[&path(0)].free.extents().count(), 1);
    assert_eq!(done.subnets[&path(0)].own_promised, 3);

    lower.nodes = 2.try_into().unwrap();
    let done = plan(subnets, &[lower]).unwrap();
    assert_eq!((blocks(&done), given_back(&done)), (vec![4], vec![6]));
}

#[test]
fn lowering_takes_from_where_there_is_most() {
    let demand = pool(exact(9), 11, 0, &[None, None]);
    let done = plan(open(&[1000, 1000]), std::slice::from_ref(&demand)).unwrap();
    assert_eq!(blocks(&done), [6, 5]);
    let mut lower = applied(&demand, &done.pools[0], 0);
    lower.nodes = 4.try_into().unwrap();
    assert_eq!(blocks(&plan(done.subnets, &[lower]).unwrap()), [2, 2]);
}

#[test]
fn blocks_of_several_extents_go_back_first() {
    let mut demand = pool(shape(9, Alignment::Exact, Contiguity::Preferred), 1, 0, &[None]);
    let at = |first, size| Extent::sized(Offset(first), size).unwrap();
    demand.shares[0].unclaimed = vec![vec![at(0, 9)], vec![at(9, 4), at(20, 5)], vec![at(30, 9)]];
    let done = plan(open(&[0]), &[demand]).unwrap();
    assert_eq!(done.pools[0].shares[0].give_back, [1, 2]);
}

#[test]
fn a_subnet_that_is_left_keeps_only_claimed_blocks() {
    let mut demand = pool(exact(9), 5, 0, &[None, None]);
    let done = plan(open(&[1000, 1000]), std::slice::from_ref(&demand)).unwrap();
    assert_eq!(blocks(&done), [3, 2]);
    demand = applied(&demand, &done.pools[0], 1);
    demand.shares[0].quota = Quota::Leave;
    let done = plan(done.subnets, &[demand.clone()]).unwrap();
    assert_eq!((blocks(&done), given_back(&done)), (vec![1, 4], vec![2, 0]));
    demand.shares.truncate(1);
    assert!(matches!(plan(open(&[9]), &[demand]), Err(PlanError::Invalid(InvalidDemand::NoSubnet { .. }))));
}

#[test]
fn what_one_pool_gives_back_another_may_take() {
    let demand = pool(exact(9), 10, 0, &[None]);
    let done = plan(open(&[100]), std::slice::from_ref(&demand)).unwrap();
    let mut smaller = applied(&demand, &done.pools[0], 0);
    let mut other = pool(exact(9), 5, 0, &[None]);
    other.name = "other".parse().unwrap();
    assert!(plan(done.subnets.clone(), &[smaller.clone(), other.clone()]).is_err());
    smaller.nodes = 5.try_into().unwrap();
    // Whichever comes first.
    assert!(plan(done.subnets.clone(), &[smaller.clone(), other.clone()]).is_ok());
    assert!(plan(done.subnets, &[other, smaller]).is_ok());
}

#[test]
fn a_pool_that_does_not_fit_leaves_the_others_their_plan() {
    let small = pool(exact(9), 5, 0, &[None]);
    let mut large = pool(exact(9), 50, 0, &[None]);
    large.name = "large".parse().unwrap();
    let Err(PlanError::Short(short)) = plan(open(&[100]), &[large, small.clone()]) else {
        panic!("fits");
    };
    assert_eq!(short.shortages.len(), 1);
    assert_eq!((short.shortages[0].need, short.shortages[0].nodes_that_fit), (500, 10));
    assert_eq!(short.rest, plan(open(&[100]), &[small]).unwrap());
}

#[test]
fn contradictions_are_refused() {
    let demand = pool(exact(9), 1, 0, &[None, None]);
    let refused = |subnets: Supplies, pools: &[PoolDemand]| match plan(subnets, pools) {
        Err(PlanError::Invalid(invalid)) => invalid,
        other => panic!("not refused: {other:?}"),
    };
    assert!(matches!(
        refused(open(&[9]), std::slice::from_ref(&demand)),
        InvalidDemand::UnknownSubnet { .. }
    ));
    let twice = [demand.clone(), demand.clone()];
    assert!(matches!(refused(open(&[9, 9]), &twice), InvalidDemand::PoolTwice { .. }));
    let mut same = demand.clone();
    same.shares[1].subnet = path(0);
    assert!(matches!(refused(open(&[9]), &[same]), InvalidDemand::SubnetTwice { .. }));
    let mut free_already = demand;
    free_already.nodes = 0.try_into().unwrap();
    free_already.shares[0].unclaimed = vec![vec![Extent::single(Offset(3))]];
    assert!(matches!(refused(open(&[9, 9]), &[free_already]), InvalidDemand::Contradiction { .. }));
}

#[test]
fn dual_stack_takes_one_offset_for_both_families() {
    let line = Line::of(&["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap();
    let subnets = Supplies::from([(path(0), SubnetSupply::empty(line))]);
    let answer = crate::planning::what_if(subnets, &[pool(exact(30), 2, 1, &[None])]).unwrap();
    assert!(answer.fits);
    let share = &answer.pools[0].shares[0];
    assert_eq!((share.blocks, share.takes.len()), (3, 1));
    let range = share.takes[0];
    assert_eq!((range.first.to_string(), range.last.to_string()), ("10.0.0.4".into(), "10.0.0.93".into()));
    assert_eq!(range.first6.map(|a| a.to_string()), Some("fd00::4".into()));
    assert_eq!(
        (answer.subnets[0].free_before, answer.subnets[0].free_after, answer.subnets[0].largest_free_after),
        (251, 161, 161)
    );
}

#[test]
fn refusals_say_what_is_missing_in_the_words_of_the_wire() {
    let short = shortage_of(plan(open(&[247]), &[pool(exact(30), 7, 1, &[None])]));
    let problem = crate::wire::Problem::from(&short);
    assert_eq!(problem.status, 507);
    assert_eq!((problem.need, problem.have, problem.largest_free), (Some(248), Some(247), Some(247)));
    assert_eq!((problem.nodes_that_fit, problem.subnets.len()), (Some(6), 1));
    assert!(problem.detail.contains("pool workers needs 248 more addresses in prod/s0 and 247 are there"));
}

mod brute {
    //! Random demands against a plan made one block at a time on bitmaps.
    use super::*;

    #[derive(Debug, Clone)]
    struct Place {
        bitmap: Bitmap,
        spare: u64,
        promised: u64,
    }

    impl Place {
        /// Whether one more block fits, and takes it.
        fn add(&mut self, shape: &BlockShape) -> bool {
            let mut map = self.bitmap.map();
            let Ok(extents) = map.place(shape) else { return false };
            if self.promised + 1 > self.spare + map.free() {
                return false;
            }
            self.promised += 1;
            extents.into_iter().for_each(|extent| self.bitmap.set(extent, false));
            true
        }

        /// How many more blocks fit: as many as any packing has, with own addresses counted out.
        fn most(&self, shape: &BlockShape) -> u64 {
            let owns = |n: &u64| {
                n * shape.size() <= self.bitmap.free()
                    && self.promised + n <= self.spare + self.bitmap.free() - n * shape.size()
            };
            (1..=self.bitmap.most(shape)).take_while(owns).last().unwrap_or(0)
        }
    }

    #[derive(Debug, Clone)]
    struct World {
        places: Vec<Place>,
        demand: PoolDemand,
    }

    impl World {
        fn supplies(&self) -> Supplies {
            let each = self.places.iter().enumerate();
            each.map(|(i, place)| (path(i), supply(place.bitmap.map(), place.spare, place.promised)))
                .collect()
        }

        fn plan(&self) -> Result<Plan, PlanError> {
            plan(self.supplies(), std::slice::from_ref(&self.demand))
        }

        fn with(&self, nodes: u64) -> Self {
            let mut world = self.clone();
            world.demand.nodes = nodes.try_into().unwrap();
            world
        }

        /// After a plan, with some blocks claimed and their own addresses out of nowhere.
        fn after(&self, plan: &Plan, claim: usize) -> Self {
            let mut world = self.clone();
            world.demand = applied(&self.demand, &plan.pools[0], claim);
            for (i, place) in world.places.iter_mut().enumerate() {
                for free in [false, true] {
                    // Rebuilt from the answer, which `right` has checked.
                    let holes: Vec<_> = plan.subnets[&path(i)].free.extents().collect();
                    if !free {
                        place.bitmap.0.fill(false);
                    }
                    holes.into_iter().for_each(|hole| place.bitmap.set(hole, true));
                }
                place.promised = plan.subnets[&path(i)].own_promised;
                let share = &world.demand.shares[i];
                let now = share.unclaimed.len() as u64;
                let then = plan.pools[0].shares[i].blocks - self.demand.shares[i].claimed;
                place.promised -= then - now;
            }
            world
        }

        /// The plan of a pool that has nothing yet, one block at a time.
        fn naive(&self) -> Option<Vec<u64>> {
            let (shape, mut places) = (self.demand.shape, self.places.clone());
            let floors: Vec<u64> = self
                .demand
                .shares
                .iter()
                .map(|share| match share.quota {
                    Quota::Exactly(nodes) => nodes.get(),
                    _ => 0,
                })
                .collect();
            let all = self.demand.shares.iter().all(|share| share.quota != Quota::Spread);
            for (place, floor) in places.iter_mut().zip(&floors) {
                for _ in 0..*floor {
                    if !place.add(&shape) {
                        return None;
                    }
                }
            }
            let mut above = vec![0u64; floors.len()];
            let mut open: Vec<bool> =
                self.demand.shares.iter().map(|share| all || share.quota == Quota::Spread).collect();
            for _ in floors.iter().sum::<u64>()..self.demand.blocks() {
                loop {
                    let fewest = (0..above.len()).filter(|i| open[*i]).min_by_key(|i| above[*i])?;
                    open[fewest] = places[fewest].add(&shape);
                    if open[fewest] {
                        above[fewest] += 1;
                        break;
                    }
                }
            }
            Some(floors.iter().zip(above).map(|(floor, above)| floor + above).collect())
        }
    }

    fn worlds(numbers: bool) -> impl Strategy<Value = World> {
        let place = (bitmaps(160), 0..6u64, 0..6u64).prop_map(|(bitmap, spare, promised)| Place {
            bitmap,
            spare,
            promised,
        });
        let surge = prop_oneof![(0..3u32).prop_map(Surge::Count), (0..60u8).prop_map(Surge::Percent)];
        let number = prop_oneof![2 => Just(None), 1 => (0..4u64).prop_map(Some)];
        let subnets = prop::collection::vec((place, number), 1..4);
        (subnets, shapes(12), 0..25u64, surge).prop_map(move |(subnets, shape, nodes, surge)| {
            let (places, wished): (Vec<_>, Vec<_>) = subnets.into_iter().unzip();
            let wished: Vec<_> = wished.into_iter().map(|number| number.filter(|_| numbers)).collect();
            let fixed: u64 = wished.iter().flatten().sum();
            let mut demand = pool(shape, nodes.max(fixed), 0, &wished);
            demand.surge = surge;
            World { places, demand }
        })
    }

    /// The blocks of a plan lie where it was free, apart, in their shape, and leave enough.
    fn right(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
        let demand = &world.demand;
        for (i, (place, share)) in world.places.iter().zip(&plan.pools[0].shares).enumerate() {
            let mut bitmap = place.bitmap.clone();
            for extent in share.give_back.iter().flat_map(|index| &demand.shares[i].unclaimed[*index]) {
                prop_assert!(bitmap.is(*extent, false));
                bitmap.set(*extent, true);
            }
            for block in &share.take {
                prop_assert_eq!(block.iter().map(|e| e.size()).sum::<u64>(), demand.shape.size());
                prop_assert!(block.len() == 1 || demand.shape.contiguity() == Contiguity::Preferred);
                for extent in block {
                    prop_assert!(bitmap.is(*extent, true), "{} is not free", extent);
                    bitmap.set(*extent, false);
                }
            }
            let after = &plan.subnets[&share.subnet];
            prop_assert_eq!(&after.free, &bitmap.map());
            let (taken, given) = (share.take.len() as u64, share.give_back.len() as u64);
            prop_assert_eq!(after.own_promised, place.promised.saturating_sub(given) + taken);
            prop_assert!(taken == 0 || after.own_promised <= after.own_spare + after.free.free());
            prop_assert_eq!(share.blocks, demand.shares[i].blocks() + taken - given);
        }
        Ok(())
    }

    fn refused_rightly(world: &World, short: &Shortage) -> Result<(), TestCaseError> {
        let (demand, shape) = (&world.demand, &world.demand.shape);
        let mut loose = world.clone();
        loose.demand.shape = BlockShape::new(
            shape.size().try_into().unwrap(),
            0.try_into().unwrap(),
            shape.alignment(),
            Contiguity::Preferred,
        );
        let exhausted = loose.naive().is_none();
        prop_assert_eq!(short.kind == ShortageKind::Exhausted, exhausted);
        prop_assert!(!short.subnets.is_empty());
        prop_assert_eq!(short.need, short.subnets.iter().map(|s| s.need).sum::<u64>());
        prop_assert_eq!(short.have, short.subnets.iter().map(|s| s.have).sum::<u64>());
        for line in &short.subnets {
            let place = world.places.iter().zip(0..).find(|(_, i)| path(*i) == line.subnet).unwrap().0;
            let blocks = line.need / (shape.size() + 1);
            prop_assert_eq!(line.need, blocks * (shape.size() + 1));
            prop_assert_eq!(line.largest_free, place.bitmap.largest());
            prop_assert_eq!(line.nodes_that_fit, place.most(shape).min(demand.blocks()));
            // Handing out addresses one at a time: each promised node and then each new one
            // takes a spare one while there is one, new blocks take the rest.
            let (mut spare, mut free, mut have) = (place.spare, place.bitmap.free(), 0);
            for _ in 0..place.promised {
                if spare > 0 { spare -= 1 } else { free = free.saturating_sub(1) }
            }
            for _ in 0..blocks {
                if spare > 0 {
                    spare -= 1;
                    have += 1;
                }
            }
            prop_assert_eq!(line.have, have + free);
        }
        // One subnet's numbers speak for themselves: too few addresses exactly if exhausted.
        if demand.shares.len() == 1 {
            prop_assert_eq!(short.need > short.have, exhausted);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_new_pool_gets_what_one_block_at_a_time_gets(world in worlds(true)) {
            match (world.plan(), world.naive()) {
                (Ok(plan), Some(naive)) => {
                    prop_assert_eq!(blocks(&plan), naive);
                    right(&world, &plan)?;
                }
                (Err(PlanError::Short(short)), None) => refused_rightly(&world, &short.shortages[0])?,
                (plan, naive) => prop_assert!(false, "plan {plan:?}, one at a time {naive:?}"),
            }
        }

        #[test]
        fn as_many_nodes_as_a_refusal_says_fit_and_not_one_more(world in worlds(false)) {
            if let Err(PlanError::Short(short)) = world.plan() {
                let most = short.shortages[0].nodes_that_fit;
                prop_assert!(most < world.demand.nodes.get() || most == 0);
                for nodes in 0..=world.demand.nodes.get() {
                    let fits = world.with(nodes).plan().is_ok();
                    prop_assert!(nodes > most || fits || most == 0, "{} of {}", nodes, most);
                    prop_assert!(nodes <= most || !fits, "{} of {}", nodes, most);
                }
            }
        }

        #[test]
        fn raising_moves_nothing_and_lowering_spares_the_claimed(
            world in worlds(true), more in 0..10u64, less in 0..30u64, claim in 0..3usize,
        ) {
            let Ok(first) = world.plan() else { return Ok(()) };
            let world = world.after(&first, claim);
            let again = world.plan().unwrap();
            prop_assert!(again.pools[0].shares.iter().all(|s| s.take.is_empty() && s.give_back.is_empty()));

            let raised = world.with(world.demand.nodes.get() + more);
            match raised.plan() {
                Ok(plan) => {
                    right(&raised, &plan)?;
                    prop_assert!(given_back(&plan).iter().all(|given| *given == 0));
                    prop_assert_eq!(blocks(&plan).iter().sum::<u64>(), raised.demand.blocks());
                }
                Err(PlanError::Short(short)) => {
                    prop_assert!(short.shortages[0].nodes_that_fit >= world.demand.nodes.get());
                }
                Err(PlanError::Invalid(invalid)) => prop_assert!(false, "{invalid}"),
            }

            let fixed = world.demand.shares.iter().map(|share| match share.quota {
                Quota::Exactly(nodes) => nodes.get(),
                _ => 0,
            }).sum::<u64>();
            let lowered = world.with(world.demand.nodes.get().saturating_sub(less).max(fixed));
            let plan = lowered.plan().unwrap();
            right(&lowered, &plan)?;
            let claimed: u64 = lowered.demand.shares.iter().map(|share| share.claimed).sum();
            let total = blocks(&plan).iter().sum::<u64>();
            prop_assert!(total >= lowered.demand.blocks().max(claimed));
            for (share, planned) in lowered.demand.shares.iter().zip(&plan.pools[0].shares) {
                prop_assert!(planned.take.is_empty() && planned.blocks >= share.claimed);
                // More in all than wanted: then nothing is left that could go.
                if total > lowered.demand.blocks() && share.quota == Quota::Spread {
                    prop_assert_eq!(planned.blocks, share.claimed);
                }
            }
        }
    }
}
