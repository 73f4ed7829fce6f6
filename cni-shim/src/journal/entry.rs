use super::Uptime;
use crate::{mac::Mac, ports::PortMapping};
use ipam_api::{
    names::{Attachment, ContainerId, IfName, NetworkName},
    wire::{EntryState, PodRef, Seq, SyncEntry},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Why an address of the block is not to be used for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// What the service or a stranger said.
    pub reason: String,
    /// When that was.
    pub since: Uptime,
}

impl Conflict {
    /// How long it keeps the address out of use: long enough for a person or a
    /// sync to set things right, short enough not to need one.
    pub const LASTS: Duration = Duration::from_secs(600);
}

/// The journal's record of one address: who has it, or had it last.
///
/// `intent → wired → releasing → released`; an ADD that fails and a DEL that
/// finds a half-made attachment go from `intent` to `releasing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The address that stands for the offset.
    pub address: IpAddr,
    /// The CNI network.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub if_name: IfName,
    /// Where it is in its life.
    pub state: EntryState,
    /// Orders it among all that this node says of the address. Drawn at `intent`
    /// and again at `released`: between the two the address counts as held.
    pub seq: Seq,
    /// When the state began.
    pub since: Uptime,
    /// Whether the service has answered for just this state and `seq`.
    pub acked: bool,
    /// The pod, as the runtime named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// `CNI_NETNS` of the ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The interface on the host that leads to the pod.
    pub host_end: String,
    /// The interface on which the host answers for the pod; unknown where the journal was rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// The MAC that the runtime asked for; without one the pod's interface has what follows from the attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The node's ports that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// All addresses of the offset, IPv4 first: what DEL takes away, whatever has become of the claim.
    pub addresses: Vec<IpAddr>,
    /// Why the service refused what this entry says, if it did; not sent again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the address is not to be used for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
}

impl Entry {
    /// Whether it tells what the host showed once the journal was lost, and not what an ADD wrote down.
    #[must_use]
    pub fn is_rebuilt(&self) -> bool {
        self.uplink.is_none()
    }

    /// An address picked for an attachment, nothing done yet. `addresses` must not be empty.
    #[must_use]
    pub fn intent(
        attachment: &Attachment,
        addresses: Vec<IpAddr>,
        host_end: String,
        seq: Seq,
        now: Uptime,
    ) -> Option<Self> {
        Some(Self {
            address: *addresses.first()?,
            network: attachment.network.clone(),
            container_id: attachment.container_id.clone(),
            if_name: attachment.if_name.clone(),
            state: EntryState::Intent,
            seq,
            since: now,
            acked: false,
            pod: None,
            netns: None,
            host_end,
            uplink: None,
            mac: None,
            ports: Vec::new(),
            addresses,
            refused: None,
            conflict: None,
        })
    }

