//! DEL: the interface goes first, then the address, then the service hears of it.

use super::{NodeContext, forgetting, sync::catch_up};
use crate::{
    cni::{CniError, Code, Invocation, NetConf, netconf::NodeConf},
    fault::{self, Point},
    journal::{AttachmentLock, ClaimFile, Entry, Journal, Readiness, Standing, Uptime},
    log,
    ports::PortMapping,
    service::{Heard, Patience, Service},
    wiring::{
        Host, Pod,
        transparent::{self, Unwired, Unwiring},
    },
};
use ipam_api::{
    names::Attachment,
    wire::{EntryState, ProblemType},
};
use std::{net::IpAddr, time::Instant};

/// Detaches a container: whatever there is of it, and success where there is nothing.
///
/// # Errors
/// Where something is left to do and another try may do it; never for the
/// service's sake.
pub fn del(invocation: &Invocation, conf: &NetConf) -> Result<(), CniError> {
    let attachment = invocation.attachment(&conf.network);
    // The host's own namespace, another one by now, or none: what is ours is found without it.
    let mut pod = invocation.netns.as_deref().and_then(|path| {
        Pod::open(path).map_err(|error| log::debug(format_args!("CNI_NETNS is left alone: {error}"))).ok()
    });
    let mut host = Host::open()?;
    let node = as_it_was_added(&conf.node);
    let context = NodeContext::open(&node, conf.uplink.as_deref(), &mut host)?;
    let lock = AttachmentLock::take(&node.state_dir, &attachment.network, &attachment.container_id)?;
    // Whatever is wrong with the journal, the interface goes: what is wrong is told at the end.
    let (claim, mut trouble) = match claim(&context) {
        Ok(claim) => (claim, None),
        Err(error) => (None, Some(error)),
    };
    let (mut entries, unread) = context.journal.picture()?.as_far_as_known();
    entries.retain(|entry| entry.is_live() && entry.is_of(&attachment));
    trouble = trouble.or(unread.map(CniError::from));
    let taken = take_away(&context, &mut host, pod.as_mut(), &attachment, &entries, conf.uplink.as_deref())?;
    let removed = taken.removed;
    if let Some(error) = trouble.or(taken.trouble) {
        // An address that was held by what is gone now may stand in what cannot be read, and in
        // directories that only the next try may know.
        let elsewhere = error.code == Code::InvalidConfig;
        if elsewhere || (entries.is_empty() && !removed.is_empty()) {
            return Err(error);
        }
        log::warn(format_args!("{attachment} is gone, but the journal is not in order: {error}"));
    }
    if let Some(claim) = claim {
        tell_all(&context, &claim, &attachment)?;
    }
    lock.discard();
    Ok(())
}

/// What became of an attachment that was taken away.
pub(super) struct Taken {
    /// What of its wiring was removed, in words.
    pub(super) removed: Vec<String>,
    /// What could not be written down before it was removed.
    pub(super) trouble: Option<CniError>,
}

/// Takes an attachment away whose lock the caller has: its wiring, then what its live entries hold. `uplink`
/// is where an entry that does not know was wired.
pub(super) fn take_away(
    context: &NodeContext<'_>,
    host: &mut Host,
    pod: Option<&mut Pod>,
    attachment: &Attachment,
    entries: &[Entry],
    uplink: Option<&str>,
) -> Result<Taken, CniError> {
    let mut trouble = None;
    for entry in entries {
        let change = |entry: &mut Entry| entry.releasing(Uptime::now());
        let changed =
            context.journal.lock().and_then(|mut locked| locked.change(entry.address, attachment, change));
        trouble = trouble.or(changed.err().map(CniError::from));
    }
    fault::at(Point::DelAfterReleasing);

    let addresses: Vec<IpAddr> = entries.iter().flat_map(|entry| entry.addresses.clone()).collect();
    // Where it was wired, not where the configuration would wire it now.
    let uplink = entries.iter().find_map(|entry| entry.uplink.as_deref()).or(uplink);
    let mac = entries.iter().find_map(|entry| entry.mac);
    let ports: Vec<PortMapping> = entries.iter().flat_map(|entry| entry.ports.clone()).collect();
    let unwiring = Unwiring { attachment, addresses: &addresses, uplink, mac, ports: &ports };
    // Of an entry that is torn the host alone knows the addresses.
    let Unwired { removed, addresses } = transparent::unwire(host, pod, &unwiring)?;
    for removed in &removed {
        log::debug(format_args!("{attachment}: {removed} is gone"));
    }
    // Not before: until then packets would bring them back.
    forgetting::begin(&context.journal, &addresses);
    fault::at(Point::DelAfterUnwire);

    for entry in entries {
        let mut locked = context.journal.lock()?;
        let seq = locked.draw()?;
        locked.change(entry.address, attachment, |entry| entry.released(seq, Uptime::now()))?;
        log::info(format_args!("{attachment} gave {} back", entry.address));
    }
    fault::at(Point::DelAfterReleased);
    Ok(Taken { removed, trouble })
}

