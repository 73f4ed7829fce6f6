//! Keeping what is wired as it was made: others flush rules, delete routes, and take the uplink down and up, which
//! makes the kernel forget every proxy neighbour without a word.

use super::{
    NodeContext,
    node::{Ground, prefixes},
};
use crate::{
    cni::{CniError, NetConf},
    fault::{self, Point},
    journal::{AttachmentLock, ClaimFile, Entry},
    ports::PortMapping,
    wiring::{
        self, Host, WiringError,
        host_ports::{self, Published},
        survey::{remove_proxies, survey},
        transparent::{self, Wiring},
    },
};
use ipam_api::wire::EntryState;
use std::net::IpAddr;

/// What one look found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was missing and is there again, in words.
    pub mended: Vec<String>,
    /// What was there for nobody and is gone, in words.
    pub removed: Vec<String>,
    /// What cannot be put right from here, in words.
    pub broken: Vec<String>,
    /// Why no pod could be wired here at all, in words; it is among what is broken.
    pub unprepared: Option<String>,
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

    // Read before anything else: an ADD writes its entry before it leads a port.
    let published = host_ports::published();
    let (entries, unread) = context.journal.picture()?.as_far_as_known();
    kept.broken.extend(unread.map(|error| error.to_string()));
    let turn = context.turn()?;
    let wired = || entries.iter().filter(|entry| entry.state == EntryState::Wired);
    let ports: Vec<PortMapping> = wired().flat_map(|entry| entry.ports.clone()).collect();
    let preparation = ground.preparation(conf, &claim.node.addresses, &ports);
    match wiring::host::prepare(&ground.uplink, &preparation, &turn) {
        Ok(changed) => kept.mended.extend(changed),
        Err(error) => {
            kept.broken.push(error.to_string());
            kept.unprepared = Some(error.to_string());
        }
    }
    for entry in wired() {
        match reassert(&mut host, &context, &claim, &ground, entry) {
            Ok(missing) => kept.mended.extend(missing),
            Err(error) => kept.broken.push(format!("{}: {error}", entry.attachment())),
        }
    }
    match published {
        Ok(published) => remove_stale_ports(&mut host, &context, &published, &mut kept)?,
        Err(error) => kept.broken.push(error.to_string()),
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
    let state_dir = &context.conf.state_dir;
    // Whoever is at it may hang; the others' pods do not wait for that, and the next round comes.
    let lock = AttachmentLock::try_take(state_dir, &attachment.network, &attachment.container_id)?;
    let Some(_lock) = lock else { return Ok(Vec::new()) };
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
        ports: &entry.ports,
    };
    Ok(transparent::reassert(host, &wiring)?)
}

/// Ends leading ports to addresses that no pod has: nobody would answer there, or the next one who gets it.
fn remove_stale_ports(
    host: &mut Host,
    context: &NodeContext<'_>,
    published: &[Published],
    kept: &mut Kept,
) -> Result<(), CniError> {
    let mut stale: Vec<IpAddr> = published.iter().map(|one| one.pod).collect();
    if stale.is_empty() {
        return Ok(());
    }
    // Where the journal is lost the host still knows who lives.
    let ends = survey(host, None, &[])?.ends;
    // Held until they are gone: an ADD that gets one of these addresses meanwhile leads its ports afterwards.
    let locked = context.journal.lock()?;
    let (entries, unread) = locked.picture()?.as_far_as_known();
    let lives = |address: &IpAddr| {
        entries.iter().any(|entry| entry.is_live() && entry.addresses.contains(address))
            || ends.iter().any(|end| end.addresses.contains(address))
    };
    stale.retain(|address| unread.is_none() && !lives(address));
    fault::at(Point::KeepBeforeWithdraw);
    match host_ports::withdraw(&stale) {
        Ok(removed) => {
            kept.removed.extend(removed.iter().map(|words| format!("{words}, which no pod has")));
        }
        Err(error) => kept.broken.push(error.to_string()),
    }
    Ok(())
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
