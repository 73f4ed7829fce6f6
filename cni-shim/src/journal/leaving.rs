use super::{Journal, JournalError, Uptime};
use std::{
    fs::{File, TryLockError},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Shared by pods that are being attached, had alone by an uninstallation. It says when the node was left last, in µs of
/// that boot.
const LOCK: &str = "leaving.lock";
/// Between two tries: a lock that is waited for takes no deadline.
const PAUSE: Duration = Duration::from_millis(5);

/// Keeps the node from being left. The kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Attaching(#[expect(dead_code, reason = "what is held is the lock on it")] File);

/// Keeps pods from being attached while the node is left; likewise.
#[derive(Debug)]
pub struct Leaving {
    lock: File,
    path: PathBuf,
}

impl Leaving {
    /// Nothing is left of the installation: whoever wanted to attach a pod before now does so no more.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn has_left(&self) -> Result<(), JournalError> {
        // Always twenty digits: one write replaces the last number whole.
        let text = format!("{:020}\n", Uptime::now().0);
        self.lock.write_all_at(text.as_bytes(), 0).map_err(JournalError::io(&self.path))
    }
}

impl Journal {
    /// Keeps the node from being left while a pod is attached that has no entry yet; nothing where it is being left, or
    /// was left after `since`, when the pod was asked for.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin_attaching(&self, since: Uptime) -> Result<Option<Attaching>, JournalError> {
        let mut lock = self.lock_file(LOCK)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(JournalError::io(self.state_dir().join(LOCK))(error));
            }
        }
        let left = left(&mut lock).map_err(JournalError::io(self.state_dir().join(LOCK)))?;
        // What lies in the future was written in another boot.
        let is_over = left.is_some_and(|left| since <= left && left <= Uptime::now());
        Ok((!is_over).then_some(Attaching(lock)))
    }

    /// Waits until no pod is being attached; none is from then on. Nothing where one is for longer than `patience`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin_leaving(&self, patience: Duration) -> Result<Option<Leaving>, JournalError> {
        let (lock, path) = (self.lock_file(LOCK)?, self.state_dir().join(LOCK));
        let end = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(Leaving { lock, path })),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => return Ok(None),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(JournalError::io(path)(error)),
            }
        }
    }
}

/// When the node was left last, if it was.
fn left(lock: &mut File) -> io::Result<Option<Uptime>> {
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    Ok(text.trim().parse().ok().map(Uptime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asked_before_the_node_was_left_attaches_no_pod() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
        let since = Uptime::now();
        let attaching = journal.begin_attaching(since).unwrap().unwrap();
        assert!(journal.begin_leaving(Duration::ZERO).unwrap().is_none(), "a pod is being attached");
        drop(attaching);
        let leaving = journal.begin_leaving(Duration::ZERO).unwrap().unwrap();
        assert!(journal.begin_attaching(Uptime::now()).unwrap().is_none(), "the node is being left");
        drop(leaving);
        assert!(journal.begin_attaching(since).unwrap().is_some(), "it was not, in the end");
        journal.begin_leaving(Duration::ZERO).unwrap().unwrap().has_left().unwrap();
        assert!(journal.begin_attaching(since).unwrap().is_none());
        assert!(journal.begin_attaching(Uptime::now()).unwrap().is_some(), "somebody uses it again");
        std::fs::write(directory.path().join("state/leaving.lock"), format!("{:020}\n", u64::MAX)).unwrap();
        assert!(journal.begin_attaching(since).unwrap().is_some(), "another boot's");
    }
}
