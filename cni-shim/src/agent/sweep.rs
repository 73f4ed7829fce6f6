//! Sweeping what pods left whose end nobody told: seen twice, some time apart, and looked at again before it acts.

use crate::{
    attach::{self, NodeContext, Suspect, Swept},
    cni::{CniError, NetConf},
    journal::Uptime,
    log,
    wiring::Host,
};
use std::{collections::BTreeMap, time::Duration};

/// What was seen, and since when.
#[derive(Debug)]
pub(super) struct Sweeper {
    grace: Duration,
    sightings: Sightings<Suspect>,
}

impl Sweeper {
    /// One that waits so long: a runtime may be about to tell.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, sightings: Sightings::default() }
    }

    /// Looks, and sweeps what has looked like a leak for long enough; how many are gone.
    pub(super) fn look(&mut self, conf: &NetConf) -> Result<u64, CniError> {
        let mut host = Host::open()?;
        let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
        let Some(suspects) = attach::suspects(&context, &mut host)? else { return Ok(0) };
        let mut swept = 0;
        for suspect in self.sightings.see(suspects, Uptime::now(), self.grace) {
            let Suspect { attachment, leak } = &suspect;
            match attach::sweep(&context, &mut host, &suspect, conf.uplink.as_deref()) {
                Ok(Swept::Gone) => {
                    swept += 1;
                    log::warn(format_args!("{attachment} is swept, which nobody ended: {leak}"));
                }
                Ok(Swept::Spared) => {
                    log::info(format_args!("{attachment} is left alone: somebody is or was at it"));
                }
                Err(error) => log::error(format_args!("{attachment} cannot be swept: {error}")),
            }
        }
        Ok(swept)
    }
}

/// When each thing was first seen, of those seen at every look since. Pure.
#[derive(Debug)]
struct Sightings<T> {
    since: BTreeMap<T, Uptime>,
}

impl<T> Default for Sightings<T> {
    fn default() -> Self {
        Self { since: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Sightings<T> {
    /// Takes down what is seen now; what was seen before as well, first at least `grace` ago.
    fn see(&mut self, seen: impl IntoIterator<Item = T>, now: Uptime, grace: Duration) -> Vec<T> {
        let before = std::mem::take(&mut self.since);
        let mut again = Vec::new();
        for thing in seen {
            let first = before.get(&thing);
            if first.is_some_and(|first| first.age_at(now) >= grace) {
                again.push(thing.clone());
            }
            self.since.insert(thing, first.copied().unwrap_or(now));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn one_sighting_is_none_however_long_the_grace_is() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.see(["a"], Uptime(0), Duration::ZERO), [""; 0]);
        assert_eq!(sightings.see(["a"], Uptime(0), Duration::ZERO), ["a"]);
    }

    #[test]
    fn what_was_away_in_between_begins_anew() {
        let mut sightings = Sightings::default();
        sightings.see(["a", "b"], Uptime(0), GRACE);
        sightings.see(["b"], Uptime(30_000_000), GRACE);
        assert_eq!(sightings.see(["a", "b"], Uptime(60_000_000), GRACE), ["b"]);
        assert_eq!(sightings.see(["a"], Uptime(119_999_999), GRACE), [""; 0]);
        assert_eq!(sightings.see(["a"], Uptime(120_000_000), GRACE), ["a"]);
    }

    proptest! {
        #[test]
        fn what_is_swept_was_seen_at_every_look_for_the_grace(
            looks in prop::collection::vec((1u64..50, prop::collection::btree_set(0u8..4, 0..4)), 0..20),
        ) {
            let mut sightings = Sightings::default();
            let (mut now, mut past): (u64, Vec<(u64, std::collections::BTreeSet<u8>)>) = (0, Vec::new());
            for (pause, seen) in looks {
                now += pause * 1_000_000;
                let swept = sightings.see(seen.clone(), Uptime(now), GRACE);
                past.push((now, seen));
                for thing in 0..4 {
                    let run = past.iter().rev().take_while(|(_, seen)| seen.contains(&thing));
                    let first = run.last().map(|(at, _)| *at);
                    let expected = first.is_some_and(|first| now - first >= 60_000_000);
                    prop_assert_eq!(swept.contains(&thing), expected);
                }
            }
        }
    }
}
