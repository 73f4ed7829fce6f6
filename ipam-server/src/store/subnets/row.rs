//! A subnet as the database has it.

use super::super::{
    Kind, Result, StoreError, Versioned,
    db::{Tx, args},
    mutation::{stored, timestamp},
    vnets,
};
use ipam_api::{
    line::Line,
    names::SubnetPath,
    wire::{Subnet, SubnetSpec},
};
use ipnet::IpNet;
use std::net::IpAddr;

macro_rules! select_subnet {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, v.name AS vnet_name, s.name, s.cidr4, s.cidr6, s.gateway4, s.gateway6,
                 s.reserve_platform, s.version, s.created_at,
                 (SELECT CAST(COALESCE(SUM(e.next - e.first), 0) AS BIGINT) FROM extent AS e
                  WHERE e.subnet = s.id AND e.kind = 'free') AS free,
                 (SELECT COALESCE(MAX(e.next - e.first), 0) FROM extent AS e
                  WHERE e.subnet = s.id AND e.kind = 'free') AS largest_free
             FROM subnet AS s JOIN vnet AS v ON v.id = s.vnet ",
            $rest
        )
    };
}

const BY_PATH: &str = select_subnet!("WHERE v.name = $1 AND s.name = $2");
const BY_ID: &str = select_subnet!("WHERE s.id = $1");
pub(super) const PAGE: &str = select_subnet!("WHERE s.vnet = $1 AND s.name > $2 ORDER BY s.name LIMIT $3");

/// A subnet with its VNet's name.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(in crate::store) struct SubnetRow {
    pub(in crate::store) id: i64,
    vnet_name: String,
    pub(in crate::store) name: String,
    cidr4: Option<String>,
    cidr6: Option<String>,
    gateway4: Option<String>,
    gateway6: Option<String>,
    pub(super) reserve_platform: i64,
    pub(super) version: i64,
    created_at: i64,
    pub(in crate::store) free: i64,
    pub(in crate::store) largest_free: i64,
}

impl SubnetRow {
    pub(in crate::store) fn path(&self) -> Result<SubnetPath> {
        Ok(SubnetPath { vnet: stored(&self.vnet_name)?, subnet: stored(&self.name)? })
    }

    pub(in crate::store) fn line(&self) -> Result<Line> {
        line(self.cidr4.as_deref(), self.cidr6.as_deref())
    }

    /// Its gateways, v4 first.
    pub(in crate::store) fn gateways(&self) -> Result<Vec<IpAddr>> {
        [&self.gateway4, &self.gateway6].into_iter().flatten().map(|text| stored(text)).collect()
    }

    pub(super) fn spec(&self) -> Result<SubnetSpec> {
        Ok(SubnetSpec {
            cidrs: self.line()?.cidrs(),
            gateways: self.gateways()?,
            reserve_platform: self.reserve_platform != 0,
        })
    }

    pub(super) fn view(&self) -> Result<Versioned<Subnet>> {
        let SubnetSpec { cidrs, gateways, reserve_platform } = self.spec()?;
        let SubnetPath { vnet, subnet } = self.path()?;
        let value = Subnet {
            vnet,
            name: subnet,
            cidrs,
            gateways,
            reserve_platform,
            size: self.line()?.length(),
            free: self.free.cast_unsigned(),
            largest_free: self.largest_free.cast_unsigned(),
            created_at: timestamp(self.created_at)?,
        };
        Ok(Versioned { value, version: self.version.cast_unsigned() })
    }
}

/// The line of stored CIDRs.
pub(in crate::store) fn line(cidr4: Option<&str>, cidr6: Option<&str>) -> Result<Line> {
    let cidrs: Vec<IpNet> = [cidr4, cidr6].into_iter().flatten().map(stored).collect::<Result<_>>()?;
    Line::of(&cidrs).map_err(super::super::mutation::corrupt)
}

/// The subnet of this path, if there is one.
pub(in crate::store) async fn find(tx: &mut Tx, path: &SubnetPath) -> Result<Option<SubnetRow>> {
    tx.fetch_optional(BY_PATH, args![path.vnet.as_str(), path.subnet.as_str()]).await
}

/// The subnet of this path; where it is missing, what of it is.
pub(in crate::store) async fn get(tx: &mut Tx, path: &SubnetPath) -> Result<SubnetRow> {
    if let Some(row) = find(tx, path).await? {
        return Ok(row);
    }
    vnets::get(tx, &path.vnet).await?;
    Err(StoreError::NotFound(Kind::Subnet, path.to_string()))
}

/// The subnet of this row id.
pub(in crate::store) async fn by_id(tx: &mut Tx, id: i64) -> Result<SubnetRow> {
    tx.fetch_one(BY_ID, args![id]).await
}
