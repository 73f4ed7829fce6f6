use super::{Entry, JournalError, Machine, Uptime};
use ipam_api::{
    line::{Extent, Line, Offset},
    wire::{BlockVersion, Boot, BootSeq, Node, NodeStamp, NodeState, Seq, Stamp},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Whether the node may use its block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Standing {
    /// Not until a first sync has taken the claim up.
    Planned,
    /// Yes.
    Active,
    /// Not for new pods: the node is being deleted.
    Deleting {
        /// Names the deletion that an empty journal confirms.
        deletion: Option<String>,
    },
    /// Not for new pods: the service no longer knows this claim.
    Stale {
        /// What it said.
        reason: String,
    },
}

/// The journal knew what rests, and does not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// The latest moment at which an address of which nothing is known may have been given back.
    pub since: Uptime,
    /// Drawn then: the answer to a sync listed later knows all that rests.
    pub at: Seq,
}

impl Forgotten {
    /// By a reboot: whatever was given back was so before it.
    pub(super) const BEFORE_THIS_BOOT: Self = Self { since: Uptime(0), at: Seq(0) };
}

/// What outlives a reboot (`claim.json`): the block, and which boot this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFile {
    /// The node as the service last described it.
    pub node: Node,
    /// When that was; counts within this boot.
    pub received: Uptime,
    /// This boot: the kernel's id and its number.
    pub boot: Boot,
    /// Whether the node may use its block.
    pub standing: Standing,
    /// Drawn when the claim was adopted: only a sync listed later takes it up.
    #[serde(default)]
    pub adopted_at: Seq,
    /// `asOfSeq` of the sync that the description answers.
    #[serde(default)]
    pub described_as_of: Seq,
    /// The version of the block that this node works with, where the description is of a later one:
    /// pods may live in what that gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub works_with: Option<BlockVersion>,
    /// Until a sync has told what rests: addresses of which nothing is known count as given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Forgotten>,
    /// What the service knows this machine by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The boot in which this host was found to be the node's: it had one of its own addresses.
    /// Before that nothing is sent in a boot, for a copy of the disk has this file as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_known_in: Option<String>,
    /// Whether this boot had a journal: then a missing one is lost, not empty.
    pub journal: bool,
    /// Where the journal is.
    pub state_dir: PathBuf,
}

impl ClaimFile {
    /// The claim in a node answer, not taken up yet whatever the service says: only a
    /// sync of this node's shows that it is this node's. A boot that the service has
    /// heard of keeps its number, another gets the next; `before` is what this node had.
    #[must_use]
    pub fn adopt(node: Node, before: Option<&Self>, boot_id: &str, state_dir: PathBuf, now: Uptime) -> Self {
        let next = |boot: &Boot| if boot.id == boot_id { boot.seq } else { following(boot.seq) };
        let same = before.filter(|before| before.node.claim == node.claim);
        let seq = match &node.boot {
            Some(heard) if heard.id == boot_id => heard.seq,
            heard => {
                let heard = heard.as_ref().map_or(BootSeq(1), next);
                same.map_or(heard, |before| heard.max(next(&before.boot)))
            }
        };
        let forgotten = before.and_then(|before| match before.boot.id == boot_id {
            true => before.forgotten,
            false => before.journal.then_some(Forgotten::BEFORE_THIS_BOOT).or(before.forgotten),
        });
        Self {
            standing: Standing::Planned,
            adopted_at: Seq(0),
            described_as_of: Seq(0),
            works_with: None,
            forgotten,
            machine: same.and_then(|before| before.machine.clone()),
            host_known_in: None,
            node,
            received: now,
            boot: Boot { id: boot_id.to_owned(), seq },
            journal: before.is_some_and(|before| before.journal && before.boot.id == boot_id),
            state_dir,
        }
    }

    /// Takes the description of the same claim that answers a sync listed at `as_of`.
    /// Whether it was of the same.
    ///
    /// Answers overtake each other. One that is older than what made this node stop
    /// must not let it start again: a deletion and a withdrawn claim end with another
    /// adoption, and an adopted claim is taken up by a sync listed after that.
    pub fn refresh(&mut self, node: Node, as_of: Seq, now: Uptime) -> bool {
        let same = node.claim == self.node.claim;
        if same {
            match (&self.standing, standing(&node)) {
                (Standing::Stale { .. }, _) => {}
                (Standing::Planned, word) if as_of > self.adopted_at => self.standing = word,
                (_, word @ Standing::Deleting { .. }) => self.standing = word,
                (Standing::Planned | Standing::Active | Standing::Deleting { .. }, _) => {}
            }
            // An older one would bring back addresses that the block has lost, or lose new ones. Of two syncs
            // the later may be heard first: then the answer to it is the older one.
            if as_of >= self.described_as_of && node.block.version >= self.node.block.version {
                if node.block.version != self.node.block.version {
                    self.works_with.get_or_insert(self.node.block.version);
                }
                self.node = node;
                self.received = now;
                self.described_as_of = as_of;
                self.forgotten = self.forgotten.filter(|forgotten| as_of <= forgotten.at);
            }
        }
        same
    }

