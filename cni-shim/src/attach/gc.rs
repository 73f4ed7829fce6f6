//! GC: what the runtime no longer knows of one network is taken away, as DEL would.

use super::{
    NodeContext,
    del::{as_it_was_added, claim, take_away},
    sync::catch_up,
};
use crate::{
    cni::{CniError, NetConf, ValidAttachments},
    fault::{self, Point},
    journal::{AttachmentLock, Entry, Standing},
    log,
    service::{Patience, Service},
    wiring::{Host, Pod, survey::survey},
};
use ipam_api::{names::Attachment, wire::Seq};
use std::{collections::BTreeSet, time::Instant};

/// Takes away every attachment of the network that the runtime does not vouch for: those in the journal,
/// and host ends that no entry names. What was made since this began, and what another process is at, is
/// spared; without a list everything is.
///
/// # Errors
/// Where something is left; whatever else could be done was done.
pub fn gc(conf: &NetConf) -> Result<(), CniError> {
    let Some(valid) = ValidAttachments::read(conf)? else {
        log::info("the runtime did not say which attachments are valid: nothing is taken away");
        return Ok(());
    };
    let mut host = Host::open()?;
    let node = as_it_was_added(&conf.node);
    let context = NodeContext::open(&node, conf.uplink.as_deref(), &mut host)?;
    let mut errors = Vec::new();
    let claim = claim(&context);
    // Whether the journal names all that lives: what it does not name may go.
    let mut is_whole = claim.is_ok();
    let claim = claim.unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let (began, picture) = {
        let mut locked = context.journal.lock()?;
        (locked.draw()?, locked.picture()?)
    };
    fault::at(Point::GcAfterBegin);
    let (entries, unread) = picture.as_far_as_known();
    if let Some(error) = unread {
        is_whole = false;
        errors.push(error.into());
    }
    let ends = match survey(&mut host, None, &[]) {
        Ok(survey) => survey.ends.into_iter().map(|end| end.attachment).collect(),
        Err(error) => {
            errors.push(error.into());
            Vec::new()
        }
    };
    let live = entries.iter().filter(|entry| entry.is_live()).map(Entry::attachment);
    let known: BTreeSet<Attachment> = live.collect();
    // Ends are seen after the entries: one without may be of an ADD that has begun since. Its lock tells.
    let unnamed = ends.into_iter().filter(|end| is_whole && !known.contains(end));
    let doomed: BTreeSet<Attachment> = known.iter().cloned().chain(unnamed).collect();
    let doomed = doomed.into_iter().filter(|one| one.network == conf.network && !valid.contains(one));

    let mut gone = 0;
    for attachment in doomed {
        match collect(&context, &mut host, &attachment, conf.uplink.as_deref(), began) {
            Ok(Collected::Gone) => {
                gone += 1;
                log::info(format_args!("{attachment} was no longer known to the runtime and is gone"));
            }
            Ok(Collected::Spared(why)) => log::info(format_args!("{attachment} is left alone: {why}")),
            Err(error) => {
                errors.push(CniError { msg: format!("{attachment}: {}", error.msg), ..error });
            }
        }
    }
    if gone > 0
        && let Some(claim) = claim
        && !matches!(claim.standing, Standing::Stale { .. })
        && claim.knows_host()
    {
        // All at once, in the time that one call has.
        let end = Instant::now() + context.conf.timeout;
        catch_up(&context, &Service::of(context.conf, Patience::Heed), end);
    }
    all(errors)
}

enum Collected {
    /// Nothing is left of it.
    Gone,
    /// It is not GC's to take away.
    Spared(&'static str),
}

/// Takes one attachment away, unless it is in use or newer than the GC.
fn collect(
    context: &NodeContext<'_>,
    host: &mut Host,
    attachment: &Attachment,
    uplink: Option<&str>,
    began: Seq,
) -> Result<Collected, CniError> {
    let state_dir = &context.conf.state_dir;
    let lock = AttachmentLock::try_take(state_dir, &attachment.network, &attachment.container_id)?;
    let Some(lock) = lock else { return Ok(Collected::Spared("an ADD or DEL of it is at work")) };
    // Again, now that nobody changes it.
    let (mut entries, unread) = context.journal.picture()?.as_far_as_known();
    entries.retain(|entry| entry.is_live() && entry.is_of(attachment));
    if entries.iter().any(|entry| entry.seq > began) {
        return Ok(Collected::Spared("it was made since"));
    }
    if entries.is_empty()
        && let Some(error) = unread
    {
        return Err(error.into());
    }
    // Where it was wired then; another's by now is left alone, as in DEL.
    let netns = entries.iter().find_map(|entry| entry.netns.as_deref());
    let mut pod = netns.and_then(|path| Pod::open(path).ok());
    let taken = take_away(context, host, pod.as_mut(), attachment, &entries, uplink)?;
    if let Some(trouble) = taken.trouble {
        return Err(trouble);
    }
    lock.discard();
    Ok(Collected::Gone)
}

/// All errors as one.
fn all(mut errors: Vec<CniError>) -> Result<(), CniError> {
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let msg = format!("{} things went wrong, the rest was done", errors.len());
    Err(CniError::new(errors.swap_remove(0).code, msg).details(words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Code;

    #[test]
    fn errors_are_told_together() {
        assert_eq!(all(Vec::new()), Ok(()));
        let one = CniError::new(Code::Journal, "a").details("b");
        assert_eq!(all(vec![one.clone()]), Err(one.clone()));
        let both = all(vec![one, CniError::new(Code::Datapath, "c")]).unwrap_err();
        assert_eq!((both.code, both.details.as_str()), (Code::Journal, "a: b; c"));
    }
}
