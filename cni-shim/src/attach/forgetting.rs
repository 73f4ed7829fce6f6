//! Connections of a pod that is gone are forgotten by a process of their own; whoever gets the pod's address at once
//! waits for it, or loses connections that are its own.

use crate::{journal::Journal, log, wiring::conntrack::Forgetting};
use std::{
    fs::{File, TryLockError},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// Locked by all who forget.
const LOCK: &str = "forgetting.lock";

/// Within this even the walks through a large table have ended.
const OVER: Duration = Duration::from_secs(10);
/// Longest wait of an ADD.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Has the kernel forget what pods had to do with that had these addresses.
pub(super) fn begin(journal: &Journal, addresses: &[IpAddr]) {
    // The process that forgets has the lock for as long as it lives.
    let lock = journal.lock_file(LOCK).ok().filter(|lock| lock.lock_shared().is_ok());
    if let Err(error) = Forgetting::pod(addresses).detached(lock) {
        log::warn(format_args!("connections of {addresses:?} are not forgotten: {error}"));
    }
}

/// Waits until nothing is being forgotten that the next holder of an address may begin. It has `rested` so long: only
/// in a full block so short that there is something to wait for.
pub(super) fn end(journal: &Journal, rested: Option<Duration>) {
    if rested.is_none_or(|rested| rested > OVER) {
        return;
    }
    let Ok(lock) = journal.lock_file(LOCK) else { return };
    let until = Instant::now() + PATIENCE;
    while is_held(&lock) && Instant::now() < until {
        thread::sleep(PAUSE);
    }
}

fn is_held(lock: &File) -> bool {
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn an_address_that_has_just_been_given_back_waits_for_whoever_forgets() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
        let lock = journal.lock_file(LOCK).unwrap();
        lock.lock_shared().unwrap();
        // Another process has it for as long as nobody ends its input.
        let mut forgets = Command::new("sh")
            .args(["-c", "read -r _; :"])
            .stdin(Stdio::piped())
            .stdout(lock)
            .spawn()
            .unwrap();
        for rested in [None, Some(OVER + PAUSE)] {
            end(&journal, rested);
            assert!(is_held(&journal.lock_file(LOCK).unwrap()), "{rested:?} has nothing to wait for");
        }
        let began = Instant::now();
        end(&journal, Some(Duration::ZERO));
        assert!(began.elapsed() >= PATIENCE, "it waits as long as it may");
        drop(forgets.stdin.take());
        forgets.wait().unwrap();
        end(&journal, Some(Duration::ZERO));
        assert!(!is_held(&journal.lock_file(LOCK).unwrap()));
    }
}
