//! Whether a history is one that the service may have: pure functions over what happened.

mod addresses;
mod edits;
mod ledger;
mod tiles;

use crate::history::{History, Said, Tick};
use std::fmt;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// An address is on one wire at a time.
    OneHolder,
    /// What was acknowledged is there, unless its owner changed it later.
    NothingLost,
    /// A request that comes again changes nothing.
    RetriesChangeNothing,
    /// Extents cover each subnet, without gap and overlap.
    Tiled,
    /// Journals and ledger agree once everybody was heard.
    Agreed,
    /// Nothing is left once everything is taken away.
    NothingLeft,
    /// The service finds no fault with itself.
    NoDefect,
}

/// A rule that a history breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// What happened, for people.
    pub(crate) story: String,
    /// Words that lines of the history about it have.
    pub(crate) about: Vec<String>,
    /// When it was seen; what came later did not bring it about.
    pub(crate) seen: Option<Tick>,
}

impl Violation {
    fn new(rule: Rule, story: String, about: impl IntoIterator<Item = String>) -> Self {
        Self { rule, story, about: about.into_iter().collect(), seen: None }
    }

    fn seen(self, at: Tick) -> Self {
        Self { seen: Some(at), ..self }
    }

    /// The lines of the history that are about it, in order; the last ones before it was seen, if they are many.
    pub(crate) fn excerpt(&self, history: &History, lines: usize) -> Vec<String> {
        let is_about = |line: &String| self.about.iter().any(|word| line.contains(word.as_str()));
        let calls = history.calls.iter().map(|call| (call.asked, call.to_string()));
        let lives = history.lives.iter().flat_map(|life| {
            let what = |verb: &str| format!("{}: {verb} {} of {}", life.vm, life.address, life.holder);
            let begin = (life.from, format!("{} {}", life.from, what("wires")));
            let end = life.until.map(|until| (until, format!("{until} {}", what("unwired"))));
            std::iter::once(begin).chain(end)
        });
        let is_before = |at: &Tick| self.seen.is_none_or(|seen| *at <= seen);
        let mut told: Vec<_> =
            calls.chain(lives).filter(|(at, line)| is_before(at) && is_about(line)).collect();
        told.sort();
        let skipped = told.len().saturating_sub(lines);
        told.into_iter().skip(skipped).map(|(_, line)| line).collect()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.story)
    }
}

/// Every rule that the history breaks.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut violations = addresses::check(&history.lives);
    violations.extend(ledger::check(history));
    violations.extend(edits::check(history));
    violations.extend(tiles::check(history));
    let defects = history.calls.iter().filter(|call| matches!(call.said, Said::Defect(_)));
    violations.extend(defects.map(|call| Violation::new(Rule::NoDefect, call.to_string(), [])));
    let left = history.end.leftovers.iter();
    violations.extend(left.map(|left| Violation::new(Rule::NothingLeft, left.clone(), [])));
    violations
}
