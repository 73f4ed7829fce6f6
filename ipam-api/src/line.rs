//! A subnet's number line: offsets, extents, and their addresses.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use utoipa::ToSchema;

/// A position on a subnet's number line; 0 is the network address. Below 2^48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// A non-empty interval of a number line: `first` belongs to it, `next` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    first: Offset,
    next: Offset,
}

impl Extent {
    /// From its first offset to the one behind its last; `None` if that is empty.
    #[must_use]
    pub fn new(first: Offset, next: Offset) -> Option<Self> {
        (first < next).then_some(Self { first, next })
    }

    /// Of `size` offsets from `first`; `None` if empty or past the end of numbers.
    #[must_use]
    pub fn sized(first: Offset, size: u64) -> Option<Self> {
        Self::new(first, Offset(first.0.checked_add(size)?))
    }

    /// From its first offset to its last, both included.
    #[must_use]
    pub fn inclusive(first: Offset, last: Offset) -> Option<Self> {
        Self::new(first, Offset(last.0.checked_add(1)?))
    }

    /// The single offset.
    #[must_use]
    pub fn single(offset: Offset) -> Self {
        Self { first: offset, next: Offset(offset.0 + 1) }
    }

    /// Its first offset.
    #[must_use]
    pub fn first(self) -> Offset {
        self.first
    }

    /// Its last offset.
    #[must_use]
    pub fn last(self) -> Offset {
        Offset(self.next.0 - 1)
    }

    /// The offset behind its last.
    #[must_use]
    pub fn next(self) -> Offset {
        self.next
    }

    /// How many offsets it has; at least 1.
    #[must_use]
    pub fn size(self) -> u64 {
        self.next.0 - self.first.0
    }

    /// Whether the offset lies in it.
    #[must_use]
    pub fn contains(self, offset: Offset) -> bool {
        self.first <= offset && offset < self.next
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.next <= self.next
    }

    /// Whether they share an offset.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.next && other.first < self.next
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last())
    }
}

/// Why CIDRs do not make a number line, or an address is not on one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No CIDR at all.
    #[error("a subnet needs a CIDR: give one IPv4 CIDR, one IPv6 CIDR, or one of each")]
    NoCidr,
    /// Two of one family.
    #[error("{0} is a second CIDR of its family: give one IPv4 CIDR, one IPv6 CIDR, or one of each")]
    SecondOfFamily(IpNet),
    /// Bits set behind the prefix.
    #[error("{0} has bits set behind its prefix: write {1}")]
    HostBits(IpNet, IpNet),
    /// The address is of a family the subnet has not, or lies outside.
    #[error("{0} is not in {1}")]
    Outside(IpAddr, String),
}

/// The CIDRs of a subnet and so its number line: `v4 = v4 base + offset`,
/// `v6 = v6 base + offset`. At least one family is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

impl Line {
    /// Lines end at 2^48 offsets, so that sums of sizes stay far inside 64 bits.
    pub const MAX_LENGTH: u64 = 1 << 48;

    /// The line of these CIDRs.
    ///
    /// # Errors
    /// No CIDR, two of one family, or bits set behind a prefix.
    pub fn of(cidrs: &[IpNet]) -> Result<Self, LineError> {
        let (mut v4, mut v6) = (None, None);
        for &cidr in cidrs {
            if cidr.trunc() != cidr {
                return Err(LineError::HostBits(cidr, cidr.trunc()));
            }
            let taken = match cidr {
                IpNet::V4(net) => v4.replace(net).is_some(),
                IpNet::V6(net) => v6.replace(net).is_some(),
            };
            if taken {
                return Err(LineError::SecondOfFamily(cidr));
            }
        }
        if v4.is_none() && v6.is_none() {
            return Err(LineError::NoCidr);
        }
        Ok(Self { v4, v6 })
    }

    /// The IPv4 CIDR, if the subnet has that family.
    #[must_use]
    pub fn v4(self) -> Option<Ipv4Net> {
        self.v4
    }

    /// The IPv6 CIDR, if the subnet has that family.
    #[must_use]
    pub fn v6(self) -> Option<Ipv6Net> {
        self.v6
    }

