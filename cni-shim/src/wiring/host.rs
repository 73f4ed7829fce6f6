//! What the node itself needs before a pod can talk: forwarding, proxy answers, rules.

use super::{
    Host, Uplink, WiringError, firewall, route,
    sysctl::{self, Change, Setting},
    turn::{self, Turn},
};
use ipnet::IpNet;
use std::net::IpAddr;

/// What pods of this node will use.
#[derive(Debug, Clone, Default)]
pub struct Preparation<'a> {
    /// The subnet's families, seen through any addresses of it (a pod's, or the node's own).
    pub addresses: &'a [IpAddr],
    /// The CNI network; each has its own rules.
    pub network: &'a str,
    /// Masquerading, where the network asks for it (`ipMasq`).
    pub masquerade: Option<Masquerade<'a>>,
    /// Whether pods may ask the clouds' metadata services.
    pub metadata: Metadata,
    /// Ports that lead to pods, where one has some.
    pub host_ports: Option<HostPorts<'a>>,
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

/// What is masqueraded: packets from the block to destinations outside `except`.
#[derive(Debug, Clone)]
pub struct Masquerade<'a> {
    /// Ranges of the node's block, first and last address included, both families.
    pub block: &'a [(IpAddr, IpAddr)],
    /// The VNet's address space and `nonMasqueradeCIDRs`.
    pub except: &'a [IpNet],
}

/// Sees to the node's sysctls and rules; returns what had to be changed, in words. Cheap when nothing
/// has to (some reads and one question to the kernel), so ADD can call it each time. What has to is done by
/// one process at a time, whose turn it is, and told first to whoever may have to put it back.
///
/// # Errors
/// [`WiringError::Sysctl`] naming path and value, [`WiringError::Unsupported`] naming the package where
/// `nft` is missing, [`WiringError::Firewall`] with nft's words, [`WiringError::Io`] for `turn`.
pub fn prepare(
    uplink: &Uplink,
    preparation: &Preparation<'_>,
    turn: &Turn,
) -> Result<Vec<String>, WiringError> {
    if missing(uplink, preparation)?.is_empty() {
        return Ok(Vec::new());
    }
    let alone = turn.begin()?;
    let mut changed = Vec::new();
    let needed = needed(uplink, preparation.addresses)?;
    alone.announce(&changes(&needed)?);
    for (key, want) in needed {
        if sysctl::ensure(&key, want)? == Setting::Written {
            changed.push(format!("{} = {want}", sysctl::path(&key).display()));
        }
    }
    if rules(preparation).ensure()? {
        changed.push("rules of table inet vnet_ipam".to_owned());
    }
    Ok(changed)
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

/// What of [`prepare`] is missing now, in words; changes nothing.
///
/// # Errors
/// When the kernel can't be asked.
pub fn missing(uplink: &Uplink, preparation: &Preparation<'_>) -> Result<Vec<String>, WiringError> {
    let mut missing = Vec::new();
    for (key, want) in needed(uplink, preparation.addresses)? {
        let found = sysctl::read(&key)?;
        if found.as_deref() != Some(want) {
            let found = found.unwrap_or_else(|| "missing".to_owned());
            missing.push(format!("sysctl {} is {found}, not {want}", sysctl::path(&key).display()));
        }
    }
    if !rules(preparation).stand()? {
        missing.push("the rules of table inet vnet_ipam are missing or changed".to_owned());
    }
    Ok(missing)
}

/// What [`missing`] names and [`prepare`] could not mend, in words with the cure.
///
/// # Errors
/// When the kernel can't be asked.
pub fn obstacles(uplink: &Uplink, preparation: &Preparation<'_>) -> Result<Vec<String>, WiringError> {
    let mut obstacles = Vec::new();
    for (key, want) in needed(uplink, preparation.addresses)? {
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
        Ok(false) => obstacles.extend(firewall::without_nft().map(|error| error.to_string())),
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
    let Preparation { network, masquerade, metadata, host_ports, .. } = preparation;
    let mut chains = vec![firewall::spoofing()];
    chains.extend(masquerade.as_ref().and_then(|masquerade| firewall::masquerade(network, masquerade)));
    chains.extend((*metadata == Metadata::Blocked).then(|| firewall::metadata(network)));
    chains.extend(host_ports.iter().flat_map(|ports| firewall::host_ports(ports.node_addresses)));
    firewall::Rules::of(network, chains)
}

/// The sysctls in the order in which they must be set.
fn needed(uplink: &Uplink, addresses: &[IpAddr]) -> Result<Vec<(String, &'static str)>, WiringError> {
    let name = &uplink.name;
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
        let accept_ra = format!("net/ipv6/conf/{name}/accept_ra");
        let forwarding = "net/ipv6/conf/all/forwarding".to_owned();
        // A forwarding host ignores router advertisements and drops the default route learnt from
        // them, unless accept_ra is 2: so first this, then forwarding.
        let off = sysctl::read(&forwarding)?.as_deref() != Some("1");
        if off && sysctl::read(&accept_ra)?.as_deref() == Some("1") {
            needed.push((accept_ra, "2"));
        }
        needed.push((forwarding, "1"));
        needed.push((format!("net/ipv6/conf/{name}/proxy_ndp"), "1"));
        needed.push((format!("net/ipv6/neigh/{name}/proxy_delay"), "0"));
    }
    Ok(needed)
}
