//! What the node was like before us (`dataDir/install.json`), written down before it is changed.

use super::{
    Journal, JournalError,
    files::{self, Durability},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

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

impl SysctlWas {
    /// Whether a value is neither the one that we set nor the one that we found while it was being put back. What the
    /// kernel alone changes, along with a switch of ours, has other values meanwhile that are nobody's.
    #[must_use]
    pub fn is_anothers(&self, now: Option<&str>) -> bool {
        self.found != self.set && now.is_some_and(|now| now != self.found && now != self.set)
    }
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
            // The node is used again: what was decided when it was being left counts no more.
            self.going_back.clear();
            match self.sysctls.iter_mut().find(|was| was.key == now.key) {
                Some(was) => was.set = now.set,
                None => self.sysctls.push(now),
            }
        }
    }

    /// Ends an uninstallation that did not come to its end. What has got a value of somebody's since, by what each
    /// has `now`, is theirs: it is as it was found now.
    ///
    /// # Errors
    /// A value cannot be read; then nothing is changed.
    pub fn stay<E>(&mut self, now: impl Fn(&str) -> Result<Option<String>, E>) -> Result<(), E> {
        let mut theirs = BTreeSet::new();
        for was in &self.going_back {
            if was.is_anothers(now(&was.key)?.as_deref()) {
                theirs.insert(was.key.clone());
            }
        }
        self.going_back.clear();
        self.sysctls.retain(|was| !theirs.contains(&was.key));
        Ok(())
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
        let _lock = self.lock_undo()?;
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
        let _lock = self.lock_undo()?;
        files::remove(&self.undo_path(), Durability::Power)
    }

    fn lock_undo(&self) -> Result<File, JournalError> {
        let lock = self.lock_file("undo.lock")?;
        lock.lock().map_err(JournalError::io(self.state_dir().join("undo.lock")))?;
        Ok(lock)
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
    fn what_was_decided_ends_when_the_node_is_used_again() {
        let all = [was("x", "0", "1"), was("y", "5", "6"), was("far0/forwarding", "1", "1")];
        let begun = || Undo {
            boot_id: "a".to_owned(),
            sysctls: all.to_vec(),
            going_back: all.to_vec(),
            ..Undo::default()
        };
        let mut undo = begun();
        undo.take_up("a", [was("z", "0", "1")]);
        assert_eq!((undo.going_back.len(), undo.sysctls.len()), (0, 4));
        let mut undo = begun();
        // One is back already, one has somebody's value, and one went along with a switch.
        let now = |key: &str| Ok::<_, ()>(Some(if key == "y" { "7" } else { "0" }.to_owned()));
        undo.stay(now).unwrap();
        assert_eq!(undo.going_back, []);
        assert_eq!(undo.sysctls, [all[0].clone(), all[2].clone()]);
        undo.take_up("a", [was("y", "7", "6")]);
        assert_eq!(undo.sysctls[2], was("y", "7", "6"), "theirs is put back in the end");
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
