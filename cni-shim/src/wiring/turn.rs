//! Changing what is the whole node's: by one process at a time, told first, and put back in the end.

use super::{
    WiringError, identity,
    sysctl::{self, Change, Setting},
};
use std::{fmt, fs, fs::File};

/// Both switch forwarding for every interface of their family, whatever each had.
const SWITCHES: [(&str, &str); 2] =
    [("net/ipv4/ip_forward", "net/ipv4/conf"), ("net/ipv6/conf/all/forwarding", "net/ipv6/conf")];

/// Hears of changes before they are made.
type Witness = Box<dyn Fn(&[Change]) + Send + Sync>;

/// How a process gets its turn to change the node: one file for all of a node.
pub struct Turn {
    lock: File,
    witness: Witness,
}

impl Turn {
    /// A turn at this lock; `witness` is told what will be changed, in time to write it down.
    #[must_use]
    pub fn at(lock: File, witness: impl Fn(&[Change]) + Send + Sync + 'static) -> Self {
        Self { lock, witness: Box::new(witness) }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`WiringError::Io`] where the file cannot be locked.
    pub fn begin(&self) -> Result<Alone<'_>, WiringError> {
        self.lock
            .lock()
            .map_err(|source| WiringError::io("waiting for a turn to set the node up", source))?;
        Ok(Alone(self))
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// Keeps other processes of ours from setting this node's sysctls.
///
/// The kernel restarts a write of `ip_forward` while an interface changes, and shows the new value in
/// between; a second writer that meets it then takes the change for made, as the first does in its turn.
/// What stays is `ip_forward` at 1 over interfaces that do not forward.
///
/// It takes a file that root alone can open: whoever opens one can lock it, and with the network
/// namespace's own, which anybody can open, anybody could keep pods from starting.
#[derive(Debug)]
pub struct Alone<'a>(&'a Turn);

impl Alone<'_> {
    /// Tells what will be changed.
    pub(super) fn announce(&self, changes: &[Change]) {
        if !changes.is_empty() {
            (self.0.witness)(changes);
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // The end of the process does it where this does not.
        let _ = self.0.lock.unlock();
    }
}

/// What else the kernel changes when it switches forwarding on, and again when it switches it off: then interfaces
/// that forwarded before go along as well.
pub(super) fn dragged_along(key: &str) -> Result<Vec<Change>, WiringError> {
    let Some((_, directory)) = SWITCHES.into_iter().find(|(switch, _)| *switch == key) else {
        return Ok(Vec::new());
    };
    let unreadable = |source| WiringError::io("listing the interfaces that forward", source);
    let mut changes = Vec::new();
    let mut follows = |key: String, set: &str| {
        let found = sysctl::read(&key)?;
        changes.extend(found.map(|found| Change { key, found, set: set.to_owned() }));
        Ok::<_, WiringError>(())
    };
    for entry in fs::read_dir(sysctl::path(directory)).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        // Host ends go with their pods.
        if !identity::is_host_end_name(&name) {
            follows(format!("{directory}/{name}/forwarding"), "1")?;
        }
    }
    if directory.contains("ipv4") {
        // Routers do not heed redirects.
        follows("net/ipv4/conf/all/accept_redirects".to_owned(), "0")?;
    }
    Ok(changes)
}

/// Which of these changes still stand: nobody has set another value since.
///
/// # Errors
/// When the kernel can't be asked.
pub fn standing(changes: &[Change]) -> Result<Vec<&Change>, WiringError> {
    let mut standing = Vec::new();
    for change in changes {
        if sysctl::read(&change.key)?.as_deref() == Some(change.set.as_str()) {
            standing.push(change);
        }
    }
    Ok(standing)
}

/// Puts values back, in the order in which the kernel keeps them; `changes` are in the order in which they were
/// made. Returns what was written, in words. Interfaces that are gone have nothing to be put back.
///
/// # Errors
/// [`WiringError::Several`] when some could not be; the others were.
pub fn put_back(changes: &[Change], turn: &Turn) -> Result<Vec<String>, WiringError> {
    let _alone = turn.begin()?;
    let is_switch = |change: &&Change| SWITCHES.iter().any(|(switch, _)| *switch == change.key);
    // A switch first: it would take the interfaces along again.
    let switches = changes.iter().filter(is_switch);
    let others = changes.iter().rev().filter(|change| !is_switch(change));
    let (mut written, mut errors) = (Vec::new(), Vec::new());
    for Change { key, found, .. } in switches.chain(others) {
        if !sysctl::path(key).exists() {
            continue;
        }
        match sysctl::ensure(key, found) {
            Ok(Setting::Written) => written.push(format!("{} = {found}", sysctl::path(key).display())),
            Ok(Setting::Kept) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(written) } else { Err(WiringError::Several(errors)) }
}