    /// Takes up the block as described, unless a pod lives in what it gave up; until then requests go on
    /// in the name of the version before. Whether anything changed. `entries` are all of the
    /// journal's, read under its lock: what is stamped after has nothing there any more.
    ///
    /// # Errors
    /// The block is on no line.
    pub fn take_up_block(&mut self, entries: &[Entry]) -> Result<bool, JournalError> {
        if self.works_with.is_none() || !self.lives_outside_block(entries)?.is_empty() {
            return Ok(false);
        }
        self.works_with = None;
        Ok(true)
    }

    /// Whether the service waits for the word that no pod lives in what the block gave up, and it can be given.
    ///
    /// # Errors
    /// The block is on no line.
    pub fn can_confirm_block(&self, entries: &[Entry]) -> Result<bool, JournalError> {
        Ok(!self.node.block.leaving.is_empty() && self.lives_outside_block(entries)?.is_empty())
    }

    /// Addresses with pods that are none of the block as described.
    fn lives_outside_block(&self, entries: &[Entry]) -> Result<Vec<IpAddr>, JournalError> {
        let line = self.line()?;
        let block = self.block(line)?;
        let inside = |address: IpAddr| {
            line.offset_of(address).is_ok_and(|at| block.iter().any(|extent| extent.contains(at)))
        };
        let live = entries.iter().filter(|entry| entry.is_live());
        Ok(live.map(|entry| entry.address).filter(|&address| !inside(address)).collect())
    }

    /// Whether both are of one claim and one boot: answers to requests of another count for nothing.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        (self.node.claim, self.boot.seq) == (other.node.claim, other.boot.seq)
    }

    /// Whether this host was found to be the node's since it was started.
    #[must_use]
    pub fn knows_host(&self) -> bool {
        self.host_known_in.as_deref() == Some(self.boot.id.as_str())
    }

    /// The header of a request about `seq`; `machine` tells this machine from another of the name.
    #[must_use]
    pub fn stamp(&self, seq: Seq, machine: Option<&str>) -> NodeStamp {
        NodeStamp {
            stamp: Stamp { claim: self.node.claim, boot: self.boot.seq, seq },
            block: self.works_with.unwrap_or(self.node.block.version),
            boot_id: Some(self.boot.id.clone()),
            machine: machine.map(str::to_owned),
        }
    }

    /// The number line of the node's subnet.
    ///
    /// # Errors
    /// The subnet's CIDRs make none.
    pub fn line(&self) -> Result<Line, JournalError> {
        Line::of(&self.node.network.cidrs).map_err(|error| JournalError::Node(error.to_string()))
    }

    /// The block on that line: what the service gives pods, not what it has given up.
    ///
    /// # Errors
    /// A range is not on the line.
    pub fn block(&self, line: Line) -> Result<Vec<Extent>, JournalError> {
        let wrong = |why: String| JournalError::Node(format!("block: {why}"));
        self.node
            .block
            .ranges
            .iter()
            .map(|range| {
                let first = line.offset_of(range.first).map_err(|error| wrong(error.to_string()))?;
                let last = line.offset_of(range.last).map_err(|error| wrong(error.to_string()))?;
                Extent::inclusive(first, last)
                    .ok_or_else(|| wrong(format!("{} comes after {}", range.first, range.last)))
            })
            .collect()
    }

    /// Addresses that rest by the service's account, and since when.
    #[must_use]
    pub fn resting(&self, line: Line) -> Vec<(Offset, Uptime)> {
        let since = |age: u64| self.received.minus(Duration::from_secs(age));
        let resting = self.node.resting.iter();
        resting.filter_map(|r| Some((line.offset_of(r.address).ok()?, since(r.age_seconds)))).collect()
    }

    /// Where the node's own addresses lie on the line.
    #[must_use]
    pub fn own_offsets(&self, line: Line) -> Vec<Offset> {
        self.node.addresses.iter().filter_map(|&address: &IpAddr| line.offset_of(address).ok()).collect()
    }
}

