//! What the node itself needs before a pod can talk: forwarding, proxy answers, rules.

use super::{
    Host, Uplink, WiringError, firewall,
    masquerade::Pods,
    nft, route,
    sysctl::{self, Change, Setting},
    turn::{self, Alone, Turn},
};
use crate::fault::{self, Point};
use ipnet::IpNet;
use std::net::IpAddr;

/// What pods of this node will use.
#[derive(Debug, Clone, Default)]
pub struct Preparation<'a> {
    /// The subnet's families, seen through any addresses of it (a pod's, or the node's own).
    pub addresses: &'a [IpAddr],
    /// Whether the uplink lived by router advertisements before it forwarded.
    pub advertisements: Advertisements,
    /// CNI networks; each has its own rules.
    pub networks: Vec<NetworkRules<'a>>,
    /// Ports that lead to pods, where one has some.
    pub host_ports: Option<HostPorts<'a>>,
}

/// What one CNI network asks of the node.
#[derive(Debug, Clone)]
pub struct NetworkRules<'a> {
    /// Its name.
    pub network: &'a str,
    /// Masquerading, where it asks for it (`ipMasq`).
    pub masquerade: Option<Masquerade>,
    /// Whether pods may ask the clouds' metadata services.
    pub metadata: Metadata,
}

/// What is on record of router advertisements at the uplink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Advertisements {
    /// Nothing: it is seen as it is.
    #[default]
    AsFound,
    /// It heeded them (`accept_ra=1`) until it forwarded, from when on only `accept_ra=2` says so.
    Heeded,
}

/// Whether pods may ask the clouds' metadata services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Like anything else.
    #[default]
    Open,
    /// No pod of the node may (`blockMetadata`).
    Blocked,
}

/// What host ports need besides their elements.
#[derive(Debug, Clone, Copy)]
pub struct HostPorts<'a> {
    /// The node's own addresses: the source where answers would not come back otherwise.
    pub node_addresses: &'a [IpAddr],
}

/// What is masqueraded: packets of a network's pods to destinations outside `except`.
#[derive(Debug, Clone)]
pub struct Masquerade {
    /// The VNet's address space and `nonMasqueradeCIDRs`.
    pub except: Vec<IpNet>,
}

/// Sees to the node's sysctls and rules; returns what had to be changed, in words. Cheap when nothing
/// has to (some reads and one question to the kernel), so ADD can call it each time. What has to is done by
/// one process at a time, whose turn it is, and told first to whoever may have to put it back.
///
/// What fails keeps nothing else from being seen to: least of all the rules, which keep pods from using
/// others' addresses. Where rules are made, `living` tells whom they are to know from the first; what comes with the
/// pods is kept until then.
///
/// # Errors
/// [`WiringError::Sysctl`] naming path and value, [`WiringError::Unsupported`] naming the package where
/// `nft` is missing, [`WiringError::Firewall`] with nft's words, [`WiringError::Io`] for `turn`,
/// [`WiringError::Several`].
pub fn prepare<G>(
    uplink: &Uplink,
    preparation: &Preparation<'_>,
    turn: &Turn,
    living: impl FnOnce() -> (Pods, G),
) -> Result<Vec<String>, WiringError> {
    if unset(uplink, preparation).is_ok_and(|unset| unset.is_empty()) && rules(preparation).stand()? {
        return Ok(Vec::new());
    }
    settle(uplink, preparation, &turn.begin()?, living)
}

/// As [`prepare`], for whoever has the turn already.
///
/// # Errors
/// As [`prepare`].
pub fn settle<G>(
    uplink: &Uplink,
    preparation: &Preparation<'_>,
    alone: &Alone<'_>,
    living: impl FnOnce() -> (Pods, G),
) -> Result<Vec<String>, WiringError> {
    let mut changed = Vec::new();
    let mut errors = Vec::new();
    errors.extend(set(uplink, preparation, alone, &mut changed).err());
    match rules(preparation).ensure(living) {
        Ok(true) => {
            fault::at(Point::SetUpAfterRules);
            changed.push("rules of table inet vnet_ipam".to_owned());
        }
        Ok(false) => {}
        Err(error) => errors.push(error),
    }
    match errors.len() {
        0 => Ok(changed),
        1 => Err(errors.swap_remove(0)),
        _ => Err(WiringError::Several(errors)),
    }
}

/// Sets what is not set, and says what in `changed`. The first that cannot be ends it: an uplink that is not told to
/// heed router advertisements all the same must not forward.
fn set(
    uplink: &Uplink,
    preparation: &Preparation<'_>,
    alone: &Alone<'_>,
    changed: &mut Vec<String>,
) -> Result<(), WiringError> {
    let needed = needed(uplink, preparation)?;
    alone.announce(&changes(&needed)?);
    for (key, want) in needed {
        if sysctl::ensure(&key, want)? == Setting::Written {
            changed.push(format!("{} = {want}", sysctl::path(&key).display()));
        }
    }
    Ok(())
}

/// What setting these will change.
fn changes(needed: &[(String, &str)]) -> Result<Vec<Change>, WiringError> {
    let mut changes = Vec::new();
    for (key, want) in needed {
        if let Some(found) = sysctl::read(key)?.filter(|found| found != want) {
            changes.push(Change { key: key.clone(), found, set: (*want).to_owned() });
            changes.extend(turn::dragged_along(key)?);
        }
    }
    Ok(changes)
}

