use super::{
    Kind, Result, Store, StoreError,
    book::Row,
    db::{Tx, args},
    mutation::{age_seconds, stored},
    subnets::{self, SubnetRow},
    tiling::{self, Use},
};
use ipam_api::{
    line::Offset,
    names::NodeName,
    wire::{AddressInfo, AddressUse, Allocation, Conflict, HeldAddress},
};
use std::net::IpAddr;

const LINES: &str = "SELECT id, cidr4, cidr6 FROM subnet";
const OWNER4: &str = "SELECT name FROM node WHERE subnet = $1 AND own4 = $2";
const OWNER6: &str = "SELECT name FROM node WHERE subnet = $1 AND own6 = $2";
const CLAIMANT: &str = "SELECT n.name FROM block AS b JOIN node AS n ON n.id = b.node WHERE b.id = $1";
const LEDGER: &str = "SELECT * FROM allocation WHERE subnet = $1 AND at_offset = $2";
const CONFLICT: &str = "SELECT mac, seen_at FROM conflict WHERE subnet = $1 AND at_offset = $2";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[OWNER4, OWNER6, CLAIMANT, LEDGER, CONFLICT];

impl Store {
    /// Who has an address.
    pub async fn address(&self, address: IpAddr) -> Result<AddressInfo> {
        let now = self.clock.now().as_millisecond();
        let mut tx = self.db.read().await?;
        let (subnet, offset) = locate(&mut tx, address)
            .await?
            .ok_or_else(|| StoreError::NotFound(Kind::Address, format!("{address} in any subnet")))?;
        let line = subnet.line()?;
        let tile = tiling::at(&mut tx, subnet.id, offset).await?;
        let extent = subnets::extent_info(&mut tx, subnet.id, line, tile.extent.first().0).await?;
        let allocation = allocation(&mut tx, &subnet, offset).await?;
        let held = allocation.as_ref().is_some_and(|(_, held)| *held);

        let owner_of = if address.is_ipv4() { OWNER4 } else { OWNER6 };
        let owner = name(&mut tx, owner_of, subnet.id, Some(offset)).await?;
        let (usage, node) = match (tile.usage, owner) {
            (_, Some(owner)) => (AddressUse::Node, Some(owner)),
            (Use::Free, None) => (AddressUse::Free, None),
            (Use::Reservation(_) | Use::Node(_), None) => (AddressUse::Reserved, None),
            (Use::Block(block) | Use::Leaving { block, .. }, None) => {
                let claimant = name(&mut tx, CLAIMANT, block, None).await?;
                (if held { AddressUse::Pod } else { AddressUse::Block }, claimant)
            }
        };
        let conflict: Option<(String, i64)> = tx.fetch_optional(CONFLICT, args![subnet.id, offset.0]).await?;
        Ok(AddressInfo {
            address,
            subnet: subnet.path()?,
            addresses: line.addresses_at(offset),
            usage,
            extent,
            node,
            allocation: allocation.map(|(allocation, _)| allocation),
            conflict: conflict.map(|(mac, seen)| Conflict {
                address,
                mac,
                age_seconds: age_seconds(seen, now),
            }),
        })
    }
}

/// The subnet with an address on its line, and where there.
async fn locate(tx: &mut Tx, address: IpAddr) -> Result<Option<(SubnetRow, Offset)>> {
    for (id, cidr4, cidr6) in tx.fetch_all::<(i64, Option<String>, Option<String>)>(LINES, args![]).await? {
        if let Ok(offset) = subnets::line(cidr4.as_deref(), cidr6.as_deref())?.offset_of(address) {
            return Ok(Some((subnets::by_id(tx, id).await?, offset)));
        }
    }
    Ok(None)
}

async fn name(tx: &mut Tx, sql: &'static str, id: i64, offset: Option<Offset>) -> Result<Option<NodeName>> {
    let mut args = args![id];
    args.extend(offset.map(|offset| offset.0.into()));
    let row: Option<(String,)> = tx.fetch_optional(sql, args).await?;
    row.map(|(name,)| stored(&name)).transpose()
}

/// The ledger's newest word on an offset, and whether it is held.
async fn allocation(tx: &mut Tx, subnet: &SubnetRow, offset: Offset) -> Result<Option<(Allocation, bool)>> {
    let Some(row) = tx.fetch_optional::<Row>(LEDGER, args![subnet.id, offset.0]).await? else {
        return Ok(None);
    };
    let line = subnet.line()?;
    let gateways = subnet.gateways()?;
    let addresses = line
        .cidrs()
        .into_iter()
        .zip(line.addresses_at(offset))
        .zip(gateways)
        .map(|((cidr, address), gateway)| HeldAddress { address, prefix_length: cidr.prefix_len(), gateway })
        .collect();
    Ok(Some((row.allocation(addresses)?, row.is_held())))
}
