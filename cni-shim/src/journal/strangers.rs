//! Who else was heard to have addresses of the block (`strangers.json`). Pure but for its serialisation.

use super::{ClaimFile, Uptime};
use crate::mac::Mac;
use ipam_api::{
    line::{Extent, Line, Offset},
    wire::{self, Claim},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// A machine that answers for an address of the block and has no right to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stranger {
    /// The address.
    pub address: IpAddr,
    /// By which the stranger is known on the segment.
    pub mac: Mac,
    /// When it last answered.
    pub heard: Uptime,
    /// When it was last asked.
    pub asked: Uptime,
    /// How often in a row it has not answered.
    pub silences: u32,
}

/// What the segment has said of the block's addresses, in one boot and under one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strangers {
    boot_id: String,
    claim: Claim,
    /// Where the segment was asked: each the first offset and the one behind the last, in order.
    asked: Vec<(Offset, Offset)>,
    known: Vec<Stranger>,
}

/// What is new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Addresses in conflict since now.
    pub came: Vec<Stranger>,
    /// Addresses in conflict no more.
    pub left: Vec<Stranger>,
}

impl Strangers {
    /// So many askings in vain, one after another, end a conflict: a machine that is started again is silent in
    /// one of them.
    pub const SILENCES: u32 = 2;

    /// Before anybody was asked: what the ledger still knows, from the boot before.
    #[must_use]
    pub fn of(claim: &ClaimFile) -> Self {
        let heard = |age: u64| claim.received.minus(Duration::from_secs(age));
        let told = claim.node.conflicts.iter().filter_map(|conflict| {
            Some(Stranger {
                address: conflict.address,
                mac: conflict.mac.parse().ok()?,
                heard: heard(conflict.age_seconds),
                asked: Uptime(0),
                silences: 0,
            })
        });
        Self {
            boot_id: claim.boot.id.clone(),
            claim: claim.node.claim,
            asked: Vec::new(),
            known: told.collect(),
        }
    }

    /// Whether it is of this boot and claim; of another it says nothing.
    #[must_use]
    pub fn is_of(&self, claim: &ClaimFile) -> bool {
        (self.boot_id.as_str(), self.claim) == (claim.boot.id.as_str(), claim.node.claim)
    }

    /// The strangers, by address.
    #[must_use]
    pub fn known(&self) -> &[Stranger] {
        &self.known
    }

    /// The strangers at an offset, which has an address of each family.
    pub fn at(&self, offset: Offset, line: Line) -> impl Iterator<Item = &Stranger> {
        self.known.iter().filter(move |one| line.offset_of(one.address).is_ok_and(|at| at == offset))
    }

    /// Where nobody was asked yet, `most` offsets of it at most.
    #[must_use]
    pub fn unasked(&self, block: &[Extent], most: u64) -> Vec<Extent> {
        let mut left = most;
        let mut found = Vec::new();
        for extent in block {
            for gap in without(*extent, &self.asked) {
                if let Some(part) = Extent::sized(gap.first(), gap.size().min(left)) {
                    left -= part.size();
                    found.push(part);
                }
            }
        }
        found
    }

    /// Strangers that were not asked for so long.
    pub fn to_ask_again(&self, every: Duration, now: Uptime) -> impl Iterator<Item = IpAddr> {
        let due = move |one: &&Stranger| one.asked.age_at(now) >= every;
        self.known.iter().filter(due).map(|one| one.address)
    }

    /// Takes down who has answered of those asked for.
    pub fn heard(&mut self, asked: &BTreeSet<IpAddr>, answers: &BTreeMap<IpAddr, Mac>, now: Uptime) -> News {
        let mut news = News::default();
        for &address in asked {
            let known = self.known.iter_mut().find(|one| one.address == address);
            match (known, answers.get(&address)) {
                (Some(one), Some(&mac)) => {
                    (one.mac, one.heard, one.asked, one.silences) = (mac, now, now, 0);
                }
                (Some(one), None) => (one.asked, one.silences) = (now, one.silences + 1),
                (None, Some(&mac)) => {
                    let one = Stranger { address, mac, heard: now, asked: now, silences: 0 };
                    news.came.push(one.clone());
                    self.known.push(one);
                }
                (None, None) => {}
            }
        }
        news.left = self.known.extract_if(.., |one| one.silences >= Self::SILENCES).collect();
        self.known.sort_by_key(|one| one.address);
        news
    }

    /// Takes down where the segment was asked, and forgets what is none of the block: should the block have it
    /// again one day, others may have had it meanwhile.
    pub fn asked(&mut self, extents: &[Extent], block: &[Extent], line: Line) {
        self.asked.extend(extents.iter().map(|extent| (extent.first(), extent.next())));
        let kept = block.iter().flat_map(|extent| {
            self.asked.iter().filter_map(|(first, next)| {
                let (first, next) = (extent.first().max(*first), extent.next().min(*next));
                (first < next).then_some((first, next))
            })
        });
        let mut kept: Vec<_> = kept.collect();
        kept.sort_unstable();
        kept.dedup_by(|later, before| {
            let joins = later.0 <= before.1;
            if joins {
                before.1 = before.1.max(later.1);
            }
            joins
        });
        self.asked = kept;
        let inside = |at: Offset| block.iter().any(|extent| extent.contains(at));
        self.known.retain(|one| line.offset_of(one.address).is_ok_and(inside));
    }

    /// As a sync says it.
    #[must_use]
    pub fn to_sync(&self, now: Uptime) -> Vec<wire::Conflict> {
        let of = |one: &Stranger| wire::Conflict {
            address: one.address,
            mac: one.mac.to_string(),
            age_seconds: one.heard.age_at(now).as_secs(),
        };
        self.known.iter().map(of).collect()
    }
}

