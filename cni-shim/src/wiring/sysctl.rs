//! Sysctls: read before write, and an error that names path and value.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens it.

use super::WiringError;
use nix::unistd::{AccessFlags, access};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Whether a sysctl had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// It had the value already; nothing was written.
    Kept,
    /// It was written.
    Written,
}

/// A sysctl that is about to get another value, by us or along with one that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `net/ipv4/ip_forward` and the like.
    pub key: String,
    /// The value it has.
    pub found: String,
    /// The value it will have.
    pub set: String,
}

/// The file of `net/ipv4/ip_forward` and the like.
#[must_use]
pub fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// The value of a sysctl, without the line's end; none where the kernel has no such sysctl.
///
/// # Errors
/// When the file exists but can't be read.
pub fn read(key: &str) -> Result<Option<String>, WiringError> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WiringError::io(&format!("reading {}", path(key).display()), source)),
    }
}

/// Sees to it that a sysctl has a value. Writes only where it has another one, so a read-only
/// `/proc/sys` with the right values works.
///
/// # Errors
/// [`WiringError::Sysctl`] with path and value; [`WiringError::Ipv6Disabled`] for a missing file of IPv6.
pub fn ensure(key: &str, want: &str) -> Result<Setting, WiringError> {
    let path = path(key);
    let failed = |source| WiringError::Sysctl { path: path.clone(), want: want.to_owned(), source };
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == want => return Ok(Setting::Kept),
        Ok(_) => {}
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && !ipv6_exists() && key.starts_with("net/ipv6") =>
        {
            return Err(WiringError::Ipv6Disabled { path });
        }
        Err(error) => return Err(failed(error)),
    }
    fs::write(&path, want).map_err(failed)?;
    // Some handlers take a value and keep another.
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == want => Ok(Setting::Written),
        Ok(text) => Err(failed(io::Error::other(format!("it stays {:?}", text.trim())))),
        Err(error) => Err(failed(error)),
    }
}

/// True where a sysctl exists and can be written.
#[must_use]
pub fn is_writable(key: &str) -> bool {
    access(&path(key), AccessFlags::W_OK).is_ok()
}

/// True where the kernel has IPv6 at all.
#[must_use]
pub fn ipv6_exists() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
