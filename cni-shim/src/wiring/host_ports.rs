//! Host ports: the elements of the maps by which the node's ports lead to pods.
//!
//! The rules are the node's ([`firewall::host_ports`](super::firewall::host_ports)); an element belongs to the
//! attachment whose address it leads to. So adding and taking away is a matter of elements, and whose they are
//! is told by the address, with no record at all.

use super::{
    HostEnd, WiringError,
    firewall::TABLE,
    nftables::{self, Element},
    sysctl,
};
use crate::ports::{PortMapping, Protocol};
use ipam_api::names::Attachment;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    slice,
};

/// Maps by protocol and port, and by the node's address as well.
const ANY: [&str; 2] = ["host-ports-4", "host-ports-6"];
const AT: [&str; 2] = ["host-ports-at-4", "host-ports-at-6"];
/// Sets of pods that may reach themselves so: pairs of twice the same address.
const HAIRPIN: [&str; 2] = ["hairpin-4", "hairpin-6"];

/// Others change the table as well: what was read is tried again this often.
const ATTEMPTS: u32 = 3;

/// The ports of one attachment.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Whose they are.
    pub attachment: &'a Attachment,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// What leads to them.
    pub ports: &'a [PortMapping],
}

/// One port as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// With `host_ip`, which is unspecified where all of the node's addresses of the family are meant.
    pub mapping: PortMapping,
    /// The pod's address that it leads to.
    pub pod: IpAddr,
}

impl Publication<'_> {
    fn wanted(&self) -> Vec<Published> {
        let mut wanted = Vec::new();
        for pod in self.addresses {
            let towards = self.ports.iter().filter_map(|mapping| mapping.towards(*pod));
            wanted.extend(towards.map(|mapping| Published { mapping, pod: *pod }));
        }
        wanted
    }

    fn elements(&self) -> Vec<Element> {
        let wanted = self.wanted();
        let pods: BTreeSet<IpAddr> = wanted.iter().map(|one| one.pod).collect();
        wanted.iter().map(Published::element).chain(pods.into_iter().map(hairpin)).collect()
    }

    /// The sysctl that lets the host's 127.0.0.1 reach the pod. The host end alone has it, and one rule of the
    /// node drops what a pod sends to there.
    fn loopback(&self) -> Option<String> {
        let v4 = self.wanted().iter().any(|one| one.pod.is_ipv4());
        v4.then(|| loopback(&HostEnd::of(self.attachment).name))
    }
}

/// The sysctl by which a host end routes 127.0.0.0/8.
pub(crate) fn loopback(host_end: &str) -> String {
    format!("net/ipv4/conf/{host_end}/route_localnet")
}

impl Published {
    fn element(&self) -> Element {
        let Self { mapping, pod } = self;
        let at = mapping.host_ip.filter(|address| !address.is_unspecified());
        let set = if at.is_some() { AT } else { ANY }[family(*pod)].to_owned();
        let mut key: Vec<u8> = at.iter().flat_map(octets).collect();
        key.extend([mapping.protocol.number(), 0, 0, 0]);
        key.extend(field(mapping.host_port));
        let mut data = octets(pod);
        data.extend(field(mapping.container_port));
        Element { set, key, data }
    }

    fn of(element: &Element) -> Option<Self> {
        let v4 = element.set == ANY[0] || element.set == AT[0];
        let unspecified: IpAddr =
            if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let length = octets(&unspecified).len();
        let (at, ports) = match element.key.len() {
            8 => (&[][..], &element.key[..]),
            _ => element.key.split_at_checked(length)?,
        };
        let (pod, container_port) = element.data.split_at_checked(length)?;
        let [number, _, _, _, host_port @ ..] = ports else { return None };
        let mapping = PortMapping {
            protocol: Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?,
            host_ip: Some(if at.is_empty() { unspecified } else { address(at)? }),
            host_port: port(host_port)?,
            container_port: port(container_port)?,
        };
        Some(Self { mapping, pod: address(pod)? })
    }
}

