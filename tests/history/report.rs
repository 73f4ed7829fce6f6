//! What a run says of itself.

use crate::{
    checker::Violation,
    seed::Seed,
    world::{Outcome, calls_a_second},
};
use std::fmt;

/// What went wrong on purpose.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) kills: usize,
    pub(crate) freezes: usize,
    /// Of the service's clock.
    pub(crate) jumps: usize,
    /// Of the database's server.
    pub(crate) crashes: usize,
    /// Of connections to it.
    pub(crate) cuts: usize,
    /// What it had to undo because transactions waited for each other.
    pub(crate) deadlocks: usize,
    /// What became of requests.
    pub(crate) requests: String,
    /// What never did.
    pub(crate) unmet: Vec<&'static str>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "service killed {} times, frozen {} times, its clock wrong {} times",
            self.kills, self.freezes, self.jumps
        )?;
        if self.crashes + self.cuts + self.deadlocks > 0 {
            write!(
                f,
                "; database crashed {} times, connections to it cut {} times, {} deadlocks",
                self.crashes, self.cuts, self.deadlocks
            )?;
        }
        if self.requests.is_empty() { Ok(()) } else { write!(f, "; requests: {}", self.requests) }
    }
}

/// The summary of a run.
pub(crate) fn summary(seed: Seed, outcome: &Outcome, violations: &[Violation]) -> String {
    let Outcome { history, faults, took, .. } = outcome;
    let calls = history.calls.len();
    let mut text = format!(
        "{calls} calls in {took:.1?} ({:.0}/s), {} addresses lived on wires, {} looks at ledgers, {} at maps\n{faults}\n",
        calls_a_second(calls, *took),
        history.lives.len(),
        history.looks.len(),
        history.tiles.len()
    );
    if violations.is_empty() {
        text.push_str(
            "verdict: one holder at any time, nothing acknowledged lost, retries changed nothing, \
                       every subnet tiled, journals and ledger agree, nothing left\n",
        );
        return text;
    }
    const SHOWN: usize = 8;
    const LINES: usize = 60;
    text.push_str(&format!("verdict: {} violations; HISTORY_SEED={seed} plays it again\n", violations.len()));
    for violation in violations.iter().take(SHOWN) {
        text.push_str(&format!("{violation}\n"));
        for line in violation.excerpt(history, LINES) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}
