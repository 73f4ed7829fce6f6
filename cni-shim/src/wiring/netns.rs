//! Network namespaces: the host's and one pod's.
//!
//! A thread enters a namespace only for short brackets (opening a socket,
//! writing a sysctl) and a bracket never starts a thread. Sockets stay bound to
//! the namespace they were opened in, so everything else needs no bracket.

use super::{WiringError, netlink::Netlink};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// The calling thread's namespace. `/proc/self` would be the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// `f_type` of files that name namespaces (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The host's side: a socket in the namespace the process runs in.
#[derive(Debug)]
pub struct Host {
    pub(crate) netlink: Netlink,
}

impl Host {
    /// Opens the socket in the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket.
    pub fn open() -> Result<Self, WiringError> {
        let netlink =
            Netlink::open().map_err(|source| WiringError::io("opening the host's socket", source))?;
        Ok(Self { netlink })
    }
}

/// A pod's namespace, held open, with a socket inside.
#[derive(Debug)]
pub struct Pod {
    path: PathBuf,
    file: File,
    own: File,
    pub(crate) netlink: Netlink,
}

impl Pod {
    /// Opens the namespace that `path` (`CNI_NETNS`) names. Call it before any thread starts.
    ///
    /// # Errors
    /// [`WiringError::NetnsGone`] when there is no such file, [`WiringError::NetnsIsHost`] when it is
    /// the namespace the caller runs in, [`WiringError::NetnsUnusable`] when it is something else.
    pub fn open(path: &Path) -> Result<Self, WiringError> {
        let (file, own) = open(path)?;
        let netlink = inside(&file, &own, path, Netlink::open)?
            .map_err(|source| WiringError::io("opening a socket in the pod's namespace", source))?;
        Ok(Self { path: path.to_owned(), file, own, netlink })
    }

    /// Whether the path names a pod's namespace still; enters none.
    ///
    /// # Errors
    /// [`WiringError::NetnsUnusable`] when it is something else than a namespace: then it cannot be told.
    pub fn is_there(path: &Path) -> Result<bool, WiringError> {
        match open(path) {
            Ok(_) => Ok(true),
            // A process of the host's has the number by now that a pod's had.
            Err(WiringError::NetnsGone { .. } | WiringError::NetnsIsHost { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `action` with the calling thread inside the pod's namespace.
    ///
    /// # Errors
    /// [`WiringError::NetnsLost`] when the thread could not come back: then the process must end.
    pub fn inside<T>(&self, action: impl FnOnce() -> T) -> Result<T, WiringError> {
        inside(&self.file, &self.own, &self.path, action)
    }

    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

/// The namespace that a path names, and the calling thread's own, another one.
fn open(path: &Path) -> Result<(File, File), WiringError> {
    let unusable = |source| WiringError::NetnsUnusable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_gone(&error) => return Err(WiringError::NetnsGone { path: path.to_owned() }),
        Err(error) => return Err(unusable(error)),
    };
    let kind = nix::sys::statfs::fstatfs(&file).map_err(|errno| unusable(errno.into()))?;
    if kind.filesystem_type().0 as i64 != NSFS_MAGIC {
        // An unmounted name of `ip netns` is an empty file: the namespace behind it is gone.
        let metadata = file.metadata().map_err(unusable)?;
        return Err(if metadata.is_file() && metadata.len() == 0 {
            WiringError::NetnsGone { path: path.to_owned() }
        } else {
            unusable(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"))
        });
    }
    let own = File::open(OWN).map_err(|source| WiringError::io("opening the own namespace", source))?;
    let (theirs, ours) = (file.metadata().map_err(unusable)?, own.metadata().map_err(unusable)?);
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Err(WiringError::NetnsIsHost { path: path.to_owned() });
    }
    Ok((file, own))
}

fn inside<T>(file: &File, own: &File, path: &Path, action: impl FnOnce() -> T) -> Result<T, WiringError> {
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| WiringError::NetnsUnusable { path: path.to_owned(), source: errno.into() })?;
    let result = action();
    setns(own, CloneFlags::CLONE_NEWNET).map_err(|errno| WiringError::NetnsLost { source: errno.into() })?;
    Ok(result)
}

/// ENOENT and ENOTDIR: no such path. ESRCH: the process behind `/proc/PID/ns/net` has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENOTDIR | nix::libc::ESRCH))
}
