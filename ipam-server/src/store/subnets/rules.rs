//! Which CIDRs and gateways a subnet may have.

use super::{
    super::{Result, StoreError},
    platform,
};
use ipam_api::{
    line::{Line, LineError, Offset},
    wire::{FieldError, SubnetSpec},
};
use ipnet::IpNet;
use std::net::IpAddr;

/// The line of the CIDRs of a request; `pointer` is where they are in it.
pub(super) fn line(cidrs: &[IpNet], pointer: &str) -> Result<Line> {
    Line::of(cidrs).map_err(|error| {
        let wrong = match &error {
            LineError::HostBits(cidr, _) => cidrs.iter().position(|c| c == cidr),
            LineError::SecondOfFamily(cidr) => cidrs.iter().rposition(|c| c == cidr),
            LineError::NoCidr | LineError::Outside(..) => None,
        };
        let pointer = wrong.map_or_else(|| pointer.to_owned(), |i| format!("{pointer}/{i}"));
        StoreError::invalid(&pointer, error.to_string())
    })
}

/// The gateways of a subnet, v4 first: those given, else offset 1.
pub(super) fn gateways(line: Line, given: &[IpAddr]) -> Result<Vec<IpAddr>> {
    let mut errors = Vec::new();
    for (i, gateway) in given.iter().enumerate() {
        let wrong = if given[..i].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            Some(format!("gateway {gateway} is a second one of its family: give one a family"))
        } else {
            misplaced(line, *gateway)
        };
        if let Some(detail) = wrong {
            errors.push(FieldError { pointer: format!("/gateways/{i}"), detail });
        }
    }
    if !errors.is_empty() {
        return Err(StoreError::Invalid(errors));
    }
    let of = |v4: bool| given.iter().copied().find(|gateway| gateway.is_ipv4() == v4);
    let one = Offset(1);
    let default = |cidr: IpNet| {
        let address = match cidr {
            IpNet::V4(_) => line.v4_at(one).map(IpAddr::V4),
            IpNet::V6(_) => line.v6_at(one).map(IpAddr::V6),
        };
        address.filter(|address| cidr.contains(address)).ok_or_else(|| {
            StoreError::invalid(
                "/cidrs",
                format!("{cidr} has no room for a gateway beside it: give a larger CIDR"),
            )
        })
    };
    line.cidrs()
        .into_iter()
        .map(|cidr| of(matches!(cidr, IpNet::V4(_))).map_or_else(|| default(cidr), Ok))
        .collect()
}

fn misplaced(line: Line, gateway: IpAddr) -> Option<String> {
    let Some(cidr) = line.cidrs().into_iter().find(|cidr| cidr.contains(&gateway)) else {
        return Some(format!("gateway {gateway} is not in {line}: give an address of the subnet"));
    };
    // RFC 3021 and RFC 6164: the smallest subnets have hosts at both ends.
    if cidr.prefix_len() + 1 >= cidr.max_prefix_len() {
        return None;
    }
    if gateway == cidr.network() || (gateway.is_ipv4() && gateway == cidr.broadcast()) {
        return Some(format!(
            "gateway {gateway} is the network or broadcast address of {cidr}: give another"
        ));
    }
    None
}

/// A subnet has an address beyond those kept out of planning.
pub(super) fn check_room(spec: &SubnetSpec, line: Line, kept_out: &[platform::Wanted]) -> Result<()> {
    let kept: u64 = kept_out.iter().map(|wanted| wanted.extent.size()).sum();
    if kept < line.length() {
        return Ok(());
    }
    let cure = if spec.reserve_platform {
        "give a larger CIDR (IPv4: /29, IPv6: /125) or set reservePlatform to false"
    } else {
        "give a larger CIDR"
    };
    Err(StoreError::invalid(
        "/cidrs",
        format!(
            "{line} has {} addresses and the platform and the gateway need them all: {cure}",
            line.length()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(cidrs: &[&str]) -> Line {
        line(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>(), "/cidrs").unwrap()
    }

    fn chosen(cidrs: &[&str], given: &[&str]) -> Result<Vec<String>> {
        let given: Vec<_> = given.iter().map(|g| g.parse().unwrap()).collect();
        Ok(gateways(line_of(cidrs), &given)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_gateway_is_offset_1_unless_given() {
        assert_eq!(chosen(&["10.0.0.0/24", "fd00::/64"], &[]).unwrap(), ["10.0.0.1", "fd00::1"]);
        assert_eq!(chosen(&["10.0.0.0/24", "fd00::/64"], &["fd00::9"]).unwrap(), ["10.0.0.1", "fd00::9"]);
    }

    #[test]
    fn a_gateway_lies_in_the_subnet_one_a_family() {
        for bad in
            [&["10.0.1.1"][..], &["fd00::1"], &["10.0.0.0"], &["10.0.0.255"], &["10.0.0.2", "10.0.0.3"]]
        {
            assert!(matches!(chosen(&["10.0.0.0/24"], bad), Err(StoreError::Invalid(_))), "{bad:?}");
        }
        assert!(matches!(chosen(&["10.0.0.0/32"], &[]), Err(StoreError::Invalid(_))));
        assert!(chosen(&["10.0.0.0/31"], &["10.0.0.0"]).is_ok());
    }

    #[test]
    fn a_wrong_cidr_is_pointed_at() {
        let cidrs: Vec<IpNet> = ["10.0.0.0/24", "10.1.0.0/24"].iter().map(|c| c.parse().unwrap()).collect();
        let Err(StoreError::Invalid(errors)) = line(&cidrs, "/cidrs") else { panic!("taken") };
        assert_eq!(errors[0].pointer, "/cidrs/1");
    }
}
