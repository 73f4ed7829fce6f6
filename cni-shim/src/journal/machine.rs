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

    /// Whether a host is another machine, to which the disk was copied. The same id makes it the
    /// same whatever its cards, and so does its card where the ids differ or there are none. An id
    /// that is known of one of the two only says nothing.
    #[must_use]
    pub fn is_not(&self, firmware: &Firmware, card: Card) -> bool {
        let may_differ = match (&self.uuid, firmware) {
            (Some(kept), Firmware::Named(here)) => kept != here,
            (None, Firmware::Nameless) => true,
            (None, Firmware::Named(_)) | (Some(_), Firmware::Nameless) | (_, Firmware::Unread) => false,
        };
        may_differ && card == Card::Missing
    }
}

/// The id that a machine's firmware gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// This one.
    Named(String),
    /// It gives none, as on many virtual machines without DMI.
    Nameless,
    /// There may be one, but it cannot be read.
    Unread,
}

impl Firmware {
    /// The machine with this uplink, unless there is more to it that cannot be told.
    #[must_use]
    pub fn machine(&self, mac: String) -> Option<Machine> {
        match self {
            Self::Named(uuid) => Some(Machine::of(mac, Some(uuid.clone()))),
            Self::Nameless => Some(Machine::of(mac, None)),
            Self::Unread => None,
        }
    }
}

/// Whether the card by which a machine was known is in the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Card {
    /// An interface has its MAC.
    Here,
    /// None has.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_has_neither_the_id_nor_the_card() {
        let kept = Machine::of("02:00:00:00:00:01".to_owned(), Some("a".to_owned()));
        let nameless = Machine::of(kept.mac.clone(), None);
        assert_ne!(nameless.hash, kept.hash);
        let named = |id: &str| Firmware::Named(id.to_owned());
        assert!(kept.is_not(&named("b"), Card::Missing));
        assert!(nameless.is_not(&Firmware::Nameless, Card::Missing));
        for (machine, firmware) in [
            (&kept, named("a")),
            (&kept, Firmware::Nameless),
            (&kept, Firmware::Unread),
            (&nameless, named("b")),
            (&nameless, Firmware::Unread),
        ] {
            assert!(!machine.is_not(&firmware, Card::Missing), "{machine:?} {firmware:?}");
        }
        for firmware in [named("a"), named("b"), Firmware::Nameless, Firmware::Unread] {
            assert!(!kept.is_not(&firmware, Card::Here) && !nameless.is_not(&firmware, Card::Here));
        }
    }
}
