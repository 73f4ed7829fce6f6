//! Which of the node's ports a pod gets: those it asks for, unless somebody has one of them.

use crate::{
    attach::NodeContext,
    cni::{CniError, Code, NetConf, chains_portmap},
    journal::{ClaimFile, Entry, Picture},
    log,
    ports::PortMapping,
    wiring::{host_ports, listeners},
};
use ipam_api::names::Attachment;
use std::{fs, net::IpAddr, path::Path};

/// What the configuration calls them.
const KEY: &str = "runtimeConfig.portMappings";

/// The ports that are ours to lead: none where `portmap` is in the network's list and leads them.
pub(in crate::attach) fn ours(asked: &[PortMapping], conf: &NetConf) -> Vec<PortMapping> {
    if let Some(first) = asked.first()
        && is_portmaps(conf)
    {
        log::info(format_args!("{first} and whatever else is asked for is left to portmap"));
        return Vec::new();
    }
    asked.to_vec()
}

/// Whether a file where the runtime has its lists says so. What cannot be read is none of them: whose packets
/// both lead, the first to see them does, to the same place.
fn is_portmaps(conf: &NetConf) -> bool {
    let files = fs::read_dir(&conf.conf_dir).into_iter().flatten().flatten().map(|file| file.path());
    let lists = files.filter(|path| path.extension().is_some_and(|extension| extension == "conflist"));
    let mut texts = lists.filter_map(|path| fs::read(Path::new(&path)).ok());
    texts.any(|text| chains_portmap(&text, &conf.network))
}

/// Refuses ports that lead nowhere, and those at which the host itself is found. Before anything is begun.
pub(super) fn refuse_impossible(
    ports: &[PortMapping],
    claim: &ClaimFile,
    context: &NodeContext<'_>,
) -> Result<(), CniError> {
    let pods: Vec<IpAddr> = claim.node.network.cidrs.iter().map(ipnet::IpNet::addr).collect();
    for mapping in ports {
        let towards: Vec<PortMapping> = pods.iter().filter_map(|pod| mapping.towards(*pod)).collect();
        if towards.is_empty() {
            return Err(CniError::new(Code::UnsupportedField, format!("{KEY} {mapping} is not supported"))
                .details("pods of this subnet have no address of its family: leave hostIP out"));
        }
        let taken = towards.iter().any(|one| one.host_ip.is_some_and(|at| listeners::has(*one, at)));
        if taken {
            return Err(taken_by(*mapping, "a program of the host has it"));
        }
    }
    refuse_unrecorded(ports, context)
}

/// Refuses ports that lead to a pod whose entry says nothing of it, for it cannot be read.
fn refuse_unrecorded(ports: &[PortMapping], context: &NodeContext<'_>) -> Result<(), CniError> {
    if ports.is_empty() || context.journal.picture()?.unsound.is_empty() {
        return Ok(());
    }
    let published = host_ports::published()?;
    let ends = context.survey(&[])?.ends;
    for mapping in ports {
        let held = published.iter().filter(|one| one.mapping.overlaps(*mapping));
        let mut holders = held.flat_map(|one| ends.iter().filter(|end| end.addresses.contains(&one.pod)));
        if let Some(holder) = holders.next() {
            return Err(taken_by(*mapping, &format!("{} has it", holder.attachment)));
        }
    }
    Ok(())
}

/// Refuses ports that another attachment has; under the node's lock, so that each has one holder.
pub(super) fn refuse_taken(
    ports: &[PortMapping],
    picture: &Picture,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let unsound = picture.unsound.iter().filter_map(|file| file.holds.as_ref());
    let live = picture.entries.iter().chain(unsound).filter(|entry| entry.is_live());
    let others: Vec<&Entry> = live.filter(|entry| !entry.is_of(attachment)).collect();
    for mapping in ports {
        let has = |entry: &&&Entry| entry.ports.iter().any(|port| port.overlaps(*mapping));
        if let Some(holder) = others.iter().find(has) {
            return Err(taken_by(*mapping, &format!("{} has it", holder.attachment())));
        }
    }
    Ok(())
}

fn taken_by(mapping: PortMapping, who: &str) -> CniError {
    CniError::new(Code::TryAgain, format!("the node's port {mapping} is taken"))
        .details(format!("{who}; ask for another, or try again once it is free"))
}
