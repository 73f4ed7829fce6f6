//! `cni-shim` by hand: what a person or a unit file runs on a node.

mod attachment;
mod credential;
mod install;
mod settings;
mod status;

use crate::{
    agent,
    attach::{self, NodeContext},
    cni::netconf::{LogLevel, NetConf, NodeConf},
    fault::{self, Point},
    install::{Upkeep, When},
    journal::Outcome,
    log,
    service::{Patience, Service},
    tally,
    wiring::{
        Host, announce,
        conntrack::{Forgetting, Led},
        uplink,
    },
};
use attachment::{AttachArguments, DetachArguments};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use install::{InstallArguments, Placement, UninstallArguments};
use serde::Serialize;
use settings::Settings;
use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// The CNI plugin of the VNet's address service. A container runtime starts it
/// with `CNI_COMMAND` in the environment; the commands here are for people.
#[derive(Debug, Parser)]
#[command(name = "cni-shim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const INSTALL_EXAMPLES: &str = "Examples:
  cni-shim install --config /etc/cni-shim/vnet.json
  cni-shim install --server https://10.240.0.4:8420 --ca-file /etc/cni-shim/ca.pem \\
      --token-file /var/lib/cni-shim/token --pool workers
  cni-shim install --config /etc/cni-shim/vnet.conflist --plugin-dir /usr/lib/cni   # with Debian's portmap";

const UNINSTALL_EXAMPLES: &str = "Examples:
  systemctl stop cni-shim; cni-shim uninstall
  cni-shim uninstall --config /etc/cni-shim/vnet.json   # where that names other directories";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the service of every attachment, and hear what became of this node.
    ///
    /// Takes up a new claim, sends what it has not heard of, confirms a deletion once
    /// no pod is left, and rebuilds a lost journal from the host first.
    Sync(Settings),
    /// Get this node a token of its own, by a join token of its pool.
    ///
    /// The node makes the token and keeps it in tokenFile, with .new behind its name until the
    /// service has it: asking again after a lost answer loses nothing.
    Join(JoinArguments),
    /// Get this node another token by the one it has, which ends within the hour.
    Rotate(Settings),
    /// Put the plugin and its network configuration on this node, and set the node up for pods.
    ///
    /// In this order: the binary; the node's claim, which a node that the service does not know gets by registering in
    /// --pool; sysctls, rules and neighbour tables; the configuration, which tells the runtime that pods can be started.
    /// Plugins chained behind ours in a configuration that is there are kept. What is changed is written down first, for
    /// uninstall. Running it again goes on where it ended, puts a newer binary in place under running pods, and takes back
    /// files that others changed since.
    #[command(after_help = INSTALL_EXAMPLES)]
    Install(InstallArguments),
    /// Leave this node as install found it.
    ///
    /// The network configuration goes first, then the binary, the nftables table, and whatever sysctl still has the value
    /// that we set gets the one that it had. Files and values that others changed since stay as they are. The claim and
    /// the node's token stay: the service knows the node by them until it is deleted.
    #[command(after_help = UNINSTALL_EXAMPLES)]
    Uninstall(UninstallArguments),
    /// Stay on this node and keep what is wired as it was made; speak with the service.
    ///
    /// Comes to a claim first, and installs again what install has put on this node, but for files that somebody has
    /// changed since. Puts back routes, neighbours, sysctls and rules that others took away, ends answers for addresses that no pod has, and syncs what the service has
    /// not heard of. Sweeps what pods left whose end the runtime did not tell, and keeps addresses from pods that other
    /// machines answer for. Serves /livez and /metrics on loopback.
    Agent(AgentArguments),
    /// Give a container that no runtime attaches an address and an interface, and print the result.
    ///
    /// The same as a runtime's ADD: a second one for the same interface fails and harms nothing.
    Attach(AttachArguments),
    /// Take them away again; success where there is nothing.
    Detach(DetachArguments),
    /// Show this node's claim and its attachments, from its own files, and what of its kernel is in their way.
    Status(Settings),
    /// Tell the segment that addresses are here now: what ADD leaves to a process of its own.
    #[command(hide = true)]
    Announce {
        /// The interface to the VNet
        #[arg(long, value_name = "INTERFACE")]
        uplink: String,
        /// The addresses
        addresses: Vec<IpAddr>,
    },
    /// Have the kernel forget connections: what ADD and DEL leave to a process of its own.
    #[command(hide = true)]
    Forget {
        /// A pod that is gone
        #[arg(long = "pod", value_name = "ADDRESS")]
        pods: Vec<IpAddr>,
        /// A UDP port that leads to a pod from now on
        #[arg(long, value_name = "PORT[@ADDRESS]=POD")]
        udp: Vec<Led>,
    },
}