/// The parts of an extent that lie in none of these, which are in order.
fn without(extent: Extent, these: &[(Offset, Offset)]) -> Vec<Extent> {
    let mut parts = Vec::new();
    let mut from = extent.first();
    for &(first, next) in these {
        parts.extend(Extent::new(from, first.min(extent.next())));
        from = from.max(next);
    }
    parts.extend(Extent::new(from, extent.next()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::claim::tests::node;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 8]);

    fn claim() -> ClaimFile {
        ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(60_000_000))
    }

    fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn extent(first: u64, next: u64) -> Extent {
        Extent::new(Offset(first), Offset(next)).unwrap()
    }

    #[test]
    fn a_conflict_ends_after_two_silences_in_a_row() {
        let mut strangers = Strangers::of(&claim());
        let asked = ips(&["10.240.1.1", "10.240.1.2"]);
        let answers = BTreeMap::from([("10.240.1.1".parse().unwrap(), MAC)]);
        let news = strangers.heard(&asked, &answers, Uptime(1_000_000));
        assert_eq!((news.came.len(), news.came[0].mac, news.left.len()), (1, MAC, 0));
        let one = ips(&["10.240.1.1"]);
        let none = BTreeMap::new();
        assert_eq!(strangers.heard(&one, &none, Uptime(2_000_000)), News::default());
        let other = BTreeMap::from([("10.240.1.1".parse().unwrap(), OTHER)]);
        assert_eq!(strangers.heard(&one, &other, Uptime(3_000_000)), News::default());
        assert_eq!(strangers.to_sync(Uptime(9_000_000))[0].age_seconds, 6);
        assert_eq!(strangers.known()[0].mac, OTHER);
        assert_eq!(strangers.heard(&one, &none, Uptime(4_000_000)), News::default());
        let news = strangers.heard(&one, &none, Uptime(5_000_000));
        assert_eq!((news.left.len(), strangers.known()), (1, &[][..]));
    }

    #[test]
    fn only_those_that_were_not_asked_for_long_are_asked_again() {
        let mut strangers = Strangers::of(&claim());
        let asked = ips(&["10.240.1.1"]);
        let answers = BTreeMap::from([("10.240.1.1".parse().unwrap(), MAC)]);
        strangers.heard(&asked, &answers, Uptime(5_000_000));
        let every = Duration::from_secs(10);
        assert_eq!(strangers.to_ask_again(every, Uptime(14_999_999)).count(), 0);
        assert_eq!(strangers.to_ask_again(every, Uptime(15_000_000)).count(), 1);
    }

    #[test]
    fn what_the_ledger_knows_of_the_boot_before_counts_until_it_was_asked() {
        let mut claim = claim();
        claim.node.conflicts = vec![wire::Conflict {
            address: "10.240.1.1".parse().unwrap(),
            mac: MAC.to_string(),
            age_seconds: 10,
        }];
        let strangers = Strangers::of(&claim);
        assert_eq!((strangers.known()[0].mac, strangers.known()[0].heard), (MAC, Uptime(50_000_000)));
        let line = claim.line().unwrap();
        assert_eq!(strangers.unasked(&claim.block(line).unwrap(), 99), [extent(256, 260)]);
        assert!(strangers.is_of(&claim));
        claim.boot.id = "b".to_owned();
        assert!(!strangers.is_of(&claim));
    }

    #[test]
    fn what_a_block_gave_up_is_forgotten_with_its_strangers() {
        let claim = claim();
        let line = claim.line().unwrap();
        let mut strangers = Strangers::of(&claim);
        let (whole, half) = ([extent(256, 260)], [extent(256, 258)]);
        let answers = BTreeMap::from([("10.240.1.3".parse().unwrap(), MAC)]);
        strangers.heard(&ips(&["10.240.1.3"]), &answers, Uptime(1));
        strangers.asked(&whole, &whole, line);
        assert_eq!((strangers.unasked(&whole, 99), strangers.known().len()), (vec![], 1));
        assert_eq!(strangers.at(Offset(259), line).count(), 1);
        strangers.asked(&[], &half, line);
        assert_eq!((strangers.unasked(&whole, 99), strangers.known().len()), (vec![extent(258, 260)], 0));
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        // Each begins some way behind the end of the one before.
        prop::collection::vec((1u64..6, 1u64..6), 0..6).prop_map(|parts| {
            let mut at = 0;
            parts
                .into_iter()
                .map(|(gap, size)| {
                    let one = extent(at + gap, at + gap + size);
                    at += gap + size;
                    one
                })
                .collect()
        })
    }

    fn offsets(extents: &[Extent]) -> BTreeSet<u64> {
        extents.iter().flat_map(|extent| extent.first().0..extent.next().0).collect()
    }

    proptest! {
        #[test]
        fn every_offset_of_every_block_is_asked_once(
            blocks in prop::collection::vec(extents(), 1..6),
            most in 1u64..9,
        ) {
            let claim = claim();
            let line = claim.line().unwrap();
            let mut strangers = Strangers::of(&claim);
            let mut naive = BTreeSet::new();
            for block in blocks {
                naive.retain(|at| offsets(&block).contains(at));
                strangers.asked(&[], &block, line);
                loop {
                    let part = strangers.unasked(&block, most);
                    if part.is_empty() {
                        break;
                    }
                    prop_assert!(offsets(&part).len() as u64 <= most);
                    prop_assert!(offsets(&part).is_disjoint(&naive));
                    naive.extend(offsets(&part));
                    strangers.asked(&part, &block, line);
                }
                prop_assert_eq!(&naive, &offsets(&block));
            }
        }
    }
}
