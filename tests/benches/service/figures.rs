use anyhow::Result;
use hdrhistogram::Histogram;
use std::{collections::BTreeMap, fmt, time::Duration};

/// Longest time told apart, in µs.
const LONGEST: u64 = 60_000_000;

/// What one measure of a rate showed.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Of each answer, in µs.
    times: Histogram<u64>,
    /// Answers that were not what was asked for, by status.
    failures: BTreeMap<u16, u64>,
    /// How long it was measured.
    pub(crate) took: Duration,
}

impl Figures {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            times: Histogram::new_with_max(LONGEST, 3)?,
            failures: BTreeMap::new(),
            took: Duration::ZERO,
        })
    }

    pub(crate) fn done(&mut self, took: Duration) {
        self.times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&mut self, status: u16) {
        *self.failures.entry(status).or_default() += 1;
    }

    /// Adds what another client saw at the same time.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.times.add(&other.times)?;
        for (status, count) in &other.failures {
            *self.failures.entry(*status).or_default() += count;
        }
        self.took = self.took.max(other.took);
        Ok(())
    }

    /// Good answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// Milliseconds within which this share of the answers came.
    pub(crate) fn ms(&self, percent: f64) -> f64 {
        self.times.value_at_percentile(percent) as f64 / 1000.0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.0}/s  p50 {:6.2}  p95 {:6.2}  p99 {:6.2}  p99.9 {:6.2} ms",
            self.rate(),
            self.ms(50.0),
            self.ms(95.0),
            self.ms(99.0),
            self.ms(99.9)
        )?;
        if !self.failures.is_empty() {
            write!(f, "  FAILED by status: {:?}", self.failures)?;
        }
        Ok(())
    }
}
