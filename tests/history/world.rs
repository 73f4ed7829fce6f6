//! A run: the service, the actors, what happens to both, and how it ends.

mod database;
mod ending;
mod replica;
mod service;
mod setting;
mod torment;

use crate::{
    history::{History, Recorder},
    machine::{Conduct, Keeper, Runtime},
    network::{Network, Weather},
    planner::Planner,
    report::Faults,
    seed::Seed,
};
use anyhow::{Context, Result, bail};
use database::scratch;
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
use testdb::Make;
use torment::torment;

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

/// Longest wait for what is still under way in the end.
const PATIENCE: Duration = Duration::from_secs(25);

/// Runs it all, on a database of this make.
///
/// # Errors
/// The run itself failed: that says nothing of the service.
pub(crate) fn run(
    seed: Seed,
    extent: Extent,
    make: Make,
    conduct: Conduct,
    mut tell: impl FnMut(&str),
) -> Result<Outcome> {
    let directory = scratch()?;
    let recorder = Arc::new(Recorder::default());
    let network = Network::new(seed)?;
    let mut service = Service::on(make, directory.path())?;
    let mut faults = Faults::default();
    network.weather(Weather::Fair);
    service.start(&network)?;
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
    let left = network.settle(PATIENCE);
    if left > 0 {
        bail!("{left} requests are still under way");
    }
    if let Some(server) = service.server() {
        server.settle(PATIENCE)?;
        faults.deadlocks = server.deadlocks();
    }
    service.is_as_wrong(&network, &setting)?;
    setting.end(seed, &recorder).context("the end")?;
    let took = began.elapsed();
    let log = service.log();
    service.end()?;
    faults.requests = network.tally().to_string();
    faults.unmet = network.tally().missing();
    drop((setting, world.recorder, network));
    let recorder = Arc::into_inner(recorder).context("somebody still writes the history")?;
    Ok(Outcome { history: recorder.into_history(), faults, took, log })
}

/// How many calls were made in a second.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn calls_a_second(calls: usize, time: Duration) -> f64 {
    calls as f64 / time.as_secs_f64().max(0.001)
}
