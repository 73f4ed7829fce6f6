use super::*;
use crate::journal::{claim::tests::node, entry::tests::intent};
use proptest::prelude::*;
use std::collections::BTreeSet;

struct Fixture {
    directory: tempfile::TempDir,
    journal: Journal,
}

fn journal() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
    Fixture { directory, journal }
}

impl Fixture {
    fn name() -> NodeName {
        "n1".parse().unwrap()
    }

    fn claim(&self, claim: u64, boot_id: &str) {
        let mut locked = self.journal.lock().unwrap();
        let before = locked.claim().unwrap();
        let node = node(claim, None);
        let file = ClaimFile::adopt(node, before.as_ref(), boot_id, self.journal.state.clone(), Uptime(0));
        locked.save_claim(&file).unwrap();
    }

    fn ready(&self, boot_id: &str) -> Readiness {
        self.journal.lock().unwrap().ready(&Self::name(), boot_id).unwrap()
    }

    fn ready_claim(&self, boot_id: &str) -> ClaimFile {
        match self.ready(boot_id) {
            Readiness::Ready(claim) => *claim,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_new_node_has_no_claim_and_then_an_empty_journal() {
    let there = journal();
    assert_eq!(there.ready("a"), Readiness::NoClaim);
    there.claim(1, "a");
    let claim = there.ready_claim("a");
    assert!(claim.journal && claim.boot.seq == BootSeq(1));
    assert_eq!(there.journal.entries().unwrap(), []);
    use std::os::unix::fs::PermissionsExt;
    let mode =
        std::fs::metadata(there.directory.path().join("data/claim.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_reboot_gets_the_next_number_and_voids_what_was() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    there.journal.lock().unwrap().create(&intent("c", "10.240.1.0", 5)).unwrap();
    assert_eq!(there.ready_claim("a").boot.seq, BootSeq(1));
    assert_eq!(there.journal.entries().unwrap().len(), 1);
    let claim = there.ready_claim("b");
    assert_eq!((claim.boot.seq, claim.boot.id.as_str()), (BootSeq(2), "b"));
    assert_eq!(there.journal.entries().unwrap(), []);
    assert_eq!(there.ready_claim("b").boot.seq, BootSeq(2));
}

#[test]
fn what_was_used_before_counts_as_used_until_a_sync_tells_what_rests() {
    let there = journal();
    there.claim(1, "a");
    assert_eq!(there.ready_claim("a").forgotten, None, "a first journal has forgotten nothing");
    let claim = there.ready_claim("b");
    assert_eq!(claim.forgotten, Some(Forgotten { since: Uptime(0), at: Seq(0) }));
    assert_eq!(claim.adopted_at, Seq(0), "numbers of another boot say nothing");
    std::fs::remove_dir_all(there.directory.path().join("state")).unwrap();
    let Readiness::Lost(mut claim) = there.ready("b") else { panic!("lost journal was not seen") };
    let before = Uptime::now();
    there.journal.lock().unwrap().rebuilt(&mut claim, &[]).unwrap();
    let forgotten = there.ready_claim("b").forgotten.unwrap();
    assert!(forgotten.since >= before && forgotten.at.0 >= before.0, "{forgotten:?}");
}

#[test]
fn files_of_others_are_no_entries() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    let entry = intent("c", "10.240.1.0", 5);
    there.journal.lock().unwrap().create(&entry).unwrap();
    let addresses = there.directory.path().join("state/addresses");
    for copy in ["10.240.1.0~", "10.240.1.1", "notes"] {
        std::fs::copy(addresses.join("10.240.1.0"), addresses.join(copy)).unwrap();
    }
    assert_eq!(there.journal.entries().unwrap(), std::slice::from_ref(&entry));
    std::fs::write(addresses.join("10.240.1.2"), "{").unwrap();
    assert!(there.journal.entries().is_err(), "it may be an attachment's");
    let picture = there.journal.picture().unwrap();
    assert_eq!(picture.live(&entry.attachment()), std::slice::from_ref(&entry));
    let refused: BTreeSet<String> = picture.refused().map(|address| address.to_string()).collect();
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), ["10.240.1.0", "10.240.1.1", "10.240.1.2"]);
    let (entries, unread) = picture.as_far_as_known();
    assert_eq!(entries, [entry]);
    assert!(unread.unwrap().to_string().contains("10.240.1.2"));
}

#[test]
fn an_entry_under_another_name_is_neither_missed_nor_free() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    let mut entry = intent("c", "10.240.1.0", u64::MAX / 2);
    there.journal.lock().unwrap().create(&entry).unwrap();
    let addresses = there.directory.path().join("state/addresses");
    let other = addresses.join("10.240.1.3");
    std::fs::rename(addresses.join("10.240.1.0"), &other).unwrap();
    let error = there.journal.entries().unwrap_err().to_string();
    assert!(error.contains("10.240.1.3 holds the entry of 10.240.1.0"), "{error}");
    let picture = there.journal.picture().unwrap();
    assert_eq!(picture.live(&entry.attachment()), std::slice::from_ref(&entry));
    let refused: Vec<String> = picture.refused().map(|address| address.to_string()).collect();
    assert_eq!(refused, ["10.240.1.3", "10.240.1.0"]);
    std::fs::write(there.directory.path().join("state/lock"), "").unwrap();
    assert!(there.journal.lock().unwrap().draw().unwrap() > entry.seq);
    // One that was given back is missed by nobody.
    entry.released(Seq(u64::MAX / 2 + 1), Uptime(7));
    std::fs::write(&other, serde_json::to_vec(&entry).unwrap()).unwrap();
    assert_eq!(there.journal.entries().unwrap(), []);
    let refused: Vec<IpAddr> = there.journal.picture().unwrap().refused().collect();
    assert_eq!(refused, ["10.240.1.3".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_lost_journal_is_not_an_empty_one() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    std::fs::remove_dir_all(there.directory.path().join("state")).unwrap();
    let Readiness::Lost(mut claim) = there.ready("a") else { panic!("lost journal was not seen") };
    // And again, until somebody has rebuilt it.
    assert!(matches!(there.ready("a"), Readiness::Lost(_)));
    let entry = intent("c", "10.240.1.1", 9);
    there.journal.lock().unwrap().rebuilt(&mut claim, std::slice::from_ref(&entry)).unwrap();
    there.ready_claim("a");
    assert_eq!(there.journal.entries().unwrap(), [entry]);
    // A reboot empties /run: then nothing is lost.
    std::fs::remove_dir_all(there.directory.path().join("state")).unwrap();
    there.ready_claim("b");
}

#[test]
fn another_claim_keeps_the_live_entries_and_sends_them_again() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    let mut entry = intent("c", "10.240.1.0", 5);
    entry.acked = true;
    let mut old = intent("d", "10.240.1.1", 6);
    old.released(Seq(7), Uptime(7));
    there.journal.lock().unwrap().create(&entry).unwrap();
    there.journal.lock().unwrap().create(&old).unwrap();
    there.claim(2, "a");
    there.ready_claim("a");
    let entries = there.journal.entries().unwrap();
    assert!(entries.len() == 1 && !entries[0].acked);
    assert_eq!(there.journal.header().unwrap().unwrap().claim, Claim(2));
}

#[test]
fn a_late_refusal_does_not_stop_a_claim_taken_up_since() {
    let there = journal();
    there.claim(1, "a");
    let before = there.ready_claim("a");
    let mut locked = there.journal.lock().unwrap();
    let mut again = before.clone();
    again.adopted_at = locked.draw().unwrap();
    again.standing = Standing::Active;
    locked.save_claim(&again).unwrap();
    locked.stale(&before, "late").unwrap();
    assert_eq!(locked.claim().unwrap().unwrap().standing, Standing::Active);
    locked.stale(&again, "in time").unwrap();
    assert!(matches!(locked.claim().unwrap().unwrap().standing, Standing::Stale { .. }));
}

#[test]
fn other_directories_and_other_nodes_are_refused() {
    let there = journal();
    there.claim(1, "a");
    there.ready_claim("a");
    let data = there.directory.path().join("data");
    let state = there.directory.path().join("state");
    let elsewhere = Journal::at(&there.directory.path().join("else"), &data);
    let error = elsewhere.lock().unwrap().ready(&Fixture::name(), "a").unwrap_err();
    assert!(error.to_string().contains("the same two"), "{error}");
    let elsewhere = Journal::at(&state, &there.directory.path().join("else"));
    assert!(matches!(
        elsewhere.lock().unwrap().ready(&Fixture::name(), "a"),
        Err(JournalError::OtherDirectories { .. })
    ));
    let error = there.journal.lock().unwrap().ready(&"n2".parse().unwrap(), "a").unwrap_err();
    assert!(matches!(error, JournalError::OtherNode { .. }));
}

#[test]
fn a_live_entry_is_not_overwritten_and_a_resting_one_is() {
    let there = journal();
    let mut locked = there.journal.lock().unwrap();
    let mut entry = intent("a", "10.240.1.0", 5);
    locked.create(&entry).unwrap();
    assert!(matches!(locked.create(&intent("b", "10.240.1.0", 6)), Err(JournalError::Taken { .. })));
    let change = |entry: &mut Entry| entry.released(Seq(7), Uptime(7));
    let changed = locked.change(entry.address, &entry.attachment(), change).unwrap();
    entry.released(Seq(7), Uptime(7));
    assert_eq!(changed, Some(entry.clone()));
    locked.create(&intent("b", "10.240.1.0", 8)).unwrap();
    assert_eq!(locked.change(entry.address, &entry.attachment(), |_| ()).unwrap(), None, "it is b's now");
}

#[test]
fn numbers_rise_across_processes() {
    let there = journal();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let mut locked = there.journal.lock().unwrap();
        for _ in 0..3 {
            let seq = locked.draw().unwrap();
            assert!(seen.last().is_none_or(|last| *last < seq));
            seen.insert(seq);
        }
    }
    // An emptied lock file does not set the count back behind an entry.
    let far = intent("a", "10.240.1.0", u64::MAX / 2);
    there.journal.lock().unwrap().create(&far).unwrap();
    std::fs::write(there.directory.path().join("state/lock"), "").unwrap();
    assert!(there.journal.lock().unwrap().draw().unwrap() > far.seq);
}

proptest! {
    #[test]
    fn the_next_number_is_more_than_the_last_and_no_less_than_now(last in 0..u64::MAX, now in any::<u64>()) {
        let next = next_seq(Seq(last), Uptime(now));
        prop_assert!(next.0 > last && next.0 >= now);
    }
}
