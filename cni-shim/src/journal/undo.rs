//! What the node was like before us (`dataDir/install.json`), written down before it is changed.

use super::{
    Journal, JournalError,
    files::{self, Durability},
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A sysctl that we changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlWas {
    /// `net/ipv4/ip_forward` and the like.
    pub key: String,
    /// The value that we found.
    pub found: String,
    /// The value that we set, or that the kernel set along with ours.
    pub set: String,
}

/// A file that we put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileWas {
    /// Where.
    pub path: PathBuf,
    /// SHA-256 in hex of what we put there; more than one while it is not known which of them is there.
    pub ours: Vec<String>,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundFile>,
}

/// A file that we took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundFile {
    /// Where its content is kept.
    pub copy: PathBuf,
    /// Its mode.
    pub mode: u32,
}

/// Where things are put on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Places {
    /// Where the runtime looks for plugins, and finds ours.
    pub bin_dir: PathBuf,
    /// Where else it looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin_dirs: Vec<PathBuf>,
    /// Where it looks for network configurations.
    pub conf_dir: PathBuf,
}

/// What has to be undone so that the node is as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undo {
    /// The boot that `sysctls` are of: another one begins with values of its own.
    pub boot_id: String,
    /// Sysctls, in the order in which they were changed.
    pub sysctls: Vec<SysctlWas>,
    /// Sysctls that are being put back: of these it is decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub going_back: Vec<SysctlWas>,
    /// Where `install` has put things, for the agent that keeps them there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<Places>,
    /// Files, in the order in which they were put in place.
    pub files: Vec<FileWas>,
    /// Directories that were made for them, outer ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<PathBuf>,
}

impl Undo {
    /// Takes up sysctls that are about to be changed. What was found first is what counts: another change of ours
    /// must not pass for what the node was like.
    pub fn take_up(&mut self, boot_id: &str, sysctls: impl IntoIterator<Item = SysctlWas>) {
        if self.boot_id != boot_id {
            boot_id.clone_into(&mut self.boot_id);
            self.sysctls.clear();
            self.going_back.clear();
        }
        for now in sysctls {
            match self.sysctls.iter_mut().find(|was| was.key == now.key) {
                Some(was) => was.set = now.set,
                None => self.sysctls.push(now),
            }
        }
    }

    /// What is known of a file.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<&FileWas> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl Journal {
    /// What has to be undone; nothing where nothing was changed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn undo(&self) -> Result<Option<Undo>, JournalError> {
        let path = self.undo_path();
        files::read(&path).map_err(|error| match error {
            JournalError::Corrupt { path, why } => JournalError::CorruptUndo { path, why },
            error => error,
        })
    }

    /// Changes it, so that loss of power does not lose it; returns what it is then.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn change_undo(&self, change: impl FnOnce(&mut Undo)) -> Result<Undo, JournalError> {
        let lock = self.lock_file("undo.lock")?;
        lock.lock().map_err(JournalError::io(self.state_dir().join("undo.lock")))?;
        let before = self.undo()?;
        let mut undo = before.clone().unwrap_or_default();
        change(&mut undo);
        if before.as_ref() != Some(&undo) {
            let path = self.undo_path();
            files::make_directory(path.parent().unwrap_or(Path::new("/")))?;
            files::replace(&path, &undo, Durability::Power)?;
        }
        Ok(undo)
    }

    /// All is undone.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_undo(&self) -> Result<(), JournalError> {
        files::remove(&self.undo_path(), Durability::Power)
    }

    fn undo_path(&self) -> PathBuf {
        self.data_dir().join("install.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn was(key: &str, found: &str, set: &str) -> SysctlWas {
        SysctlWas { key: key.to_owned(), found: found.to_owned(), set: set.to_owned() }
    }

    #[test]
    fn what_was_found_first_counts_within_a_boot() {
        let mut undo = Undo::default();
        undo.take_up("a", [was("x", "0", "1")]);
        undo.take_up("a", [was("x", "1", "2"), was("y", "5", "6")]);
        assert_eq!(undo.sysctls, [was("x", "0", "2"), was("y", "5", "6")]);
        undo.take_up("b", [was("y", "7", "6")]);
        assert_eq!(undo.sysctls, [was("y", "7", "6")], "a boot begins with values of its own");
    }

    #[test]
    fn it_is_kept_in_one_file_that_says_what_to_do_when_it_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
        assert_eq!(journal.undo().unwrap(), None);
        let kept = journal.change_undo(|undo| undo.take_up("a", [was("x", "0", "1")])).unwrap();
        assert_eq!(journal.undo().unwrap(), Some(kept));
        std::fs::write(directory.path().join("data/install.json"), "{").unwrap();
        let error = journal.undo().unwrap_err().to_string();
        assert!(error.contains("install.json") && error.contains("by hand"), "{error}");
        journal.forget_undo().unwrap();
        assert_eq!(journal.undo().unwrap(), None);
    }
}
