//! `ipamctl subnet`.

use crate::{
    arguments::{DryRun, cidr},
    context::Context,
    failure::Failure,
    output::{
        View, age, count, joined, optional, range, range6,
        table::{Column, column, wide},
        word,
    },
};
use clap::{ArgAction, Args, Subcommand};
use ipam_api::{
    client::{AllPages, Client, all_pages},
    names::{SubnetPath, VnetName},
    wire::{ExtentInfo, Subnet, SubnetPatch, SubnetSpec},
};
use ipnet::IpNet;
use std::net::IpAddr;

const COLUMNS: &[Column<Subnet>] = &[
    column("SUBNET", |subnet| format!("{}/{}", subnet.vnet, subnet.name)),
    column("CIDRS", |subnet| joined(&subnet.cidrs)),
    column("SIZE", |subnet| subnet.size.to_string()),
    column("FREE", |subnet| subnet.free.to_string()),
    column("LARGEST FREE", |subnet| subnet.largest_free.to_string()),
    wide("GATEWAYS", |subnet| joined(&subnet.gateways)),
    wide("PLATFORM RESERVED", |subnet| if subnet.reserve_platform { "yes" } else { "no" }.to_owned()),
    wide("AGE", |subnet| age(subnet.created_at)),
];

const EXTENTS: &[Column<ExtentInfo>] = &[
    column("ADDRESSES", |extent| range(&extent.range)),
    column("SIZE", |extent| extent.size.to_string()),
    column("KIND", |extent| word(&extent.kind)),
    column("OWNER", |extent| optional(extent.owner.as_ref())),
    wide("IPV6", |extent| optional(range6(&extent.range).as_ref())),
];

#[derive(Debug, Subcommand)]
pub(crate) enum SubnetCommand {
    /// Create a subnet, or set one as asked
    #[command(after_help = "\
Example:
  ipamctl subnet create prod/nodes --cidr 10.240.0.0/16 --cidr fd00:10::/64")]
    Create(Create),
    /// List subnets
    #[command(after_help = "Examples:\n  ipamctl subnet list\n  ipamctl subnet list prod -o wide")]
    List {
        /// Only those of this VNet
        vnet: Option<VnetName>,
    },
    /// Show a subnet
    #[command(after_help = "Example:\n  ipamctl subnet show prod/nodes")]
    Show {
        /// The subnet, as VNET/SUBNET
        subnet: SubnetPath,
    },
    /// Show what each address of a subnet is used for
    #[command(after_help = "Example:\n  ipamctl subnet map prod/nodes -o wide")]
    Map {
        /// The subnet, as VNET/SUBNET
        subnet: SubnetPath,
    },
    /// Change a subnet: what is not named stays
    #[command(after_help = "Example:\n  ipamctl subnet update prod/nodes --gateway 10.240.0.2")]
    Update(Update),
    /// Delete a subnet that nothing uses
    #[command(after_help = "Example:\n  ipamctl subnet delete prod/nodes")]
    Delete {
        /// The subnet, as VNET/SUBNET
        subnet: SubnetPath,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The subnet, as VNET/SUBNET
    subnet: SubnetPath,
    /// Its IPv4 CIDR, its IPv6 CIDR, or (given twice) one of each
    #[arg(long = "cidr", value_name = "CIDR", value_parser = cidr, required = true)]
    cidrs: Vec<IpNet>,
    /// Its gateway, one a family; the first address behind the network address where none is given
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Whether the platform's addresses (the first four and, with IPv4, the last) are kept out of planning
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set)]
    reserve_platform: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The subnet, as VNET/SUBNET
    subnet: SubnetPath,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// All its gateways from now on, one a family
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Whether the platform's addresses (the first four and, with IPv4, the last) are kept out of planning
    #[arg(long, value_name = "true|false")]
    reserve_platform: Option<bool>,
}

impl SubnetCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(Create { subnet, cidrs, gateways, reserve_platform, dry_run }) => {
                let spec = SubnetSpec { cidrs, gateways, reserve_platform };
                let answer = client.put_subnet(&subnet, &spec, &dry_run.write()).await?;
                context.say(format_args!("subnet {subnet} {}", dry_run.put(answer.created())));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::List { vnet } => {
                let lists = lists(&client, vnet).await?;
                context.show(&View::list(&lists, COLUMNS, "no subnet yet: ipamctl subnet create makes one")?)
            }
            Self::Show { subnet } => context.show(&View::fields(&client.subnet(&subnet).await?, COLUMNS)?),
            Self::Map { subnet } => {
                let list = all_pages(async |page| client.extents(&subnet, &page).await).await?;
                context.show(&View::list(&[list], EXTENTS, "the subnet has no addresses")?)
            }
            Self::Update(Update { subnet, change: Change { gateways, reserve_platform }, dry_run }) => {
                let gateways = (!gateways.is_empty()).then_some(gateways);
                let patch = SubnetPatch { gateways, reserve_platform, ..SubnetPatch::default() };
                let answer = client.patch_subnet(&subnet, &patch, &dry_run.write()).await?;
                context.say(format_args!("subnet {subnet} {}", dry_run.verb("changed")));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::Delete { subnet, dry_run } => {
                let Subnet { cidrs, size, .. } = client.subnet(&subnet).await?.value;
                client.delete_subnet(&subnet, &dry_run.write()).await?;
                context.say(format_args!(
                    "subnet {subnet} {}, which frees {} ({}) of vnet {}",
                    dry_run.verb("deleted"),
                    count(size, "address", "addresses"),
                    joined(&cidrs),
                    subnet.vnet,
                ));
                Ok(())
            }
        }
    }
}

/// The subnets of one VNet, or of each.
async fn lists(client: &Client, vnet: Option<VnetName>) -> Result<Vec<AllPages<Subnet>>, Failure> {
    let vnets = match vnet {
        Some(vnet) => vec![vnet],
        None => {
            let vnets = all_pages(async |page| client.vnets(&page).await).await?;
            vnets.into_items().into_iter().map(|vnet| vnet.name).collect()
        }
    };
    let mut lists = Vec::with_capacity(vnets.len());
    for vnet in &vnets {
        lists.push(all_pages(async |page| client.subnets(vnet, &page).await).await?);
    }
    Ok(lists)
}

/// Every subnet there is.
pub(crate) async fn paths(client: &Client) -> Result<Vec<SubnetPath>, Failure> {
    let lists = lists(client, None).await?;
    let subnets = lists.into_iter().flat_map(AllPages::into_items);
    Ok(subnets.map(|subnet| SubnetPath { vnet: subnet.vnet, subnet: subnet.name }).collect())
}
