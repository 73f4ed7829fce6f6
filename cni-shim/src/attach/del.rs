//! DEL: the interface goes first, then the address, then the service hears of it.

use super::{NodeContext, failure, sync::catch_up};
use crate::{
    cni::{CniError, Invocation, NetConf},
    fault::{self, Point},
    journal::{AttachmentLock, ClaimFile, Entry, Readiness, Standing, Uptime},
    log,
    service::{Heard, Patience, Service},
    wiring::{
        Host, Pod,
        transparent::{self, Unwiring},
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
    detach(invocation, conf).map_err(failure::retriable)
}

fn detach(invocation: &Invocation, conf: &NetConf) -> Result<(), CniError> {
    let attachment = Attachment {
        network: conf.network.clone(),
        container_id: invocation.container_id.clone(),
        if_name: invocation.if_name.clone(),
    };
    // The host's own namespace, another one by now, or none: what is ours is found without it.
    let mut pod = invocation.netns.as_deref().and_then(|path| {
        Pod::open(path).map_err(|error| log::debug(format_args!("CNI_NETNS is left alone: {error}"))).ok()
    });
    let mut host = Host::open()?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    let lock = AttachmentLock::take(&conf.node.state_dir, &attachment.network, &attachment.container_id)?;
    let claim = claim(&context)?;

    let entries = context.live(&attachment)?;
    for entry in &entries {
        let change = |entry: &mut Entry| entry.releasing(Uptime::now());
        context.journal.lock()?.change(entry.address, &attachment, change)?;
    }
    fault::at(Point::DelAfterReleasing);

    let addresses: Vec<IpAddr> = entries.iter().flat_map(|entry| entry.addresses.clone()).collect();
    let unwiring =
        Unwiring { attachment: &attachment, addresses: &addresses, uplink: conf.uplink.as_deref() };
    for removed in transparent::unwire(&mut host, pod.as_mut(), &unwiring)? {
        log::debug(format_args!("{attachment}: {removed} is gone"));
    }
    fault::at(Point::DelAfterUnwire);

    for entry in &entries {
        let mut locked = context.journal.lock()?;
        let seq = locked.draw()?;
        locked.change(entry.address, &attachment, |entry| entry.released(seq, Uptime::now()))?;
        log::info(format_args!("{attachment} gave {} back", entry.address));
    }
    fault::at(Point::DelAfterReleased);

    if let Some(claim) = claim {
        tell_all(&context, conf, &claim, &attachment)?;
    }
    lock.discard();
    Ok(())
}

/// The claim, for telling the service; a DEL goes on without one.
fn claim(context: &NodeContext<'_>) -> Result<Option<ClaimFile>, CniError> {
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
fn tell_all(
    context: &NodeContext<'_>,
    conf: &NetConf,
    claim: &ClaimFile,
    attachment: &Attachment,
) -> Result<(), CniError> {
    if matches!(claim.standing, Standing::Stale { .. }) {
        return Ok(());
    }
    let service = Service::of(&conf.node, Patience::Heed);
    let end = Instant::now() + conf.node.timeout;
    let (ours, others): (Vec<Entry>, Vec<Entry>) = context
        .journal
        .entries()?
        .into_iter()
        .filter(Entry::is_due)
        .partition(|entry| !entry.is_live() && entry.is_of(attachment));
    let mut reached = false;
    for entry in ours {
        reached = tell(context, &service, claim, &entry)?;
    }
    let now = Uptime::now();
    if reached && others.iter().any(|entry| context.is_overdue(entry, now)) {
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
