use super::{
    ClaimFile, Ended, Entry, Forgotten, JournalError, Picture, Standing, Strangers, Uptime,
    claim::following,
    files::{self, Durability},
};
use crate::fault::{self, Point};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{BootSeq, Claim, Seq},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Read,
    net::IpAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Whose journal it is (`header.json`): without it there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The node.
    pub node: NodeName,
    /// The claim that its entries were last sent under.
    pub claim: Claim,
    /// The boot, likewise.
    pub boot_seq: BootSeq,
    /// The kernel's id of that boot: entries of another are void.
    pub boot_id: String,
    /// Where the claim is.
    pub data_dir: PathBuf,
}

/// Where the journal of a node is.
#[derive(Debug, Clone)]
pub struct Journal {
    state: PathBuf,
    data: PathBuf,
}

/// What stands between a caller and the journal's use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing.
    Ready(Box<ClaimFile>),
    /// No claim is known: it has to be fetched.
    NoClaim,
    /// The journal of this boot is lost: it has to be rebuilt from the host.
    Lost(Box<ClaimFile>),
}

impl Journal {
    /// The journal in these directories; touches nothing.
    #[must_use]
    pub fn at(state: &Path, data: &Path) -> Self {
        Self { state: state.to_owned(), data: data.to_owned() }
    }

    /// Where its entries are.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Where what outlives a reboot is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The claim, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn claim(&self) -> Result<Option<ClaimFile>, JournalError> {
        files::read(&self.claim_path())
    }

    /// The claim, if there is one, of this node and with both directories as the configuration has them.
    ///
    /// # Errors
    /// Files cannot be read, or belong to another node or configuration.
    pub fn claim_of(&self, node: &NodeName) -> Result<Option<ClaimFile>, JournalError> {
        self.claim_under(self.header()?.as_ref(), node)
    }

    fn claim_under(
        &self,
        header: Option<&Header>,
        node: &NodeName,
    ) -> Result<Option<ClaimFile>, JournalError> {
        let other = |state: &Path, data: &Path| JournalError::OtherDirectories {
            theirs: state.to_owned(),
            data: data.to_owned(),
        };
        if let Some(header) = header.filter(|header| header.data_dir != self.data) {
            return Err(other(&self.state, &header.data_dir));
        }
        let Some(claim) = self.claim()? else { return Ok(None) };
        if claim.node.name != *node {
            return Err(JournalError::OtherNode {
                path: self.claim_path(),
                theirs: claim.node.name.to_string(),
                ours: node.to_string(),
            });
        }
        if claim.state_dir != self.state {
            return Err(other(&claim.state_dir, &self.data));
        }
        Ok(Some(claim))
    }

    /// Tries out whether files can be written where entries and claim are.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn try_out(&self) -> Result<(), JournalError> {
        files::try_out(&self.addresses())?;
        files::try_out(&self.data)
    }

    /// The header, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn header(&self) -> Result<Option<Header>, JournalError> {
        files::read(&self.header_path())
    }

    /// All entries, by address. Without the lock they are a picture that may have changed since.
    ///
    /// # Errors
    /// One may be missing, as a file cannot be read or is misnamed.
    pub fn entries(&self) -> Result<Vec<Entry>, JournalError> {
        self.picture()?.whole()
    }

    /// The entries' files as they are.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn picture(&self) -> Result<Picture, JournalError> {
        Picture::of(&self.addresses())
    }

    /// The entry of an address, if there is one that can be read.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn entry(&self, address: IpAddr) -> Result<Option<Entry>, JournalError> {
        files::read(&self.entry_path(address))
    }

    /// Who else was heard to have addresses of the block. A file that cannot be read counts as none: the
    /// segment is asked again.
    #[must_use]
    pub fn strangers(&self, claim: &ClaimFile) -> Strangers {
        let kept = files::read::<Strangers>(&self.strangers_path()).ok().flatten();
        kept.filter(|kept| kept.is_of(claim)).unwrap_or_else(|| Strangers::of(claim))
    }

    /// Waits for the node's lock. Hold it for file work only, never while
    /// talking to the service or the kernel's networking; but while ports and rules go that are nobody's, so that
    /// nobody comes to count on them, and while rules made anew are told of pods that live.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn lock(&self) -> Result<Locked<'_>, JournalError> {
        files::make_directory(&self.addresses())?;
        files::make_directory(&self.data)?;
        let path = self.state.join("lock");
        let io = || JournalError::io(path.clone());
        let mut file = files::open_lock(&path).map_err(io())?;
        file.lock().map_err(io())?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io())?;
        let mut locked = Locked { journal: self, file, last: Seq(0) };
        locked.last = match text.trim().parse() {
            Ok(last) => Seq(last),
            // A new lock, or one that somebody emptied: the entries know how far we were.
            Err(_) => {
                let Picture { entries, unsound } = self.picture()?;
                let all = entries.iter().chain(unsound.iter().filter_map(|file| file.holds.as_ref()));
                all.map(|entry| entry.seq).max().unwrap_or_default()
            }
        };
        Ok(locked)
    }

    /// A file beside the journal to be locked for something else that one process at a time does.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn lock_file(&self, name: &str) -> Result<File, JournalError> {
        files::make_directory(&self.state)?;
        let path = self.state.join(name);
        files::open_lock(&path).map_err(JournalError::io(&path))
    }

    fn addresses(&self) -> PathBuf {
        self.state.join("addresses")
    }

    fn entry_path(&self, address: IpAddr) -> PathBuf {
        self.addresses().join(address.to_string())
    }

    fn strangers_path(&self) -> PathBuf {
        self.state.join("strangers.json")
    }

    fn header_path(&self) -> PathBuf {
        self.state.join("header.json")
    }

    fn claim_path(&self) -> PathBuf {
        self.data.join("claim.json")
    }
}

