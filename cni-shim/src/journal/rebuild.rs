//! A lost journal, put together again from what the host shows. Pure.

use super::{Entry, JournalError, Uptime};
use crate::{mac::Mac, ports::PortMapping};
use ipam_api::{line::Line, names::Attachment, wire::Seq};
use std::{collections::BTreeMap, net::IpAddr};

/// An attachment that lives on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub attachment: Attachment,
    /// Its interface on the host.
    pub host_end: String,
    /// Addresses that lead to it.
    pub addresses: Vec<IpAddr>,
    /// The MAC of the pod's interface, where the runtime asked for one.
    pub mac: Option<Mac>,
    /// The node's ports that lead to it.
    pub ports: Vec<PortMapping>,
}

/// One wired entry for each attachment that has an address of the line, each
/// with a new `seq`. The host decides what lives; what it does not show was
/// never there, and an interface without an address holds none.
///
/// # Errors
/// No `seq` can be drawn.
pub fn entries(
    line: Line,
    found: &[Found],
    now: Uptime,
    mut draw: impl FnMut() -> Result<Seq, JournalError>,
) -> Result<Vec<Entry>, JournalError> {
    let mut entries = BTreeMap::new();
    for Found { attachment, host_end, addresses, mac, ports } in found {
        let Some(offset) = addresses.iter().find_map(|&address| line.offset_of(address).ok()) else {
            continue;
        };
        if entries.contains_key(&offset) {
            continue;
        }
        let seq = draw()?;
        if let Some(mut entry) =
            Entry::intent(attachment, line.addresses_at(offset), host_end.clone(), seq, now)
        {
            entry.mac = *mac;
            entry.ports.clone_from(ports);
            entry.wired(now);
            entries.insert(offset, entry);
        }
    }
    Ok(entries.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::entry::tests::attachment, ports::tests::mapping};
    use ipam_api::wire::EntryState;

    #[test]
    fn what_the_host_shows_lives() {
        let line = Line::of(&["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap();
        let found = |container: &str, addresses: &[&str]| Found {
            attachment: attachment(container),
            host_end: format!("vn{container}"),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            mac: (container == "a").then_some(Mac([2, 0, 0, 0, 0, 7])),
            ports: (container == "d").then(|| mapping("tcp 80 80")).into_iter().collect(),
        };
        let mut seq = 40;
        let entries = entries(
            line,
            &[
                found("a", &["10.0.0.7", "fd00::7"]),
                found("b", &[]),
                found("c", &["192.0.2.1"]),
                found("d", &["fd00::9"]),
                found("e", &["10.0.0.7"]),
            ],
            Uptime(5),
            || {
                seq += 1;
                Ok(Seq(seq))
            },
        )
        .unwrap();
        let told: Vec<_> =
            entries.iter().map(|e| (e.container_id.as_str(), e.address.to_string(), e.seq.0)).collect();
        assert_eq!(told, [("a", "10.0.0.7".to_owned(), 41), ("d", "10.0.0.9".to_owned(), 42)]);
        assert_eq!((entries[0].mac, entries[1].mac), (Some(Mac([2, 0, 0, 0, 0, 7])), None));
        assert_eq!((entries[0].ports.len(), entries[1].ports.as_slice()), (0, &[mapping("tcp 80 80")][..]));
        assert!(entries.iter().all(|e| e.state == EntryState::Wired && e.is_due()));
    }
}
