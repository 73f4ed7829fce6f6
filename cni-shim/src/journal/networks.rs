//! What the CNI networks of a node ask of it (`networks.json`), as the last ADD of each has said: the agent has the
//! configuration of one of them only.

use super::{
    Journal, JournalError, Locked,
    files::{self, Durability},
};
use ipam_api::names::NetworkName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What one network asks of the whole node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAsks {
    /// `nonMasqueradeCIDRs`, where `ipMasq` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade_except: Option<Vec<IpNet>>,
    /// `blockMetadata`.
    #[serde(default)]
    pub block_metadata: bool,
}

/// What each network asks, as far as known.
pub type Networks = BTreeMap<NetworkName, NetworkAsks>;

impl Journal {
    /// What is on record. A file that cannot be read counts as none: the next ADD of each network says it again, and
    /// until then its rules are left as they are.
    #[must_use]
    pub fn networks(&self) -> Networks {
        files::read(&self.networks_path()).ok().flatten().unwrap_or_default()
    }

    fn networks_path(&self) -> PathBuf {
        self.state_dir().join("networks.json")
    }
}

impl Locked<'_> {
    /// Keeps what a network asks, for this boot.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn network_asks(&mut self, network: &NetworkName, asks: &NetworkAsks) -> Result<(), JournalError> {
        self.change_networks(|networks| {
            networks.insert(network.clone(), asks.clone());
        })
    }

    /// Forgets what networks ask that are not among these.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn retain_networks(&mut self, living: impl Fn(&NetworkName) -> bool) -> Result<(), JournalError> {
        self.change_networks(|networks| networks.retain(|network, _| living(network)))
    }

    fn change_networks(&mut self, change: impl FnOnce(&mut Networks)) -> Result<(), JournalError> {
        let journal = self.journal();
        let before = journal.networks();
        let mut networks = before.clone();
        change(&mut networks);
        if networks == before {
            return Ok(());
        }
        files::replace(&journal.networks_path(), &networks, Durability::Process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_says_the_last_word_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
        let [one, two]: [NetworkName; 2] = ["one", "two"].map(|name| name.parse().unwrap());
        let masks = NetworkAsks {
            masquerade_except: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            ..NetworkAsks::default()
        };
        let mut locked = journal.lock().unwrap();
        locked.network_asks(&one, &masks).unwrap();
        locked.network_asks(&two, &masks).unwrap();
        locked.network_asks(&two, &NetworkAsks::default()).unwrap();
        assert_eq!(
            journal.networks(),
            [(one.clone(), masks), (two.clone(), NetworkAsks::default())].into_iter().collect()
        );
        locked.retain_networks(|network| *network == two).unwrap();
        assert!(!journal.networks().contains_key(&one));
        std::fs::write(directory.path().join("state/networks.json"), "{").unwrap();
        assert_eq!(journal.networks(), Networks::new());
        locked.network_asks(&two, &NetworkAsks::default()).unwrap();
        assert_eq!(journal.networks().len(), 1, "a broken file is made again");
    }
}
