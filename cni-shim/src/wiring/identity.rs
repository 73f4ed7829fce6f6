//! What an attachment's host end is called and which MACs its two ends have.
//!
//! All of it follows from the attachment alone, so a DEL finds the interface
//! without any record, and a repeated ADD makes the same one.

use super::Mac;
use ipam_api::names::Attachment;
use sha2::{Digest, Sha256};

/// The names and MACs that follow from an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEnd {
    /// Name of the host's interface: `vn` and 11 hex digits.
    pub name: String,
    /// Its alias: `<network>/<containerId>/<ifName>`, at most 255 bytes; see [`HostEnd::of`].
    pub alias: String,
    /// MAC of the host's end, locally administered.
    pub host_mac: Mac,
    /// MAC of the pod's end, locally administered.
    pub pod_mac: Mac,
}

/// How names of host ends begin.
pub const PREFIX: &str = "vn";

/// The kernel keeps at most this many bytes of an alias (`IFALIASZ` − 1).
const LONGEST_ALIAS: usize = 255;

impl HostEnd {
    /// Whether the alias of the host end names the whole attachment: without that it cannot
    /// be found again once its record is lost.
    #[must_use]
    pub fn is_told_by_alias(attachment: &Attachment) -> bool {
        attachment.to_string().len() <= LONGEST_ALIAS
    }

    /// The host end of an attachment. An alias that the kernel could not hold
    /// is cut; the MAC then tells two such attachments apart.
    #[must_use]
    pub fn of(attachment: &Attachment) -> Self {
        let digest = digest(attachment);
        let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut alias = attachment.to_string();
        while alias.len() > LONGEST_ALIAS {
            alias.pop();
        }
        Self {
            name: format!("{PREFIX}{}", &hex[..11]),
            alias,
            host_mac: local_mac(&digest[8..14]),
            pod_mac: local_mac(&digest[16..22]),
        }
    }
}

/// The name of the host end of an attachment: `vn` and the first 11 hex digits of SHA-256 over
/// network, container id and interface name, separated by `/` (which none of them can contain).
#[must_use]
pub fn host_end_name(attachment: &Attachment) -> String {
    HostEnd::of(attachment).name
}

/// True for names that a host end can have.
#[must_use]
pub fn is_host_end_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|hex| {
        hex.len() == 11 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// The attachment that an alias names, if it is one of ours.
#[must_use]
pub fn parse_alias(alias: &str) -> Option<Attachment> {
    let mut parts = alias.splitn(3, '/');
    Some(Attachment {
        network: parts.next()?.parse().ok()?,
        container_id: parts.next()?.parse().ok()?,
        if_name: parts.next()?.parse().ok()?,
    })
}

fn digest(attachment: &Attachment) -> [u8; 32] {
    Sha256::digest(attachment.to_string().as_bytes()).into()
}

fn local_mac(bytes: &[u8]) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(bytes);
    // Unicast, locally administered (IEEE 802, second-least significant bit of the first byte).
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(network: &str, container: &str, interface: &str) -> Attachment {
        Attachment {
            network: network.parse().unwrap(),
            container_id: container.parse().unwrap(),
            if_name: interface.parse().unwrap(),
        }
    }

    #[test]
    fn the_name_is_fixed_for_ever() {
        // A change here strands the interfaces of every running pod.
        let end = HostEnd::of(&attachment("prod", "abc", "eth0"));
        let digest: String =
            Sha256::digest(b"prod/abc/eth0").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(end.name, format!("vn{}", &digest[..11]));
        assert!(end.name.len() <= 15 && is_host_end_name(&end.name));
        assert_eq!(end.alias, "prod/abc/eth0");
        assert_eq!(parse_alias(&end.alias).unwrap(), attachment("prod", "abc", "eth0"));
    }

    #[test]
    fn every_part_of_the_attachment_counts() {
        let base = HostEnd::of(&attachment("a", "b", "c"));
        for other in [attachment("x", "b", "c"), attachment("a", "x", "c"), attachment("a", "b", "x")] {
            let other = HostEnd::of(&other);
            assert_ne!(base.name, other.name);
            assert_ne!(base.host_mac, other.host_mac);
            assert_ne!(base.pod_mac, other.pod_mac);
        }
        assert_ne!(base.host_mac, base.pod_mac);
    }

    #[test]
    fn macs_are_unicast_and_local() {
        for n in 0..200 {
            let end = HostEnd::of(&attachment("a", &format!("c{n}"), "eth0"));
            for mac in [end.host_mac, end.pod_mac] {
                assert_eq!(mac.0[0] & 3, 2, "{mac}");
            }
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for foreign in
            ["vnet0", "vnet0123456789", "vn0123456789", "vn0123456789ab", "vn0123456789A", "eth0", ""]
        {
            assert!(!is_host_end_name(foreign), "{foreign}");
        }
        for foreign in ["", "a", "a/b", "a/b/c:d", "a//c", "uplink of rack 3"] {
            assert!(parse_alias(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_long_alias_is_cut_to_what_the_kernel_holds() {
        let long = "x".repeat(200);
        let end = HostEnd::of(&attachment(&long, &long, "eth0"));
        assert_eq!(end.alias.len(), 255);
        assert!(!HostEnd::is_told_by_alias(&attachment(&long, &long, "eth0")));
        for edge in 180..200 {
            let end = HostEnd::of(&attachment(&long, &"x".repeat(edge - 155), "éééé"));
            assert!(end.alias.len() <= 255, "an interface name may be cut inside a letter");
        }
    }
}
