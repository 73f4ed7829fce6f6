//! The node agent: stays, keeps the datapath true, and speaks with the service.
//!
//! One thread does rounds: on every change of links or routes, and every 30 seconds, because flushed rules and
//! deleted neighbours tell nobody. Another one answers `/livez` and `/metrics`, a third one looks for strangers.

mod node_metrics;
mod report;
mod strangers;
mod sweep;
mod watch;

use crate::{
    attach::{self, Kept, NodeContext},
    cni::{CniError, NetConf},
    journal::{ClaimFile, Journal, Uptime},
    log,
    service::{Patience, Service},
    tally,
    wiring::Host,
};
use report::Report;
use sha2::{Digest, Sha256};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use sweep::Sweeper;
use watch::Watch;

/// Longest pause between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Shortest: pods that come and go change links too.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a node with nothing to say speaks with the service, so that it hears what became of itself.
const SPEAK: Duration = Duration::from_secs(300);
/// How much later at most, by name: nodes that were started together do not speak together.
const SPREAD: Duration = Duration::from_secs(60);
/// Longest wait for the service: no pod waits for the agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How patient the agent is.
#[derive(Debug, Clone, Copy)]
pub struct Patient {
    /// How long something must look like a leak before it is swept: a runtime may be about to tell.
    pub grace: Duration,
    /// How often strangers are asked whether they are still there.
    pub again: Duration,
}

/// Stays until it is ended.
///
/// # Errors
/// The kernel tells nothing of its links, or nobody can listen there.
pub fn run(conf: &NetConf, listen: SocketAddr, patient: Patient) -> Result<(), String> {
    let mut watch =
        Watch::open().map_err(|error| format!("the kernel tells nothing of its links: {error}"))?;
    let report = Arc::new(Report::of(&conf.node));
    let address = report::serve(Arc::clone(&report), listen)
        .map_err(|error| format!("cannot listen on {listen}: {error}: choose another --listen"))?;
    println!("listening on http://{address}");
    strangers::watch(conf, Arc::clone(&report), patient.again)
        .map_err(|error| format!("nobody can look for strangers: {error}"))?;
    let mut sweeper = Sweeper::new(patient.grace);
    let mut spoken: Option<Instant> = None;
    loop {
        let began = Instant::now();
        round(conf, &report);
        let swept = sweep(&mut sweeper, conf, &report);
        if swept > 0
            || spoken.is_none_or(|at| at.elapsed() >= SPEAK + spread(conf))
            || has_something_to_say(conf)
        {
            if let Err(error) = speak(conf) {
                log::warn(format_args!("the service has not heard of everything: {error}"));
                report.failed();
            } else {
                report.spoken();
            }
            // Tried is enough: a dead service is not asked in every round.
            spoken = Some(Instant::now());
            tally::count(&conf.node.state_dir, None);
        }
        report.ended();
        watch.wait(began + PAUSE, began + ROUND);
    }
}

/// How many leaks are gone.
fn sweep(sweeper: &mut Sweeper, conf: &NetConf, report: &Report) -> u64 {
    match sweeper.look(conf) {
        Ok(swept) => {
            report.swept(swept);
            swept
        }
        Err(error) => {
            log::error(format_args!("leaks could not be looked for: {error}"));
            report.failed();
            0
        }
    }
}

fn round(conf: &NetConf, report: &Report) {
    match attach::keep(conf) {
        Ok(kept) => {
            let Kept { mended, removed, broken } = &kept;
            for words in mended {
                log::warn(format_args!("put back: {words}"));
            }
            for words in removed {
                log::warn(format_args!("taken away: {words}"));
            }
            for words in broken {
                log::error(format_args!("not as it was made: {words}"));
            }
            report.kept(&kept);
        }
        Err(error) => {
            log::error(format_args!("nothing could be looked at: {error}"));
            report.failed();
        }
    }
}

/// Whether the service has not heard of something that it should have by now.
fn has_something_to_say(conf: &NetConf) -> bool {
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    let forgotten = matches!(journal.claim(), Ok(Some(ClaimFile { forgotten: Some(_), .. })));
    // Younger ones may still be another process's to send.
    let grace = 2 * conf.node.timeout + Duration::from_secs(1);
    let overdue = |picture: crate::journal::Picture| {
        let (entries, _) = picture.as_far_as_known();
        entries.iter().any(|entry| entry.is_due() && entry.since.age_at(Uptime::now()) > grace)
    };
    forgotten || journal.picture().is_ok_and(overdue)
}

fn speak(conf: &NetConf) -> Result<(), CniError> {
    let mut host = Host::open()?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    // Heeds what a failed call of a pod's has told: it is tried once in ten seconds for all.
    let service = Service::of(&conf.node, Patience::Heed).within(conf.node.timeout.max(PATIENCE));
    attach::sync(&context, &service).map(|_| ())
}

fn spread(conf: &NetConf) -> Duration {
    let digest = Sha256::digest(conf.node.name.as_str());
    SPREAD * u32::from(digest[0]) / 256
}
