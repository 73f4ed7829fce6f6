//! Keeping what is wired as it was made: others flush rules, delete routes, and take the uplink down and up, which
//! makes the kernel forget every proxy neighbour without a word.

use super::{
    NodeContext,
    node::{Ground, prefixes},
};
use crate::{
    cni::{CniError, NetConf},
    journal::{AttachmentLock, ClaimFile, Entry},
    wiring::{
        self, Host, WiringError,
        survey::{remove_proxies, survey},
        transparent::{self, Wiring},
    },
};
use ipam_api::wire::EntryState;

/// What one look found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was missing and is there again, in words.
    pub mended: Vec<String>,
    /// What was there for nobody and is gone, in words.
    pub removed: Vec<String>,
    /// What cannot be put right from here, in words.
    pub broken: Vec<String>,
}

/// Looks at everything that the journal says is wired, puts back what is missing, and ends answers for addresses of
/// the block that no pod has.
///
/// # Errors
/// Nothing can be looked at: the journal cannot be read, or there is no uplink.
pub fn keep(conf: &NetConf) -> Result<Kept, CniError> {
    let mut host = Host::open()?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    let Some(claim) = context.journal.claim()? else { return Ok(Kept::default()) };
    let uplink = wiring::uplink::find(&mut host, conf.uplink.as_deref())?;
    let ground = Ground::of(uplink, conf, &claim);
    let mut kept = Kept::default();

    let turn = context.turn()?;
    let preparation = ground.preparation(conf, &claim.node.addresses);
    match wiring::host::prepare(&ground.uplink, &preparation, &turn) {
        Ok(changed) => kept.mended.extend(changed),
        Err(error) => kept.broken.push(error.to_string()),
    }
    let (entries, unread) = context.journal.picture()?.as_far_as_known();
    kept.broken.extend(unread.map(|error| error.to_string()));
    for entry in entries.iter().filter(|entry| entry.state == EntryState::Wired) {
        match reassert(&mut host, &context, &claim, &ground, entry) {
            Ok(missing) => kept.mended.extend(missing),
            Err(error) => kept.broken.push(format!("{}: {error}", entry.attachment())),
        }
    }
    remove_stale(&mut host, &context, &claim, &ground, &mut kept)?;
    Ok(kept)
}

/// Under the attachment's lock and by what the journal says then: what a DEL takes away meanwhile must not come back.
fn reassert(
    host: &mut Host,
    context: &NodeContext<'_>,
    claim: &ClaimFile,
    ground: &Ground,
    entry: &Entry,
) -> Result<Vec<String>, CniError> {
    let attachment = entry.attachment();
    let _lock = AttachmentLock::take(&context.conf.state_dir, &attachment.network, &attachment.container_id)?;
    match context.journal.entry(entry.address)? {
        Some(now) if now.state == EntryState::Wired && now.is_of(&attachment) => {}
        _ => return Ok(Vec::new()),
    }
    let elsewhere = match entry.uplink.as_deref() {
        // Another network's, with an uplink of its own.
        Some(name) if name != ground.uplink.name => Some(wiring::uplink::find(host, Some(name))?),
        _ => None,
    };
    let wiring = Wiring {
        attachment: &attachment,
        addresses: &entry.addresses,
        node_addresses: &claim.node.addresses,
        uplink: elsewhere.as_ref().unwrap_or(&ground.uplink),
        // Both ends have theirs already; IPv6 wants to see one that it can live with.
        mtu: 0,
        mac: entry.mac,
    };
    Ok(transparent::reassert(host, &wiring)?)
}

fn remove_stale(
    host: &mut Host,
    context: &NodeContext<'_>,
    claim: &ClaimFile,
    ground: &Ground,
    kept: &mut Kept,
) -> Result<(), CniError> {
    let mut stale = survey(host, Some(&ground.uplink), &prefixes(claim))?.stale_proxies;
    if stale.is_empty() {
        return Ok(());
    }
    // Read after the survey: an ADD writes its entry before it wires anything.
    let (entries, unread) = context.journal.picture()?.as_far_as_known();
    if unread.is_some() {
        // It may be the entry of one of them.
        return Ok(());
    }
    stale.retain(|address| !entries.iter().any(|entry| entry.is_live() && entry.addresses.contains(address)));
    match remove_proxies(host, &ground.uplink, &stale) {
        Ok(removed) => {
            let uplink = &ground.uplink.name;
            kept.removed.extend(
                removed.iter().map(|address| format!("{uplink} answered for {address}, which no pod has")),
            );
        }
        Err(WiringError::NoUplink { .. }) => {}
        Err(error) => kept.broken.push(error.to_string()),
    }
    Ok(())
}
