use crate::seed::Chance;
use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Passes,
    /// It arrives so much later, while its sender waits or has given up.
    RequestSlow(Duration),
    /// Its answer does.
    ReplySlow(Duration),
    /// It never arrives.
    RequestLost,
    /// Its sender hears at once that the connection broke; it arrives so much later, perhaps after its retry.
    RequestLate(Duration),
    /// It is carried out, and nobody hears of it.
    ReplyLost,
    /// The same, in the middle of the answer.
    ReplyTorn,
    /// A copy of it arrives so much later.
    Doubled(Duration),
    /// Another program answers.
    Strange,
    /// The wire is cut.
    CutOff,
}

const NAMES: [&str; 10] = [
    "passed",
    "slow requests",
    "slow replies",
    "lost requests",
    "late requests",
    "lost replies",
    "torn replies",
    "doubled requests",
    "strange answers",
    "cut off",
];

impl Fate {
    pub(super) fn of(chance: &mut Chance) -> Self {
        // Some overtake the next request only, some arrive when everything has changed.
        let late = Duration::from_millis(match chance.below(10) {
            0..=4 => chance.within(0, 20),
            5..=7 => chance.within(20, 400),
            _ => chance.within(400, 4000),
        });
        let slow = Duration::from_millis(chance.within(1, 40));
        let too_slow = Duration::from_millis(chance.within(1, 600));
        chance.weighted(&[
            (880, Self::Passes),
            (10, Self::RequestSlow(slow)),
            (4, Self::RequestSlow(too_slow)),
            (10, Self::ReplySlow(slow)),
            (4, Self::ReplySlow(too_slow)),
            (18, Self::RequestLost),
            (18, Self::RequestLate(late)),
            (22, Self::ReplyLost),
            (6, Self::ReplyTorn),
            (24, Self::Doubled(late)),
            (4, Self::Strange),
        ])
    }

    fn index(self) -> usize {
        match self {
            Self::Passes => 0,
            Self::RequestSlow(_) => 1,
            Self::ReplySlow(_) => 2,
            Self::RequestLost => 3,
            Self::RequestLate(_) => 4,
            Self::ReplyLost => 5,
            Self::ReplyTorn => 6,
            Self::Doubled(_) => 7,
            Self::Strange => 8,
            Self::CutOff => 9,
        }
    }
}

/// How many requests met which fate.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicUsize; NAMES.len()]);

impl Tally {
    pub(super) fn count(&self, fate: Fate) {
        self.0[fate.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Fates that no request has met.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let never = |(_, count): &(_, &AtomicUsize)| count.load(Ordering::Relaxed) == 0;
        NAMES.iter().zip(&self.0).filter(never).map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<String> = NAMES
            .iter()
            .zip(&self.0)
            .map(|(name, count)| format!("{} {name}", count.load(Ordering::Relaxed)))
            .collect();
        f.write_str(&told.join(", "))
    }
}
