//! The admin CLI of the address service: plan capacity, size pools, register
//! nodes, look at addresses, give credentials.
//!
//! One file a noun: its arguments and what they do. Data goes to stdout,
//! messages to stderr, and the exit status says which of four ends it was.

mod address;
mod allocation;
mod arguments;
mod capacity;
mod cli;
mod context;
mod event;
mod failure;
mod fsck;
mod node;
mod output;
mod plan;
mod pool;
mod reservation;
mod subnet;
mod token;
mod vnet;

use clap::Parser;
use cli::Cli;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Other(format!("cannot start: {error}")).report(),
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