    /// The CIDRs, v4 first.
    #[must_use]
    pub fn cidrs(self) -> Vec<IpNet> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6)).collect()
    }

    /// How many offsets the line has: the smallest of both families' sizes and 2^48.
    #[must_use]
    pub fn length(self) -> u64 {
        let size = |bits: u8| 1u64.checked_shl(bits.into()).unwrap_or(Self::MAX_LENGTH);
        let v4 = self.v4.map_or(Self::MAX_LENGTH, |net| size(32 - net.prefix_len()));
        let v6 = self.v6.map_or(Self::MAX_LENGTH, |net| size(128 - net.prefix_len()));
        v4.min(v6).min(Self::MAX_LENGTH)
    }

    /// The whole line as one extent.
    #[must_use]
    pub fn extent(self) -> Extent {
        Extent { first: Offset(0), next: Offset(self.length()) }
    }

    /// The platform's own addresses: the first four offsets and, with IPv4, the last
    /// of the line, wherever its broadcast address is. Short lines have less.
    #[must_use]
    pub fn platform(self) -> Vec<Extent> {
        let length = self.length();
        let first = Extent::new(Offset(0), Offset(length.min(4)));
        let last =
            Extent::new(Offset(length - 1), Offset(length)).filter(|_| self.v4.is_some() && length > 4);
        first.into_iter().chain(last).collect()
    }

    /// The offset of an address.
    ///
    /// # Errors
    /// The address is of a family the line has not, or lies outside it.
    pub fn offset_of(self, address: IpAddr) -> Result<Offset, LineError> {
        let distance = match (address, self.v4, self.v6) {
            (IpAddr::V4(a), Some(net), _) => u32::from(a).checked_sub(net.network().into()).map(u64::from),
            (IpAddr::V6(a), _, Some(net)) => u128::from(a)
                .checked_sub(net.network().into())
                .and_then(|distance| u64::try_from(distance).ok()),
            _ => None,
        };
        distance
            .filter(|&distance| distance < self.length())
            .map(Offset)
            .ok_or_else(|| LineError::Outside(address, self.to_string()))
    }

    /// The IPv4 address of an offset on the line.
    #[must_use]
    pub fn v4_at(self, offset: Offset) -> Option<Ipv4Addr> {
        let small = u32::try_from(offset.0).ok()?;
        u32::from(self.v4?.network()).checked_add(small).map(Ipv4Addr::from)
    }

    /// The IPv6 address of an offset on the line.
    #[must_use]
    pub fn v6_at(self, offset: Offset) -> Option<Ipv6Addr> {
        u128::from(self.v6?.network()).checked_add(offset.0.into()).map(Ipv6Addr::from)
    }

    /// The addresses of an offset, v4 first.
    #[must_use]
    pub fn addresses_at(self, offset: Offset) -> Vec<IpAddr> {
        self.v4_at(offset).map(IpAddr::V4).into_iter().chain(self.v6_at(offset).map(IpAddr::V6)).collect()
    }

    /// The one address that stands for an offset: v4 where the line has it, else v6.
    #[must_use]
    pub fn address_at(self, offset: Offset) -> Option<IpAddr> {
        self.addresses_at(offset).into_iter().next()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} and {v6}"),
            (Some(v4), None) => write!(f, "{v4}"),
            (None, Some(v6)) => write!(f, "{v6}"),
            (None, None) => f.write_str("nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(cidrs: &[&str]) -> Line {
        Line::of(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_smallest_family_ends_the_line() {
        assert_eq!(line(&["10.0.0.0/24"]).length(), 256);
        assert_eq!(line(&["10.0.0.0/24", "fd00::/64"]).length(), 256);
        assert_eq!(line(&["10.0.0.0/16", "fd00::/120"]).length(), 256);
        assert_eq!(line(&["fd00::/64"]).length(), 1 << 48);
        assert_eq!(line(&["::/0"]).length(), 1 << 48);
        assert_eq!(line(&["0.0.0.0/0"]).length(), 1 << 32);
        assert_eq!(line(&["10.0.0.1/32"]).length(), 1);
    }

    #[test]
    fn the_platform_keeps_the_first_four_and_with_ipv4_the_last() {
        let sizes = |cidrs: &[&str]| line(cidrs).platform().iter().map(|e| e.to_string()).collect::<Vec<_>>();
        assert_eq!(sizes(&["10.0.0.0/24"]), ["0-3", "255-255"]);
        assert_eq!(sizes(&["10.0.0.0/24", "fd00::/64"]), ["0-3", "255-255"]);
        assert_eq!(sizes(&["10.0.0.0/16", "fd00::/120"]), ["0-3", "255-255"]);
        assert_eq!(sizes(&["fd00::/64"]), ["0-3"]);
        assert_eq!(sizes(&["10.0.0.0/29"]), ["0-3", "7-7"]);
        assert_eq!(sizes(&["10.0.0.0/30"]), ["0-3"]);
        assert_eq!(sizes(&["10.0.0.0/32"]), ["0-0"]);
    }

    #[test]
    fn wrong_cidrs_say_the_cure() {
        let error = |cidrs: &[&str]| {
            Line::of(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>()).unwrap_err().to_string()
        };
        assert!(error(&[]).contains("needs a CIDR"));
        assert!(error(&["10.0.0.1/24"]).contains("write 10.0.0.0/24"));
        assert!(error(&["10.0.0.0/24", "10.1.0.0/24"]).contains("second CIDR"));
    }

    #[test]
    fn an_address_of_another_family_or_place_is_outside() {
        let line = line(&["10.0.0.0/24"]);
        for outside in ["10.0.1.0", "9.255.255.255", "fd00::1"] {
            assert!(line.offset_of(outside.parse().unwrap()).is_err(), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn offsets_and_addresses_are_inverse(base in any::<u32>(), prefix in 1u8..=32, at in any::<u64>()) {
            let v4 = Ipv4Net::new(base.into(), prefix).unwrap().trunc();
            let v6 = Ipv6Net::new((u128::from(base) << 96).into(), 64).unwrap().trunc();
            let line = Line::of(&[v4.into(), v6.into()]).unwrap();
            let offset = Offset(at % line.length());
            for address in line.addresses_at(offset) {
                prop_assert_eq!(line.offset_of(address), Ok(offset));
            }
            prop_assert_eq!(line.address_at(offset), line.v4_at(offset).map(IpAddr::V4));
        }
    }
}
