use super::{JournalError, files};
use ipam_api::names::{ContainerId, NetworkName};
use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Keeps ADD and DEL of one container in one network apart. The kernel gives
/// it back when the process ends, however it ends.
#[derive(Debug)]
pub struct AttachmentLock {
    /// Closed, and with that unlocked, behind everything else.
    _file: File,
    path: PathBuf,
    at_end: AtEnd,
}

/// What becomes of a lock's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// It stays, for the next who wants it.
    Stays,
    /// It goes: there is nothing behind it.
    Goes,
}

impl AttachmentLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn take(
        state_dir: &Path,
        network: &NetworkName,
        container: &ContainerId,
    ) -> Result<Self, JournalError> {
        loop {
            let (file, path, _) = Self::open(state_dir, network, container)?;
            file.lock().map_err(JournalError::io(&path))?;
            if let Some(lock) = Self::found(file, path, AtEnd::Stays)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if nobody has it. Where there was no file for it, none is left: whoever only looks has nothing to
    /// come back to.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn try_take(
        state_dir: &Path,
        network: &NetworkName,
        container: &ContainerId,
    ) -> Result<Option<Self>, JournalError> {
        loop {
            let (file, path, at_end) = Self::open(state_dir, network, container)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(JournalError::io(&path)(error)),
            }
            if let Some(lock) = Self::found(file, path, at_end)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Its file, and what is to become of that if it was made only now.
    fn open(
        state_dir: &Path,
        network: &NetworkName,
        container: &ContainerId,
    ) -> Result<(File, PathBuf, AtEnd), JournalError> {
        let directory = state_dir.join("attachments.lock.d").join(network.as_str());
        let path = directory.join(container.as_str());
        loop {
            files::make_directory(&directory)?;
            // One that somebody makes in between may go as well: they see that its name is gone.
            let at_end = if path.exists() { AtEnd::Stays } else { AtEnd::Goes };
            match files::open_lock(&path) {
                Ok(file) => return Ok((file, path, at_end)),
                // The last DEL of the network took the directory away in between.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(JournalError::io(&path)(error)),
            }
        }
    }

    /// The lock on a file that was just locked. Whoever held it may have removed the file: then it is on
    /// nothing that others can find, and none.
    fn found(file: File, path: PathBuf, at_end: AtEnd) -> Result<Option<Self>, JournalError> {
        let ours = file.metadata().map_err(JournalError::io(&path))?;
        let is_there =
            fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(is_there.then_some(Self { _file: file, path, at_end }))
    }

    /// Gives it back and removes its file: for a container of which nothing is left.
    pub fn discard(mut self) {
        self.at_end = AtEnd::Goes;
    }
}

impl Drop for AttachmentLock {
    fn drop(&mut self) {
        if self.at_end == AtEnd::Goes {
            // Still locked: whoever opened the file before sees, once they have the lock, that its name is gone.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_lock_that_somebody_has_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (network, container) = ("n".parse().unwrap(), "c".parse().unwrap());
        let lock = AttachmentLock::take(directory.path(), &network, &container).unwrap();
        assert!(AttachmentLock::try_take(directory.path(), &network, &container).unwrap().is_none());
        lock.discard();
        assert!(AttachmentLock::try_take(directory.path(), &network, &container).unwrap().is_some());
    }

    #[test]
    fn whoever_only_looks_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let (network, container) = ("n".parse().unwrap(), "c".parse().unwrap());
        let file = directory.path().join("attachments.lock.d/n/c");
        let look = || AttachmentLock::try_take(directory.path(), &network, &container).unwrap().unwrap();
        drop(look());
        assert!(!file.exists());
        drop(AttachmentLock::take(directory.path(), &network, &container).unwrap());
        drop(look());
        assert!(file.exists(), "an ADD's stays until its DEL");
        look().discard();
        assert!(!file.exists());
    }

    #[test]
    fn one_at_a_time_even_while_files_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let (network, container) = ("n".parse().unwrap(), "c".parse().unwrap());
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (inside, directory, network, container) = (&inside, &directory, &network, &container);
                scope.spawn(move || {
                    for round in 0..200 {
                        let lock = AttachmentLock::take(directory.path(), network, container).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if (n + round) % 2 == 0 {
                            lock.discard();
                        }
                    }
                });
            }
        });
    }
}
