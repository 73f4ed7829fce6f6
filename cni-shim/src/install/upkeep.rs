//! The agent's part: what `install` does once is done again whenever the agent starts, and goes on where it could not be
//! finished.

use super::{
    InstallError, Installation, enlarge_neighbour_table,
    file::{Edited, Placed, is_edited},
    forward_drop, lock, place_list, stay, told,
};
use crate::{
    attach,
    journal::{ClaimFile, Journal},
    log,
    service::{Patience, Service},
    wiring::neighbour_table::Room,
};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two rounds while something is left to do: a node without a claim is of no use.
const PAUSE: Duration = Duration::from_secs(3);

/// What of an installation is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Binary,
    Configuration,
}

/// Sees to claim, installation and the machine's settings, round by round.
#[derive(Debug)]
pub struct Upkeep {
    installation: Installation,
    /// What is not in its place as far as is known.
    left: BTreeSet<Part>,
    /// What of it somebody has changed since it was put there.
    anothers: BTreeSet<Part>,
    /// What was told before, so that it is told once.
    told: BTreeSet<String>,
    /// Tells `uninstall` that an agent runs.
    _running: Option<File>,
}

/// Whether the agent installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Where it is told to.
    Asked,
    /// Where `install` did, if that has run on this node.
    AsBefore,
}

impl Upkeep {
    /// For the agent of this node.
    #[must_use]
    pub fn of(mut installation: Installation, when: When) -> Self {
        let journal = installation.journal();
        let running = agent_lock(&journal).and_then(|file| {
            let path = journal.state_dir().join(AGENT_LOCK);
            file.lock_shared().map_err(|source| InstallError::Write { path, source })?;
            Ok(file)
        });
        // What it keeps wired is worth more than that nobody uninstalls meanwhile.
        let running =
            running.map_err(|error| log::warn(format_args!("uninstall will not see this agent: {error}")));
        if let Err(error) = stay(&journal) {
            log::warn(error);
        }
        let places = journal.undo().unwrap_or_else(|error| {
            log::warn(error);
            None
        });
        let left = match (when, places.and_then(|undo| undo.places)) {
            (When::AsBefore, None) => BTreeSet::new(),
            (When::AsBefore, Some(places)) => {
                installation.places = places;
                BTreeSet::from([Part::Binary, Part::Configuration])
            }
            (When::Asked, _) => BTreeSet::from([Part::Binary, Part::Configuration]),
        };
        Self { installation, left, anothers: BTreeSet::new(), told: BTreeSet::new(), _running: running.ok() }
    }

    /// Goes on for as long as the process lives, in a thread of its own: the service may be silent. `every` is the pause
    /// between two rounds once all is done. `changed` is told after each how many files of the installation are
    /// somebody else's by now.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn stay(
        mut self,
        every: Duration,
        changed: impl Fn(usize) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            loop {
                let done = self.round();
                changed(self.anothers.len());
                thread::sleep(match done {
                    Done::All => every,
                    Done::InPart => every.min(PAUSE),
                });
            }
        })
    }

    /// One round: what can be done now. Says what cannot, once, and leaves it to a later one.
    fn round(&mut self) -> Done {
        let mut words = Vec::new();
        let done = self.go_on(&mut words).unwrap_or_else(|error| {
            words.push(error.to_string());
            Done::InPart
        });
        // What is over may be told again when it comes back.
        self.told.retain(|told| words.contains(told));
        for words in words {
            if !self.told.contains(&words) {
                log::warn(&words);
                self.told.insert(words);
            }
        }
        done
    }

    fn go_on(&mut self, words: &mut Vec<String>) -> Result<Done, InstallError> {
        self.place(Part::Binary, words)?;
        let claim = self.claim()?;
        match enlarge_neighbour_table(&self.installation.conf, &claim)? {
            Room::Enough(set) => set.iter().for_each(|set| log::warn(format_args!("set {set}"))),
            Room::Elsewhere(told) => words.push(told),
        }
        words.extend(forward_drop::warnings()?);
        // The runtime is told last: when the node has its claim and is set up.
        self.place(Part::Configuration, words)?;
        Ok(Done::All)
    }

    /// Puts a part in place unless it is there. What somebody has changed since we put it there is left alone, and
    /// looked at again in the next round: `install` may have taken it back by then.
    fn place(&mut self, part: Part, words: &mut Vec<String>) -> Result<(), InstallError> {
        if !self.left.contains(&part) {
            return Ok(());
        }
        let journal = self.installation.journal();
        // Asked first: what somebody has changed may name plugins that are not there, and is not ours to put right.
        let path = match part {
            Part::Binary => self.installation.binary(),
            Part::Configuration => self.installation.there().0,
        };
        if part == Part::Configuration && is_edited(&journal, &path)? {
            self.leave(part, &path, words);
            return Ok(());
        }
        let placed = match part {
            Part::Binary => {
                let _turn = lock(&journal)?;
                self.installation.begin(&journal)?;
                self.installation.place_binary(&journal, Edited::Stays)?
            }
            Part::Configuration => {
                let kept = attach::keep(&self.installation.conf)?;
                kept.unprepared.map_or(Ok(()), |why| Err(InstallError::NotSetUp(why)))?;
                let _turn = lock(&journal)?;
                let list = self.installation.list()?;
                place_list(&journal, &list, Edited::Stays)?
            }
        };
        if placed == Placed::Anothers {
            self.leave(part, &path, words);
            return Ok(());
        }
        told(placed, &path).into_iter().for_each(log::warn);
        self.left.remove(&part);
        self.anothers.remove(&part);
        Ok(())
    }

    fn leave(&mut self, part: Part, path: &Path, words: &mut Vec<String>) {
        words.push(format!(
            "{} is not as it was left: it stays as it is; to take it back run `cni-shim install` again",
            path.display()
        ));
        self.anothers.insert(part);
    }

    fn claim(&self) -> Result<ClaimFile, InstallError> {
        let node = &self.installation.conf.node;
        let journal = Journal::at(&node.state_dir, &node.data_dir);
        if let Some(claim) = journal.claim_of(&node.name)? {
            return Ok(claim);
        }
        // Heeds what a failed call of others has told: it is tried once in ten seconds for all.
        let service = Service::of(node, Patience::Heed).within(node.timeout.max(super::PATIENCE));
        Ok(attach::enrol(&self.installation.conf, &service)?)
    }
}

/// Whether a round came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    All,
    InPart,
}

/// Held by agents while they run.
const AGENT_LOCK: &str = "agent.lock";

/// The file that tells whether an agent runs.
pub(super) fn agent_lock(journal: &Journal) -> Result<File, InstallError> {
    Ok(journal.lock_file(AGENT_LOCK)?)
}
