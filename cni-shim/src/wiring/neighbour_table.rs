//! Room for all neighbours that a subnet can have.
//!
//! Pods and VMs of one segment speak with each other directly, so the kernel keeps an entry for each that it has to
//! do with. Beyond `gc_thresh3` it drops what would need another, without a word to anybody. The limits are the
//! machine's: one set a family for all of its network namespaces, to be seen in the first one alone.

use super::{
    Turn, WiringError,
    sysctl::{self, Change},
};
use std::fmt;

/// More neighbours than that are not planned for on one node: an entry takes about half a kilobyte.
const MOST: u64 = 32_768;

/// `gc_thresh1`, `2` and `3` (`arp(7)`): up to the first nothing is thrown away, beyond the second what is idle for
/// five seconds, and beyond the third there is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds(pub [u64; 3]);

impl Thresholds {
    /// What a subnet of so many addresses wants: an entry for each without any being thrown away, and room for what
    /// comes and goes.
    #[must_use]
    pub fn for_subnet(addresses: u64) -> Self {
        let all = addresses.min(MOST);
        Self([all, 2 * all, 4 * all])
    }

    /// These, but none lower than what somebody has set, nor than the one before.
    #[must_use]
    fn over(self, found: Self) -> Self {
        let mut least = 0;
        Self(std::array::from_fn(|n| {
            least = self.0[n].max(found.0[n]).max(least);
            least
        }))
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.0;
        write!(f, "gc_thresh1 = {first}, gc_thresh2 = {second}, gc_thresh3 = {third}")
    }
}

/// What became of the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// There is enough; this was set for it, in words.
    Enough(Vec<String>),
    /// It cannot be seen to from here: why, and what to do, in words.
    Elsewhere(String),
}

/// Sees to it that neighbours of a subnet of so many addresses have room. Never lowers anything.
///
/// # Errors
/// When the kernel can't be asked, or does not take a value that it shows.
pub fn enlarge(addresses: u64, turn: &Turn) -> Result<Room, WiringError> {
    let want = Thresholds::for_subnet(addresses);
    let alone = turn.begin()?;
    let mut changes = Vec::new();
    for family in families() {
        match found(family)? {
            Some(found) => changes.extend(raise(family, found, want.over(found))),
            None => return Ok(Room::Elsewhere(elsewhere(addresses, want))),
        }
    }
    if let Some(change) = changes.iter().find(|change| !sysctl::is_writable(&change.key)) {
        let path = sysctl::path(&change.key);
        return Ok(Room::Elsewhere(format!(
            "{} cannot be written: {}",
            path.display(),
            elsewhere(addresses, want)
        )));
    }
    alone.announce(&changes);
    let mut done = Vec::new();
    for Change { key, set, .. } in changes {
        sysctl::ensure(&key, &set)?;
        done.push(format!("{} = {set}", sysctl::path(&key).display()));
    }
    Ok(Room::Enough(done))
}

/// What is wrong with the limits, without a change; nothing where there is room.
///
/// # Errors
/// When the kernel can't be asked.
pub fn shortage(addresses: u64) -> Result<Option<String>, WiringError> {
    let want = Thresholds::for_subnet(addresses);
    for family in families() {
        if found(family)?.is_none_or(|found| want.over(found) != found) {
            return Ok(Some(elsewhere(addresses, want)));
        }
    }
    Ok(None)
}

fn families() -> impl Iterator<Item = &'static str> {
    ["ipv4", "ipv6"].into_iter().filter(|family| *family == "ipv4" || sysctl::ipv6_exists())
}

fn key(family: &str, number: usize) -> String {
    format!("net/{family}/neigh/default/gc_thresh{number}")
}

/// The limits of a family; none where this namespace does not show them.
fn found(family: &str) -> Result<Option<Thresholds>, WiringError> {
    let mut found = [0; 3];
    for (n, threshold) in found.iter_mut().enumerate() {
        let Some(text) = sysctl::read(&key(family, n + 1))? else { return Ok(None) };
        let Ok(value) = text.parse() else { return Ok(None) };
        *threshold = value;
    }
    Ok(Some(Thresholds(found)))
}

/// The largest first: at no moment is one limit above the next.
fn raise(family: &str, found: Thresholds, want: Thresholds) -> Vec<Change> {
    let differ = (0..3).rev().filter(|&n| found.0[n] != want.0[n]);
    let change = |n: usize| Change {
        key: key(family, n + 1),
        found: found.0[n].to_string(),
        set: want.0[n].to_string(),
    };
    differ.map(change).collect()
}

fn elsewhere(addresses: u64, want: Thresholds) -> String {
    let commands: Vec<String> = families()
        .flat_map(|family| (0..3).rev().map(move |n| (family, n)))
        .map(|(family, n)| format!("net.{family}.neigh.default.gc_thresh{}={}", n + 1, want.0[n]))
        .collect();
    format!(
        "a subnet of {addresses} addresses wants neighbour tables of {want}, or packets to some are dropped without a \
         word; they are the machine's and cannot be set in this network namespace: on the host itself, unless they are \
         higher there: sysctl -w {}",
        commands.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_address_of_the_subnet_has_room_up_to_what_one_node_can_bear() {
        assert_eq!(Thresholds::for_subnet(256), Thresholds([256, 512, 1024]));
        assert_eq!(Thresholds::for_subnet(2048), Thresholds([2048, 4096, 8192]));
        assert_eq!(Thresholds::for_subnet(1 << 48), Thresholds([32_768, 65_536, 131_072]));
    }

    #[test]
    fn the_cure_is_a_command() {
        let words = elsewhere(1024, Thresholds::for_subnet(1024));
        assert!(words.contains("a subnet of 1024 addresses wants"), "{words}");
        assert!(
            words.contains(
                "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096 net.ipv4.neigh.default.gc_thresh2=2048"
            ),
            "{words}"
        );
    }

    proptest! {
        #[test]
        fn limits_only_rise_and_are_in_order_at_every_step(
            addresses in 0u64..100_000,
            mut found in prop::array::uniform3(0u64..200_000),
            orderly in any::<bool>(),
        ) {
            if orderly {
                found.sort_unstable();
            }
            let found = Thresholds(found);
            let want = Thresholds::for_subnet(addresses).over(found);
            let mut now = found.0;
            for change in raise("ipv4", found, want) {
                let n = usize::from(change.key.as_bytes()[change.key.len() - 1] - b'1');
                prop_assert_eq!(change.found.parse::<u64>().unwrap(), now[n]);
                let set = change.set.parse::<u64>().unwrap();
                prop_assert!(set > now[n]);
                now[n] = set;
                prop_assert!(!orderly || now.is_sorted(), "{:?}", now);
            }
            prop_assert!(now.is_sorted());
            prop_assert!(now[0] >= addresses.min(MOST) && now[2] >= 4 * addresses.min(MOST));
            prop_assert_eq!(want.over(want), want);
        }
    }
}
