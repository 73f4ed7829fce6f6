use super::{Entry, JournalError, files};
use ipam_api::names::Attachment;
use std::{net::IpAddr, path::Path};

/// The files of the addresses as they were found.
#[derive(Debug, Default)]
pub struct Picture {
    /// The entries, by address.
    pub entries: Vec<Entry>,
    /// Files that are no address's entry although they are named as one.
    pub unsound: Vec<Unsound>,
}

/// A file that is named as an address and is not its entry.
#[derive(Debug)]
pub struct Unsound {
    /// The address.
    pub named: IpAddr,
    /// The entry in it, another address's; `None` if it cannot be read.
    pub holds: Option<Entry>,
    /// What is wrong with it.
    pub error: JournalError,
}

impl Picture {
    /// Looks at the files of a directory.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(super) fn of(directory: &Path) -> Result<Self, JournalError> {
        let mut picture = Self::default();
        for path in files::list(directory)? {
            // Not an editor's backup: that is named as no address.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(named) = name.parse::<IpAddr>() else { continue };
            match files::read::<Entry>(&path) {
                Ok(None) => {}
                Ok(Some(entry)) if entry.address.to_string() == name => picture.entries.push(entry),
                Ok(Some(entry)) => picture.unsound.push(Unsound {
                    named,
                    error: JournalError::Misnamed { path, address: entry.address },
                    holds: Some(entry),
                }),
                Err(error) => picture.unsound.push(Unsound { named, holds: None, error }),
            }
        }
        picture.entries.sort_by_key(|entry| entry.address);
        Ok(picture)
    }

    /// The entries, for a caller to whom a missing one is a released one.
    ///
    /// # Errors
    /// One may be missing.
    pub fn whole(self) -> Result<Vec<Entry>, JournalError> {
        match self.as_far_as_known() {
            (entries, None) => Ok(entries),
            (_, Some(error)) => Err(error),
        }
    }

    /// The entries, and why one may be missing, if so.
    #[must_use]
    pub fn as_far_as_known(mut self) -> (Vec<Entry>, Option<JournalError>) {
        let hides = self.unsound.iter().position(|file| self.hides(file));
        let error = hides.map(|at| self.unsound.swap_remove(at).error);
        (self.entries, error)
    }

    /// What holds an address of an attachment's: one at most unless something went wrong.
    #[must_use]
    pub fn live(&self, attachment: &Attachment) -> Vec<Entry> {
        let hidden =
            self.unsound.iter().filter(|file| self.hides(file)).filter_map(|file| file.holds.as_ref());
        let all = self.entries.iter().chain(hidden);
        all.filter(|entry| entry.is_live() && entry.is_of(attachment)).cloned().collect()
    }

    /// Addresses that no new pod may get, whatever is in the files that are not in order: those that
    /// they are named as, and those of the live entries in them.
    pub fn refused(&self) -> impl Iterator<Item = IpAddr> {
        self.unsound.iter().flat_map(|file| {
            let held = file.holds.iter().filter(|entry| entry.is_live()).map(|entry| entry.address);
            std::iter::once(file.named).chain(held)
        })
    }

    /// Whether a file may be all that is left of a live entry: a copy of one that has its own is not.
    fn hides(&self, file: &Unsound) -> bool {
        file.holds.as_ref().is_none_or(|entry| {
            let is_it = |own: &Entry| own.address == entry.address && own.is_of(&entry.attachment());
            entry.is_live() && !self.entries.iter().any(is_it)
        })
    }
}
