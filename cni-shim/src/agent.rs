//! The node agent: stays, keeps the datapath true, and speaks with the service.
//!
//! One thread does rounds: on every change of links or routes, and every so often, because flushed rules and
//! deleted neighbours tell nobody. Another speaks with the service, so that a silent one keeps no round waiting; a
//! third answers `/livez` and `/metrics`, a fourth sees to claim and installation, a fifth asks the segment for
//! strangers, and a sixth waits for the word to end.

mod limited;
mod node_metrics;
mod report;
mod strangers;
mod sweep;
mod watch;

use crate::{
    attach::{self, Kept, NodeContext},
    cni::{CniError, NetConf},
    install::Upkeep,
    journal::{ClaimFile, Journal, Uptime},
    log,
    service::{Patience, Service},
    tally,
    wiring::Host,
};
use nix::sys::signal::{SigSet, Signal};
use report::Report;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use sweep::Sweeper;
use watch::Watch;

/// Shortest: pods that come and go change links too.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a node with nothing to say speaks with the service, so that it hears what became of itself.
const SPEAK: Duration = Duration::from_secs(300);
/// How much later at most, by name: nodes that were started together do not speak together.
const SPREAD: Duration = Duration::from_secs(60);
/// Longest wait for the service: no pod waits for the agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the agent looks.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest pause between two rounds.
    pub every: Duration,
    /// How long something must look like a leak before it is swept: a runtime may be about to end it.
    pub grace: Duration,
    /// Pause between two questions to a stranger whether it is still there.
    pub again: Duration,
}

/// Stays until it is ended by SIGTERM or SIGINT, which is a success.
///
/// # Errors
/// The kernel tells nothing of its links, or nobody can listen there.
pub fn run(conf: &NetConf, listen: SocketAddr, pace: Pace, upkeep: Upkeep) -> Result<(), String> {
    end_on_signals().map_err(|error| format!("no signal can be waited for: {error}"))?;
    let mut watch =
        Watch::open().map_err(|error| format!("the kernel tells nothing of its links: {error}"))?;
    let report = Arc::new(Report::of(&conf.node));
    let address = report::serve(Arc::clone(&report), listen).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{listen} is taken: if an agent runs on this node already, leave it, else choose another --listen")
        }
        _ => format!("cannot listen on {listen}: {error}: choose another --listen"),
    })?;
    let no_thread = |error: io::Error| format!("no thread can be started: {error}");
    let speaking = speaker(conf, pace.every, &report).map_err(no_thread)?;
    let changed = Arc::clone(&report);
    let upkeep = upkeep.stay(pace.every, move |files| changed.files_changed(files)).map_err(no_thread)?;
    let asking = strangers::watch(conf, &report, pace.again).map_err(no_thread)?;
    let mut sweeper = Sweeper::new(pace.grace);
    let mut told = BTreeSet::new();
    // Nobody needs to read it.
    let _ = writeln!(io::stdout(), "listening on http://{address}");
    loop {
        let began = Instant::now();
        let looked = round(conf, &report, &mut told);
        sweep(&mut sweeper, conf, &report);
        if looked == Looked::AtAll {
            report.ended();
        }
        if speaking.is_finished() {
            return Err("cni-shim has a defect: it no longer speaks with the service".to_owned());
        }
        if upkeep.is_finished() {
            return Err("cni-shim has a defect: it no longer sees to the node's set-up".to_owned());
        }
        if asking.is_finished() {
            return Err("cni-shim has a defect: it no longer looks for strangers".to_owned());
        }
        watch.wait(began + PAUSE, began + pace.every);
    }
}

/// Ends the process on SIGTERM and SIGINT, wherever it is: everything it does may be cut short, and as the first
/// process of a container it would not be ended by a signal that it does not wait for.
fn end_on_signals() -> io::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    // Before any other thread is there, so that all of them leave these to the one that waits.
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_err() {}
        std::process::exit(0);
    })?;
    Ok(())
}

/// Speaks with the service from a thread of its own when there is something to say, and now and then.
fn speaker(conf: &NetConf, every: Duration, report: &Arc<Report>) -> io::Result<JoinHandle<()>> {
    let (conf, report) = (conf.clone(), Arc::clone(report));
    thread::Builder::new().name("service".to_owned()).spawn(move || {
        let mut spoken: Option<Instant> = None;
        loop {
            let pause = SPEAK + spread(&conf);
            if spoken.is_none_or(|at| at.elapsed() >= pause) || has_something_to_say(&conf) {
                if let Err(error) = speak(&conf) {
                    log::warn(format_args!("the service has not heard of everything: {error}"));
                    report.failed();
                } else {
                    report.spoken();
                }
                // Tried is enough: a dead service is not asked again at once.
                spoken = Some(Instant::now());
                tally::count(&conf.node.state_dir, None);
            }
            thread::sleep(every);
        }
    })
}

/// What came of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Everything was looked at.
    AtAll,
    /// Nothing could be.
    AtNothing,
}

/// One look. What was broken before and still is has been `told`.
fn round(conf: &NetConf, report: &Report, told: &mut BTreeSet<String>) -> Looked {
    match attach::keep(conf) {
        Ok(kept) => {
            let Kept { mended, removed, broken, .. } = &kept;
            for words in mended {
                log::warn(format_args!("put back: {words}"));
            }
            for words in removed {
                log::warn(format_args!("taken away: {words}"));
            }
            let now: BTreeSet<String> = broken.iter().cloned().collect();
            for words in now.difference(told) {
                log::error(format_args!("not as it was made: {words}"));
            }
            *told = now;
            report.kept(&kept);
            Looked::AtAll
        }
        Err(error) => {
            log::error(format_args!("nothing could be looked at: {error}"));
            report.failed();
            Looked::AtNothing
        }
    }
}

fn sweep(sweeper: &mut Sweeper, conf: &NetConf, report: &Report) {
    match sweeper.look(conf) {
        Ok(swept) => report.swept(swept),
        Err(error) => {
            log::error(format_args!("leaks could not be looked for: {error}"));
            report.failed();
        }
    }
}

/// Whether the service has not heard of something that it should have by now.
fn has_something_to_say(conf: &NetConf) -> bool {
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    let forgotten = matches!(journal.claim(), Ok(Some(ClaimFile { forgotten: Some(_), .. })));
    let overdue = |picture: crate::journal::Picture| {
        let (entries, _) = picture.as_far_as_known();
        entries.iter().any(|entry| entry.is_overdue(Uptime::now(), conf.node.timeout))
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