/// What of [`prepare`] is missing now, in words; changes nothing. Rules count as they were made, whatever would be
/// made now.
///
/// # Errors
/// When the kernel can't be asked.
pub fn missing(uplink: &Uplink, preparation: &Preparation<'_>) -> Result<Vec<String>, WiringError> {
    let mut missing = unset(uplink, preparation)?;
    if !rules(preparation).serve()? {
        missing.push("the rules of table inet vnet_ipam are missing or changed".to_owned());
    }
    Ok(missing)
}

/// Which sysctls have other values, in words.
fn unset(uplink: &Uplink, preparation: &Preparation<'_>) -> Result<Vec<String>, WiringError> {
    let mut unset = Vec::new();
    for (key, want) in needed(uplink, preparation)? {
        let found = sysctl::read(&key)?;
        if found.as_deref() != Some(want) {
            let found = found.unwrap_or_else(|| "missing".to_owned());
            unset.push(format!("sysctl {} is {found}, not {want}", sysctl::path(&key).display()));
        }
    }
    Ok(unset)
}

/// What [`missing`] names and [`prepare`] could not mend, in words with the cure.
///
/// # Errors
/// When the kernel can't be asked.
pub fn obstacles(uplink: &Uplink, preparation: &Preparation<'_>) -> Result<Vec<String>, WiringError> {
    let mut obstacles = Vec::new();
    for (key, want) in needed(uplink, preparation)? {
        if sysctl::read(&key)?.as_deref() != Some(want) && !sysctl::is_writable(&key) {
            let path = sysctl::path(&key);
            obstacles.push(format!(
                "sysctl {} must be {want:?} and cannot be set here: set it before starting pods",
                path.display()
            ));
        }
    }
    match rules(preparation).stand() {
        Ok(true) => {}
        Ok(false) => obstacles.extend(nft::missing().map(|error| error.to_string())),
        Err(error @ WiringError::Unsupported { .. }) => obstacles.push(error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(obstacles)
}

/// Which of these addresses the host does not have.
///
/// # Errors
/// When the kernel can't be asked.
pub fn lacking(host: &mut Host, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, WiringError> {
    let assigned = route::addresses(&mut host.netlink)?;
    let lacks = |address: &&IpAddr| !assigned.iter().any(|found| found.net.addr() == **address);
    Ok(addresses.iter().filter(lacks).copied().collect())
}

fn rules(preparation: &Preparation<'_>) -> firewall::Rules {
    let Preparation { networks, host_ports, .. } = preparation;
    let mut chains = vec![firewall::spoofing()];
    for NetworkRules { network, masquerade, metadata } in networks {
        chains.extend(masquerade.as_ref().map(|masquerade| firewall::masquerade(network, masquerade)));
        chains.extend((*metadata == Metadata::Blocked).then(|| firewall::metadata(network)));
    }
    chains.extend(host_ports.iter().flat_map(|ports| firewall::host_ports(ports.node_addresses)));
    let names: Vec<&str> = networks.iter().map(|one| one.network).collect();
    firewall::Rules::of(&names, chains)
}

/// The key of the sysctl by which an interface heeds router advertisements.
#[must_use]
pub fn accept_ra(uplink: &str) -> String {
    format!("net/ipv6/conf/{uplink}/accept_ra")
}

/// The sysctls in the order in which they must be set.
fn needed(
    uplink: &Uplink,
    preparation: &Preparation<'_>,
) -> Result<Vec<(String, &'static str)>, WiringError> {
    let name = &uplink.name;
    let Preparation { addresses, advertisements, .. } = preparation;
    let mut needed = Vec::new();
    if addresses.iter().any(IpAddr::is_ipv4) {
        needed.push(("net/ipv4/ip_forward".to_owned(), "1"));
        // Set by the line before, unless somebody else wrote it at the same moment; these two count.
        needed.push(("net/ipv4/conf/default/forwarding".to_owned(), "1"));
        needed.push((format!("net/ipv4/conf/{name}/forwarding"), "1"));
        // Without this the host answers the first question for a pod after up to 0.8 s.
        needed.push((format!("net/ipv4/neigh/{name}/proxy_delay"), "0"));
        // Pods and VMs share the segment: nobody is to be told of a shorter way past the host. The
        // kernel sends redirects if either of the two says so.
        needed.push(("net/ipv4/conf/all/send_redirects".to_owned(), "0"));
        needed.push((format!("net/ipv4/conf/{name}/send_redirects"), "0"));
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        let accept_ra = accept_ra(name);
        let forwarding = "net/ipv6/conf/all/forwarding".to_owned();
        // A forwarding host ignores router advertisements and drops the default route learnt from
        // them, unless accept_ra is 2: so first this, then forwarding. What others write later counts the same
        // where the record says that advertisements were heeded; 0 is somebody's wish to have none.
        let off = sysctl::read(&forwarding)?.as_deref() != Some("1");
        let heeds = off || *advertisements == Advertisements::Heeded;
        if heeds && sysctl::read(&accept_ra)?.as_deref() == Some("1") {
            needed.push((accept_ra, "2"));
        }
        needed.push((forwarding, "1"));
        needed.push((format!("net/ipv6/conf/{name}/proxy_ndp"), "1"));
        needed.push((format!("net/ipv6/neigh/{name}/proxy_delay"), "0"));
    }
    Ok(needed)
}
