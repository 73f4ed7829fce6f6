//! A run: the service, the actors, what happens to both, and how it ends.

mod database;
mod ending;
mod service;
mod setting;

use crate::{
    history::{History, Recorder},
    machine::{Conduct, Keeper, Runtime},
    network::{Network, Weather},
    planner::Planner,
    report::Faults,
    seed::Seed,
};
use anyhow::{Context, Result, bail};
use database::{Database, scratch};
use jiff::SignedDuration;
use service::Service;
use setting::Setting;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// So long.
    Time(Duration),
    /// Until so many calls were made.
    Calls(usize),
}

/// What all actors of a run share.
#[derive(Debug)]
pub(crate) struct World {
    recorder: Arc<Recorder>,
    extent: Extent,
    began: Instant,
    over: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
}

impl World {
    /// Whether actors are to stop.
    pub(crate) fn is_over(&self) -> bool {
        let enough = match self.extent {
            Extent::Time(time) => self.began.elapsed() >= time,
            Extent::Calls(calls) => self.recorder.calls() >= calls,
        };
        enough || self.over.load(Ordering::SeqCst)
    }

    /// The run itself is broken, whatever the service does.
    pub(crate) fn fails(&self, error: anyhow::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.over.store(true, Ordering::SeqCst);
    }

    fn share(&self) -> f64 {
        match self.extent {
            Extent::Time(time) => self.began.elapsed().as_secs_f64() / time.as_secs_f64(),
            #[expect(clippy::cast_precision_loss, reason = "a share of a progress line")]
            Extent::Calls(calls) => self.recorder.calls() as f64 / calls as f64,
        }
    }
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) history: History,
    pub(crate) faults: Faults,
    pub(crate) took: Duration,
    /// The last lines of the service's log.
    pub(crate) log: String,
}

/// Runs it all.
///
/// # Errors
/// The run itself failed: that says nothing of the service.
pub(crate) fn run(
    seed: Seed,
    extent: Extent,
    conduct: Conduct,
    mut tell: impl FnMut(&str),
) -> Result<Outcome> {
    let directory = scratch()?;
    let recorder = Arc::new(Recorder::default());
    let network = Network::new(seed)?;
    let mut service = Service::over(Database::sqlite(directory.path()), directory.path())?;
    let mut faults = Faults::default();
    network.weather(Weather::Fair);
    network.leads_to(Some(service.start()?));
    let setting = Setting::make(&network, &recorder, directory.path(), conduct)?;
    network.weather(Weather::Foul);

    let world = World {
        recorder: Arc::clone(&recorder),
        extent,
        began: Instant::now(),
        over: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let world = &world;
        for machine in &setting.machines {
            scope.spawn(|| Keeper::new(machine, seed).run(world));
            for link in &machine.links()[1..] {
                scope.spawn(move || Runtime::new(machine, link, seed).run(world));
            }
        }
        for link in &setting.planners {
            scope.spawn(|| Planner::new(link, seed, &setting.grounds, &setting.pools).run(world));
        }
        if let Err(error) = torment(world, seed, &network, &mut service, &mut faults, &mut tell) {
            world.fails(error.context("the service"));
        }
    });
    let failure = world.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failure {
        return Err(error.context(format!("the service's log ends so:\n{}", service.log())));
    }
    network.weather(Weather::Fair);
    let left = network.settle(Duration::from_secs(10));
    if left > 0 {
        bail!("{left} requests are still under way");
    }
    service.is_as_wrong(setting.service_now()?)?;
    setting.end(seed, &recorder).context("the end")?;
    let took = began.elapsed();
    let log = service.log();
    service.kill()?;
    faults.requests = network.tally().to_string();
    faults.unmet = network.tally().missing();
    drop((setting, world.recorder, network));
    let recorder = Arc::into_inner(recorder).context("somebody still writes the history")?;
    Ok(Outcome { history: recorder.into_history(), faults, took, log })
}

#[derive(Debug, Clone, Copy)]
enum Torment {
    Kill,
    Freeze,
    /// The clock jumps.
    Jump,
}

/// Kills and freezes the service and sets its clock wrong until all is over, at numbers of calls that the seed has.
fn torment(
    world: &World,
    seed: Seed,
    network: &Network,
    service: &mut Service,
    faults: &mut Faults,
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    const TELL_EVERY: Duration = Duration::from_secs(10);
    /// How many hours a clock may be wrong.
    const FARTHEST: u64 = 2000;
    let mut told = Instant::now();
    for number in 0.. {
        let mut chance = seed.chance("service", number);
        let next = world.recorder.calls() + usize::try_from(chance.within(200, 1600))?;
        while world.recorder.calls() < next {
            if world.is_over() {
                return Ok(());
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let calls = world.recorder.calls();
                tell(&format!(
                    "{:3.0} %: {calls} calls, {:.0}/s, {faults}",
                    world.share() * 100.0,
                    calls_a_second(calls, world.began.elapsed())
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
        let pause = Duration::from_millis(chance.within(0, 300));
        match chance.weighted(&[(500, Torment::Kill), (200, Torment::Freeze), (300, Torment::Jump)]) {
            Torment::Kill => {
                service.kill()?;
                network.leads_to(None);
                thread::sleep(pause);
                network.leads_to(Some(service.start()?));
                faults.kills += 1;
            }
            Torment::Freeze => {
                service.freeze()?;
                thread::sleep(pause * 3);
                service.thaw()?;
                faults.freezes += 1;
            }
            Torment::Jump => {
                let hours = i64::try_from(chance.below(2 * FARTHEST))? - i64::try_from(FARTHEST)?;
                service.set_wrong(SignedDuration::from_hours(hours))?;
                faults.jumps += 1;
            }
        }
    }
    Ok(())
}

/// How many calls were made in a second.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn calls_a_second(calls: usize, time: Duration) -> f64 {
    calls as f64 / time.as_secs_f64().max(0.001)
}
