//! One holder at any time, by what was on the wires, whatever anybody answered.

use super::{Rule, Violation};
use crate::history::Life;

pub(super) fn check(lives: &[Life]) -> Vec<Violation> {
    let mut in_order: Vec<&Life> = lives.iter().collect();
    in_order.sort_by_key(|life| (life.address, life.from));
    let mut violations = Vec::new();
    let mut last: Option<&Life> = None;
    for life in in_order {
        if let Some(before) = last.filter(|before| before.address == life.address) {
            let overlaps = before.until.is_none_or(|until| until > life.from);
            if overlaps {
                violations.push(twice(before, life));
            }
            // Of two that overlap the one that lasts longer is compared with the next.
            let lasts = |life: &Life| life.until.map_or(u64::MAX, |until| until.0);
            if lasts(before) > lasts(life) {
                continue;
            }
        }
        last = Some(life);
    }
    violations
}

fn twice(one: &Life, other: &Life) -> Violation {
    let story = format!(
        "{} was on two wires at {}: {} of {} since {}, and {} of {}",
        one.address, other.from, one.holder, one.vm, one.from, other.holder, other.vm
    );
    Violation::new(Rule::OneHolder, story, [format!("{}", one.address)])
}
