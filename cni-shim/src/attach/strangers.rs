//! Asking the segment who else has addresses of the block, before a pod gets one of them.

use super::node::{host_prefixes, is_elsewhere, prefixes};
use crate::{
    cni::{CniError, Code, NetConf},
    journal::{ClaimFile, Entry, Journal, News, Standing, Stranger, Uptime, boot},
    mac::Mac,
    wiring::{Host, Uplink, WiringError, probe, survey::survey, uplink},
};
use ipam_api::{
    line::{Extent, Line, Offset},
    names::Attachment,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// So many offsets are asked for at once: some fifteen seconds for both families.
const AT_ONCE: u64 = 1_000;

/// What became of one look at what is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asking {
    /// Nothing is to be asked now.
    Nothing,
    /// This host has none of the node's addresses: another network's answers say nothing about this one.
    Elsewhere,
    /// The segment was asked.
    Asked(Probed),
}

/// What one asking has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// How many addresses were asked for.
    pub asked: usize,
    /// Strangers that are new, each with the attachment that got its address meanwhile.
    pub came: Vec<(Stranger, Option<Attachment>)>,
    /// Strangers that answer no more.
    pub left: Vec<Stranger>,
    /// Machines that answer for whatever they are asked, so that their answers say nothing.
    pub indiscriminate: BTreeSet<Mac>,
}

/// Asks for what nobody was asked for in this boot and under this claim, and again for strangers that
/// were not asked for `again`. What a pod has is not asked for, for this host answers for it. Strangers
/// are kept in the journal, so that no pod gets their addresses.
///
/// # Errors
/// The journal, the kernel or the segment cannot be asked; then nothing is known that was not before.
pub fn probe_block(conf: &NetConf, again: Duration) -> Result<Asking, CniError> {
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    let Some(claim) = usable(&journal, conf)? else { return Ok(Asking::Nothing) };
    let (line, strangers) = (claim.line()?, journal.strangers(&claim));
    let block = claim.block(line)?;
    let mut within = strangers.clone();
    within.asked(&[], &block, line);
    if within != strangers {
        mark(&journal, &claim, &Answers::default())?;
    }
    let part = within.unasked(&block, AT_ONCE);
    let mut asked: BTreeSet<IpAddr> = within.to_ask_again(again, Uptime::now()).collect();
    if part.is_empty() && asked.is_empty() {
        return Ok(Asking::Nothing);
    }
    let mut host = Host::open()?;
    let own = host_prefixes(&claim.node.addresses);
    let seen = survey(&mut host, None, &[prefixes(&claim), own].concat())?;
    if is_elsewhere(&claim.node, &seen) {
        return Ok(Asking::Elsewhere);
    }
    let (entries, _) = journal.picture()?.as_far_as_known();
    let is_held =
        |address: &IpAddr| entries.iter().any(|one| one.is_live() && one.addresses.contains(address));
    let offsets = part.iter().flat_map(|extent| extent.first().0..extent.next().0);
    let addresses = offsets.flat_map(|offset| line.addresses_at(Offset(offset)));
    asked.extend(addresses.filter(|address| !is_held(address) && !seen.taken.contains(address)));

    let uplink = uplink::find(&mut host, conf.uplink.as_deref())?;
    let gateways: BTreeSet<IpAddr> = claim.node.network.gateways.iter().copied().collect();
    let (found, indiscriminate) = listen(&mut host, &uplink, line, &asked, &gateways)?;
    let answers = Answers { part, asked, found };
    let Some(News { came, left }) = mark(&journal, &claim, &answers)? else { return Ok(Asking::Nothing) };
    let (entries, _) = journal.picture()?.as_far_as_known();
    let holder = |address: IpAddr| {
        entries.iter().find(|one| one.is_live() && one.addresses.contains(&address)).map(Entry::attachment)
    };
    let came = came.into_iter().map(|one| (holder(one.address), one)).map(|(pod, one)| (one, pod)).collect();
    Ok(Asking::Asked(Probed { asked: answers.asked.len(), came, left, indiscriminate }))
}

/// The claim, where this boot has taken it up and pods may get addresses of it.
fn usable(journal: &Journal, conf: &NetConf) -> Result<Option<ClaimFile>, CniError> {
    let boot_id = boot::boot_id(&conf.node.boot_id_file)?;
    Ok(journal.claim()?.filter(|claim| {
        let is_open = matches!(claim.standing, Standing::Planned | Standing::Active);
        is_open && claim.boot.id == boot_id && claim.knows_host()
    }))
}

