//! The command line as a whole.

use crate::{
    address::AddressCommand,
    allocation::AllocationCommand,
    capacity::CapacityArgs,
    context::Context,
    event::EventCommand,
    failure::Failure,
    fsck::{FsckArgs, RecoveryCommand},
    node::NodeCommand,
    output::Format,
    plan::PlanArgs,
    pool::PoolCommand,
    reservation::ReservationCommand,
    subnet::SubnetCommand,
    token::TokenCommand,
    vnet::VnetCommand,
};
use clap::{Args, Parser, Subcommand};
use ipam_api::client::Server;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Does a pool of 20 nodes with 30 pods each fit into a /22? (asks no service)
    ipamctl plan --cidr 10.240.0.0/22 --max-pods 30 --nodes 20 --surge 1
  Set up a VNet with a subnet and a pool, and register a node
    ipamctl vnet create prod --address-space 10.240.0.0/12 --service-cidr 10.0.0.0/16
    ipamctl subnet create prod/nodes --cidr 10.240.0.0/16
    ipamctl pool create workers --subnet prod/nodes --max-pods 30 --nodes 3 --surge 1
    ipamctl node register node-1 --pool workers --address 10.240.0.10
  See whether 20 nodes would fit, then make it so
    ipamctl pool scale workers --nodes 20 --dry-run
    ipamctl pool scale workers --nodes 20
  Who has this address?
    ipamctl address show 10.240.1.7
  Let somebody look, and see later who changed what
    ipamctl token create alice --role viewer --out alice.token
    ipamctl event list --subject pool/workers --since 7d

Exit status: 0 done, 1 failed, 2 wrong usage, 3 a plan that does not fit.";

/// Plans, reserves and inspects the addresses of nodes and pods.
#[derive(Debug, Parser)]
#[command(name = "ipamctl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The service.
    #[arg(
        long,
        help = "The service: https://HOST:PORT, http://HOST:PORT or unix:///path/of/socket",
        global = true,
        env = "IPAM_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8420",
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) server: Server,
    /// File with the token.
    #[arg(
        long,
        help = "File with the token to send; without it, IPAM_TOKEN is sent, if set",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates of the CAs that may vouch for the service.
    #[arg(
        long,
        help = "CA certificates (PEM) to verify an https service by, instead of the system's",
        global = true,
        env = "IPAM_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate to show to the service.
    #[arg(
        long,
        help = "Client certificate (PEM) to show to an https service; with --key-file",
        global = true,
        env = "IPAM_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(
        long,
        help = "Private key (PEM) of the client certificate",
        global = true,
        env = "IPAM_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// How to print: table, wide (a table with more columns), json, yaml
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value_t = Format::Table,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Address spaces
    #[command(subcommand)]
    Vnet(VnetCommand),
    /// Layer-2 segments of a VNet
    #[command(subcommand)]
    Subnet(SubnetCommand),
    /// Ranges kept out of planning
    #[command(subcommand)]
    Reservation(ReservationCommand),
    /// Classes of nodes and the blocks reserved for them
    #[command(subcommand)]
    Pool(PoolCommand),
    /// VMs that have claimed a block
    #[command(subcommand)]
    Node(NodeCommand),
    /// Addresses held by pods
    #[command(subcommand)]
    Allocation(AllocationCommand),
    /// Whether nodes would fit, without taking anything
    Plan(PlanArgs),
    /// Use of every subnet and pool
    Capacity(CapacityArgs),
    /// Single addresses
    #[command(subcommand)]
    Address(AddressCommand),
    /// Credentials of people, programs and nodes
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who changed what, when and from where
    #[command(subcommand)]
    Event(EventCommand),
    /// Whether the ledger is sound and agrees with what nodes last told
    Fsck(FsckArgs),
    /// What a restored backup leaves to do
    #[command(subcommand)]
    Recovery(RecoveryCommand),
}

impl Cli {
    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let context = Context::new(self.global);
        match self.command {
            Command::Vnet(command) => command.run(&context).await,
            Command::Subnet(command) => command.run(&context).await,
            Command::Reservation(command) => command.run(&context).await,
            Command::Pool(command) => command.run(&context).await,
            Command::Node(command) => command.run(&context).await,
            Command::Allocation(command) => command.run(&context).await,
            Command::Plan(args) => args.run(&context).await,
            Command::Capacity(args) => args.run(&context).await,
            Command::Address(command) => command.run(&context).await,
            Command::Token(command) => command.run(&context).await,
            Command::Event(command) => command.run(&context).await,
            Command::Fsck(args) => args.run(&context).await,
            Command::Recovery(command) => command.run(&context).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
