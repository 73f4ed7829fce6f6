//! Which address a pod gets: the one that rested longest, or the one that the runtime asks for.

use super::{Add, Word, ports, refuse_live};
use crate::{
    attach::node::ranges,
    cni::{CniError, Code, WishedIps},
    journal::{
        ClaimFile, Entry, Past, Pick, Picture, Readiness, Standing, Stranger, Strangers, Uptime, pick,
    },
    log, tally,
    wiring::HostEnd,
};
use ipam_api::line::{Extent, Line, Offset};
use std::{net::IpAddr, time::Duration};

/// An address picked, and what else was seen under the lock.
pub(super) struct Picked {
    pub(super) claim: ClaimFile,
    pub(super) entry: Entry,
    /// Whether there is something that nobody is about to say: the service has not heard of entries,
    /// or was not asked what rests.
    pub(super) behind: bool,
    /// How long ago the address was given back, if that is known.
    pub(super) rested: Option<Duration>,
}

impl Add<'_> {
    /// Picks an address and makes its entry, under the node's lock.
    pub(super) fn pick(&self) -> Result<Picked, CniError> {
        let mut locked = self.context.journal.lock()?;
        // Again, now that nobody changes it: the claim may have been deleted, the journal lost.
        let Readiness::Ready(claim) = locked.ready(&self.conf.node.name, &self.context.boot_id)? else {
            return Err(CniError::new(
                Code::TryAgain,
                "this node's journal changed at this moment; try again",
            ));
        };
        if claim.standing != Standing::Active {
            return Err(CniError::new(Code::StaleClaim, "this node's claim has just ended; no new pods"));
        }
        // One file out of order costs its addresses and no pod its start.
        let picture = locked.picture()?;
        refuse_live(&picture.live(&self.attachment))?;
        ports::refuse_taken(&self.ports, &picture, &self.attachment)?;
        for file in &picture.unsound {
            log::warn(format_args!("{} is not given to pods: {}", file.named, file.error));
        }
        let (line, now) = (claim.line()?, Uptime::now());
        let block = claim.block(line)?;
        let strangers = self.context.journal.strangers(&claim);
        let theirs = strangers.known().iter().map(|stranger| stranger.address);
        let in_use = self.taken.iter().copied().chain(picture.refused()).chain(theirs);
        let past = pick::past(&claim, line, &picture.entries, in_use, now);
        let picked = match &self.wishes.ips {
            Some(ips) => {
                let offset = offset_of(ips, &claim, line, &block)?;
                let rested = match past.get(&offset) {
                    None => None,
                    Some(Past::Released(since)) => Some(since.age_at(now)),
                    Some(Past::Refused) => {
                        return Err(not_free(ips, &why_not(offset, line, &claim, &picture, &strangers)));
                    }
                };
                Pick { offset, rested }
            }
            None => pick::pick(&block, &past, now).ok_or_else(|| exhausted(&block, &picture, &strangers))?,
        };
        tally::rested(picked.rested);
        let wished = Duration::from_secs(claim.node.rest_seconds.get());
        if let Some(rested) = picked.rested.filter(|rested| *rested < wished) {
            log::info(format_args!(
                "{:?} is used again after {} s instead of {} s",
                line.address_at(picked.offset),
                rested.as_secs(),
                wished.as_secs()
            ));
        }
        let host_end = HostEnd::of(&self.attachment).name;
        let seq = locked.draw()?;
        let mut entry = Entry::intent(&self.attachment, line.addresses_at(picked.offset), host_end, seq, now)
            .ok_or_else(|| CniError::new(Code::Internal, "an offset of the block has no address"))?;
        entry.pod.clone_from(&self.invocation.args.pod);
        entry.netns = Some(self.netns.to_owned());
        entry.mac = self.wishes.mac;
        entry.ports.clone_from(&self.ports);
        entry.uplink = Some(self.ground.uplink.name.clone());
        if let (Word::Configured, Some(asks)) = (self.word, &self.asks) {
            locked.network_asks(&self.conf.network, asks)?;
        }
        locked.create(&entry)?;
        let behind = claim.forgotten.is_some()
            || picture.entries.iter().any(|entry| entry.is_overdue(now, self.context.conf.timeout));
        Ok(Picked { claim: *claim, entry, behind, rested: picked.rested })
    }
}

