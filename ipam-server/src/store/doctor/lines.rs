//! Subnets inside their VNet, beside each other: CIDRs are no numbers to SQL.

use super::MOST;
use crate::store::{
    Result,
    db::{Tx, args},
};
use ipam_api::{
    line::Line,
    wire::{Finding, Severity},
};
use ipnet::IpNet;
use sqlx::FromRow;

const SUBNETS: &str = "SELECT v.name AS vnet, v.address_space, s.name, s.cidr4, s.cidr6, s.length
    FROM subnet AS s JOIN vnet AS v ON v.id = s.vnet ORDER BY v.name, s.name";

/// What is looked for here.
pub(super) const CODES: [&str; 4] = ["unreadable-cidr", "outside-vnet", "wrong-length", "subnet-overlap"];

#[derive(Debug, FromRow)]
struct Row {
    vnet: String,
    address_space: String,
    name: String,
    cidr4: Option<String>,
    cidr6: Option<String>,
    length: i64,
}

impl Row {
    fn cidrs(&self) -> Option<Vec<IpNet>> {
        self.cidr4.iter().chain(&self.cidr6).map(|cidr| cidr.parse().ok()).collect()
    }

    /// What is wrong with it by itself.
    fn fault(&self) -> Option<(&'static str, String)> {
        let Some(cidrs) = self.cidrs() else {
            return Some(("unreadable-cidr", "its CIDRs are none".to_owned()));
        };
        let space: Vec<IpNet> = serde_json::from_str(&self.address_space).unwrap_or_default();
        if let Some(outside) = cidrs.iter().find(|cidr| !space.iter().any(|space| space.contains(*cidr))) {
            return Some(("outside-vnet", format!("{outside} is not in the address space of its VNet")));
        }
        let length = Line::of(&cidrs).ok().map(|line| line.length());
        (length != Some(self.length.cast_unsigned())).then(|| {
            (
                "wrong-length",
                format!("it has {} addresses by its row and {length:?} by its CIDRs", self.length),
            )
        })
    }
}

pub(super) async fn look(tx: &mut Tx) -> Result<Vec<Finding>> {
    let rows: Vec<Row> = tx.fetch_all(SUBNETS, args![]).await?;
    let mut found: Vec<(&'static str, &Row, String)> =
        rows.iter().filter_map(|row| row.fault().map(|(code, detail)| (code, row, detail))).collect();
    // In order of their first addresses two that overlap are neighbours, or one of these covers others.
    let mut nets: Vec<(IpNet, &Row)> =
        rows.iter().flat_map(|row| row.cidrs().into_iter().flatten().map(move |cidr| (cidr, row))).collect();
    nets.sort_by_key(|(cidr, row)| (row.vnet.clone(), cidr.network(), cidr.prefix_len()));
    let mut widest: Option<(IpNet, &Row)> = None;
    for (cidr, row) in nets {
        match widest {
            Some((wide, other)) if other.vnet == row.vnet && wide.contains(&cidr) => {
                found.push((
                    "subnet-overlap",
                    row,
                    format!("{cidr} overlaps {wide} of subnet {}", other.name),
                ));
            }
            _ => widest = Some((cidr, row)),
        }
    }
    Ok(found
        .into_iter()
        .take(MOST)
        .map(|(code, row, detail)| Finding {
            code: code.to_owned(),
            severity: Severity::Broken,
            object: format!("subnet/{}/{}", row.vnet, row.name),
            detail,
            cure: "restore the last good backup (docs/operations.md) and report the defect".to_owned(),
            repairable: false,
        })
        .collect())
}
