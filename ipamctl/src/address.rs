//! `ipamctl address`.

use crate::{
    context::Context,
    failure::Failure,
    output::{
        View, age, joined, optional, range,
        table::{Column, column},
        word,
    },
};
use clap::Subcommand;
use ipam_api::wire::{AddressInfo, Allocation, AllocationState, Conflict};
use std::net::IpAddr;

const COLUMNS: &[Column<AddressInfo>] = &[
    column("ADDRESS", |info| joined(&info.addresses)),
    column("SUBNET", |info| info.subnet.to_string()),
    column("USE", |info| word(&info.usage)),
    column("OWNER", |info| optional(info.extent.owner.as_ref())),
    column("RANGE", |info| range(&info.extent.range)),
    column("NODE", |info| optional(info.node.as_ref())),
    column("ATTACHMENT", |info| optional(info.allocation.as_ref().map(attachment).as_ref())),
    column("POD", |info| optional(info.allocation.as_ref().and_then(pod).as_ref())),
    column("CONFLICT", |info| optional(info.conflict.as_ref().map(conflict).as_ref())),
    column("HOLDER", |info| optional(info.allocation.as_ref().map(holder).as_ref())),
];

fn attachment(allocation: &Allocation) -> String {
    format!("{}/{}/{}", allocation.network, allocation.container_id, allocation.if_name)
}

fn pod(allocation: &Allocation) -> Option<String> {
    let pod = allocation.pod.as_ref()?;
    Some(format!("{}/{}", pod.namespace, pod.name))
}

fn holder(allocation: &Allocation) -> String {
    let since = age(allocation.since);
    match allocation.state {
        AllocationState::Held => format!("has it for {since}"),
        AllocationState::Released => format!("gave it back {since} ago"),
    }
}

fn conflict(conflict: &Conflict) -> String {
    format!("{} answers for it", conflict.mac)
}

#[derive(Debug, Subcommand)]
pub(crate) enum AddressCommand {
    /// Show who has an address, or had it last
    #[command(after_help = "Example:\n  ipamctl address show 10.240.1.7")]
    Show {
        /// The address, of either family
        #[arg(value_name = "IP")]
        address: IpAddr,
    },
}

impl AddressCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Show { address } => {
                context.show(&View::fields(&context.client()?.address(address).await?, COLUMNS)?)
            }
        }
    }
}
