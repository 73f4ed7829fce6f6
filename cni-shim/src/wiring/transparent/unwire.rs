//! Taking a pod's wiring away.

use crate::ports::PortMapping;
use crate::wiring::{
    Host, HostEnd, Mac, Pod, WiringError, host_ports, identity,
    link::{self, Link},
    masquerade, neighbour,
    netlink::{family_of, host_length},
    route, rule, uplink,
};
use ipam_api::names::Attachment;
use std::net::IpAddr;

/// What is to be taken away.
#[derive(Debug, Clone, Copy)]
pub struct Unwiring<'a> {
    /// Whose interface it is.
    pub attachment: &'a Attachment,
    /// The addresses it had, as far as known.
    pub addresses: &'a [IpAddr],
    /// Name of the uplink, where known; without it the addresses' proxies are looked for on the
    /// interface of the default route.
    pub uplink: Option<&'a str>,
    /// The MAC that the pod's interface was given, where it is not the one that follows from the attachment.
    pub mac: Option<Mac>,
    /// The node's ports that lead to it, as far as known.
    pub ports: &'a [PortMapping],
}

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unwired {
    /// In words.
    pub removed: Vec<String>,
    /// The addresses that it had, on record or by the host's routes.
    pub addresses: Vec<IpAddr>,
}

/// Takes away what [`wire`](super::wire) made; what is gone already is success. `pod` is used only to
/// remove an end that lost its partner, and only if it is this attachment's.
///
/// # Errors
/// [`WiringError::Several`] or the one error, after every step was tried. A foreign interface with our
/// name is not an error: it is left alone.
pub fn unwire(
    host: &mut Host,
    pod: Option<&mut Pod>,
    unwiring: &Unwiring<'_>,
) -> Result<Unwired, WiringError> {
    let end = HostEnd::of(unwiring.attachment);
    let mut removed = Vec::new();
    let mut errors = Vec::new();
    let mut note = |outcome: Result<Vec<String>, WiringError>| match outcome {
        Ok(words) => removed.extend(words),
        Err(error) => errors.push(error),
    };
    let ours =
        link::by_name(&mut host.netlink, &end.name).map(|found| found.filter(|link| is_ours(link, &end)));
    let ours = ours.unwrap_or_else(|error| {
        note(Err(error));
        None
    });
    let addresses = addresses(host, unwiring, ours.as_ref()).unwrap_or_else(|error| {
        note(Err(error));
        unwiring.addresses.to_vec()
    });
    // Nobody is to be sent here any more, before there is nothing here.
    note(match unwiring.ports {
        [] => host_ports::withdraw_unrecorded(&addresses),
        _ => host_ports::withdraw(&addresses),
    });
    note(proxies(host, unwiring, &addresses, ours.as_ref()));
    if let Some(link) = ours {
        note(delete_link(host, &link));
    }
    // Not before: until then it sends.
    note(masquerade::uncover(unwiring.attachment.network.as_str(), &addresses));
    if let Some(pod) = pod {
        // Rules are the one thing in a pod that does not go with an interface.
        note(rules(pod, &addresses));
        note(leftover(host, pod, unwiring, &end));
    }
    match errors.len() {
        0 => Ok(Unwired { removed, addresses }),
        1 => Err(errors.swap_remove(0)),
        _ => Err(WiringError::Several(errors)),
    }
}

/// Ours by its alias; or, where an ADD ended between making it and naming it, by its MAC.
fn is_ours(link: &Link, end: &HostEnd) -> bool {
    link.veth && (link.alias == end.alias || (link.alias.is_empty() && link.mac == Some(end.host_mac)))
}

/// The addresses on record and those whose routes still lead here: a record may be lost, or say too little.
fn addresses(
    host: &mut Host,
    unwiring: &Unwiring<'_>,
    ours: Option<&Link>,
) -> Result<Vec<IpAddr>, WiringError> {
    let mut addresses = unwiring.addresses.to_vec();
    if let Some(link) = ours {
        addresses.extend(route::host_routes_through(&mut host.netlink, link.index)?);
        addresses.sort_unstable();
        addresses.dedup();
    }
    Ok(addresses)
}

