use crate::chapters::POD_NAMES;
use anyhow::{Context, Result};
use std::{collections::BTreeSet, fs, process::Command};
use vnet_tests::lab::run;

/// Where a machine of the lab mounts something of its own.
const MOUNT_POINTS: [&str; 5] = ["/run", "/run/bin", "/var/lib", "/proc", "/sys"];
/// What forwards packets; the shim sets both on its node.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
/// The shim's table.
const TABLE: &str = "table inet vnet_ipam";

/// The machine itself at one moment, a line for each thing: what a careless demo would change, and what
/// only others do, who share the machine.
#[derive(Debug)]
pub(crate) struct Outside {
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

impl Outside {
    /// Looks at links, mounts, packet filter tables and forwarding.
    pub(crate) fn look() -> Result<Self> {
        let mut seen = Self { ours: BTreeSet::new(), others: BTreeSet::new() };
        // Two lines of headings; counters behind the colon.
        let links = fs::read_to_string("/proc/net/dev")?;
        for name in links.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())) {
            seen.note(is_our_link(name), format!("link {name}"));
        }
        // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw: the first number is this mount's
        // only, so that a second one at the same place is another line.
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let mut words = line.split(' ');
            let id = words.next().context("a mount without an id")?;
            let point = words.nth(3).with_context(|| format!("a mount without a place: {line}"))?;
            seen.note(is_our_mount(point), format!("mount {id} at {point}"));
        }
        for table in run(Command::new("nft").args(["list", "tables"]))?.lines() {
            seen.note(table.trim() == TABLE, table.trim().to_owned());
        }
        for key in FORWARDING {
            let value = fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
            seen.note(true, format!("{key} = {}", value.trim()));
        }
        Ok(seen)
    }

    /// What came and went since, of what could be ours.
    pub(crate) fn ours_since(&self, before: &Self) -> Vec<String> {
        changes(&before.ours, &self.ours)
    }

    /// What came and went since, of what can only be others'.
    pub(crate) fn others_since(&self, before: &Self) -> Vec<String> {
        changes(&before.others, &self.others)
    }

    fn note(&mut self, ours: bool, line: String) {
        if ours { &mut self.ours } else { &mut self.others }.insert(line);
    }
}

fn changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let came = after.difference(before).map(|line| format!("{line} came"));
    let went = before.difference(after).map(|line| format!("{line} went"));
    came.chain(went).collect()
}

/// The host end of a pod, the fabric's bridge, or one of its ports.
fn is_our_link(name: &str) -> bool {
    let after = |prefix| name.strip_prefix(prefix).unwrap_or_default();
    let (host_end, port) = (after("vn"), after("p"));
    name == "br0"
        || (host_end.len() == 11 && host_end.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A file system of a machine, or the network namespace of a pod.
fn is_our_mount(point: &str) -> bool {
    let netns = point.strip_prefix("/run/netns/");
    MOUNT_POINTS.contains(&point)
        || netns.is_some_and(|pod| POD_NAMES.iter().any(|name| pod.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_what_the_lab_makes() {
        for link in ["br0", "p10", "p100", "vn0123456789a"] {
            assert!(is_our_link(link), "{link}");
        }
        for link in ["lo", "eth0", "p", "p1p1", "ppp0", "vnet0", "vn0123456789", "vn0123456789ab", "br01"] {
            assert!(!is_our_link(link), "{link}");
        }
        for point in ["/run", "/var/lib", "/run/netns/web-1-1", "/run/netns/late-2"] {
            assert!(is_our_mount(point), "{point}");
        }
        for point in ["/", "/run/netns", "/run/netns/blue", "/var/lib/docker", "/run/binary"] {
            assert!(!is_our_mount(point), "{point}");
        }
    }

    #[test]
    fn changes_of_others_are_told_apart() {
        let mut before = Outside { ours: BTreeSet::new(), others: BTreeSet::new() };
        before.note(true, "link br0".to_owned());
        let mut after = Outside { ours: BTreeSet::new(), others: BTreeSet::new() };
        after.note(false, "link tap0".to_owned());
        assert_eq!(after.ours_since(&before), ["link br0 went"]);
        assert_eq!(after.others_since(&before), ["link tap0 came"]);
    }
}
