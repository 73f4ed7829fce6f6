//! Who lives on this node, for rules that are made anew: they know from the first all whom they are about.

use crate::{
    cni::CniError,
    journal::{Entry, Journal, Locked},
    log,
    wiring::{
        Host,
        masquerade::Pods,
        survey::{FoundEnd, survey},
    },
};
use ipam_api::wire::EntryState;

/// Pods that live by the word of the host or of the journal, and the lock under which no DEL of one of them begins. What
/// cannot be read leaves the other's word.
pub(super) fn living(journal: &Journal) -> (Pods, Option<Locked<'_>>) {
    // Before the journal: what ends meanwhile has an entry that says so.
    let seen = Host::open().and_then(|mut host| survey(&mut host, None, &[]));
    let locked = journal.lock().map_err(CniError::from);
    let picture = journal.picture().map_err(CniError::from);
    for told in [
        seen.as_ref().err().map(ToString::to_string),
        locked.as_ref().err().map(ToString::to_string),
        picture.as_ref().err().map(ToString::to_string),
    ] {
        told.into_iter().for_each(|why| log::warn(format_args!("not all who live may be known: {why}")));
    }
    let (entries, _) = picture.map(|picture| picture.as_far_as_known()).unwrap_or_default();
    (pods(&entries, seen.map(|seen| seen.ends).unwrap_or_default()), locked.ok())
}

/// Who is on the way in or out sees to itself, unless the host shows it: a way in may be past that, and a torn entry says
/// nothing.
fn pods(entries: &[Entry], ends: Vec<FoundEnd>) -> Pods {
    let mut pods = Pods::default();
    for entry in entries.iter().filter(|entry| entry.state == EntryState::Wired) {
        pods.add(&entry.network, &entry.addresses);
    }
    let ends_now = |end: &FoundEnd| {
        let mut theirs = entries.iter().filter(|entry| entry.is_of(&end.attachment));
        theirs.any(|entry| matches!(entry.state, EntryState::Releasing | EntryState::Released))
    };
    for end in ends.into_iter().filter(|end| !ends_now(end)) {
        pods.add(&end.attachment.network, &end.addresses);
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{
        Uptime,
        entry::tests::{attachment, intent},
    };

    #[test]
    fn whoever_lives_by_either_word_is_known_and_whoever_ends_is_not() {
        let end = |container: &str, address: &str| FoundEnd {
            attachment: attachment(container),
            name: String::new(),
            mtu: 1500,
            addresses: vec![address.parse().unwrap()],
            mac: None,
        };
        let mut wired = intent("wired", "10.0.0.1", 1);
        wired.wired(Uptime(2));
        let mut ending = intent("ending", "10.0.0.2", 2);
        ending.releasing(Uptime(3));
        let entries = [wired, ending, intent("coming", "10.0.0.3", 3), intent("bare", "10.0.0.4", 4)];
        let ends = ["ending 10.0.0.2", "coming 10.0.0.3", "torn 10.0.0.5"].map(|text| {
            let (container, address) = text.split_once(' ').unwrap();
            end(container, address)
        });
        let mut wanted = Pods::default();
        let known = ["10.0.0.1", "10.0.0.3", "10.0.0.5"].map(|text| text.parse().unwrap());
        wanted.add(&attachment("x").network, &known);
        assert_eq!(pods(&entries, ends.to_vec()), wanted);
    }
}
