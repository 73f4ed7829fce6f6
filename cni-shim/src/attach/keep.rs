//! Keeping what is wired as it was made: others flush rules, delete routes, and take the uplink down and up, which
//! makes the kernel forget every proxy neighbour without a word.

use super::{
    NodeContext,
    living::living,
    node::{Ground, asks, egress, prefixes},
};
use crate::{
    cni::{CniError, NetConf},
    fault::{self, Point},
    journal::{AttachmentLock, ClaimFile, Entry, Journal, Networks, Picture},
    ports::PortMapping,
    wiring::{
        self, Host, WiringError, firewall,
        host_ports::{self, Published},
        masquerade::{self, Egress},
        survey::{remove_proxies, survey},
        transparent::{self, Wiring},
    },
};
use ipam_api::{names::NetworkName, wire::EntryState};
use std::{collections::BTreeSet, net::IpAddr};

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
    let ground = Ground::of(uplink, &claim, &context.journal, &context.boot_id);
    let mut kept = Kept::default();

    let turn = context.turn().map_err(|error| error.to_string());
    // Begun before anything is read: what an ADD says after that, it sees to itself.
    let alone =
        turn.as_ref().map_err(Clone::clone).and_then(|turn| turn.begin().map_err(|error| error.to_string()));
    let networks = networks(conf, &context.journal);
    // Read before the entries are: an ADD writes its entry before it leads a port or has a pod masqueraded.
    let pointing = Pointing::read(networks.keys());
    let (entries, unread) = context.journal.picture()?.as_far_as_known();
    kept.broken.extend(unread.map(|error| error.to_string()));
    let wired = || entries.iter().filter(|entry| entry.state == EntryState::Wired);
    let ports: Vec<PortMapping> = wired().flat_map(|entry| entry.ports.clone()).collect();
    // Of other networks, those that have pods; the rest is taken away below.
    let living_networks = networks
        .iter()
        .filter(|(network, _)| **network == conf.network || wired().any(|entry| entry.network == **network));
    let preparation = ground.preparation(living_networks, &claim.node.addresses, &ports);
    let settled = alone.and_then(|alone| {
        let living = || living(&context.journal);
        wiring::host::settle(&ground.uplink, &preparation, &alone, living).map_err(|error| error.to_string())
    });
    match settled {
        Ok(changed) => kept.mended.extend(changed),
        Err(words) => {
            kept.broken.push(words.clone());
            kept.unprepared = Some(words);
        }
    }
    for entry in wired() {
        let egress = networks.get(&entry.network).map(egress).unwrap_or_default();
        match reassert(&mut host, &context, &claim, &ground, entry, egress) {
            Ok(missing) => kept.mended.extend(missing),
            Err(error) => kept.broken.push(format!("{}: {error}", entry.attachment())),
        }
    }
    // Each by itself: what cannot be written or asked for one of them is no reason to leave the others.
    let outcomes = [
        pointing
            .map_err(CniError::from)
            .and_then(|pointing| remove_stale_elements(&mut host, &context, &pointing, &mut kept)),
        remove_stale_networks(&mut host, &context, &conf.network, &mut kept),
        remove_stale(&mut host, &context, &claim, &ground, &mut kept),
    ];
    kept.broken.extend(outcomes.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    Ok(kept)
}

/// What each network asks of the node, as its last ADD said: the list that runtimes read may have been edited since the
/// agent began. Before the first ADD the agent's own configuration counts.
fn networks(conf: &NetConf, journal: &Journal) -> Networks {
    let mut networks = journal.networks();
    networks.entry(conf.network.clone()).or_insert_with(|| asks(conf));
    networks
}

/// Elements of the node's maps and sets, and the addresses of pods that they are about.
struct Pointing {
    published: Vec<Published>,
    covered: Vec<(NetworkName, Vec<IpAddr>)>,
}

impl Pointing {
    fn read<'a>(networks: impl Iterator<Item = &'a NetworkName>) -> Result<Self, WiringError> {
        let covered = |network: &NetworkName| {
            masquerade::covered(network.as_str()).map(|addresses| (network.clone(), addresses))
        };
        Ok(Self {
            published: host_ports::published()?,
            covered: networks.map(covered).collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.published.is_empty() && self.covered.iter().all(|(_, addresses)| addresses.is_empty())
    }
}

/// Under the attachment's lock and by what the journal says then: what a DEL takes away meanwhile must not come back.
fn reassert(
    host: &mut Host,
    context: &NodeContext<'_>,
    claim: &ClaimFile,
    ground: &Ground,
    entry: &Entry,
    egress: Egress,
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
        egress,
    };
    Ok(transparent::reassert(host, &wiring)?)
}

