//! CHECK: from what the node knows and the kernel has, never from the service.

use super::{
    add::ports,
    node::{Ground, asks, egress},
};
use crate::{
    cni::{CniError, Code, Interface, Invocation, NetConf, PluginResult, Wishes},
    journal::{Entry, Journal, boot},
    mac::Mac,
    ports::PortMapping,
    wiring::{self, Host, Pod, transparent::Wiring},
};
use ipam_api::wire::EntryState;
use std::path::Path;

/// Whether an attachment is as ADD made it; changes nothing.
///
/// # Errors
/// Says what is not.
pub fn check(invocation: &Invocation, conf: &NetConf) -> Result<(), CniError> {
    let netns = invocation.netns.as_deref().ok_or_else(|| {
        CniError::new(Code::Environment, "required environment variables [CNI_NETNS] are missing or empty")
    })?;
    let before = conf.prev_result.clone().ok_or_else(|| {
        CniError::new(Code::InvalidConfig, "prevResult is missing: CHECK compares with what ADD printed")
    })?;
    let before = PluginResult::from_json(before)?;
    let mut pod = Pod::open(netns)?;
    let attachment = invocation.attachment(&conf.network);
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    let Some(claim) = journal.claim()? else {
        return Err(CniError::new(Code::Journal, "this node has no claim, so no attachment of ours")
            .details("run `cni-shim sync`"));
    };
    let (entries, unread) = journal.picture()?.as_far_as_known();
    let entry = entries.into_iter().find(|entry| entry.is_live() && entry.is_of(&attachment));
    let Some(entry) = entry else {
        // It may be the one.
        if let Some(error) = unread {
            return Err(error.into());
        }
        return Err(CniError::new(Code::Journal, format!("the journal has no entry for {attachment}"))
            .details("it was never added, or it was deleted; DEL and ADD it again"));
    };
    let mut findings = compare(&before, &entry, netns);
    let asked = ports::ours(&Wishes::read(invocation, conf)?.ports, conf);
    findings.extend(unrecorded(&asked, &entry));

    let mut host = Host::open()?;
    let uplink = wiring::uplink::find(&mut host, conf.uplink.as_deref())?;
    let ground = Ground::of(uplink, &claim, &journal, &boot::boot_id(&conf.node.boot_id_file)?);
    let asks = asks(conf);
    let preparation = ground.preparation([(&conf.network, &asks)], &entry.addresses, &entry.ports);
    let wiring = Wiring {
        attachment: &attachment,
        addresses: &entry.addresses,
        node_addresses: &claim.node.addresses,
        uplink: &ground.uplink,
        mtu: conf.mtu.unwrap_or(0),
        mac: mac_of(&before, &entry),
        ports: &entry.ports,
        egress: egress(&asks),
    };
    let found = wiring::check::check(&mut host, &mut pod, &wiring, &preparation)?;
    findings.extend(found.iter().map(ToString::to_string));
    if findings.is_empty() {
        return Ok(());
    }
    Err(CniError::new(Code::Datapath, format!("{attachment} is not as it was made"))
        .details(findings.join("; ")))
}

/// The MAC that the last plugin of the chain left the pod's interface with.
fn mac_of(before: &PluginResult, entry: &Entry) -> Option<Mac> {
    let ours =
        |interface: &&Interface| interface.name == entry.if_name.as_str() && !interface.sandbox.is_empty();
    before.interfaces.iter().find(ours).and_then(|interface| interface.mac.parse().ok()).or(entry.mac)
}

/// What of the result that ADD printed is not what the journal says. Later
/// plugins may have added to it.
fn compare(before: &PluginResult, entry: &Entry, netns: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    if entry.state != EntryState::Wired {
        findings.push(format!("its entry is {:?}, not Wired", entry.state));
    }
    for address in &entry.addresses {
        if !before.ips.iter().any(|ip| ip.address.addr() == *address) {
            findings.push(format!("prevResult does not have its address {address}"));
        }
    }
    let inside: Vec<_> = before
        .interfaces
        .iter()
        .filter(|interface| interface.name == entry.if_name.as_str() && !interface.sandbox.is_empty())
        .collect();
    if inside.is_empty() {
        findings.push(format!("prevResult has no interface {} in a sandbox", entry.if_name));
    } else if !inside.iter().any(|interface| Path::new(&interface.sandbox) == netns) {
        findings.push(format!("prevResult has {} in another sandbox than CNI_NETNS", entry.if_name));
    }
    findings
}

/// Which ports that were asked for are not on record: with journal and rules lost, nobody leads them any more. What ADD
/// wrote down is all that was ours; the others are portmap's, whatever the list says by now.
fn unrecorded(asked: &[PortMapping], entry: &Entry) -> Vec<String> {
    let mut findings = Vec::new();
    if !entry.is_rebuilt() {
        return findings;
    }
    for address in &entry.addresses {
        let on_record: Vec<PortMapping> =
            entry.ports.iter().filter_map(|port| port.towards(*address)).collect();
        let asked = asked.iter().filter_map(|port| port.towards(*address));
        let missing = asked.filter(|port| !on_record.contains(port));
        findings.extend(missing.map(|port| {
            format!("{port} was asked for and is not on record for {address}: DEL and ADD the pod again")
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cni::Ip,
        journal::{Uptime, entry::tests::intent},
        ports::tests::mapping,
    };

    #[test]
    fn ports_that_were_asked_for_are_compared_with_those_on_record() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.addresses.push("fd00::7".parse().unwrap());
        entry.uplink = None;
        let asked = [mapping("tcp 8080 80"), mapping("udp 10.0.0.1 53 53")];
        assert_eq!(unrecorded(&asked, &entry).len(), 3, "tcp in both families");
        // As the kernel tells them after the loss of a journal, and as they were asked for.
        entry.ports = vec![mapping("tcp 0.0.0.0 8080 80"), mapping("udp 10.0.0.1 53 53")];
        let findings = unrecorded(&asked, &entry);
        assert!(findings.len() == 1 && findings[0].contains("[::]:8080"), "{findings:?}");
        entry.ports = asked.to_vec();
        assert_eq!(unrecorded(&asked, &entry), Vec::<String>::new());
        assert_eq!(unrecorded(&[], &entry), Vec::<String>::new(), "not every runtime says it again");
        entry.ports.clear();
        entry.uplink = Some("up0".to_owned());
        assert_eq!(unrecorded(&asked, &entry), Vec::<String>::new(), "ADD left them to portmap");
    }

    #[test]
    fn additions_of_later_plugins_are_no_findings_and_losses_are() {
        let mut entry = intent("c", "10.0.0.7", 5);
        entry.wired(Uptime(6));
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.to_owned(),
            mac: String::new(),
            sandbox: sandbox.to_owned(),
            mtu: None,
        };
        let ip = |text: &str| Ip { address: text.parse().unwrap(), gateway: None, interface: Some(1) };
        let mut result = PluginResult {
            interfaces: vec![interface("vn0", ""), interface("eth0", "/run/n"), interface("ifb", "/run/n")],
            ips: vec![ip("10.0.0.7/32"), ip("192.0.2.1/24")],
            ..PluginResult::default()
        };
        assert_eq!(compare(&result, &entry, Path::new("/run/n")), Vec::<String>::new());
        assert_eq!(compare(&result, &entry, Path::new("/run/m")).len(), 1);
        result.ips.remove(0);
        result.interfaces.remove(1);
        entry.releasing(Uptime(7));
        assert_eq!(compare(&result, &entry, Path::new("/run/n")).len(), 3);
    }
}
