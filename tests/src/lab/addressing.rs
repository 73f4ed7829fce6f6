use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which families the VNet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

/// Addresses of the lab's one subnet: one offset names one address a family.
#[derive(Debug, Clone, Copy)]
pub struct Addressing {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 16);
const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0), 64);

impl Addressing {
    /// The subnet `10.240.0.0/16`, `fd00:10::/64`, or both.
    #[must_use]
    pub fn new(families: Families) -> Self {
        Self { v4: (families != Families::V6).then_some(V4), v6: (families != Families::V4).then_some(V6) }
    }

    /// The subnet's CIDRs, IPv4 first.
    #[must_use]
    pub fn cidrs(&self) -> Vec<String> {
        self.networks().iter().map(ToString::to_string).collect()
    }

    /// CIDRs of the VNet around it, IPv4 first.
    #[must_use]
    pub fn address_space(&self) -> Vec<String> {
        let v4 = self.v4.map(|_| "10.240.0.0/12".to_owned());
        let v6 = self.v6.map(|_| "fd00:10::/48".to_owned());
        v4.into_iter().chain(v6).collect()
    }

    /// The addresses at an offset, IPv4 first.
    #[must_use]
    pub fn addresses(&self, offset: u64) -> Vec<IpAddr> {
        self.interfaces(offset).iter().map(IpNet::addr).collect()
    }

    /// The addresses at an offset with the subnet's prefix length, IPv4 first.
    #[must_use]
    pub fn interfaces(&self, offset: u64) -> Vec<IpNet> {
        self.networks()
            .iter()
            .map(|network| match network {
                IpNet::V4(v4) => {
                    let low = u32::try_from(offset).unwrap_or(u32::MAX);
                    IpNet::V4(Ipv4Net::new_assert(
                        Ipv4Addr::from_bits(v4.addr().to_bits() | low),
                        v4.prefix_len(),
                    ))
                }
                IpNet::V6(v6) => IpNet::V6(Ipv6Net::new_assert(
                    Ipv6Addr::from_bits(v6.addr().to_bits() | u128::from(offset)),
                    v6.prefix_len(),
                )),
            })
            .collect()
    }

    /// `first-last` in the family that names the subnet's ranges.
    #[must_use]
    pub fn range(&self, first: u64, last: u64) -> String {
        format!("{}-{}", self.addresses(first)[0], self.addresses(last)[0])
    }

    fn networks(&self) -> Vec<IpNet> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6)).collect()
    }
}
