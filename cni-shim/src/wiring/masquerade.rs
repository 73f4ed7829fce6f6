//! Masqueraded pods: the elements of the sets by which the rule of a network knows its pods.
//!
//! The rule is the network's ([`super::firewall::masquerade`]); an element is one address of
//! a pod. So the rule knows nothing of blocks and claims: a pod keeps what it began with, whatever becomes of
//! these, and pods of another network have no part in it.

use super::{
    WiringError,
    firewall::{self, TABLE},
    host_ports::{address, octets},
    nftables::{self, Element},
};
use ipam_api::names::NetworkName;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    slice,
};

/// Under which address a pod is seen outside the VNet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Egress {
    /// Its own.
    #[default]
    Plain,
    /// The node's, where its network's rule says so.
    Masqueraded,
}

/// Pods that live, by network, as rules made anew have to know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods(BTreeMap<NetworkName, BTreeSet<IpAddr>>);

impl Pods {
    /// Addresses of one more, or of one that is known already.
    pub fn add(&mut self, network: &NetworkName, addresses: &[IpAddr]) {
        self.0.entry(network.clone()).or_default().extend(addresses);
    }

    pub(super) fn of(&self, network: &str) -> impl Iterator<Item = IpAddr> {
        let of_network = self.0.iter().filter(move |(name, _)| name.as_str() == network);
        of_network.flat_map(|(_, addresses)| addresses.iter().copied())
    }
}

fn elements(network: &str, addresses: &[IpAddr]) -> Vec<Element> {
    let [v4, v6] = firewall::masqueraded(network);
    let element = |address: &IpAddr| {
        let set = if address.is_ipv4() { v4.clone() } else { v6.clone() };
        Element { set, key: octets(address), data: Vec::new() }
    };
    addresses.iter().map(element).collect()
}

/// Has the rule of a network count for these addresses too; the rule must be there. What counts already is success.
///
/// # Errors
/// [`WiringError::Masquerade`] where the kernel refuses.
pub fn cover(network: &str, addresses: &[IpAddr]) -> Result<(), WiringError> {
    let change = nftables::change(TABLE, &[], &elements(network, addresses));
    change.map_err(|source| WiringError::Masquerade { source })
}

/// For which of these addresses the rule of a network does not count, in words; changes nothing.
///
/// # Errors
/// When the kernel can't be asked.
pub fn missing(network: &str, addresses: &[IpAddr]) -> Result<Vec<String>, WiringError> {
    let elements = elements(network, addresses);
    let present = nftables::present(TABLE, &elements)?;
    let bare = addresses.iter().zip(&elements).filter(|(_, element)| !present.contains(element));
    Ok(bare.map(|(address, _)| format!("what {address} sends out of the VNet is not masqueraded")).collect())
}

/// Has the rule of a network count for these addresses no more; returns for which it did, in words.
///
/// # Errors
/// [`WiringError::Masquerade`] where the kernel refuses.
pub fn uncover(network: &str, addresses: &[IpAddr]) -> Result<Vec<String>, WiringError> {
    let elements = elements(network, addresses);
    let present = match nftables::present(TABLE, &elements) {
        // A kernel without nftables masquerades nobody.
        Err(WiringError::Unsupported { .. }) => return Ok(Vec::new()),
        present => present?,
    };
    let mut removed = Vec::new();
    for element in present {
        match nftables::change(TABLE, slice::from_ref(element), &[]) {
            Ok(()) => {}
            // Gone meanwhile, maybe with its set.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(WiringError::Masquerade { source }),
        }
        removed.extend(address(&element.key).map(|address| format!("the masquerading of {address}")));
    }
    Ok(removed)
}

/// All addresses for which the rule of a network counts.
///
/// # Errors
/// When the kernel can't be asked.
pub fn covered(network: &str) -> Result<Vec<IpAddr>, WiringError> {
    let sets = firewall::masqueraded(network);
    let found = nftables::elements(TABLE, &[&sets[0], &sets[1]])?;
    Ok(found.iter().filter_map(|element| address(&element.key)).collect())
}
