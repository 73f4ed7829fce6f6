use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What told the machine that took the claim up from another: kept with the claim, so
/// that neither another network's uplink nor a changed card makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// What the service is told: a hash of the two below.
    pub hash: String,
    /// MAC of the uplink then.
    pub mac: String,
    /// The firmware's id, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

impl Machine {
    /// The machine with this uplink and this id of its firmware, if any.
    #[must_use]
    pub fn of(mac: String, uuid: Option<String>) -> Self {
        let digest = Sha256::digest(format!("{mac}/{}", uuid.as_deref().unwrap_or_default()));
        let hash = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { hash, mac, uuid }
    }

    /// Whether a host is another machine, to which the disk was copied: it has another id,
    /// and no card with the MAC. What is not known of either speaks for the same.
    pub fn is_not(&self, uuid: Option<&str>, has_mac: impl FnOnce(&str) -> bool) -> bool {
        let another = self.uuid.as_deref().zip(uuid).is_some_and(|(kept, here)| kept != here);
        another && !has_mac(&self.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_id_without_the_card_is_another_machine() {
        let kept = Machine::of("02:00:00:00:00:01".to_owned(), Some("a".to_owned()));
        assert!(kept.is_not(Some("b"), |mac| mac != "02:00:00:00:00:01"));
        assert!(!kept.is_not(Some("b"), |mac| mac == "02:00:00:00:00:01"));
        assert!(!kept.is_not(Some("a"), |_| false));
        assert!(!kept.is_not(None, |_| false));
        let nameless = Machine::of(kept.mac.clone(), None);
        assert!(!nameless.is_not(Some("b"), |_| false));
        assert_ne!(nameless.hash, kept.hash);
    }
}