/// The node as ADD knew it: what is here belongs to the claim's node and lies where the claim and the
/// header say, whatever the host is called and the configuration says by now.
pub(super) fn as_it_was_added(conf: &NodeConf) -> NodeConf {
    let mut node = conf.clone();
    // Each of the two may lead to the other.
    for _ in 0..2 {
        if let Ok(Some(claim)) = Journal::at(&node.state_dir, &node.data_dir).claim() {
            (node.name, node.state_dir) = (claim.node.name, claim.state_dir);
        }
        if let Ok(Some(header)) = Journal::at(&node.state_dir, &node.data_dir).header()
            && let Ok(Some(_)) = Journal::at(&node.state_dir, &header.data_dir).claim()
        {
            node.data_dir = header.data_dir;
        }
    }
    node
}

/// The claim, for telling the service; a DEL goes on without one.
pub(super) fn claim(context: &NodeContext<'_>) -> Result<Option<ClaimFile>, CniError> {
    loop {
        match context.readiness()? {
            Readiness::Ready(claim) => return Ok(Some(*claim)),
            Readiness::NoClaim => return Ok(None),
            Readiness::Lost(_) => {
                context.rebuild()?;
            }
        }
    }
}

/// Tells the service of every address that this attachment gave back and that it has not acknowledged.
fn tell_all(context: &NodeContext<'_>, claim: &ClaimFile, attachment: &Attachment) -> Result<(), CniError> {
    // Neither is sent by a DEL: what is to be said waits for the sync that finds out.
    if matches!(claim.standing, Standing::Stale { .. }) || !claim.knows_host() {
        return Ok(());
    }
    let service = Service::of(context.conf, Patience::Heed);
    let end = Instant::now() + context.conf.timeout;
    let entries = context.journal.picture()?.entries;
    // The last pod in what the block gave up is gone: the service waits for that word.
    let confirms = claim.can_confirm_block(&entries)?;
    let (ours, others): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .filter(Entry::is_due)
        .partition(|entry| !entry.is_live() && entry.is_of(attachment));
    let mut reached = false;
    for entry in ours {
        reached = tell(context, &service, claim, &entry)?;
    }
    let now = Uptime::now();
    if reached && (confirms || others.iter().any(|entry| entry.is_overdue(now, context.conf.timeout))) {
        catch_up(context, &service, end);
    }
    Ok(())
}

/// Tells the service that an address was given back; whether it has heard.
pub(super) fn tell(
    context: &NodeContext<'_>,
    service: &Service,
    claim: &ClaimFile,
    entry: &Entry,
) -> Result<bool, CniError> {
    let attachment = entry.attachment();
    match service.release(&attachment, &context.stamp(claim, entry.seq), entry.address) {
        Heard::Done(()) => {
            fault::at(Point::DelAfterDelete);
            let mut locked = context.journal.lock()?;
            if locked.is_current(claim)? {
                locked.change(entry.address, &attachment, |now| {
                    now.ack(EntryState::Released, entry.seq);
                })?;
            }
            Ok(true)
        }
        Heard::Refused(problem) => {
            log::warn(format_args!("the service refuses to take {} back: {}", entry.address, problem.detail));
            if problem.kind == ProblemType::StaleClaim {
                context.journal.lock()?.stale(claim, &problem.detail)?;
            }
            Ok(false)
        }
        Heard::Unreachable { reason, .. } => {
            log::info(format_args!("the service will hear later that {} is free: {reason}", entry.address));
            Ok(false)
        }
    }
}