#[derive(Debug, Args)]
struct JoinArguments {
    /// The file with the join token, which an admin makes: ipamctl token create --role join
    #[arg(long, value_name = "FILE")]
    join_token_file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct AgentArguments {
    /// Install the plugin and its configuration, as install does, although that has not run on this node
    #[arg(long)]
    install: bool,
    #[command(flatten)]
    placement: Placement,
    /// Where /livez and /metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8421")]
    listen: SocketAddr,
    /// Longest pause between two rounds; what the kernel tells of is seen to at once
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// How long something must look like the rest of a pod, with nobody to end it, before it is swept
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    leak_grace: u64,
    /// How often machines that answer for addresses of the block are asked again; silent twice, they are gone
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    ask_again: u64,
    #[command(flatten)]
    settings: Settings,
}

/// How output looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the command of the command line. Exit status: 0 done, 1 failed, 2 wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let Some(command) = arguments.command else {
        // What runtimes' plugins do when somebody runs them without a verb.
        let about = Arguments::command().render_help();
        let _ = writeln!(
            std::io::stderr(),
            "cni-shim is a CNI plugin; it speaks versions {}.\n\n{about}",
            crate::cni::SpecVersion::ALL.map(crate::cni::SpecVersion::as_str).join(", ")
        );
        return ExitCode::SUCCESS;
    };
    log::open(None, LogLevel::Warn, "cni-shim");
    let done = match command {
        Command::Sync(settings) => sync(&settings),
        Command::Join(arguments) => credential::join(&arguments),
        Command::Rotate(settings) => credential::rotate(&settings),
        Command::Install(arguments) => install::install(&arguments),
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        Command::Agent(arguments) => stay(&arguments),
        Command::Attach(arguments) => attachment::attach(&arguments),
        Command::Detach(arguments) => attachment::detach(&arguments),
        Command::Announce { uplink, addresses } => announce(&uplink, &addresses),
        Command::Forget { pods, udp } => {
            fault::at(Point::ForgetBeforeLooking);
            Forgetting { pods, udp, ..Forgetting::default() }.forget();
            Ok(())
        }
        Command::Status(settings) => settings.read().and_then(|conf| status::status(&conf, settings.output)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cni-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sync(settings: &Settings) -> Result<(), String> {
    let conf = settings.read_to_call()?;
    let mut host = Host::open().map_err(|error| error.to_string())?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)
        .map_err(|error| error.to_string())?;
    // Nobody's pod waits for this one.
    let patient = conf.node.timeout.max(Duration::from_secs(10));
    let service = Service::of(&conf.node, Patience::Insist).within(patient);
    let summary = attach::sync(&context, &service);
    tally::count(&conf.node.state_dir, None);
    let summary = summary.map_err(|error| error.to_string())?;
    let refused = summary.refused.len();
    show(settings.output, &summary, || {
        let mut text = match summary.outcome {
            Outcome::Synced => format!("node {} is in step with the service", summary.node),
            Outcome::Deleting => format!("node {} is being deleted and still has pods", summary.node),
            Outcome::Ended => format!("node {} is deleted and its block given back", summary.node),
        };
        if summary.adopted {
            text += "\na new claim was taken over";
        }
        if let Some(rebuilt) = summary.rebuilt {
            text += &format!("\nthe journal was lost and rebuilt from the host: {rebuilt} attachments");
        }
        if let (Some(claim), Some(boot)) = (summary.claim, summary.boot) {
            text += &format!("\nclaim {claim}, boot {boot}");
        }
        text += &format!(
            "\n{} live, {} given back, {} newly acknowledged",
            summary.live, summary.released, summary.acknowledged
        );
        for refusal in &summary.refused {
            text += &format!("\nrefused: {} of {}: {}", refusal.address, refusal.attachment, refusal.reason);
        }
        text
    })?;
    if refused > 0 {
        return Err(format!("the service refuses {refused} entries"));
    }
    Ok(())
}

fn stay(arguments: &AgentArguments) -> Result<(), String> {
    let conf = arguments.settings.read_to_call()?;
    let Some(mut network) = conf.network else {
        return Err("the agent keeps what a network configuration says: give --config FILE".to_owned());
    };
    (network.node, network.uplink) = (conf.node, conf.uplink);
    let when = if arguments.install { When::Asked } else { When::AsBefore };
    let upkeep = Upkeep::of(arguments.placement.installation(&arguments.settings)?, when);
    let AgentArguments { listen, every, leak_grace, ask_again, .. } = arguments;
    let seconds = |number: &u64| Duration::from_secs(*number);
    let pace = agent::Pace { every: seconds(every), grace: seconds(leak_grace), again: seconds(ask_again) };
    agent::run(&network, *listen, pace, upkeep)
}

fn announce(uplink: &str, addresses: &[IpAddr]) -> Result<(), String> {
    let uplink = Host::open().and_then(|mut host| uplink::find(&mut host, Some(uplink)));
    let warnings = announce::announce(&uplink.map_err(|error| error.to_string())?, addresses);
    if warnings.is_empty() { Ok(()) } else { Err(warnings.join("; ")) }
}

/// What both commands know of the node.
#[derive(Debug)]
struct Conf {
    node: NodeConf,
    uplink: Option<String>,
    /// The whole configuration, where a file says it.
    network: Option<NetConf>,
}

fn show<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<(), String> {
    let text = match format {
        Format::Table => text(),
        Format::Json => serde_json::to_string_pretty(value).map_err(|error| error.to_string())?,
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}
