//! Which offset next. Pure.

use super::{ClaimFile, Conflict, Entry, Uptime};
use ipam_api::line::{Extent, Line, Offset};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// What is known of an offset of the block; one of which nothing is known was never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Past {
    /// It was given back then.
    Released(Uptime),
    /// It must not be used.
    Refused,
}

/// An offset to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The offset.
    pub offset: Offset,
    /// How long it has rested; `None` if nobody ever had it.
    pub rested: Option<Duration>,
}

/// Everything known that speaks against offsets of the block.
#[must_use]
pub fn past(
    claim: &ClaimFile,
    line: Line,
    entries: &[Entry],
    on_host: impl IntoIterator<Item = IpAddr>,
    now: Uptime,
) -> HashMap<Offset, Past> {
    let mut past = HashMap::new();
    let mut note = |offset: Offset, what: Past| {
        let known = past.entry(offset).or_insert(what);
        // The later release counts, and a refusal more than any release.
        *known = (*known).max(what);
    };
    // The journal of before is gone, and nobody has told what rests: everything may.
    if let (Some(forgotten), Ok(block)) = (claim.forgotten, claim.block(line)) {
        for offset in block.iter().flat_map(|extent| extent.first().0..extent.next().0) {
            note(Offset(offset), Past::Released(forgotten.since));
        }
    }
    for (offset, since) in claim.resting(line) {
        note(offset, Past::Released(since));
    }
    for offset in claim.own_offsets(line) {
        note(offset, Past::Refused);
    }
    for offset in on_host.into_iter().filter_map(|address| line.offset_of(address).ok()) {
        note(offset, Past::Refused);
    }
    for entry in entries {
        let Ok(offset) = line.offset_of(entry.address) else { continue };
        let avoided = entry.conflict.as_ref().is_some_and(|c| c.since.age_at(now) < Conflict::LASTS);
        note(offset, if entry.is_live() || avoided { Past::Refused } else { Past::Released(entry.since) });
    }
    past
}

/// The next offset: one that was never used, else the one released longest ago,
/// whether or not it has rested as long as wished. `None` if all are refused.
#[must_use]
pub fn pick(block: &[Extent], past: &HashMap<Offset, Past>, now: Uptime) -> Option<Pick> {
    let mut oldest: Option<(Uptime, Offset)> = None;
    for extent in block {
        for offset in (extent.first().0..extent.next().0).map(Offset) {
            match past.get(&offset) {
                None => return Some(Pick { offset, rested: None }),
                Some(Past::Refused) => {}
                Some(&Past::Released(since)) => {
                    if oldest.is_none_or(|least| (since, offset) < least) {
                        oldest = Some((since, offset));
                    }
                }
            }
        }
    }
    oldest.map(|(since, offset)| Pick { offset, rested: Some(since.age_at(now)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{claim::tests::node, entry::tests::intent};
    use ipam_api::wire::Seq;
    use proptest::prelude::*;

    fn claim() -> ClaimFile {
        ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(60_000_000))
    }

    #[test]
    fn live_entries_conflicts_routes_and_the_node_itself_are_refused() {
        let (claim, now) = (claim(), Uptime(100_000_000));
        let line = claim.line().unwrap();
        let mut conflict = intent("b", "10.240.1.1", 6);
        conflict.released(Seq(7), Uptime(7));
        conflict.conflict = Some(Conflict { reason: "taken".to_owned(), since: now });
        let entries = [intent("a", "10.240.1.0", 5), conflict];
        let host = ["fd00:10::103".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let past = past(&claim, line, &entries, host, now);
        // 258 rests by the service's account; all others are refused.
        let picked = pick(&claim.block(line).unwrap(), &past, now).unwrap();
        assert_eq!(picked, Pick { offset: Offset(258), rested: Some(Duration::from_secs(50)) });
        assert_eq!(past[&Offset(10)], Past::Refused);
        let later = now.plus(Conflict::LASTS);
        let past = super::past(&claim, line, &entries, host, later);
        assert_eq!(past[&Offset(257)], Past::Released(Uptime(7)), "a conflict does not last for ever");
    }

    #[test]
    fn the_later_release_counts() {
        let claim = claim();
        let line = claim.line().unwrap();
        let mut entry = intent("a", "10.240.1.2", 5);
        entry.released(Seq(7), Uptime(70_000_000));
        let past = past(&claim, line, &[entry], [], Uptime(80_000_000));
        assert_eq!(past[&Offset(258)], Past::Released(Uptime(70_000_000)));
    }

    #[test]
    fn what_a_lost_journal_knew_counts_as_given_back_when_it_was_lost() {
        let mut claim = claim();
        let line = claim.line().unwrap();
        claim.node.resting.clear();
        let mut entry = intent("a", "10.240.1.2", 5);
        entry.released(Seq(7), Uptime(95_000_000));
        let now = Uptime(100_000_000);
        let before = past(&claim, line, std::slice::from_ref(&entry), [], now);
        let block = claim.block(line).unwrap();
        assert_eq!(pick(&block, &before, now), Some(Pick { offset: Offset(256), rested: None }));
        claim.forgotten = Some(crate::journal::Forgotten { since: Uptime(90_000_000), at: Seq(1) });
        let after = past(&claim, line, &[entry], [], now);
        let rested = Some(Duration::from_secs(10));
        assert_eq!(pick(&block, &after, now), Some(Pick { offset: Offset(256), rested }));
        assert_eq!(after[&Offset(258)], Past::Released(Uptime(95_000_000)), "what came later is known");
    }

    fn pasts() -> impl Strategy<Value = HashMap<Offset, Past>> {
        let past = prop_oneof![Just(Past::Refused), (0u64..50).prop_map(|at| Past::Released(Uptime(at)))];
        proptest::collection::hash_map((0u64..40).prop_map(Offset), past, 0..40)
    }

    proptest! {
        #[test]
        fn never_used_before_longest_released_and_never_a_refused_one(past in pasts(), first in 0u64..20, size in 1u64..15) {
            let block = [Extent::sized(Offset(first), size).unwrap(), Extent::sized(Offset(36), 3).unwrap()];
            let inside = |offset: &Offset| block.iter().any(|extent| extent.contains(*offset));
            let all = || block.iter().flat_map(|extent| (extent.first().0..extent.next().0).map(Offset));
            match pick(&block, &past, Uptime(50)) {
                None => prop_assert!(all().all(|offset| past.get(&offset) == Some(&Past::Refused))),
                Some(Pick { offset, rested: None }) => prop_assert!(inside(&offset) && !past.contains_key(&offset)),
                Some(Pick { offset, rested: Some(_) }) => {
                    prop_assert!(inside(&offset) && all().all(|offset| past.contains_key(&offset)));
                    let oldest = all().map(|offset| past[&offset]).filter(|p| *p != Past::Refused).min();
                    prop_assert_eq!(Some(past[&offset]), oldest);
                }
            }
        }
    }
}