/// The number of the next boot.
pub(super) fn following(boot: BootSeq) -> BootSeq {
    // A file or a service that says there have been so many boots is wrong, and no reason to end by a defect.
    BootSeq(boot.0.saturating_add(1))
}

fn standing(node: &Node) -> Standing {
    match node.state {
        NodeState::Planned => Standing::Planned,
        NodeState::Active => Standing::Active,
        NodeState::Deleting => Standing::Deleting { deletion: node.deletion.clone() },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::journal::entry::tests::intent;
    use ipam_api::wire::Claim;
    use serde_json::json;

    pub(crate) fn node(claim: u64, boot: Option<(&str, u64)>) -> Node {
        let mut node = json!({
            "name": "n1", "pool": "workers", "subnet": "prod/nodes",
            "addresses": ["10.240.0.10", "fd00:10::a"], "claim": claim,
            "block": {"version": 1, "ranges": [{"first": "10.240.1.0", "last": "10.240.1.3", "first6": "fd00:10::100", "last6": "fd00:10::103"}]},
            "network": {"cidrs": ["10.240.0.0/16", "fd00:10::/64"], "gateways": ["10.240.0.1", "fd00:10::1"],
                        "addressSpace": ["10.240.0.0/12", "fd00:10::/48"]},
            "maxPods": 4, "restSeconds": 130, "allocator": "node", "state": "active",
            "resting": [{"address": "10.240.1.2", "ageSeconds": 10}],
            "allocations": 0, "claimedAt": "2026-01-01T00:00:00Z"
        });
        if let Some((id, seq)) = boot {
            node["boot"] = json!({"id": id, "seq": seq});
        }
        serde_json::from_value(node).unwrap()
    }

    fn seq(node: Node, before: Option<&ClaimFile>, boot_id: &str) -> u64 {
        ClaimFile::adopt(node, before, boot_id, "/run/x".into(), Uptime(0)).boot.seq.0
    }

    #[test]
    fn a_boot_keeps_its_number_and_another_gets_the_next() {
        assert_eq!(seq(node(1, None), None, "a"), 1);
        assert_eq!(seq(node(1, Some(("a", 7))), None, "a"), 7);
        assert_eq!(seq(node(1, Some(("a", 7))), None, "b"), 8);
        let before = ClaimFile::adopt(node(1, Some(("x", 19))), None, "a", "/run/x".into(), Uptime(0));
        assert_eq!(seq(node(1, Some(("a", 7))), Some(&before), "a"), 7, "the service knows this boot");
        assert_eq!(seq(node(1, Some(("b", 7))), Some(&before), "a"), 20, "and here it was numbered already");
        assert_eq!(seq(node(1, Some(("b", 30))), Some(&before), "a"), 31);
        assert_eq!(seq(node(2, Some(("a", 7))), Some(&before), "a"), 7, "counts within one claim");
    }

    #[test]
    fn the_block_lies_on_the_line() {
        let claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(60_000_000));
        let line = claim.line().unwrap();
        let block = claim.block(line).unwrap();
        assert_eq!(block, [Extent::inclusive(Offset(256), Offset(259)).unwrap()]);
        assert_eq!(claim.resting(line), [(Offset(258), Uptime(50_000_000))]);
        assert_eq!(claim.own_offsets(line), [Offset(10), Offset(10)]);
    }

    #[test]
    fn another_claim_is_not_a_newer_description() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        assert!(!claim.refresh(node(2, None), Seq(5), Uptime(1)));
        assert_eq!(claim.node.claim, Claim(1));
        assert!(claim.refresh(node(1, None), Seq(5), Uptime(1)));
    }

    #[test]
    fn an_older_description_does_not_replace_a_newer_one() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        claim.forgotten = Some(Forgotten { since: Uptime(3), at: Seq(6) });
        let mut larger = node(1, None);
        larger.max_pods = serde_json::from_value(json!(9)).unwrap();
        claim.refresh(larger.clone(), Seq(6), Uptime(1));
        assert!(claim.forgotten.is_some(), "listed before it was forgotten");
        claim.refresh(node(1, None), Seq(5), Uptime(2));
        assert_eq!((claim.node.max_pods, claim.received), (larger.max_pods, Uptime(1)));
        claim.refresh(node(1, None), Seq(7), Uptime(3));
        assert_eq!((claim.node.max_pods, claim.forgotten), (node(1, None).max_pods, None));
    }

    /// The node with a block of this version that ends, and what it gives up that ends, at these addresses.
    fn resized(version: u64, last: u8, leaving: Option<u8>) -> Node {
        let mut node = node(1, None);
        node.block = serde_json::from_value(json!({
            "version": version,
            "ranges": [{"first": "10.240.1.0", "last": format!("10.240.1.{last}")}],
            "leaving": leaving.map(|to| json!({"first": format!("10.240.1.{}", last + 1), "last": format!("10.240.1.{to}")}))
                .into_iter().collect::<Vec<_>>(),
        }))
        .unwrap();
        node
    }

    #[test]
    fn a_smaller_block_is_taken_up_when_nothing_lives_in_what_goes() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        let says = |claim: &ClaimFile| claim.stamp(Seq(9), None).block.0;
        let (stays, goes) = (intent("a", "10.240.1.0", 5), intent("b", "10.240.1.3", 6));
        let both = [stays.clone(), goes.clone()];
        claim.refresh(resized(2, 1, Some(3)), Seq(5), Uptime(1));
        let sizes = |claim: &ClaimFile| -> Vec<u64> {
            claim.block(claim.line().unwrap()).unwrap().iter().map(|extent| extent.size()).collect()
        };
        assert_eq!(sizes(&claim), [2], "no pod begins in what goes");
        assert!(!claim.take_up_block(&both).unwrap() && !claim.can_confirm_block(&both).unwrap());
        assert_eq!(says(&claim), 1);
        // Smaller still, and the first version is the one that it works with.
        claim.refresh(resized(3, 0, Some(3)), Seq(6), Uptime(1));
        assert!(!claim.take_up_block(&both).unwrap());
        assert_eq!(says(&claim), 1);

        let mut released = goes.clone();
        released.released(Seq(7), Uptime(7));
        let one = [stays.clone(), released];
        assert!(claim.take_up_block(&one).unwrap() && claim.can_confirm_block(&one).unwrap());
        assert_eq!(says(&claim), 3);
        assert!(!claim.take_up_block(&one).unwrap(), "once");
        claim.refresh(resized(3, 0, None), Seq(7), Uptime(1));
        assert!(!claim.can_confirm_block(&one).unwrap(), "the service has heard it");
    }

    #[test]
    fn what_a_block_gave_up_does_not_come_back_by_an_answer_that_is_older() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        claim.refresh(resized(2, 1, None), Seq(5), Uptime(1));
        assert!(claim.take_up_block(&[]).unwrap());
        // Listed later, heard before the block shrank.
        claim.refresh(node(1, None), Seq(6), Uptime(2));
        assert_eq!(claim.block(claim.line().unwrap()).unwrap()[0].size(), 2);
        assert_eq!(claim.stamp(Seq(9), None).block.0, 2);
    }

    #[test]
    fn a_larger_block_is_taken_up_at_once() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        let pods = [intent("a", "10.240.1.0", 5), intent("b", "10.240.1.3", 6)];
        claim.refresh(resized(2, 1, Some(3)), Seq(5), Uptime(1));
        assert!(!claim.take_up_block(&pods).unwrap());
        // What was to go is taken back, and more given.
        claim.refresh(resized(3, 7, None), Seq(6), Uptime(1));
        assert!(claim.take_up_block(&pods).unwrap());
        assert_eq!(claim.stamp(Seq(9), None).block.0, 3);
    }

    #[test]
    fn an_answer_older_than_a_stop_does_not_lift_it() {
        let mut claim = ClaimFile::adopt(node(1, None), None, "a", "/run/x".into(), Uptime(0));
        claim.adopted_at = Seq(5);
        claim.refresh(node(1, None), Seq(5), Uptime(1));
        assert_eq!(claim.standing, Standing::Planned, "the sync was listed before the claim was adopted");
        claim.refresh(node(1, None), Seq(6), Uptime(1));
        assert_eq!(claim.standing, Standing::Active);

        let mut deleting = node(1, None);
        deleting.state = NodeState::Deleting;
        deleting.deletion = Some("d1".to_owned());
        claim.refresh(deleting, Seq(7), Uptime(1));
        let stopped = Standing::Deleting { deletion: Some("d1".to_owned()) };
        assert_eq!(claim.standing, stopped);
        claim.refresh(node(1, None), Seq(8), Uptime(1));
        assert_eq!(claim.standing, stopped, "an answer that was under way when the node was deleted");

        claim.standing = Standing::Stale { reason: "gone".to_owned() };
        claim.refresh(node(1, None), Seq(9), Uptime(1));
        assert!(matches!(claim.standing, Standing::Stale { .. }));
    }
}
