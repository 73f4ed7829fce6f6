use super::JournalError;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, time::Duration};

/// A moment of this boot: `CLOCK_BOOTTIME` in µs. It never jumps and goes on
/// while the machine sleeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uptime(pub u64);

impl Uptime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        // The clock is there on every kernel since 2.6.39; without it `seq` still rises by one a draw.
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        Self(time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long before `now` this moment was; nothing if it was later.
    #[must_use]
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_micros(now.0.saturating_sub(self.0))
    }

    /// The moment that lies so long before this one, at the earliest the boot.
    #[must_use]
    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The moment that lies so long after this one.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The kernel's boot id.
///
/// # Errors
/// The file cannot be read or has no plausible id: 1 to 128 printable characters.
pub(crate) fn boot_id(file: &Path) -> Result<String, JournalError> {
    let text = fs::read_to_string(file).map_err(JournalError::io(file))?;
    let id = text.trim();
    if id.is_empty() || id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(JournalError::Corrupt {
            path: file.to_owned(),
            why: "a boot id is 1 to 128 printable characters".to_owned(),
        });
    }
    Ok(id.to_owned())
}
