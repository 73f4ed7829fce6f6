//! `ipamctl reservation`.

use crate::{
    arguments::{DryRun, ReservationPath},
    context::Context,
    failure::Failure,
    output::{
        View, age, count, optional, range, range6,
        table::{Column, column, wide},
    },
    subnet,
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::all_pages,
    names::SubnetPath,
    wire::{Reservation, ReservationSpec},
};
use std::{net::IpAddr, str::FromStr};

const COLUMNS: &[Column<Reservation>] = &[
    column("RESERVATION", |reservation| format!("{}/{}", reservation.subnet, reservation.name)),
    column("ADDRESSES", |reservation| range(&reservation.range)),
    column("SIZE", |reservation| reservation.size.to_string()),
    column("FOR NODES", |reservation| if reservation.for_nodes { "yes" } else { "no" }.to_owned()),
    column("REASON", |reservation| reservation.reason.clone()),
    wide("IPV6", |reservation| optional(range6(&reservation.range).as_ref())),
    wide("PLATFORM", |reservation| if reservation.platform { "yes" } else { "no" }.to_owned()),
    wide("AGE", |reservation| age(reservation.created_at)),
];

#[derive(Debug, Subcommand)]
pub(crate) enum ReservationCommand {
    /// Keep a range out of planning
    #[command(after_help = "\
Examples:
  ipamctl reservation create prod/nodes/vms --range 10.240.0.4-10.240.0.255 --for-nodes --reason \"the VMs' own addresses\"
  ipamctl reservation create prod/nodes/balancer --range 10.240.255.10 --reason \"ingress\"")]
    Create(Create),
    /// List reservations
    #[command(after_help = "Examples:\n  ipamctl reservation list\n  ipamctl reservation list prod/nodes")]
    List {
        /// Only those of this subnet, as VNET/SUBNET
        subnet: Option<SubnetPath>,
    },
    /// Show a reservation
    #[command(after_help = "Example:\n  ipamctl reservation show prod/nodes/vms")]
    Show {
        /// The reservation, as VNET/SUBNET/NAME
        reservation: ReservationPath,
    },
    /// Give a range back to planning
    #[command(after_help = "Example:\n  ipamctl reservation delete prod/nodes/vms")]
    Delete {
        /// The reservation, as VNET/SUBNET/NAME
        reservation: ReservationPath,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The reservation, as VNET/SUBNET/NAME
    reservation: ReservationPath,
    /// First and last address, both included, or a single address
    #[arg(long, value_name = "FIRST-LAST")]
    range: Ends,
    /// Why, for the people who meet it later
    #[arg(long)]
    reason: String,
    /// Nodes' own addresses come from here
    #[arg(long)]
    for_nodes: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// A run of addresses on the command line.
#[derive(Debug, Clone, PartialEq)]
struct Ends {
    first: IpAddr,
    last: IpAddr,
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| {
            text.trim().parse::<IpAddr>().map_err(|_| {
                format!(
                    "{text:?} is not an IP address: write FIRST-LAST, for example 10.240.0.4-10.240.0.255"
                )
            })
        };
        let ends = Self { first: address(first)?, last: address(last)? };
        match (ends.first, ends.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Ok(ends),
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => Ok(ends),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                Err(format!("{} lies before {}: write the lower address first", ends.last, ends.first))
            }
            _ => {
                Err("the two addresses are of different families: name either family, both follow".to_owned())
            }
        }
    }
}

impl ReservationCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(Create { reservation, range: Ends { first, last }, reason, for_nodes, dry_run }) => {
                let spec = ReservationSpec { first, last, reason, for_nodes };
                let ReservationPath { subnet, name } = &reservation;
                let answer = client.put_reservation(subnet, name, &spec, &dry_run.write()).await?;
                context.say(format_args!("reservation {reservation} {}", dry_run.put(answer.created())));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::List { subnet } => {
                let subnets = match subnet {
                    Some(subnet) => vec![subnet],
                    None => subnet::paths(&client).await?,
                };
                let mut lists = Vec::with_capacity(subnets.len());
                for subnet in &subnets {
                    lists.push(all_pages(async |page| client.reservations(subnet, &page).await).await?);
                }
                let nothing = "no reservation: ipamctl reservation create makes one";
                context.show(&View::list(&lists, COLUMNS, nothing)?)
            }
            Self::Show { reservation: ReservationPath { subnet, name } } => {
                context.show(&View::fields(&client.reservation(&subnet, &name).await?, COLUMNS)?)
            }
            Self::Delete { reservation, dry_run } => {
                let ReservationPath { subnet, name } = &reservation;
                let was = client.reservation(subnet, name).await?.value;
                client.delete_reservation(subnet, name, &dry_run.write()).await?;
                context.say(format_args!(
                    "reservation {reservation} {}, which gives {} ({}) back to planning",
                    dry_run.verb("deleted"),
                    count(was.size, "address", "addresses"),
                    range(&was.range),
                ));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_ends_in_order_and_of_one_family() {
        let ends = |text: &str| text.parse::<Ends>();
        assert_eq!(ends("10.0.0.4-10.0.0.9").map(|ends| ends.last), Ok([10, 0, 0, 9].into()));
        assert_eq!(ends("fd00::4").map(|ends| ends.first), Ok("fd00::4".parse().unwrap()));
        for (text, cure) in [
            ("10.0.0.9-10.0.0.4", "lower address first"),
            ("10.0.0.4-fd00::9", "families"),
            ("10.0.0.0/24", "write FIRST-LAST"),
            ("10.0.0.4-", "write FIRST-LAST"),
        ] {
            assert!(ends(text).unwrap_err().contains(cure), "{text}");
        }
    }
}
