//! What happens to the service while it is asked.

use super::{
    World, calls_a_second,
    database::{Cut, Server},
    service::Service,
};
use crate::{
    network::Network,
    report::Faults,
    seed::{Chance, Seed},
};
use anyhow::{Context, Result};
use jiff::SignedDuration;
use std::{
    thread,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy)]
enum Torment {
    /// A replica is killed, and started again.
    Kill,
    /// A replica stands still.
    Freeze,
    /// So does one, and when it goes on its connections are gone.
    Orphan,
    /// A replica's clock jumps.
    Jump,
    /// The database's server crashes, and is started again.
    Crash,
    /// The database's server ends connections.
    Cut,
}

/// How many hours a clock may be wrong.
const FARTHEST: u64 = 2000;
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Torments the service until all is over, at numbers of calls that the seed has.
pub(super) fn torment(
    world: &World,
    seed: Seed,
    network: &Network,
    service: &mut Service,
    faults: &mut Faults,
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    let mut told = Instant::now();
    for number in 0.. {
        let mut chance = seed.chance("service", number);
        let calls = match service.server() {
            None => chance.within(200, 1600),
            // Calls take longer there, and more can go wrong.
            Some(_) => chance.within(100, 700),
        };
        let next = world.recorder.calls() + usize::try_from(calls)?;
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
        once(&mut chance, network, service, faults)?;
    }
    Ok(())
}

fn once(chance: &mut Chance, network: &Network, service: &mut Service, faults: &mut Faults) -> Result<()> {
    let pause = Duration::from_millis(chance.within(0, 300));
    let torment = match service.server() {
        None => chance.weighted(&[(500, Torment::Kill), (200, Torment::Freeze), (300, Torment::Jump)]),
        Some(_) => chance.weighted(&[
            (280, Torment::Kill),
            (120, Torment::Freeze),
            (100, Torment::Orphan),
            (200, Torment::Jump),
            (150, Torment::Crash),
            (150, Torment::Cut),
        ]),
    };
    let which = usize::try_from(chance.below(service.count() as u64))?;
    match torment {
        Torment::Kill => {
            service.kill(which, network)?;
            thread::sleep(pause);
            service.restart(which, network)?;
            faults.kills += 1;
        }
        Torment::Freeze => {
            service.replica(which).freeze()?;
            thread::sleep(pause * 3);
            service.replica(which).thaw()?;
            faults.freezes += 1;
        }
        Torment::Orphan => {
            service.replica(which).freeze()?;
            thread::sleep(pause);
            server(service)?.cut(Cut::All);
            thread::sleep(pause);
            service.replica(which).thaw()?;
            faults.freezes += 1;
            faults.cuts += 1;
        }
        Torment::Jump => {
            let hours = i64::try_from(chance.below(2 * FARTHEST))? - i64::try_from(FARTHEST)?;
            service.replica(which).set_wrong(SignedDuration::from_hours(hours))?;
            faults.jumps += 1;
        }
        Torment::Crash => {
            let server = server(service)?;
            server.crash();
            thread::sleep(pause);
            server.run();
            faults.crashes += 1;
        }
        Torment::Cut => {
            server(service)?.cut(chance.one_of(&[Cut::Busy, Cut::Busy, Cut::All]));
            faults.cuts += 1;
        }
    }
    Ok(())
}

fn server(service: &mut Service) -> Result<&mut Server> {
    service.server().context("the database is a file")
}
