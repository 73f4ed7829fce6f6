//! Attaching and detaching by hand, as a runtime does.

use super::Settings;
use crate::{
    attach::{self, Word},
    cni::{CniArgs, CniError, Invocation, NetConf},
    journal::Uptime,
};
use clap::Args;
use ipam_api::names::{ContainerId, IfName, NetworkName};
use std::{io::Write, path::PathBuf};

/// Which interface of which container.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The container's id, as its runtime would give it
    #[arg(long, value_name = "ID")]
    container_id: ContainerId,
    /// Name of the interface in it
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    if_name: IfName,
    /// The network's name, where no --config says it
    #[arg(long, value_name = "NAME", default_value = "vnet")]
    network: NetworkName,
    #[command(flatten)]
    settings: Settings,
}

impl Target {
    fn read(&self, netns: Option<PathBuf>) -> Result<(Invocation, NetConf), String> {
        let conf = self.settings.source(&self.network)?.conf().map_err(|error| error.to_string())?;
        // The agent looks for it later, from another directory.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let netns = netns.map(absolute).transpose()?;
        let (container_id, if_name) = (self.container_id.clone(), self.if_name.clone());
        Ok((Invocation { container_id, if_name, netns, args: CniArgs::default() }, conf))
    }
}

/// `cni-shim attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArguments {
    /// The container's network namespace: /run/netns/NAME, /proc/PID/ns/net
    #[arg(long, value_name = "PATH")]
    netns: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// `cni-shim detach`.
#[derive(Debug, Args)]
pub(super) struct DetachArguments {
    /// The container's network namespace, where it is still there
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// ADD; prints its result.
pub(super) fn attach(arguments: &AttachArguments) -> Result<(), String> {
    let since = Uptime::now();
    let (invocation, conf) = arguments.target.read(Some(arguments.netns.clone()))?;
    let said = |error: CniError| error.to_string();
    conf.node.check_access().map_err(said)?;
    let word = if arguments.target.settings.names_file() { Word::Configured } else { Word::AsBefore };
    let added = attach::add(&invocation, &conf, since, word).map_err(said)?;
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{:#}", added.result.to_json(conf.version)).and_then(|()| out.flush());
    added.announce();
    printed.map_err(|error| error.to_string())
}

/// DEL: success where nothing is left to do.
pub(super) fn detach(arguments: &DetachArguments) -> Result<(), String> {
    let (invocation, conf) = arguments.target.read(arguments.netns.clone())?;
    attach::del(&invocation, &conf).map_err(|error| error.to_string())
}
