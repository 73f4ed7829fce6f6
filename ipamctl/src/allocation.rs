//! `ipamctl allocation`.

use crate::{
    context::Context,
    failure::Failure,
    output::{
        View, age, joined, optional,
        table::{Column, column, wide},
        word,
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::{AllocationFilter, all_pages},
    names::{Attachment, InvalidName, NetworkName, NodeName},
    wire::{Allocation, AllocationSpec, HeldAddress, PodRef},
};
use std::{fmt, net::IpAddr, str::FromStr};

const COLUMNS: &[Column<Allocation>] = &[
    column("ADDRESS", |allocation| joined(allocation.addresses.iter().map(|held| held.address))),
    column("NODE", |allocation| allocation.node.to_string()),
    column("POD", |allocation| optional(allocation.pod.as_ref().and_then(pod).as_ref())),
    column("CONTAINER", |allocation| short(allocation.container_id.as_str())),
    column("INTERFACE", |allocation| allocation.if_name.to_string()),
    column("STATE", |allocation| word(&allocation.state)),
    column("SINCE", |allocation| age(allocation.since)),
    wide("NETWORK", |allocation| allocation.network.to_string()),
    wide("CONTAINER ID", |allocation| allocation.container_id.to_string()),
    wide("GATEWAY", |allocation| joined(allocation.addresses.iter().map(|held| held.gateway))),
];

fn pod(pod: &PodRef) -> Option<String> {
    match (pod.namespace.as_str(), pod.name.as_str()) {
        ("", "") => None,
        ("", name) => Some(name.to_owned()),
        (namespace, name) => Some(format!("{namespace}/{name}")),
    }
}

/// A container id as runtimes abbreviate it.
fn short(id: &str) -> String {
    id.chars().take(13).collect()
}

#[derive(Debug, Subcommand)]
pub(crate) enum AllocationCommand {
    /// Take an address for a container; for nodes with `--allocator service` only
    #[command(after_help = "\
Examples:
  ipamctl allocation create vm-7/c1/eth0
  ipamctl allocation create vm-7/c1/eth0 --address 10.240.1.9 --pod default/web")]
    Create(Create),
    /// List allocations
    #[command(after_help = "\
Examples:
  ipamctl allocation list --node node-1
  ipamctl allocation list --namespace default --pod web")]
    List(Filter),
    /// Show an allocation
    #[command(after_help = "Example:\n  ipamctl allocation show node-1/c1/eth0 --network pods")]
    Show(Which),
    /// Give an address back; for nodes with `--allocator service` only
    #[command(after_help = "Example:\n  ipamctl allocation delete vm-7/c1/eth0")]
    Delete(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    which: Which,
    /// The address wished for; the service picks one where none is given
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The pod, for those who later ask who had the address
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod_ref)]
    pod: Option<PodRef>,
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this node
    #[arg(long)]
    node: Option<NodeName>,
    /// Only those of this CNI network
    #[arg(long)]
    network: Option<NetworkName>,
    /// Only those of pods in this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only those of pods of this name
    #[arg(long)]
    pod: Option<String>,
    /// Only those of this address
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The attachment, as NODE/CONTAINER/INTERFACE
    #[arg(value_name = "NODE/CONTAINER/INTERFACE")]
    place: Place,
    /// Its CNI network
    #[arg(long, default_value_t)]
    network: NetworkName,
}

/// `NODE/CONTAINER/INTERFACE` on the command line.
#[derive(Debug, Clone)]
struct Place {
    node: NodeName,
    attachment: Attachment,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |error: InvalidName| error.to_string();
        let [node, container, interface] = text.split('/').collect::<Vec<_>>()[..] else {
            return Err("write it as NODE/CONTAINER/INTERFACE, for example node-1/c1/eth0".to_owned());
        };
        let attachment = Attachment {
            network: NetworkName::default(),
            container_id: container.parse().map_err(invalid)?,
            if_name: interface.parse().map_err(invalid)?,
        };
        Ok(Self { node: node.parse().map_err(invalid)?, attachment })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.node, self.attachment.container_id, self.attachment.if_name)
    }
}

fn pod_ref(text: &str) -> Result<PodRef, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid: String::new() })
        }
        _ => Err("write it as NAMESPACE/NAME, for example default/web".to_owned()),
    }
}

impl Which {
    fn split(self) -> (Place, NodeName, Attachment) {
        let Place { node, attachment } = self.place.clone();
        (self.place, node, Attachment { network: self.network, ..attachment })
    }
}

impl AllocationCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(Create { which, address, pod }) => {
                let (place, node, attachment) = which.split();
                let spec = AllocationSpec { address, pod };
                let answer = client.put_allocation(&node, &attachment, None, &spec).await?;
                let has = if answer.created() { "has" } else { "had already" };
                context.say(format_args!("{place} {has} {}", addresses(&answer.value)));
                context.show(&View::row(&answer, COLUMNS)?)
            }
            Self::List(Filter { node, network, namespace, pod, address }) => {
                let filter = AllocationFilter { node, network, namespace, pod, address };
                let list = all_pages(async |page| client.allocations(&filter, &page).await).await?;
                context.show(&View::list(&[list], COLUMNS, "no allocation")?)
            }
            Self::Show(which) => {
                let (_, node, attachment) = which.split();
                context.show(&View::fields(&client.allocation(&node, &attachment).await?, COLUMNS)?)
            }
            Self::Delete(which) => {
                let (place, node, attachment) = which.split();
                let had = client.allocation(&node, &attachment).await?.value;
                client.delete_allocation(&node, &attachment, None, None).await?;
                context.say(format_args!(
                    "{place} gave {} back; it rests before others get it",
                    addresses(&had)
                ));
                Ok(())
            }
        }
    }
}

fn addresses(allocation: &Allocation) -> String {
    joined(allocation.addresses.iter().map(|HeldAddress { address, .. }| address))
}