fn hairpin(pod: IpAddr) -> Element {
    let set = HAIRPIN[family(pod)].to_owned();
    Element { set, key: [octets(&pod), octets(&pod)].concat(), data: Vec::new() }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

pub(super) fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A port as a field of a key.
fn field(port: NonZeroU16) -> [u8; 4] {
    let [high, low] = port.get().to_be_bytes();
    [high, low, 0, 0]
}

fn port(field: &[u8]) -> Option<NonZeroU16> {
    let [high, low, ..] = field else { return None };
    NonZeroU16::new(u16::from_be_bytes([*high, *low]))
}

/// Leads the ports to the pod; returns what was missing, in words. What stands in the way belongs to nobody:
/// the journal lets a port have one holder. The node's rules must be there, and the host end.
///
/// # Errors
/// [`WiringError::HostPorts`] where the kernel refuses, [`WiringError::Sysctl`].
pub fn publish(publication: &Publication<'_>) -> Result<Vec<String>, WiringError> {
    let mut missing = Vec::new();
    if publication.ports.is_empty() {
        return Ok(missing);
    }
    if let Some(key) = publication.loopback()
        && sysctl::ensure(&key, "1")? == sysctl::Setting::Written
    {
        missing.push(format!("sysctl {} was not 1", sysctl::path(&key).display()));
    }
    let wanted = publication.elements();
    let added = changed(|found| {
        let added: Vec<Element> = wanted.iter().filter(|element| !found.contains(element)).cloned().collect();
        let in_the_way =
            |one: &&Element| added.iter().any(|new| (&new.set, &new.key) == (&one.set, &one.key));
        (found.iter().filter(in_the_way).cloned().collect(), added)
    })?;
    let added: Vec<Published> = added.iter().filter_map(Published::of).collect();
    missing.extend(added.iter().map(Published::absence));
    Ok(missing)
}

impl Published {
    fn absence(&self) -> String {
        format!("{} did not lead to {}", self.mapping, self.pod)
    }
}

/// What of [`publish`] is not so now, in words; changes nothing.
///
/// # Errors
/// When the kernel can't be asked.
pub fn missing(publication: &Publication<'_>) -> Result<Vec<String>, WiringError> {
    let mut missing = Vec::new();
    if publication.ports.is_empty() {
        return Ok(missing);
    }
    if let Some(key) = publication.loopback()
        && sysctl::read(&key)?.as_deref() != Some("1")
    {
        missing.push(format!("sysctl {} is not 1", sysctl::path(&key).display()));
    }
    let found = all()?;
    for one in publication.wanted() {
        if !found.contains(&one.element()) {
            missing.push(format!("{} does not lead to {}", one.mapping, one.pod));
        }
        if !found.contains(&hairpin(one.pod)) {
            missing.push(format!("{} does not lead back from {} itself", one.mapping, one.pod));
        }
    }
    Ok(missing)
}

/// As [`withdraw`], for addresses of a pod that is not on record as having ports: one question an address tells
/// whether all the maps have to be looked through, for whoever has a port has a way back to itself.
///
/// # Errors
/// As [`withdraw`].
pub fn withdraw_unrecorded(addresses: &[IpAddr]) -> Result<Vec<String>, WiringError> {
    let hairpins: Vec<Element> = addresses.iter().copied().map(hairpin).collect();
    match nftables::present(TABLE, &hairpins) {
        Ok(present) if present.is_empty() => Ok(Vec::new()),
        Ok(_) => withdraw(addresses),
        // A kernel without nftables leads no port.
        Err(WiringError::Unsupported { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Takes away every port that leads to one of these addresses; returns which, in words. Needs no record, and what
/// is gone already is success.
///
/// # Errors
/// [`WiringError::HostPorts`] where the kernel refuses.
pub fn withdraw(addresses: &[IpAddr]) -> Result<Vec<String>, WiringError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    let outcome = changed(|found| {
        let leads = |one: &&Element| match Published::of(one) {
            Some(published) => addresses.contains(&published.pod),
            None => addresses.iter().any(|address| hairpin(*address) == **one),
        };
        out = found.iter().filter(leads).cloned().collect();
        (out.clone(), Vec::new())
    });
    match outcome {
        Ok(_) => {}
        // Somebody takes them away as fast as we look: of those that are left, each by itself.
        Err(WiringError::HostPorts { source }) if source.kind() == io::ErrorKind::NotFound => {
            out.iter().try_for_each(take_out)?;
        }
        // A kernel without nftables leads no port.
        Err(WiringError::Unsupported { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let removed = out.iter().filter_map(Published::of);
    Ok(removed.map(|one| format!("{} to {}", one.mapping, one.pod)).collect())
}

fn take_out(element: &Element) -> Result<(), WiringError> {
    match nftables::change(TABLE, slice::from_ref(element), &[]) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WiringError::HostPorts { source }),
        _ => Ok(()),
    }
}

/// All ports that lead to pods.
///
/// # Errors
/// When the kernel can't be asked.
pub fn published() -> Result<Vec<Published>, WiringError> {
    Ok(all()?.iter().filter_map(Published::of).collect())
}

fn all() -> Result<Vec<Element>, WiringError> {
    nftables::elements(TABLE, &[ANY, AT, HAIRPIN].concat())
}

/// Changes the elements: of what there is, `plan` says what goes and what comes. Returns what came.
fn changed(
    mut plan: impl FnMut(&[Element]) -> (Vec<Element>, Vec<Element>),
) -> Result<Vec<Element>, WiringError> {
    let mut attempt = 1;
    loop {
        let (out, into) = plan(&all()?);
        match nftables::change(TABLE, &out, &into) {
            Ok(()) => return Ok(into),
            // What was to go has gone: somebody flushed it between our look and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            Err(source) => return Err(WiringError::HostPorts { source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tests::mapping;

    #[test]
    fn an_element_says_all_of_a_port() {
        for (text, pod) in [
            ("tcp 0.0.0.0 8080 80", "10.240.1.7"),
            ("udp 10.240.0.10 53 5353", "10.240.1.7"),
            ("sctp :: 65535 1", "fd00:10::107"),
            ("tcp fd00:10::a 8080 80", "fd00:10::107"),
        ] {
            let one = Published { mapping: mapping(text), pod: pod.parse().unwrap() };
            let element = one.element();
            assert_eq!(Published::of(&element), Some(one), "{text}");
            assert!(element.key.len().is_multiple_of(4) && element.data.len().is_multiple_of(4));
            for end in 0..element.data.len() - 2 {
                let cut = Element { data: element.data[..end].to_vec(), ..element.clone() };
                assert_eq!(Published::of(&cut), None, "{text} cut at {end}");
            }
        }
        assert_eq!(Published::of(&hairpin("10.240.1.7".parse().unwrap())), None);
    }

    #[test]
    fn a_port_of_all_addresses_leads_to_each_of_the_pods() {
        let attachment = crate::journal::entry::tests::attachment("c");
        let addresses = ["10.240.1.7".parse().unwrap(), "fd00:10::107".parse().unwrap()];
        let ports = [mapping("tcp 8080 80"), mapping("udp 127.0.0.1 53 53")];
        let publication = Publication { attachment: &attachment, addresses: &addresses, ports: &ports };
        let sets: Vec<_> = publication.elements().into_iter().map(|element| element.set).collect();
        assert_eq!(sets, ["host-ports-4", "host-ports-at-4", "host-ports-6", "hairpin-4", "hairpin-6"]);
    }
}
