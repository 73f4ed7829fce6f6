use crate::journal::{
    JournalError, Uptime,
    files::{self, Durability},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Whether a call goes out although the service was not to be reached a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Not until the marker has run out: pods start from the block meanwhile.
    Heed,
    /// Always: a person asked for it.
    Insist,
}

/// Tells all processes of the node that the service was not to be reached
/// (`stateDir/unreachable`), so that one of them waits for it and not each.
#[derive(Debug, Clone)]
pub struct Marker {
    path: PathBuf,
}

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// Calls go straight to the block until then.
    pub until: Uptime,
    /// When the service was last not reached.
    pub since: Uptime,
    /// Why.
    pub reason: String,
}

impl Marker {
    /// How long a failure speaks for.
    pub const LASTS: Duration = Duration::from_secs(10);

    /// The marker of the journal in this directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("unreachable") }
    }

    /// What it says, whether or not it has run out; `None` while all is well. One
    /// that cannot be read says nothing.
    #[must_use]
    pub fn said(&self) -> Option<Said> {
        files::read(&self.path).ok().flatten()
    }

    /// Why no call should go out now, for one who would not make one.
    #[must_use]
    pub fn speaks(&self, now: Uptime) -> Option<String> {
        // A marker of an earlier boot lies in the future of this one.
        self.said().filter(|said| now < said.until && said.since <= now).map(|said| said.reason)
    }

    /// Why no call should go out now. Whoever finds it run out is the one to
    /// try, and holds the others back for as long as that may take.
    #[must_use]
    pub fn holds(&self, now: Uptime, budget: Duration) -> Option<String> {
        if let Some(reason) = self.speaks(now) {
            return Some(reason);
        }
        let said = self.said()?;
        let _ = self.write(&Said { until: now.plus(budget), since: now, reason: said.reason });
        None
    }

    /// The service was not reached.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn set(&self, now: Uptime, reason: &str) -> Result<(), JournalError> {
        self.write(&Said { until: now.plus(Self::LASTS), since: now, reason: reason.to_owned() })
    }

    /// The service has spoken. Whether it had not before.
    pub fn clear(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }

    fn write(&self, said: &Said) -> Result<(), JournalError> {
        // Written without the node's lock: processes that fail together may write
        // together, so each writes a file of its own and the last rename stays.
        let own = self.path.with_file_name(format!("unreachable.{}", std::process::id()));
        files::replace(&own, said, Durability::Process)?;
        std::fs::rename(&own, &self.path)
            .map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_speaks_for_ten_seconds_and_then_one_tries() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::of(directory.path());
        let (start, budget) = (Uptime(1_000_000), Duration::from_secs(1));
        assert_eq!(marker.holds(start, budget), None);
        marker.set(start, "no route").unwrap();
        assert_eq!(marker.holds(start.plus(Duration::from_secs(9)), budget).as_deref(), Some("no route"));
        let later = start.plus(Duration::from_secs(10));
        assert_eq!(marker.holds(later, budget), None, "the first tries");
        assert_eq!(
            marker.holds(later, budget).as_deref(),
            Some("no route"),
            "the second does not wait for it"
        );
        assert_eq!(marker.holds(later.plus(budget), budget), None, "the first ended without a word");
        assert!(marker.clear());
        assert!(!marker.clear());
        assert_eq!(marker.holds(later, budget), None);
        assert_eq!(files::list(directory.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_marker_of_an_earlier_boot_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::of(directory.path());
        marker.set(Uptime(u64::MAX / 2), "old").unwrap();
        assert_eq!(marker.holds(Uptime(1), Duration::from_secs(1)), None);
    }
}
