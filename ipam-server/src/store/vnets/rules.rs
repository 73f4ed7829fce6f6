//! Which CIDRs a VNet may have.

use super::super::{Result, StoreError};
use ipam_api::wire::{FieldError, VnetSpec};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

const SPACE: &str = "addressSpace";
const SERVICES: &str = "serviceCidrs";

/// Most CIDRs of a list: each is compared with every other, and every node's answer carries the address space.
const MOST_CIDRS: usize = 256;

/// Ranges no host may have as its own on a network (RFC 6890 and its registries).
const UNUSABLE: [(IpNet, &str); 8] = [
    (v4([0, 0, 0, 0], 8), "\"this network\""),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
    // Also ::1 (loopback), :: (no address) and what embeds IPv4 addresses.
    (v6(0, 8), "loopback and unspecified"),
    (v6(0xfe80, 10), "link-local"),
    (v6(0xff00, 8), "multicast"),
];

const fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(first: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), prefix))
}

/// Whether two CIDRs share an address.
pub(in crate::store) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// What is wrong with a VNet, whatever else there is.
pub(super) fn check(spec: &VnetSpec) -> Result<()> {
    let mut errors = Vec::new();
    if spec.address_space.is_empty() {
        errors.push(FieldError {
            pointer: format!("/{SPACE}"),
            detail: format!("{SPACE} is empty: give at least one CIDR, for example 10.240.0.0/12"),
        });
    }
    for (field, cidrs) in [(SPACE, &spec.address_space), (SERVICES, &spec.service_cidrs)] {
        if cidrs.len() > MOST_CIDRS {
            let detail = format!("{field} has {} CIDRs: give at most {MOST_CIDRS}, larger ones", cidrs.len());
            return Err(StoreError::invalid(&format!("/{field}"), detail));
        }
        for (i, &cidr) in cidrs.iter().enumerate() {
            if let Some(detail) = unusable(field, cidr) {
                errors.push(FieldError { pointer: format!("/{field}/{i}"), detail });
            }
        }
    }
    if !errors.is_empty() {
        return Err(StoreError::Invalid(errors));
    }
    for (field, cidrs) in [(SPACE, &spec.address_space), (SERVICES, &spec.service_cidrs)] {
        for (i, &a) in cidrs.iter().enumerate() {
            if let Some(b) = cidrs[..i].iter().find(|&&b| overlap(a, b)) {
                return Err(StoreError::Overlap(format!(
                    "{field}: {a} overlaps {b} in the same list; leave one of them out"
                )));
            }
        }
    }
    for &a in &spec.address_space {
        if let Some(b) = spec.service_cidrs.iter().find(|&&b| overlap(a, b)) {
            return Err(StoreError::Overlap(format!(
                "{SPACE} {a} overlaps the VNet's own {SERVICES} {b}; choose an address space apart from it"
            )));
        }
    }
    Ok(())
}

fn unusable(field: &str, cidr: IpNet) -> Option<String> {
    if cidr.trunc() != cidr {
        return Some(format!("{field}: {cidr} has bits set behind its prefix: write {}", cidr.trunc()));
    }
    let (range, what) = UNUSABLE.iter().find(|(range, _)| overlap(cidr, *range))?;
    Some(format!(
        "{field}: {cidr} overlaps the {what} range {range}; choose private or global unicast addresses"
    ))
}

/// Whether this VNet and another leave each other's addresses alone.
pub(super) fn apart(spec: &VnetSpec, name: &str, other: &VnetSpec) -> Result<()> {
    let pairs = [
        (SPACE, &spec.address_space, SPACE, &other.address_space),
        (SPACE, &spec.address_space, SERVICES, &other.service_cidrs),
        (SERVICES, &spec.service_cidrs, SPACE, &other.address_space),
    ];
    for (mine, cidrs, theirs, others) in pairs {
        for &a in cidrs {
            if let Some(b) = others.iter().find(|&&b| overlap(a, b)) {
                return Err(StoreError::Overlap(format!(
                    "{mine} {a} overlaps {theirs} {b} of VNet {name}; choose a range apart from it"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(space: &[&str], services: &[&str]) -> VnetSpec {
        let parse = |cidrs: &[&str]| cidrs.iter().map(|c| c.parse().unwrap()).collect();
        VnetSpec { address_space: parse(space), service_cidrs: parse(services) }
    }

    #[test]
    fn ranges_no_host_may_have_are_refused_with_their_field() {
        for bad in [
            "127.0.0.0/8",
            "127.1.2.0/24",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "239.1.0.0/16",
            "0.0.0.0/0",
            "240.0.0.0/4",
            "255.255.255.255/32",
            "::1/128",
            "::/128",
            "::/0",
            "fe80::/64",
            "ff02::/16",
        ] {
            for (spec, pointer) in [
                (spec(&["10.0.0.0/8", bad], &[]), "/addressSpace/1"),
                (spec(&["10.0.0.0/8"], &[bad]), "/serviceCidrs/0"),
            ] {
                let Err(StoreError::Invalid(errors)) = check(&spec) else { panic!("{bad} was taken") };
                assert_eq!(errors[0].pointer, pointer, "{bad}");
            }
        }
        assert!(check(&spec(&["10.240.0.0/12", "fd00:10::/48", "2001:db8::/32"], &["10.0.0.0/16"])).is_ok());
    }

    #[test]
    fn host_bits_name_the_cure() {
        let Err(error) = check(&spec(&["10.240.0.1/12"], &[])) else { panic!("taken") };
        assert!(error.to_string().contains("write 10.240.0.0/12"), "{error}");
        assert!(matches!(check(&spec(&[], &[])), Err(StoreError::Invalid(_))));
    }

    #[test]
    fn a_vnet_is_apart_from_itself_and_others_both_ways() {
        for bad in [
            spec(&["10.0.0.0/8", "10.1.0.0/16"], &[]),
            spec(&["10.0.0.0/8"], &["10.1.0.0/16"]),
            spec(&["10.1.0.0/16"], &["10.0.0.0/8"]),
        ] {
            assert!(matches!(check(&bad), Err(StoreError::Overlap(_))), "{bad:?}");
        }
        let other = spec(&["10.1.0.0/16"], &["10.2.0.0/16"]);
        assert!(apart(&spec(&["10.1.2.0/24"], &[]), "o", &other).is_err());
        assert!(apart(&spec(&["10.2.0.0/15"], &[]), "o", &other).is_err());
        assert!(apart(&spec(&["10.9.0.0/16"], &["10.1.0.0/24"]), "o", &other).is_err());
        assert!(apart(&spec(&["10.9.0.0/16"], &["10.2.0.0/16"]), "o", &other).is_ok());
    }
}
