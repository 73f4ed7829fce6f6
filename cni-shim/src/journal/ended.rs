use super::{
    Journal, JournalError, Locked,
    files::{self, Durability},
};
use ipam_api::{names::NodeName, wire::Claim};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The last claim of a node that was deleted (`dataDir/ended.json`): what somebody ended, the node does not begin anew
/// by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The node.
    pub node: NodeName,
    /// Its claim.
    pub claim: Claim,
}

impl Journal {
    /// The claim that ended last, if this node has had none since.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn ended(&self, node: &NodeName) -> Result<Option<Ended>, JournalError> {
        let ended = files::read::<Ended>(&self.ended_path())?;
        Ok(ended.filter(|ended| ended.node == *node))
    }

    fn ended_path(&self) -> PathBuf {
        self.data_dir().join("ended.json")
    }
}

impl Locked<'_> {
    /// Keeps which claim ended, so that loss of power does not lose it.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn save_end(&mut self, ended: &Ended) -> Result<(), JournalError> {
        files::replace(&self.journal().ended_path(), ended, Durability::Power)
    }

    /// The node has been let in again.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_end(&mut self) -> Result<(), JournalError> {
        files::remove(&self.journal().ended_path(), Durability::Power)
    }
}
