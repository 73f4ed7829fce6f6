//! What is left of pods whose end nobody told: where the runtime never calls GC, the agent sweeps it.

use super::{
    NodeContext,
    del::take_away,
    node::{host_prefixes, is_elsewhere},
};
use crate::{
    cni::CniError,
    fault::{self, Point},
    journal::{AttachmentLock, Entry, Readiness},
    wiring::{
        Host, Pod,
        survey::{Survey, survey},
    },
};
use ipam_api::{
    names::Attachment,
    wire::{EntryState, Seq},
};
use std::fmt;

/// Why an attachment looks like the rest of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leak {
    /// Its entry says that the pod runs, but its interface is gone, and its namespace with it.
    Gone(Seq),
    /// An ADD or DEL of it ended early and nobody is at it.
    Unfinished(Seq),
    /// There is a host end without entry and without address, left by an ADD that ended early.
    Bare,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone(_) => "its interface and its namespace are gone",
            Self::Unfinished(_) => "an ADD or DEL of it ended early",
            Self::Bare => "its interface has neither entry nor address",
        })
    }
}

/// An attachment that may be swept, if it still looks so later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suspect {
    /// Whose it is, or was.
    pub attachment: Attachment,
    /// Why. Of an attachment that was made anew meanwhile it is another.
    pub leak: Leak,
}

/// What became of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Nothing is left of it.
    Gone,
    /// It is none any more, or somebody is at it.
    Spared,
}

/// What looks like a leak now. `None` where the journal or the host cannot be believed: then nothing is known.
///
/// # Errors
/// The journal or the kernel cannot be asked.
pub fn suspects(context: &NodeContext<'_>, host: &mut Host) -> Result<Option<Vec<Suspect>>, CniError> {
    let Readiness::Ready(claim) = context.readiness()? else { return Ok(None) };
    let (entries, unread) = context.journal.picture()?.as_far_as_known();
    // Looked at after the entries: an ADD writes its entry first.
    let seen = survey(host, None, &host_prefixes(&claim.node.addresses))?;
    // In another network namespace all pods would seem gone.
    if is_elsewhere(&claim.node, &seen) {
        return Ok(None);
    }
    let of_entries = entries.iter().filter_map(|entry| {
        let leak = leak(entry, &seen)?;
        Some(Suspect { attachment: entry.attachment(), leak })
    });
    let is_named = |attachment: &Attachment| entries.iter().any(|one| one.is_live() && one.is_of(attachment));
    let bare = seen.ends.iter().filter(|end| {
        // Where one cannot be read it may be the one of this end.
        unread.is_none() && end.addresses.is_empty() && !is_named(&end.attachment)
    });
    let bare = bare.map(|end| Suspect { attachment: end.attachment.clone(), leak: Leak::Bare });
    Ok(Some(of_entries.chain(bare).collect()))
}

/// What is wrong with a live entry, as the host shows it.
fn leak(entry: &Entry, seen: &Survey) -> Option<Leak> {
    let attachment = entry.attachment();
    match entry.state {
        EntryState::Wired if seen.ends.iter().any(|end| end.attachment == attachment) => None,
        // A pod that lost its interface and lives is its runtime's to end. Of one whose namespace is not known,
        // after a journal was lost, no interface is left that could use the address.
        EntryState::Wired => {
            let is_gone = entry.netns.as_deref().is_none_or(|path| matches!(Pod::is_there(path), Ok(false)));
            is_gone.then_some(Leak::Gone(entry.seq))
        }
        EntryState::Intent | EntryState::Releasing => Some(Leak::Unfinished(entry.seq)),
        EntryState::Released => None,
    }
}

/// Takes a suspect away as DEL would, unless somebody is at it or it looks otherwise by now. `uplink` is where an
/// entry that does not know was wired.
///
/// # Errors
/// Where something is left; the next look finds it again.
pub fn sweep(
    context: &NodeContext<'_>,
    host: &mut Host,
    suspect: &Suspect,
    uplink: Option<&str>,
) -> Result<Swept, CniError> {
    fault::at(Point::SweepBeforeLock);
    let Suspect { attachment, .. } = suspect;
    let state_dir = &context.conf.state_dir;
    let lock = AttachmentLock::try_take(state_dir, &attachment.network, &attachment.container_id)?;
    let Some(lock) = lock else { return Ok(Swept::Spared) };
    // Again, now that nobody changes it.
    if !suspects(context, host)?.is_some_and(|now| now.contains(suspect)) {
        return Ok(Swept::Spared);
    }
    let (mut entries, _) = context.journal.picture()?.as_far_as_known();
    entries.retain(|entry| entry.is_live() && entry.is_of(attachment));
    // Its namespace is gone, or nothing in it ever worked: nobody enters it.
    let taken = take_away(context, host, None, attachment, &entries, uplink)?;
    if let Some(trouble) = taken.trouble {
        return Err(trouble);
    }
    lock.discard();
    Ok(Swept::Gone)
}