/// Ends leading ports to addresses that no pod has, for nobody would answer there, or the next one who gets it; and
/// masquerading what such addresses send.
fn remove_stale_elements(
    host: &mut Host,
    context: &NodeContext<'_>,
    pointing: &Pointing,
    kept: &mut Kept,
) -> Result<(), CniError> {
    if pointing.is_empty() {
        return Ok(());
    }
    // Where the journal is lost the host still knows who lives.
    let ends = survey(host, None, &[])?.ends;
    // Held until they are gone: an ADD that gets one of these addresses meanwhile points to it afterwards.
    let locked = context.journal.lock()?;
    let (entries, unread) = locked.picture()?.as_far_as_known();
    if unread.is_some() {
        // It may be the entry of one of them.
        return Ok(());
    }
    let holds = |network: Option<&NetworkName>, address: &IpAddr| {
        let is_of = |other: &NetworkName| network.is_none_or(|network| network == other);
        let holds = |entry: &&Entry| entry.is_live() && entry.addresses.contains(address);
        entries.iter().filter(holds).any(|entry| is_of(&entry.network))
            || ends
                .iter()
                .filter(|end| end.addresses.contains(address))
                .any(|end| is_of(&end.attachment.network))
    };
    let mut stale: Vec<IpAddr> = pointing.published.iter().map(|one| one.pod).collect();
    stale.retain(|address| !holds(None, address));
    fault::at(Point::KeepBeforeWithdraw);
    let mut note = |outcome: Result<Vec<String>, WiringError>| match outcome {
        Ok(removed) => kept.removed.extend(removed.iter().map(|words| format!("{words}, which no pod has"))),
        Err(error) => kept.broken.push(error.to_string()),
    };
    note(host_ports::withdraw(&stale));
    for (network, addresses) in &pointing.covered {
        let stale = addresses.iter().copied().filter(|address| !holds(Some(network), address));
        let stale: Vec<IpAddr> = stale.collect();
        if !stale.is_empty() {
            note(masquerade::uncover(network.as_str(), &stale));
        }
    }
    Ok(())
}

/// Takes away the rules of networks that have no pods any more.
fn remove_stale_networks(
    host: &mut Host,
    context: &NodeContext<'_>,
    own: &NetworkName,
    kept: &mut Kept,
) -> Result<(), CniError> {
    let networks = context.journal.networks();
    let known: Vec<&str> = networks.keys().chain([own]).map(NetworkName::as_str).collect();
    let others = firewall::of_others(&known).unwrap_or_default();
    let is_dead = |picture: &Picture, network: &NetworkName| {
        network != own && !picture.entries.iter().any(|entry| entry.is_live() && entry.network == *network)
    };
    let picture = context.journal.picture()?;
    if others.is_empty() && !networks.keys().any(|network| is_dead(&picture, network)) {
        return Ok(());
    }
    // Where the journal is lost the host still knows who lives.
    let ends = survey(host, None, &[])?.ends;
    // Held until they are gone: the first ADD of one of these networks makes its rules afterwards.
    let mut locked = context.journal.lock()?;
    let picture = locked.picture()?;
    if !picture.unsound.is_empty() {
        // It may be the entry of one of them.
        return Ok(());
    }
    let of_entries = picture.entries.iter().filter(|entry| entry.is_live()).map(|entry| &entry.network);
    let of_ends = ends.iter().map(|end| &end.attachment.network);
    let living: BTreeSet<&NetworkName> = of_entries.chain(of_ends).chain([own]).collect();
    let names: Vec<&str> = living.iter().map(|network| network.as_str()).collect();
    match firewall::remove_others(&names) {
        Ok(removed) => {
            let words = removed.iter().map(|chain| format!("the chain {chain}, whose network has no pod"));
            kept.removed.extend(words);
            locked.retain_networks(|network| living.contains(network))?;
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
