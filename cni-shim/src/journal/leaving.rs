use super::{Journal, JournalError};
use std::fs::{File, TryLockError};

/// Shared by pods that are being attached, had alone by an uninstallation.
const LOCK: &str = "leaving.lock";

/// Keeps the node from being left. The kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Attaching(#[expect(dead_code, reason = "what is held is the lock on it")] File);

/// Keeps pods from being attached while the node is left; likewise.
#[derive(Debug)]
pub struct Leaving(#[expect(dead_code, reason = "what is held is the lock on it")] File);

impl Journal {
    /// Keeps the node from being left while a pod is attached that has no entry yet; nothing where it is being left.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin_attaching(&self) -> Result<Option<Attaching>, JournalError> {
        let lock = self.lock_file(LOCK)?;
        match lock.try_lock_shared() {
            Ok(()) => Ok(Some(Attaching(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(JournalError::io(self.state_dir().join(LOCK))(error)),
        }
    }

    /// Waits until no pod is being attached; none is from then on.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin_leaving(&self) -> Result<Leaving, JournalError> {
        let lock = self.lock_file(LOCK)?;
        lock.lock().map_err(JournalError::io(self.state_dir().join(LOCK)))?;
        Ok(Leaving(lock))
    }
}
