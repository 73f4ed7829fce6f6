mod rules;

pub(super) use rules::overlap;

use super::{
    Change, Kind, Page, Result, Store, StoreError, Versioned, Written,
    db::{Scope, Tx, args, retried},
    events::Deed,
    mutation::{self, SomeOf, changed, corrupt, listing, stored, timestamp},
};
use ipam_api::{
    names::VnetName,
    wire::{Listing, Vnet, VnetSpec},
};
use ipnet::IpNet;

macro_rules! select_vnet {
    ($rest:literal) => {
        concat!(
            "SELECT v.id, v.name, v.address_space, v.service_cidrs, v.version, v.created_at,
                 (SELECT COUNT(*) FROM subnet AS s WHERE s.vnet = v.id) AS subnets
             FROM vnet AS v ",
            $rest
        )
    };
}

const BY_NAME: &str = select_vnet!("WHERE v.name = $1");
const PAGE: &str = select_vnet!("WHERE v.name > $1 ORDER BY v.name LIMIT $2");
const OTHERS: &str = select_vnet!("WHERE v.name <> $1 ORDER BY v.name");
const SUBNETS: &str = "SELECT name, cidr4, cidr6 FROM subnet WHERE vnet = $1 ORDER BY name";
const INSERT: &str = "INSERT INTO vnet (name, address_space, service_cidrs, version, created_at)
    VALUES ($1, $2, $3, (SELECT value FROM counter WHERE name = 'change'), $4)";
const UPDATE: &str =
    "UPDATE vnet SET address_space = $2, service_cidrs = $3, version = version + 1 WHERE id = $1";
const DELETE: &str = "DELETE FROM vnet WHERE id = $1";

/// A VNet as the database has it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct VnetRow {
    pub(super) id: i64,
    pub(super) name: String,
    address_space: String,
    service_cidrs: String,
    version: i64,
    created_at: i64,
    subnets: i64,
}

impl VnetRow {
    pub(super) fn address_space(&self) -> Result<Vec<IpNet>> {
        serde_json::from_str(&self.address_space).map_err(corrupt)
    }

    fn spec(&self) -> Result<VnetSpec> {
        Ok(VnetSpec {
            address_space: self.address_space()?,
            service_cidrs: serde_json::from_str(&self.service_cidrs).map_err(corrupt)?,
        })
    }

    fn view(&self) -> Result<Versioned<Vnet>> {
        let VnetSpec { address_space, service_cidrs } = self.spec()?;
        let value = Vnet {
            name: stored(&self.name)?,
            address_space,
            service_cidrs,
            subnets: self.subnets.cast_unsigned(),
            created_at: timestamp(self.created_at)?,
        };
        Ok(Versioned { value, version: self.version.cast_unsigned() })
    }
}

/// The VNet of this name, if there is one.
pub(super) async fn find(tx: &mut Tx, name: &VnetName) -> Result<Option<VnetRow>> {
    tx.fetch_optional(BY_NAME, args![name.as_str()]).await
}

/// The VNet of this name.
pub(super) async fn get(tx: &mut Tx, name: &VnetName) -> Result<VnetRow> {
    find(tx, name).await?.ok_or_else(|| StoreError::NotFound(Kind::Vnet, name.to_string()))
}

impl Store {
    /// Makes a VNet, or changes it to what is asked for.
    pub async fn put_vnet(
        &self,
        name: &VnetName,
        spec: &VnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Vnet>>> {
        rules::check(spec)?;
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let old = find(&mut tx, name).await?;
            mutation::check(
                &change.precondition,
                &format!("VNet {name}"),
                old.as_ref().map(|old| old.version),
            )?;
            let same = match &old {
                Some(old) => old.spec()? == *spec,
                None => false,
            };
            if !same {
                check_others(&mut tx, name, spec).await?;
                let space = serde_json::to_string(&spec.address_space).map_err(corrupt)?;
                let services = serde_json::to_string(&spec.service_cidrs).map_err(corrupt)?;
                match &old {
                    Some(old) => {
                        check_subnets(&mut tx, old, spec).await?;
                        tx.execute(UPDATE, args![old.id, space, services]).await?;
                    }
                    None => {
                        tx.execute(INSERT, args![name.as_str(), space, services, self.now()]).await?;
                    }
                }
                changed(&mut tx).await?;
            }
            let view = get(&mut tx, name).await?.view()?;
            let was = old.as_ref().map(VnetRow::view).transpose()?;
            self.finish(tx, change, &deed(name, was.as_deref(), Some(&view.value))?).await?;
            Ok(if old.is_some() { Written::Updated(view) } else { Written::Created(view) })
        };
        retried!(self.db, attempt())
    }

    /// A VNet.
    pub async fn vnet(&self, name: &VnetName) -> Result<Versioned<Vnet>> {
        let mut tx = self.db.read().await?;
        get(&mut tx, name).await?.view()
    }

    /// VNets by name.
    pub async fn vnets(&self, page: &Page) -> Result<Listing<Vnet>> {
        let mut tx = self.db.read().await?;
        let rows: Vec<VnetRow> =
            tx.fetch_all(PAGE, args![mutation::name_after(page), mutation::rows_wanted(page)]).await?;
        listing(rows, page, |row| row.name.clone(), |row| Ok(row.view()?.value))
    }

    /// Deletes a VNet without subnets.
    pub async fn delete_vnet(&self, name: &VnetName, change: &Change) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let vnet = get(&mut tx, name).await?;
            mutation::check(&change.precondition, &format!("VNet {name}"), Some(vnet.version))?;
            if vnet.subnets > 0 {
                let rows: Vec<(String, Option<String>, Option<String>)> =
                    tx.fetch_all(SUBNETS, args![vnet.id]).await?;
                let names: Vec<_> =
                    rows.into_iter().map(|(subnet, _, _)| format!("{name}/{subnet}")).collect();
                return Err(StoreError::InUse(format!(
                    "VNet {name} has {} (delete them first)",
                    SomeOf::new("subnet", &names)
                )));
            }
            tx.execute(DELETE, args![vnet.id]).await?;
            changed(&mut tx).await?;
            self.finish(tx, change, &deed(name, Some(&vnet.view()?.value), None)?).await
        };
        retried!(self.db, attempt())
    }
}

fn deed(name: &VnetName, was: Option<&Vnet>, became: Option<&Vnet>) -> Result<Deed> {
    Deed::of(format!("vnet/{name}"), was, became)
}

/// No VNet's addresses overlap another's, nor another's services.
async fn check_others(tx: &mut Tx, name: &VnetName, spec: &VnetSpec) -> Result<()> {
    let others: Vec<VnetRow> = tx.fetch_all(OTHERS, args![name.as_str()]).await?;
    for row in others {
        let other = row.spec()?;
        rules::apart(spec, &row.name, &other)?;
    }
    Ok(())
}

/// Every subnet of the VNet still lies in it.
async fn check_subnets(tx: &mut Tx, vnet: &VnetRow, spec: &VnetSpec) -> Result<()> {
    let rows: Vec<(String, Option<String>, Option<String>)> = tx.fetch_all(SUBNETS, args![vnet.id]).await?;
    for (subnet, cidr4, cidr6) in rows {
        for cidr in [cidr4, cidr6].into_iter().flatten() {
            let cidr: IpNet = stored(&cidr)?;
            if !spec.address_space.iter().any(|space| space.contains(&cidr)) {
                return Err(StoreError::InUse(format!(
                    "addressSpace would leave out {cidr} of subnet {}/{subnet}: keep a CIDR around it or delete the subnet first",
                    vnet.name
                )));
            }
        }
    }
    Ok(())
}
