//! The agent's part: what `install` does once is done again whenever the agent starts, and goes on where it could not be
//! finished.

use super::{InstallError, Installation, enlarge_neighbour_table, forward_drop, lock};
use crate::{
    attach,
    cni::NetConf,
    journal::{ClaimFile, Journal},
    log,
    service::{Patience, Service},
    wiring::neighbour_table::Room,
};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two rounds while something is left to do: a node without a claim is of no use.
const PAUSE: Duration = Duration::from_secs(3);

/// What of an installation is left to do.
#[derive(Debug)]
enum Left {
    Nothing,
    Configuration(Box<Installation>),
    All(Box<Installation>),
}

/// Sees to claim, installation and the machine's settings, round by round.
#[derive(Debug)]
pub struct Upkeep {
    conf: NetConf,
    left: Left,
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
        let conf = installation.conf.clone();
        let journal = installation.journal();
        let running = agent_lock(&journal).and_then(|file| {
            let path = journal.state_dir().join(AGENT_LOCK);
            file.lock_shared().map_err(|source| InstallError::Write { path, source })?;
            Ok(file)
        });
        // What it keeps wired is worth more than that nobody uninstalls meanwhile.
        let running =
            running.map_err(|error| log::warn(format_args!("uninstall will not see this agent: {error}")));
        let places = journal.undo().unwrap_or_else(|error| {
            log::warn(error);
            None
        });
        let left = match (when, places.and_then(|undo| undo.places)) {
            (When::AsBefore, None) => Left::Nothing,
            (When::AsBefore, Some(places)) => {
                installation.places = places;
                Left::All(Box::new(installation))
            }
            (When::Asked, _) => Left::All(Box::new(installation)),
        };
        Self { conf, left, told: BTreeSet::new(), _running: running.ok() }
    }

    /// Goes on for as long as the process lives, in a thread of its own: the service may be silent. `every` is the pause
    /// between two rounds once all is done.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn stay(mut self, every: Duration) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            loop {
                let done = self.round();
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
        self.place_binary()?;
        let claim = self.claim()?;
        match enlarge_neighbour_table(&self.conf, &claim)? {
            Room::Enough(set) => set.iter().for_each(|set| log::warn(format_args!("set {set}"))),
            Room::Elsewhere(told) => words.push(told),
        }
        words.extend(forward_drop::warnings()?);
        self.place_list()?;
        Ok(Done::All)
    }

    fn place_binary(&mut self) -> Result<(), InstallError> {
        let Left::All(installation) = &self.left else { return Ok(()) };
        let journal = installation.journal();
        let _turn = lock(&journal)?;
        journal.change_undo(|undo| undo.places = Some(installation.places.clone()))?;
        if let Some(done) = installation.place_binary(&journal)? {
            log::warn(done);
        }
        if let Left::All(installation) = std::mem::replace(&mut self.left, Left::Nothing) {
            self.left = Left::Configuration(installation);
        }
        Ok(())
    }

    /// The runtime is told last: when the node has its claim and is set up.
    fn place_list(&mut self) -> Result<(), InstallError> {
        let Left::Configuration(installation) = &self.left else { return Ok(()) };
        let kept = attach::keep(&self.conf)?;
        kept.unprepared.map_or(Ok(()), |why| Err(InstallError::NotSetUp(why)))?;
        let journal = installation.journal();
        let _turn = lock(&journal)?;
        if let Some(done) = installation.place_list(&journal, &installation.list()?)? {
            log::warn(done);
        }
        self.left = Left::Nothing;
        Ok(())
    }

    fn claim(&self) -> Result<ClaimFile, InstallError> {
        let node = &self.conf.node;
        let journal = Journal::at(&node.state_dir, &node.data_dir);
        if let Some(claim) = journal.claim_of(&node.name)? {
            return Ok(claim);
        }
        // Heeds what a failed call of others has told: it is tried once in ten seconds for all.
        let service = Service::of(node, Patience::Heed).within(node.timeout.max(super::PATIENCE));
        Ok(attach::enrol(&self.conf, &service)?)
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
