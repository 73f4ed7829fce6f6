//! What can go wrong while wiring, in terms that the CNI layer can map.

use std::{fmt, io, net::IpAddr, path::PathBuf};

/// Why something was not wired, unwired or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WiringError {
    /// The pod has an interface of that name already; it was left untouched.
    #[error(
        "the pod already has an interface {name:?}; it was left untouched: choose another interface name"
    )]
    InterfaceExists {
        /// The interface's name inside the pod.
        name: String,
    },
    /// The host has an interface of our name already: either this attachment
    /// is wired (same alias) or somebody else took the name.
    #[error("the host already has an interface {name:?} (alias {alias:?}); it was left untouched: {cure}")]
    HostEndExists {
        /// The host end's name.
        name: String,
        /// The alias found on it.
        alias: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The namespace given for the pod is the one we run in.
    #[error("{path:?} is the host's own network namespace; give the pod's")]
    NetnsIsHost {
        /// The path given.
        path: PathBuf,
    },
    /// The path does not exist any more.
    #[error("the network namespace {path:?} is gone")]
    NetnsGone {
        /// The path given.
        path: PathBuf,
    },
    /// The path names something else than a network namespace, or can't be opened.
    #[error("{path:?} can't be used as a network namespace: {source}")]
    NetnsUnusable {
        /// The path given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The way back from a pod's namespace failed: this process must end now.
    #[error("could not return from the pod's network namespace: {source}; this process must not go on")]
    NetnsLost {
        /// What the kernel said.
        source: io::Error,
    },
    /// No default route, or no interface of the name given.
    #[error("no uplink: {reason}; name the interface in the configuration's `uplink`")]
    NoUplink {
        /// What was looked for.
        reason: String,
    },
    /// The kernel or the namespace has no IPv6.
    #[error("IPv6 is switched off ({path} is missing); enable it or use a subnet without IPv6")]
    Ipv6Disabled {
        /// The sysctl that should be there.
        path: PathBuf,
    },
    /// A sysctl has the wrong value and can't be set.
    #[error("sysctl {path} must be {want:?} and could not be set: {source}; set it before starting pods")]
    Sysctl {
        /// Full path under `/proc/sys`.
        path: PathBuf,
        /// The value it must have.
        want: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No address was given, or two of one family.
    #[error("an attachment has one address, or one of each family; got {given:?}")]
    Addresses {
        /// What was given.
        given: Vec<IpAddr>,
    },
    /// IPv6 needs packets of 1,280 bytes.
    #[error("an MTU of {mtu} is too small for IPv6; set `mtu` to at least 1280, or the uplink's")]
    MtuTooSmall {
        /// The MTU asked for, in bytes.
        mtu: u32,
    },
    /// Somebody else on this host has a route to the address.
    #[error("the host already has a route to {address}; another attachment or interface uses it")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The node's own address, wanted as the source towards pods, is not on this host.
    #[error("the node's address {address} is not on this host; register the node with the address it has")]
    NodeAddressMissing {
        /// The node's address as registered.
        address: IpAddr,
    },
    /// Something changed the MAC that we set.
    #[error(
        "interface {interface} has MAC {found} instead of {want}; exempt it from udev and network managers"
    )]
    MacChanged {
        /// The interface.
        interface: String,
        /// The MAC set.
        want: String,
        /// The MAC read back.
        found: String,
    },
    /// The kernel or a tool lacks what is needed.
    #[error("{what} is not available here: {cure}")]
    Unsupported {
        /// What was needed.
        what: String,
        /// How to get it.
        cure: String,
    },
    /// A netlink request was refused.
    #[error("{what}: {errno}")]
    Netlink {
        /// What we were doing.
        what: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Reading or writing the netlink socket failed, or an answer made no sense.
    #[error("netlink, while {what}: {source}")]
    Io {
        /// What we were doing.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
    /// `nft` refused the rules.
    #[error("nft refused the rules of table inet vnet_ipam: {message}")]
    Firewall {
        /// What nft wrote.
        message: String,
    },
    /// The kernel refused to lead ports to a pod, or to end that.
    #[error(
        "the ports of table inet vnet_ipam cannot be changed ({}); try again, its rules may be gone",
        named(source)
    )]
    HostPorts {
        /// What the kernel said.
        source: io::Error,
    },
    /// Which pods are masqueraded could not be changed.
    #[error(
        "the masqueraded pods of table inet vnet_ipam cannot be changed ({}); try again, its rules may be gone",
        named(source)
    )]
    Masquerade {
        /// What the kernel said.
        source: io::Error,
    },
    /// The segment could not be asked, this time.
    #[error("the segment at {uplink} was not asked who has an address: {reason}")]
    Probe {
        /// The uplink.
        uplink: String,
        /// What stood in the way.
        reason: String,
    },
    /// Several steps of an unwiring failed; the others were done.
    #[error("{} steps failed: {}", .0.len(), Sentences(.0))]
    Several(Vec<WiringError>),
}

impl WiringError {
    /// True where trying the same again a little later may help (the kernel was busy or out of memory).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Netlink { errno, .. } => {
                matches!(
                    errno.code,
                    nix::libc::EBUSY | nix::libc::EAGAIN | nix::libc::ENOBUFS | nix::libc::ENOMEM
                )
            }
            Self::HostPorts { .. } | Self::Masquerade { .. } => true,
            Self::Several(errors) => errors.iter().all(Self::is_transient),
            _ => false,
        }
    }

    pub(crate) fn io(what: &str, source: io::Error) -> Self {
        Self::Io { what: what.to_owned(), source }
    }
}

/// A refusal by the kernel: the number and, where it gave one, its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errno {
    /// A positive `errno`.
    pub code: i32,
    /// The kernel's own words (extended ACK), if any.
    pub reason: Option<String>,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", nix::errno::Errno::from_raw(self.code).desc())?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// An error of the system by its name: for a runtime, a DEL that fails in the kernel's words for "not there" has
/// nothing left to do.
fn named(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", nix::errno::Errno::from_raw(code)),
        None => error.to_string(),
    }
}

struct Sentences<'a>(&'a [WiringError]);

impl fmt::Display for Sentences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_stay_do_not_read_like_ports_that_are_gone() {
        let source = io::Error::from_raw_os_error(nix::libc::ENOENT);
        let words = WiringError::HostPorts { source }.to_string();
        assert!(words.contains("(ENOENT)") && !words.to_lowercase().contains("no such file"), "{words}");
    }
}