    /// The attachment it is about.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            if_name: self.if_name.clone(),
        }
    }

    /// Whether it is about this attachment.
    #[must_use]
    pub fn is_of(&self, attachment: &Attachment) -> bool {
        self.container_id == attachment.container_id
            && self.if_name == attachment.if_name
            && self.network == attachment.network
    }

    /// Whether the attachment holds the address.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// The pod can talk. To the service it is what it was: held since `seq`, so
    /// an answer to the intent goes on counting.
    pub fn wired(&mut self, now: Uptime) {
        self.state = EntryState::Wired;
        self.since = now;
    }

    /// The interface is being taken away; the address counts as held until it is gone.
    pub fn releasing(&mut self, now: Uptime) {
        self.state = EntryState::Releasing;
        self.since = now;
    }

    /// The interface is gone: the address rests. `seq` is drawn after the unwiring.
    pub fn released(&mut self, seq: Seq, now: Uptime) {
        self.state = EntryState::Released;
        self.seq = seq;
        self.since = now;
        self.acked = false;
        self.refused = None;
        self.netns = None;
        self.ports.clear();
    }

    /// Says again what it says, as something new: for a live entry that the service has as released.
    pub fn renew(&mut self, seq: Seq) {
        self.seq = seq;
        self.acked = false;
        self.refused = None;
    }

    /// Takes an answer of the service to `(state, seq)` as sent. Whether it was
    /// for what the entry still says; otherwise nothing changes.
    pub fn ack(&mut self, state: EntryState, seq: Seq) -> bool {
        let same = self.seq == seq && self.is_live() == state.is_live();
        if same {
            self.acked = true;
            self.refused = None;
        }
        same
    }

    /// Whether the service should hear of it again.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.acked && self.refused.is_none()
    }

    /// Whether the service should have heard of it by now; an entry that is younger may still be another process's to
    /// send, in `timeout` a call. One from the future is nobody's: the clock was set back since.
    #[must_use]
    pub fn is_overdue(&self, now: Uptime, timeout: Duration) -> bool {
        let grace = 2 * timeout + Duration::from_secs(1);
        self.is_due() && self.since.age_at(now).max(now.age_at(self.since)) > grace
    }

    /// As a sync says it.
    #[must_use]
    pub fn to_sync(&self, now: Uptime) -> SyncEntry {
        SyncEntry {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            if_name: self.if_name.clone(),
            address: self.address,
            state: self.state,
            seq: self.seq,
            age_seconds: self.since.age_at(now).as_secs(),
            pod: self.pod.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn attachment(container: &str) -> Attachment {
        Attachment {
            network: "pods".parse().unwrap(),
            container_id: container.parse().unwrap(),
            if_name: "eth0".parse().unwrap(),
        }
    }

    pub(crate) fn intent(container: &str, address: &str, seq: u64) -> Entry {
        Entry::intent(
            &attachment(container),
            vec![address.parse().unwrap()],
            "vn0".to_owned(),
            Seq(seq),
            Uptime(seq),
        )
        .unwrap()
    }

    #[test]
    fn an_answer_to_the_intent_counts_for_the_wired_entry() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.wired(Uptime(6));
        assert!(entry.ack(EntryState::Intent, Seq(5)) && entry.acked);
        entry.releasing(Uptime(7));
        assert!(entry.acked && entry.is_live());
    }

    #[test]
    fn an_answer_to_what_was_is_no_answer_to_what_is() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.releasing(Uptime(6));
        entry.released(Seq(9), Uptime(9));
        assert!(!entry.ack(EntryState::Intent, Seq(5)));
        assert!(!entry.ack(EntryState::Wired, Seq(9)));
        assert!(!entry.acked && entry.is_due());
        assert!(entry.ack(EntryState::Released, Seq(9)));
        assert!(!entry.is_due());
    }

    #[test]
    fn a_refused_entry_is_not_sent_by_itself_until_it_changes() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.refused = Some("outside the block".to_owned());
        assert!(!entry.is_due());
        entry.released(Seq(9), Uptime(9));
        assert!(entry.is_due());
    }

    #[test]
    fn an_entry_of_before_there_were_ports_is_read() {
        let text = serde_json::to_string(&intent("c", "10.0.0.7", 5)).unwrap();
        assert!(!text.contains("ports"), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap().ports, []);
    }

    #[test]
    fn who_is_gone_has_no_ports() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.ports.push(crate::ports::tests::mapping("tcp 80 80"));
        entry.releasing(Uptime(6));
        assert_eq!(entry.ports.len(), 1);
        entry.released(Seq(7), Uptime(7));
        assert_eq!(entry.ports, []);
    }

    #[test]
    fn what_nobody_can_be_sending_any_more_is_overdue() {
        let timeout = Duration::from_secs(1);
        let mut entry = intent("c", "10.0.0.7", 9_000_000);
        let overdue =
            |entry: &Entry| [5, 6, 12, 13].map(|at| entry.is_overdue(Uptime(at * 1_000_000), timeout));
        // What is from the future was made by a clock that was set back since.
        assert_eq!(overdue(&entry), [true, false, false, true]);
        assert!(entry.ack(EntryState::Intent, Seq(9_000_000)));
        assert_eq!(overdue(&entry), [false; 4]);
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_file(seq in any::<u64>(), steps in 0usize..4) {
            let mut entry = intent("c", "fd00::7", seq);
            entry.ports.push(crate::ports::tests::mapping("udp 10.240.0.10 53 5353"));
            if steps > 0 { entry.wired(Uptime(1)); }
            if steps > 1 { entry.releasing(Uptime(2)); }
            if steps > 2 { entry.released(Seq(seq.wrapping_add(1)), Uptime(3)); }
            let text = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        }
    }
}
