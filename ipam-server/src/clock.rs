//! The one source of time, so that tests can set it.

use jiff::Timestamp;
use std::{fmt, sync::Arc};

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The clock of a service: the machine's.
#[cfg(not(feature = "fault-points"))]
#[must_use]
pub fn of_service() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The clock of a service: the machine's, wrong by what tests say.
#[cfg(feature = "fault-points")]
#[must_use]
pub fn of_service() -> Arc<dyn Clock> {
    match std::env::var_os("IPAM_FAULT_CLOCK") {
        None => Arc::new(SystemClock),
        Some(file) => Arc::new(wrong::WrongClock::by(file.into())),
    }
}

#[cfg(feature = "fault-points")]
mod wrong {
    use super::{Clock, SystemClock};
    use jiff::{SignedDuration, Timestamp};
    use std::{fs, path::PathBuf};

    /// The machine's clock, wrong by as many milliseconds as a file says (feature `fault-points`; nothing in a
    /// release). It jumps when the file changes.
    #[derive(Debug)]
    pub(super) struct WrongClock {
        file: PathBuf,
    }

    impl WrongClock {
        pub(super) fn by(file: PathBuf) -> Self {
            Self { file }
        }
    }

    impl Clock for WrongClock {
        fn now(&self) -> Timestamp {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            let wrong = SignedDuration::from_millis(text.trim().parse().unwrap_or(0));
            let now = SystemClock.now();
            now.checked_add(wrong).unwrap_or(now)
        }
    }
}
