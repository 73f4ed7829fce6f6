//! Installing and uninstalling by hand.

use super::{Settings, show};
use crate::install::{self, BIN_DIR, CONF_DIR, Installation, Installed, Places, Pods, Removed, Unclaimed};
use clap::Args;
use ipam_api::names::{NetworkName, PoolName};
use std::path::PathBuf;

/// What is installed, and where.
#[derive(Debug, Args)]
pub(super) struct Placement {
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "DIRECTORY", default_value = BIN_DIR)]
    bin_dir: PathBuf,
    /// Where else it looks for plugins that the list names; may be given several times
    #[arg(long, value_name = "DIRECTORY")]
    plugin_dir: Vec<PathBuf>,
    /// Where the runtime looks for network configurations
    #[arg(long, value_name = "DIRECTORY", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// The network's name, where no --config says it
    #[arg(long, value_name = "NAME", default_value = "vnet")]
    network: NetworkName,
    /// The pool in which a node that the service does not know registers itself
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
}

impl Placement {
    fn places(&self) -> Result<Places, String> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Places {
            bin_dir: absolute(&self.bin_dir)?,
            plugin_dirs: self.plugin_dir.iter().map(absolute).collect::<Result<_, _>>()?,
            conf_dir: absolute(&self.conf_dir)?,
        })
    }

    /// What these and the settings say.
    pub(super) fn installation(&self, settings: &Settings) -> Result<Installation, String> {
        let mut source = settings.source(&self.network)?;
        if let Some(pool) = &self.pool {
            source.set("pool", pool.as_str());
        }
        let conf = source.conf().map_err(|error| error.to_string())?;
        conf.node.check_access().map_err(|error| error.to_string())?;
        Ok(Installation { source, conf, places: self.places()? })
    }
}

/// `cni-shim install`.
#[derive(Debug, Args)]
pub(super) struct InstallArguments {
    #[command(flatten)]
    placement: Placement,
    /// Put the network configuration in place although the node has no claim yet: the runtime takes it for ready then
    #[arg(long)]
    before_claim: bool,
    #[command(flatten)]
    settings: Settings,
}

/// `cni-shim uninstall`.
#[derive(Debug, Args)]
pub(super) struct UninstallArguments {
    /// Take everything away under pods that run: they lose their network
    #[arg(long)]
    despite_running_pods: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn install(arguments: &InstallArguments) -> Result<(), String> {
    let InstallArguments { placement, before_claim, settings } = arguments;
    let unclaimed = if *before_claim { Unclaimed::Installs } else { Unclaimed::Waits };
    let installed =
        placement.installation(settings)?.install(unclaimed).map_err(|error| error.to_string())?;
    show(settings.output, &installed, || told(&installed))
}

fn told(installed: &Installed) -> String {
    let Installed { binary, configuration, versions, changed, warnings } = installed;
    let mut lines = vec![format!(
        "{} and {} are in place, for versions {}",
        binary.display(),
        configuration.display(),
        versions.join(" and ")
    )];
    lines.extend(changed.iter().cloned());
    lines.extend(warnings.iter().map(|words| format!("warning: {words}")));
    lines.join("\n")
}

pub(super) fn uninstall(arguments: &UninstallArguments) -> Result<(), String> {
    let UninstallArguments { despite_running_pods, settings } = arguments;
    let conf = settings.read()?;
    let pods = if *despite_running_pods { Pods::Abandon } else { Pods::Keep };
    let removed =
        install::uninstall(&conf.node, conf.uplink.as_deref(), pods).map_err(|error| error.to_string())?;
    show(settings.output, &removed, || {
        let Removed { done, left } = &removed;
        if done.is_empty() && left.is_empty() {
            return "nothing of ours is on this node".to_owned();
        }
        done.iter().chain(left).cloned().collect::<Vec<_>>().join("\n")
    })
}