/// The journal while this process alone may change it.
#[derive(Debug)]
pub struct Locked<'a> {
    journal: &'a Journal,
    file: File,
    last: Seq,
}

impl Locked<'_> {
    /// The journal that is locked.
    pub(super) fn journal(&self) -> &Journal {
        self.journal
    }

    /// The next sequence number: the time since boot in µs, but at least one more than the last.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn draw(&mut self) -> Result<Seq, JournalError> {
        let seq = next_seq(self.last, Uptime::now());
        // Always twenty digits: one write replaces the last number whole.
        let text = format!("{:020}\n", seq.0);
        let path = self.journal.state.join("lock");
        self.file.write_all_at(text.as_bytes(), 0).map_err(JournalError::io(path))?;
        self.last = seq;
        Ok(seq)
    }

    /// All entries, by address.
    ///
    /// # Errors
    /// As [`Journal::entries`].
    pub fn entries(&self) -> Result<Vec<Entry>, JournalError> {
        self.journal.entries()
    }

    /// The entries' files as they are.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn picture(&self) -> Result<Picture, JournalError> {
        self.journal.picture()
    }

    /// The claim, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn claim(&self) -> Result<Option<ClaimFile>, JournalError> {
        self.journal.claim()
    }

    /// Keeps the claim so that loss of power does not lose it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save_claim(&mut self, claim: &ClaimFile) -> Result<(), JournalError> {
        files::replace(&self.journal.claim_path(), claim, Durability::Power)
    }

    /// Keeps who was heard, for this boot.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save_strangers(&mut self, strangers: &Strangers) -> Result<(), JournalError> {
        files::replace(&self.journal.strangers_path(), strangers, Durability::Process)
    }

    /// As [`Locked::forget`], of a claim whose end the service named: that it ended is kept.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn end(&mut self) -> Result<(), JournalError> {
        if let Some(claim) = self.claim()? {
            self.save_end(&Ended { node: claim.node.name, claim: claim.node.claim })?;
        }
        self.forget()
    }

    /// Forgets claim and journal: they are over.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget(&mut self) -> Result<(), JournalError> {
        files::remove(&self.journal.claim_path(), Durability::Power)?;
        files::remove(&self.journal.header_path(), Durability::Process)?;
        files::remove(&self.journal.strangers_path(), Durability::Process)?;
        self.retain_networks(|_| false)?;
        self.empty()
    }

    /// Makes an entry for an address that has none, or one in its rest.
    ///
    /// # Errors
    /// The address has a live entry, or the file system refuses.
    pub fn create(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let path = self.journal.entry_path(entry.address);
        if files::create(&path, entry)? {
            return Ok(());
        }
        match files::read::<Entry>(&path)? {
            Some(old) if old.is_live() => Err(JournalError::Taken { address: entry.address }),
            _ => files::replace(&path, entry, Durability::Process),
        }
    }

    /// Changes the entry of an address if it is still this attachment's, and
    /// returns it as it is now; `None` if it is not.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn change(
        &mut self,
        address: IpAddr,
        attachment: &Attachment,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Option<Entry>, JournalError> {
        let path = self.journal.entry_path(address);
        let Some(before) = files::read::<Entry>(&path)?.filter(|entry| entry.is_of(attachment)) else {
            return Ok(None);
        };
        let mut entry = before.clone();
        change(&mut entry);
        if entry != before {
            files::replace(&path, &entry, Durability::Process)?;
        }
        Ok(Some(entry))
    }

    /// Sees what stands in the way of using the journal and puts right what
    /// needs no one else: a new boot gets its number, entries of an old one go,
    /// entries of another claim or number are to be sent again.
    ///
    /// # Errors
    /// Files cannot be read or written, or belong to another node or configuration.
    pub fn ready(&mut self, node: &NodeName, boot_id: &str) -> Result<Readiness, JournalError> {
        let header = self.journal.header()?;
        let Some(mut claim) = self.journal.claim_under(header.as_ref(), node)? else {
            return Ok(Readiness::NoClaim);
        };
        if claim.boot.id != boot_id {
            boot_id.clone_into(&mut claim.boot.id);
            claim.boot.seq = following(claim.boot.seq);
            if claim.journal {
                claim.forgotten = Some(Forgotten::BEFORE_THIS_BOOT);
            }
            claim.journal = false;
            // Numbers begin again with each boot.
            (claim.adopted_at, claim.described_as_of) = (Seq(0), Seq(0));
            // Ages were told in another boot: what rested then rests at least since this one began.
            claim.received = Uptime(0);
            self.save_claim(&claim)?;
        }
        match header {
            Some(header) if header.boot_id == boot_id => {
                if (header.claim, header.boot_seq) != (claim.node.claim, claim.boot.seq) {
                    self.send_again(header.claim == claim.node.claim)?;
                    self.write_header(&claim)?;
                }
            }
            None if claim.journal => return Ok(Readiness::Lost(Box::new(claim))),
            _ => {
                self.empty()?;
                self.write_header(&claim)?;
            }
        }
        self.mark(&mut claim)?;
        Ok(Readiness::Ready(Box::new(claim)))
    }

    /// Makes these entries the journal, in place of a lost one.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn rebuilt(&mut self, claim: &mut ClaimFile, entries: &[Entry]) -> Result<(), JournalError> {
        self.empty()?;
        for entry in entries {
            self.create(entry)?;
        }
        claim.forgotten = Some(Forgotten { since: Uptime::now(), at: self.draw()? });
        self.save_claim(claim)?;
        fault::at(Point::RebuildBeforeHeader);
        // The header last: until it is there the journal counts as lost.
        self.write_header(claim)?;
        self.mark(claim)
    }

    /// Whether the claim and the boot are still these: an answer to a request of
    /// others acknowledges nothing.
    ///
    /// # Errors
    /// The claim cannot be read.
    pub fn is_current(&self, claim: &ClaimFile) -> Result<bool, JournalError> {
        Ok(self.claim()?.is_some_and(|now| now.is_as(claim)))
    }

    /// Stops ADD until a person or a sync has found out what the service knows. `under` is
    /// what the refused request was sent under: a claim taken up since is none of it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn stale(&mut self, under: &ClaimFile, reason: &str) -> Result<(), JournalError> {
        let same = |file: &ClaimFile| file.is_as(under) && file.adopted_at == under.adopted_at;
        let Some(mut file) = self.claim()?.filter(same) else { return Ok(()) };
        file.standing = Standing::Stale { reason: reason.to_owned() };
        self.save_claim(&file)
    }

    fn mark(&mut self, claim: &mut ClaimFile) -> Result<(), JournalError> {
        if claim.journal {
            return Ok(());
        }
        claim.journal = true;
        self.save_claim(claim)
    }

    /// Nothing that was acknowledged under another claim or number is so under this
    /// one. What rests from a former claim is the service's to know.
    fn send_again(&mut self, same_claim: bool) -> Result<(), JournalError> {
        // What cannot be read is sent by nobody before it is put right.
        for mut entry in self.picture()?.entries {
            if !same_claim && !entry.is_live() {
                files::remove(&self.journal.entry_path(entry.address), Durability::Process)?;
                continue;
            }
            entry.acked = false;
            entry.refused = None;
            files::replace(&self.journal.entry_path(entry.address), &entry, Durability::Process)?;
        }
        Ok(())
    }

    fn write_header(&mut self, claim: &ClaimFile) -> Result<(), JournalError> {
        let header = Header {
            node: claim.node.name.clone(),
            claim: claim.node.claim,
            boot_seq: claim.boot.seq,
            boot_id: claim.boot.id.clone(),
            data_dir: self.journal.data.clone(),
        };
        files::replace(&self.journal.header_path(), &header, Durability::Process)
    }

    fn empty(&mut self) -> Result<(), JournalError> {
        for path in files::list(&self.journal.addresses())? {
            files::remove(&path, Durability::Process)?;
        }
        Ok(())
    }
}

/// The number after `last` at `now`.
fn next_seq(last: Seq, now: Uptime) -> Seq {
    Seq(now.0.max(last.0.saturating_add(1)))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