/// Ends answering for the addresses, unless they lead to somebody else's interface by now.
fn proxies(
    host: &mut Host,
    unwiring: &Unwiring<'_>,
    addresses: &[IpAddr],
    ours: Option<&Link>,
) -> Result<Vec<String>, WiringError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let uplink = match uplink::find(host, unwiring.uplink) {
        // Renamed since.
        Err(WiringError::NoUplink { .. }) => uplink::find(host, None),
        found => found,
    };
    let uplink = match uplink {
        Ok(uplink) => uplink,
        // The uplink took its proxies with it.
        Err(WiringError::NoUplink { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let questions = addresses.iter().map(|address| route::lookup(*address)).collect();
    let answers = host.netlink.batch(questions)?;
    let mut requests = Vec::new();
    for (address, answer) in addresses.iter().zip(answers) {
        let found = route::Route::of(answer.unless(route::NO_ROUTE)?);
        let dev = found.filter(|route| route.to.prefix_len() == host_length(*address)).map(|route| route.dev);
        if dev.is_none() || dev.flatten() == ours.map(|link| link.index) {
            requests.push((*address, neighbour::delete_proxy(uplink.index, *address)));
        }
    }
    let (addresses, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    let mut removed = Vec::new();
    for (address, answer) in addresses.into_iter().zip(host.netlink.batch(requests)?) {
        let gone = [nix::libc::ENOENT, nix::libc::ENODEV, nix::libc::ESRCH];
        if answer.code() == 0 {
            removed.push(format!("the proxy for {address} on {}", uplink.name));
        }
        answer.unless(&gone)?;
    }
    Ok(removed)
}

fn delete_link(host: &mut Host, link: &Link) -> Result<Vec<String>, WiringError> {
    let answer = host.netlink.one(link::delete(link.index, &link.name))?;
    let done = answer.code() == 0;
    // Gone meanwhile: the namespace ended, or another DEL was quicker.
    answer.unless(&[nix::libc::ENODEV])?;
    Ok(if done { vec![format!("interface {}", link.name)] } else { Vec::new() })
}

/// Removes the pod's rules for the addresses, which nobody else has as long as this attachment holds them.
fn rules(pod: &mut Pod, addresses: &[IpAddr]) -> Result<Vec<String>, WiringError> {
    let mut requests = Vec::new();
    for address in addresses {
        let found = rule::all(&mut pod.netlink, family_of(*address))?;
        let ours = found.into_iter().filter(|(from, _)| from == address);
        requests.extend(ours.map(|(from, table)| (from, rule::delete(from, table))));
    }
    let (addresses, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    let mut removed = Vec::new();
    for (address, answer) in addresses.into_iter().zip(pod.netlink.batch(requests)?) {
        if answer.code() == 0 {
            removed.push(format!("a rule of the pod for {address}"));
        }
        answer.unless(&[nix::libc::ENOENT])?;
    }
    Ok(removed)
}

/// Removes the pod's end where its partner is not ours any more. The path may name another
/// container's namespace by now: the MAC tells, and where two containers were given the same one, whom the
/// partner belongs to.
fn leftover(
    host: &mut Host,
    pod: &mut Pod,
    unwiring: &Unwiring<'_>,
    end: &HostEnd,
) -> Result<Vec<String>, WiringError> {
    let name = unwiring.attachment.if_name.as_str();
    let Some(link) = link::by_name(&mut pod.netlink, name)? else { return Ok(Vec::new()) };
    if !link.veth || link.mac != Some(unwiring.mac.unwrap_or(end.pod_mac)) {
        return Ok(Vec::new());
    }
    // Older kernels leave the partner's index out where both ends happen to have the same one.
    let partner = link::by_index(&mut host.netlink, link.peer.unwrap_or(link.index))?;
    if let Some(partner) = partner
        && identity::parse_alias(&partner.alias).is_some_and(|other| other != *unwiring.attachment)
        && identity::is_host_end_name(&partner.name)
    {
        return Ok(Vec::new());
    }
    // With its partner alive under our name it would have been deleted with it.
    if link::by_name(&mut host.netlink, &end.name)?.is_some_and(|found| is_ours(&found, end)) {
        return Ok(Vec::new());
    }
    delete_in(pod, &link)
}

fn delete_in(pod: &mut Pod, link: &Link) -> Result<Vec<String>, WiringError> {
    let answer = pod.netlink.one(link::delete(link.index, &link.name))?;
    answer.unless(&[nix::libc::ENODEV])?;
    Ok(vec![format!("interface {} in the pod", link.name)])
}
