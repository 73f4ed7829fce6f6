//! What the verbs of this node have done, counted in one file (`stateDir/tally.json`): the process of a verb has
//! ended long before anybody asks for metrics, and it counts whether or not the agent runs.
//!
//! Counting is never in a pod's way: what cannot be counted is not.

mod distribution;

pub use distribution::Distribution;

use crate::{
    cni::{Code, Verb},
    journal::{
        Uptime,
        files::{self, Durability},
    },
    log,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::Path,
    sync::Mutex,
    thread,
    time::Duration,
};

/// Upper bounds in seconds of how long a verb took: a few milliseconds where all is well, a second more for a service
/// that is silent.
pub const TOOK: [f64; 12] = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds in seconds of how long an address had rested when it was used again; conntrack keeps what may hurt
/// for 120 s.
pub const RESTED: [f64; 9] = [1.0, 10.0, 30.0, 60.0, 120.0, 130.0, 600.0, 3600.0, 86400.0];

/// The counts since the node started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tally {
    /// How long verbs took, in seconds, those that failed too, by [`TOOK`].
    pub took: BTreeMap<Verb, Distribution>,
    /// Verbs that failed, by the code of their error object.
    pub failed: BTreeMap<Verb, BTreeMap<u32, u64>>,
    /// How long an address that was given out had rested, in seconds, by [`RESTED`]; none for one never used before.
    pub rested: Distribution,
    /// Calls after which a process went on without the service.
    pub unreached: u64,
    /// When the service last answered a call.
    pub contact: Option<Uptime>,
}

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub verb: Verb,
    /// The time from its process's start.
    pub took: Duration,
    /// The code of its error object, if it failed.
    pub failure: Option<Code>,
}

/// What this process has noticed and not yet counted.
#[derive(Debug, Clone, Copy, Default)]
struct Noticed {
    rested: Option<Duration>,
    unreached: u64,
    contact: Option<Uptime>,
}

static NOTICED: Mutex<Noticed> = Mutex::new(Noticed { rested: None, unreached: 0, contact: None });

fn notice(what: impl FnOnce(&mut Noticed)) {
    if let Ok(mut noticed) = NOTICED.lock() {
        what(&mut noticed);
    }
}

/// The address that this ADD has picked was used before, so long ago.
pub fn rested(age: Option<Duration>) {
    notice(|noticed| noticed.rested = age);
}

/// The service has answered.
pub fn reached() {
    notice(|noticed| noticed.contact = Some(Uptime::now()));
}

/// The service has not answered, or with nothing that counts.
pub fn unreached() {
    notice(|noticed| noticed.unreached += 1);
}

impl Tally {
    /// The counts of the journal in this directory; none where they cannot be read.
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        files::read(&state_dir.join("tally.json")).ok().flatten().unwrap_or_default()
    }

    fn add(&mut self, noticed: Noticed, ended: Option<Ended>) {
        self.contact = self.contact.max(noticed.contact);
        self.unreached += noticed.unreached;
        let Some(Ended { verb, took, failure }) = ended else { return };
        self.took.entry(verb).or_default().observe(&TOOK, took.as_secs_f64());
        match (failure, noticed.rested) {
            (Some(code), _) => {
                *self.failed.entry(verb).or_default().entry(code.number()).or_default() += 1;
            }
            (None, Some(age)) => self.rested.observe(&RESTED, age.as_secs_f64()),
            (None, None) => {}
        }
    }
}

/// Counts what this process has noticed, and the verb that it was started for. A directory that is not there is not
/// made for it.
pub fn count(state_dir: &Path, ended: Option<Ended>) {
    let noticed = NOTICED.lock().map(|mut noticed| std::mem::take(&mut *noticed)).unwrap_or_default();
    if ended.is_none() && noticed.contact.is_none() && noticed.unreached == 0 {
        return;
    }
    let Some(_lock) = turn(&state_dir.join("tally.lock")) else { return };
    let mut tally = Tally::read(state_dir);
    tally.add(noticed, ended);
    if let Err(error) = files::replace(&state_dir.join("tally.json"), &tally, Durability::Process) {
        log::debug(format_args!("not counted: {error}"));
    }
}

/// The lock of the counts, which others hold for some hundred µs. One that was stopped with it must not stop all
/// others of the node, so it is waited for a second and no longer.
fn turn(path: &Path) -> Option<File> {
    const TRIES: u32 = 1000;
    let file = files::open_lock(path).ok()?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(verb: Verb, millis: u64, failure: Option<Code>) -> Option<Ended> {
        Some(Ended { verb, took: Duration::from_millis(millis), failure })
    }

    #[test]
    fn a_verb_counts_once_and_what_it_noticed_with_it() {
        let mut tally = Tally::default();
        let rested = |seconds| Noticed { rested: Some(Duration::from_secs(seconds)), ..Noticed::default() };
        tally.add(rested(125), ended(Verb::Add, 7, None));
        tally.add(
            Noticed { contact: Some(Uptime(5)), ..rested(3) },
            ended(Verb::Add, 1100, Some(Code::TryAgain)),
        );
        tally.add(Noticed { unreached: 2, ..Noticed::default() }, ended(Verb::Del, 20, None));
        tally.add(Noticed { contact: Some(Uptime(4)), ..Noticed::default() }, None);
        assert_eq!(tally.took[&Verb::Add].count(), 2);
        assert_eq!(tally.took[&Verb::Del].count(), 1);
        assert_eq!(tally.failed, [(Verb::Add, [(11, 1)].into())].into());
        assert_eq!(tally.rested.count(), 1, "what failed has given nothing out");
        assert_eq!((tally.unreached, tally.contact), (2, Some(Uptime(5))));
    }

    #[test]
    fn many_at_once_are_all_counted() {
        let directory = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| count(directory.path(), ended(Verb::Del, 1, None))));
            }
        });
        assert_eq!(Tally::read(directory.path()).took[&Verb::Del].count(), 40);
    }

    #[test]
    fn what_is_torn_is_begun_anew_and_nothing_is_made_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none");
        count(&missing, ended(Verb::Del, 1, None));
        assert!(!missing.exists());
        std::fs::write(directory.path().join("tally.json"), "{\"took\": [").unwrap();
        assert_eq!(Tally::read(directory.path()), Tally::default());
        count(directory.path(), ended(Verb::Del, 1, None));
        assert_eq!(Tally::read(directory.path()).took[&Verb::Del].count(), 1, "begun anew after a torn one");
    }
}