/// Where and for what the segment was asked, and who answered.
#[derive(Debug, Default)]
struct Answers {
    part: Vec<Extent>,
    asked: BTreeSet<IpAddr>,
    found: BTreeMap<IpAddr, Mac>,
}

/// Keeps what was heard; `None` if the claim is another by now.
fn mark(journal: &Journal, under: &ClaimFile, answers: &Answers) -> Result<Option<News>, CniError> {
    let mut locked = journal.lock()?;
    let Some(claim) = locked.claim()?.filter(|claim| claim.is_as(under)) else { return Ok(None) };
    let line = claim.line()?;
    let mut strangers = journal.strangers(&claim);
    let mut news = strangers.heard(&answers.asked, &answers.found, Uptime::now());
    strangers.asked(&answers.part, &claim.block(line)?, line);
    // The block may have shrunk meanwhile.
    news.came.retain(|one| strangers.known().contains(one));
    locked.save_strangers(&strangers)?;
    Ok(Some(news))
}

/// Who answers for these addresses, without those that answer for what nobody can have, and without a router
/// that answers for most of what is asked: proxy ARP need not include the network's address, and to believe it would
/// take the whole block from pods.
fn listen(
    host: &mut Host,
    uplink: &Uplink,
    line: Line,
    asked: &BTreeSet<IpAddr>,
    gateways: &BTreeSet<IpAddr>,
) -> Result<(BTreeMap<IpAddr, Mac>, BTreeSet<Mac>), CniError> {
    let nobodys: BTreeSet<IpAddr> = nobodys(line)?.into_iter().filter(|one| !asked.contains(one)).collect();
    let gateways: BTreeSet<IpAddr> = gateways.difference(asked).copied().collect();
    let all = asked.iter().chain(&nobodys).chain(&gateways).copied().collect();
    let mut found = probe::probe(host, uplink, &all).map_err(|error| unheard(&error))?;
    let mut indiscriminate: BTreeSet<Mac> = nobodys.iter().filter_map(|one| found.remove(one)).collect();
    let routers: BTreeSet<Mac> = gateways.iter().filter_map(|one| found.remove(one)).collect();
    indiscriminate.extend(routers.into_iter().filter(|router| answers_for_most(*router, asked, &found)));
    found.retain(|_, mac| !indiscriminate.contains(mac));
    Ok((found, indiscriminate))
}

/// Whether a machine answers for more than half of the addresses asked of a family, and for more than one.
fn answers_for_most(mac: Mac, asked: &BTreeSet<IpAddr>, found: &BTreeMap<IpAddr, Mac>) -> bool {
    [true, false].into_iter().any(|v4| {
        let of_family = |address: &&IpAddr| address.is_ipv4() == v4;
        let answered = asked.iter().filter(of_family).filter(|address| found.get(address) == Some(&mac));
        let answered = answered.count();
        answered > 1 && answered * 2 > asked.iter().filter(of_family).count()
    })
}

/// Addresses of the subnet that no machine has: where fabrics or routers answer in the name of others, they
/// answer for these as well.
fn nobodys(line: Line) -> Result<Vec<IpAddr>, CniError> {
    let network = line.v4().map(|net| net.network().into());
    let far = match line.v6() {
        // Beyond the number line, where routers advertise no addresses of ours.
        Some(net) if net.prefix_len() <= 64 => {
            let random = getrandom::u64().map_err(|error| {
                CniError::new(Code::TryAgain, "no random number").details(error.to_string())
            })?;
            Some(Ipv6Addr::from_bits(net.network().to_bits() | u128::from(random | 1 << 63)).into())
        }
        _ => None,
    };
    Ok(network.into_iter().chain(far).collect())
}

fn unheard(error: &WiringError) -> CniError {
    CniError::new(Code::TryAgain, "strangers on the segment were not looked for").details(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_answers_for_most_of_a_block_says_nothing_of_any_address() {
        let addresses = |ends: std::ops::Range<u8>| ends.map(|end| IpAddr::from([10, 240, 1, end]));
        let (router, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let asked: BTreeSet<IpAddr> = addresses(0..10).chain(["fd00::1".parse().unwrap()]).collect();
        let found = |many| addresses(0..many).map(|address| (address, router)).collect::<BTreeMap<_, _>>();
        assert!(answers_for_most(router, &asked, &found(6)));
        assert!(!answers_for_most(router, &asked, &found(5)), "it may have some of them");
        assert!(!answers_for_most(other, &asked, &found(10)));
        let one: BTreeSet<IpAddr> = addresses(0..1).collect();
        assert!(
            !answers_for_most(router, &one, &found(1)),
            "the one that is asked again is not most of a block"
        );
    }
}