fn exhausted(block: &[Extent], picture: &Picture, strangers: &Strangers) -> CniError {
    let size: u64 = block.iter().map(|extent| extent.size()).sum();
    let live = picture.entries.iter().filter(|entry| entry.is_live()).count();
    let others = match strangers.known() {
        [] => String::new(),
        known => format!(", and machines that have no right to them answer for {}", told(known)),
    };
    CniError::new(Code::Exhausted, format!("all {size} addresses of this node's block are in use")).details(
        format!("{live} are held by pods{others}; stop some, or give the pool a higher maxPods or headroom"),
    )
}

/// The one offset of the block that has all the addresses asked for.
fn offset_of(ips: &WishedIps, claim: &ClaimFile, line: Line, block: &[Extent]) -> Result<Offset, CniError> {
    let unsupported = |address: &IpAddr, why: &str| {
        CniError::new(Code::UnsupportedField, format!("{} {address} is not supported: {why}", ips.key))
    };
    let mut found: Option<(IpAddr, Offset)> = None;
    for address in &ips.addresses {
        let offset =
            line.offset_of(*address).ok().filter(|&at| block.iter().any(|extent| extent.contains(at)));
        let Some(offset) = offset else {
            let ranges: Vec<String> =
                ranges(claim).iter().map(|(first, last)| format!("{first} to {last}")).collect();
            return Err(unsupported(address, "it is not in this node's block").details(format!(
                "this node gives pods {}: ask for one of these, or for none",
                ranges.join(" and ")
            )));
        };
        match found {
            Some((first, at)) if at != offset => {
                let together = line.addresses_at(at);
                return Err(unsupported(address, &format!("it does not go with {first}")).details(format!(
                    "a pod has one position of the subnet in both families: ask for {}",
                    list(&together)
                )));
            }
            Some(_) => {}
            None => found = Some((*address, offset)),
        }
    }
    found.map(|(_, offset)| offset).ok_or_else(|| CniError::new(Code::Internal, "no address was asked for"))
}

/// Why an offset of the block cannot be had.
fn why_not(
    offset: Offset,
    line: Line,
    claim: &ClaimFile,
    picture: &Picture,
    strangers: &Strangers,
) -> String {
    let at = |entry: &&Entry| line.offset_of(entry.address).is_ok_and(|at| at == offset);
    let mut here = picture.entries.iter().filter(at);
    if claim.own_offsets(line).contains(&offset) {
        return format!("it is node {}'s own", claim.node.name);
    }
    match here.next() {
        Some(entry) if entry.is_live() => format!("{} has it", entry.attachment()),
        Some(Entry { conflict: Some(conflict), .. }) => {
            format!("somebody else was seen to have it: {}", conflict.reason)
        }
        _ if strangers.at(offset, line).next().is_some() => {
            let these: Vec<Stranger> = strangers.at(offset, line).cloned().collect();
            format!("a machine that has no right to it answers for {}", told(&these))
        }
        _ => "the host uses it, or its entry in the journal cannot be read".to_owned(),
    }
}

/// `10.240.1.7 (02:00:00:00:00:0b)`.
fn told(strangers: &[Stranger]) -> String {
    let words = strangers.iter().map(|one| format!("{} ({})", one.address, one.mac));
    words.collect::<Vec<_>>().join(", ")
}

/// An address asked for that another has by now; it may be free later.
pub(super) fn not_free(ips: &WishedIps, why: &str) -> CniError {
    CniError::new(Code::TryAgain, format!("{} {} is not free", ips.key, list(&ips.addresses)))
        .details(format!("{why}; ask for another, for none, or try again once it is free"))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
