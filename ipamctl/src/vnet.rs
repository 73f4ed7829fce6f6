//! `ipamctl vnet`.

use crate::{
    arguments::{DryRun, cidr},
    context::Context,
    failure::Failure,
    output::{
        View, age, joined,
        table::{Column, column, wide},
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::all_pages,
    names::VnetName,
    wire::{Vnet, VnetPatch, VnetSpec},
};
use ipnet::IpNet;

const COLUMNS: &[Column<Vnet>] = &[
    column("NAME", |vnet| vnet.name.to_string()),
    column("ADDRESS SPACE", |vnet| joined(&vnet.address_space)),
    column("SERVICE CIDRS", |vnet| joined(&vnet.service_cidrs)),
    column("SUBNETS", |vnet| vnet.subnets.to_string()),
    wide("AGE", |vnet| age(vnet.created_at)),
];

#[derive(Debug, Subcommand)]
pub(crate) enum VnetCommand {
    /// Create a VNet, or set one as asked
    #[command(after_help = "\
Example:
  ipamctl vnet create prod --address-space 10.240.0.0/12 --address-space fd00:10::/48 --service-cidr 10.0.0.0/16")]
    Create(Create),
    /// List the VNets
    #[command(after_help = "Example:\n  ipamctl vnet list -o wide")]
    List,
    /// Show a VNet
    #[command(after_help = "Example:\n  ipamctl vnet show prod -o yaml")]
    Show {
        /// The VNet
        #[arg(value_name = "VNET")]
        name: VnetName,
    },
    /// Change a VNet: what is not named stays
    #[command(after_help = "\
Examples:
  ipamctl vnet update prod --address-space 10.240.0.0/12 --address-space 10.64.0.0/16
  ipamctl vnet update prod --no-service-cidrs")]
    Update(Update),
    /// Delete a VNet without subnets
    #[command(after_help = "Example:\n  ipamctl vnet delete prod")]
    Delete {
        /// The VNet
        #[arg(value_name = "VNET")]
        name: VnetName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    #[arg(value_name = "VNET")]
    name: VnetName,
    /// A CIDR of its own, of either family; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = cidr, required = true)]
    address_space: Vec<IpNet>,
    /// A service CIDR of the cluster, which the VNet must never overlap; may be given several times
    #[arg(long = "service-cidr", value_name = "CIDR", value_parser = cidr)]
    service_cidrs: Vec<IpNet>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The VNet
    #[arg(value_name = "VNET")]
    name: VnetName,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// All its CIDRs from now on; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    address_space: Vec<IpNet>,
    /// All service CIDRs from now on; may be given several times
    #[arg(long = "service-cidr", value_name = "CIDR", value_parser = cidr)]
    service_cidrs: Vec<IpNet>,
    /// No service CIDR from now on
    #[arg(long, conflicts_with = "service_cidrs")]
    no_service_cidrs: bool,
}

impl VnetCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(Create { name, address_space, service_cidrs, dry_run }) => {
                let spec = VnetSpec { address_space, service_cidrs };
                let answer = client.put_vnet(&name, &spec, &dry_run.write()).await?;
                context.say(format_args!("vnet {name} {}", dry_run.put(answer.created())));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::List => {
                let list = all_pages(async |page| client.vnets(&page).await).await?;
                context.show(&View::list(&[list], COLUMNS, "no VNet yet: ipamctl vnet create makes one")?)
            }
            Self::Show { name } => context.show(&View::fields(&client.vnet(&name).await?, COLUMNS)?),
            Self::Update(Update { name, change, dry_run }) => {
                let answer = client.patch_vnet(&name, &change.patch(), &dry_run.write()).await?;
                context.say(format_args!("vnet {name} {}", dry_run.verb("changed")));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::Delete { name, dry_run } => {
                let vnet = client.vnet(&name).await?.value;
                client.delete_vnet(&name, &dry_run.write()).await?;
                let space = joined(&vnet.address_space);
                let deleted = dry_run.verb("deleted");
                context.say(format_args!("vnet {name} {deleted}, which frees {space} for other VNets"));
                Ok(())
            }
        }
    }
}

impl Change {
    fn patch(self) -> VnetPatch {
        let given = |cidrs: Vec<IpNet>| (!cidrs.is_empty()).then_some(cidrs);
        let service_cidrs = if self.no_service_cidrs { Some(Vec::new()) } else { given(self.service_cidrs) };
        VnetPatch { address_space: given(self.address_space), service_cidrs }
    }
}
