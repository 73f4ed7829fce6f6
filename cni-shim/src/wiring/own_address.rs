//! By which of its addresses a host names itself: not by one that comes and goes.

use super::{
    Host, Uplink, WiringError,
    netlink::{family_of, host_length},
    route::{self, Assigned, Route},
};
use netlink_packet_route::{address::AddressFlags, route::RouteType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The uplink's addresses by which this host is known, one a family at most: never one of IPv6's privacy extensions
/// (RFC 8981), a deprecated one, or one whose duplicates are looked for or were found. Among the others first one of
/// the default gateway's subnet, then a primary one, then one with its subnet: what moves between hosts comes behind
/// the host's own, or alone (/32, /128).
///
/// # Errors
/// When the kernel can't be asked.
pub fn find(host: &mut Host, uplink: &Uplink) -> Result<Vec<IpAddr>, WiringError> {
    let mut assigned = route::addresses(&mut host.netlink)?;
    assigned.retain(|address| address.index == uplink.index);
    let mut found = Vec::new();
    for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        let mut defaults = route::all(&mut host.netlink, family_of(any))?;
        defaults.retain(|route| is_default(route) && route.dev == Some(uplink.index));
        let of_family = assigned.iter().filter(|one| one.net.addr().is_ipv4() == any.is_ipv4());
        let best = of_family.filter(|one| lasts(one)).min_by_key(|one| rank(one, &defaults));
        found.extend(best.map(|best| best.net.addr()));
    }
    Ok(found)
}

fn is_default(route: &Route) -> bool {
    route.to.prefix_len() == 0 && route.table == route::MAIN && route.kind == RouteType::Unicast
}

/// Whether it is there for as long as the host is, as far as can be told.
fn lasts(address: &Assigned) -> bool {
    let is_routed = match address.net.addr() {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        // The kernel has one bit for IPv4's secondary and IPv6's temporary ones.
        IpAddr::V6(ip) => {
            !ip.is_unicast_link_local()
                && !ip.is_loopback()
                && !address.flags.contains(AddressFlags::Secondary)
        }
    };
    is_routed && !address.unusable && !address.flags.contains(AddressFlags::Deprecated)
}

/// The least is the best: each word counts for more than all that follow.
fn rank(address: &Assigned, defaults: &[Route]) -> [bool; 5] {
    let ip = address.net.addr();
    let leads = |route: &Route| route.gateway.is_some_and(|gateway| address.net.contains(&gateway));
    [
        !defaults.iter().any(leads),
        address.flags.contains(AddressFlags::Secondary),
        address.net.prefix_len() == host_length(ip),
        !defaults.iter().any(|route| route.source == Some(ip)),
        !address.flags.contains(AddressFlags::Permanent),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{testing::Ns, uplink};
    use super::*;

    /// What a host with this on its uplink is known by.
    fn known_by(script: &str) -> Vec<String> {
        let ns = Ns::new();
        ns.sh("ip link add up0 type veth peer name far0; ip link set far0 up; ip link set up0 addrgenmode none up");
        ns.sh(script);
        ns.run(|| {
            let mut host = Host::open().unwrap();
            let uplink = uplink::find(&mut host, Some("up0")).unwrap();
            find(&mut host, &uplink).unwrap().iter().map(ToString::to_string).collect()
        })
    }

    #[test]
    fn a_host_is_known_by_what_stays_with_it() {
        let v4 = |script: &str| known_by(script).join(" ");
        // Kept by whoever has it now, and there first.
        assert_eq!(
            v4("ip addr add 10.240.0.99/32 dev up0; ip addr add 10.240.0.10/16 dev up0"),
            "10.240.0.10"
        );
        assert_eq!(
            v4("ip addr add 192.0.2.9/24 dev up0; ip addr add 10.240.0.10/16 dev up0; ip addr add 10.240.0.11/16 dev up0
                ip route add default via 10.240.0.1"),
            "10.240.0.10",
            "a primary one of the gateway's subnet"
        );
        assert_eq!(
            v4("ip addr add 169.254.3.4/16 dev up0; ip addr add 10.128.0.2/32 dev up0
                ip route add default via 10.128.0.1 dev up0 onlink"),
            "10.128.0.2",
            "some clouds give it without a subnet"
        );
        assert_eq!(
            v4("ip addr add 10.240.0.98/32 dev up0; ip addr add 10.128.0.2/32 dev up0
                ip route add default via 10.128.0.1 dev up0 onlink src 10.128.0.2"),
            "10.128.0.2"
        );
        assert_eq!(v4("true"), "");
    }

    #[test]
    fn addresses_that_come_and_go_are_nobodys_name() {
        let known = known_by(
            "ip addr add 10.240.0.10/16 dev up0
             ip -6 addr add fd00:10::dead/64 dev up0 nodad preferred_lft 0
             ip -6 addr add fd00:10::99/128 dev up0 nodad
             ip -6 addr add fd00:10::a/64 dev up0 nodad
             ip -6 addr add fe80::1/64 dev up0 nodad",
        );
        assert_eq!(known, ["10.240.0.10", "fd00:10::a"]);
        let tentative = known_by(
            "sysctl -qw net.ipv6.conf.up0.accept_dad=1 net.ipv6.conf.up0.dad_transmits=600
             ip -6 addr add fd00:10::7/64 dev up0
             ip -6 addr add fd00:10::99/128 dev up0 nodad",
        );
        assert_eq!(tentative, ["fd00:10::99"], "its duplicates are still looked for");
    }

    #[test]
    fn an_address_of_the_privacy_extensions_is_nobodys_name() {
        // The kernel makes one beside each that is managed so.
        let script = "sysctl -qw net.ipv6.conf.up0.use_tempaddr=2
             ip -6 addr add fd00:10::a/64 dev up0 nodad mngtmpaddr valid_lft 9000 preferred_lft 8000
             for _ in $(seq 1000); do
                 [ -z \"$(ip -6 addr show dev up0 temporary)\" ] || exit 0
                 sleep 0.01
             done
             echo 'no temporary address in ten seconds' >&2; exit 1";
        let known = known_by(script);
        assert_eq!(known, ["fd00:10::a"]);
    }
}
