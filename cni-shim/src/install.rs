//! What a node needs besides its claim so that its runtime starts pods with us, and taking it away again.
//!
//! The order is the runtime's: it takes a network configuration for "the network is ready" as soon as it sees one, so the
//! binary is there before it, and the claim as well. Whatever is changed is written down first, with what was found
//! (`dataDir/install.json`): [`uninstall()`] puts that back where nobody has changed it since.

mod chained;
mod conflist;
mod file;
mod uninstall;
mod upkeep;

pub use crate::journal::Places;
pub use conflist::{PLUGIN, Source};
pub use uninstall::{Pods, Removed, uninstall};
pub use upkeep::{Upkeep, When};

use crate::{
    attach::{self, NodeContext},
    cni::{CniError, NetConf, SpecVersion},
    fault::{self, Point},
    journal::{ClaimFile, Journal, JournalError},
    service::{Patience, Service},
    wiring::{
        Host, WiringError, forward_drop,
        neighbour_table::{self, Room},
        sysctl,
    },
};
use chained::Spoken;
use file::{Access, Edited, Placed};
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where runtimes look for plugins.
pub const BIN_DIR: &str = "/opt/cni/bin";
/// Where they look for network configurations.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Endings of what they take for one.
const READ: [&str; 3] = ["conf", "conflist", "json"];
/// Nobody's pod waits for an installation.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a node was not installed, or not left as it was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// What was found cannot be kept, so nothing is changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file or directory cannot be put in place or taken away.
    #[error("{path}: {source}: it has to be on a file system that can be written and has room", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link is where a file is to be, and nothing is behind it.
    #[error("{path} is a link that leads nowhere: remove it, or put a file where it leads", path = path.display())]
    LeadsNowhere {
        /// The link.
        path: PathBuf,
    },
    /// The network configuration is not valid.
    #[error("the network configuration is not valid: {0}")]
    Configuration(String),
    /// No pod could be wired on this node.
    #[error("the node cannot be set up for pods, so the runtime is not told of the plugin: {0}")]
    NotSetUp(String),
    /// A plugin of the list is not there.
    #[error(
        "the list names the plugin {plugin:?}, which is not in {looked}: put it there (Debian's plugins are in the \
         package containernetworking-plugins, in /usr/lib/cni), name the directory by --plugin-dir, or take it out of \
         the list"
    )]
    NoPlugin {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A plugin of the list does not say which versions it speaks.
    #[error("{path} does not say which versions it speaks: {why}: it may be no CNI plugin", path = path.display())]
    Mute {
        /// The plugin.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// The plugins of the list have no version in common.
    #[error("no version up to {most} is spoken by every plugin of the list: {chained}: take newer ones")]
    NoCommonVersion {
        /// The version asked for.
        most: SpecVersion,
        /// What the others speak.
        chained: String,
    },
    /// There is no claim, so the runtime is not told.
    #[error(
        "the binary is installed, and the network configuration waits for this node's claim, because runtimes start \
         pods as soon as they see one: {0}; run this again then, or now with --before-claim"
    )]
    NoClaim(CniError),
    /// The node cannot be set up.
    #[error("{0}")]
    Node(#[from] CniError),
    /// The kernel cannot be asked or told.
    #[error("{0}")]
    Wiring(#[from] WiringError),
    /// The node has pods.
    #[error(
        "pods of this node run, {count} of them, {first} for one: move them away first (kubectl drain), or say \
         --despite-running-pods: they lose their network then"
    )]
    PodsRun {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A pod is being attached, and that does not end.
    #[error(
        "a pod is being attached on this node and that does not come to its end: run this again, and if it goes on see \
         what an ADD of the plugin waits for (its log, `ps`)"
    )]
    PodStarts,
    /// The agent would make all of it again.
    #[error(
        "the agent runs on this node and would put everything back: stop it first (systemctl stop cni-shim)"
    )]
    AgentRuns,
}

/// What becomes of the network configuration on a node without a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// It waits: the node is not ready.
    Waits,
    /// It is put in place all the same: pods that are started fail until there is a claim.
    Installs,
}

/// An installation on one node.
#[derive(Debug)]
pub struct Installation {
    /// The network configuration to be put in place.
    pub source: Source,
    /// The same, as the plugin reads it.
    pub conf: NetConf,
    /// Where everything goes.
    pub places: Places,
}

/// What an installation did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// The plugin.
    pub binary: PathBuf,
    /// The network configuration.
    pub configuration: PathBuf,
    /// The versions it names, the first for every runtime.
    pub versions: Vec<&'static str>,
    /// What was changed, in words.
    pub changed: Vec<String>,
    /// What is in the way of pods, in words with the cure.
    pub warnings: Vec<String>,
}

impl Installation {
    /// Installs all of it: binary, claim, the node's settings, network configuration.
    ///
    /// # Errors
    /// The first of these that does not work; running it again goes on from there.
    pub fn install(&self, unclaimed: Unclaimed) -> Result<Installed, InstallError> {
        let journal = self.journal();
        let _turn = lock(&journal)?;
        self.begin(&journal)?;
        let mut changed = Vec::new();
        changed.extend(told(self.place_binary(&journal, Edited::TakenBack)?, &self.binary()));
        // Before anything else is asked of the node: what is wrong with the list is wrong whatever the service says.
        let list = self.list()?;
        let mut warnings = Vec::new();
        let service =
            Service::of(&self.conf.node, Patience::Insist).within(self.conf.node.timeout.max(PATIENCE));
        match attach::enrol(&self.conf, &service) {
            Ok(claim) => {
                let kept = attach::keep(&self.conf)?;
                kept.unprepared.map_or(Ok(()), |why| Err(InstallError::NotSetUp(why)))?;
                changed.extend(kept.mended.into_iter().map(|words| format!("set {words}")));
                changed.extend(kept.removed);
                warnings.extend(kept.broken);
                match enlarge_neighbour_table(&self.conf, &claim)? {
                    Room::Enough(set) => changed.extend(set.into_iter().map(|words| format!("set {words}"))),
                    Room::Elsewhere(words) => warnings.push(words),
                }
            }
            Err(error) if unclaimed == Unclaimed::Waits => return Err(InstallError::NoClaim(error)),
            Err(error) => warnings.push(format!("no pod can be started yet: {error}")),
        }
        warnings.extend(forward_drop::warnings()?);
        fault::at(Point::InstallAfterSetUp);
        changed.extend(told(place_list(&journal, &list, Edited::TakenBack)?, &list.path));
        warnings.extend(self.taken_before(&list.path));
        Ok(Installed {
            binary: self.binary(),
            configuration: list.path,
            versions: list.versions,
            changed,
            warnings,
        })
    }

    /// Writes down that the node is used from now on: nothing of a former uninstallation counts.
    fn begin(&self, journal: &Journal) -> Result<(), InstallError> {
        stay(journal)?;
        journal.change_undo(|undo| undo.places = Some(self.places.clone()))?;
        Ok(())
    }

    fn journal(&self) -> Journal {
        Journal::at(&self.conf.node.state_dir, &self.conf.node.data_dir)
    }

    fn binary(&self) -> PathBuf {
        self.places.bin_dir.join(PLUGIN)
    }

    /// Puts the running program where the runtime looks for it.
    fn place_binary(&self, journal: &Journal, edited: Edited) -> Result<Placed, InstallError> {
        let own = Path::new("/proc/self/exe");
        let content = fs::read(own).map_err(|source| InstallError::Write { path: own.to_owned(), source })?;
        file::place(journal, &self.binary(), &content, Access::Program, edited)
    }

    fn list(&self) -> Result<List, InstallError> {
        let (path, there) = self.there();
        let mut source = self.source.clone();
        if let Some(there) = there {
            source.keep_chained_of(&there);
        }
        let directories: Vec<PathBuf> =
            [&self.places.bin_dir].into_iter().chain(&self.places.plugin_dirs).cloned().collect();
        let chained: Result<Vec<Spoken>, _> =
            source.chained().iter().map(|plugin| Spoken::by(plugin, &directories)).collect();
        let versions = source.versions(&chained?)?;
        let named = [Some(versions.one), versions.newest].into_iter().flatten();
        Ok(List { path, text: source.text(&versions), versions: named.map(SpecVersion::as_str).collect() })
    }

    /// Where our network's configuration is, or goes, and what it says by now.
    fn there(&self) -> (PathBuf, Option<Source>) {
        let ours = configurations(&self.places.conf_dir).into_iter().find_map(|path| {
            let source = fs::read(&path).ok().and_then(|text| Source::read(&text).ok())?;
            let is_list = path.extension().is_some_and(|ending| ending == "conflist");
            (is_list && source.name() == self.conf.network.as_str()).then_some((path, source))
        });
        match ours {
            Some((path, source)) => (path, Some(source)),
            None => (self.places.conf_dir.join(format!("10-{}.conflist", self.conf.network)), None),
        }
    }

    /// Another configuration that runtimes take instead of ours.
    fn taken_before(&self, ours: &Path) -> Option<String> {
        let first = configurations(&self.places.conf_dir).into_iter().next().filter(|first| first != ours)?;
        Some(format!(
            "containerd and CRI-O take the first configuration by name, which is {}: remove it, or rename ours",
            first.display()
        ))
    }
}

/// A network configuration that can be put in place.
struct List {
    path: PathBuf,
    text: Vec<u8>,
    versions: Vec<&'static str>,
}

fn place_list(journal: &Journal, list: &List, edited: Edited) -> Result<Placed, InstallError> {
    file::place(journal, &list.path, &list.text, Access::Text, edited)
}

/// What was done to a file, in words; nothing where nothing was.
fn told(placed: Placed, path: &Path) -> Option<String> {
    (placed == Placed::Now).then(|| format!("installed {}", path.display()))
}

/// What is in the way of pods although everything of ours is in order, in words with the cure.
#[must_use]
pub fn warnings(claim: Option<&ClaimFile>) -> Vec<String> {
    let room = claim.and_then(|claim| claim.line().ok()).map(|line| neighbour_table::shortage(line.length()));
    let told = |error: WiringError| vec![format!("the kernel cannot be asked: {error}")];
    let mut warnings = forward_drop::warnings().unwrap_or_else(told);
    match room {
        Some(Ok(shortage)) => warnings.extend(shortage),
        Some(Err(error)) => warnings.extend(told(error)),
        None => {}
    }
    warnings
}

fn enlarge_neighbour_table(conf: &NetConf, claim: &ClaimFile) -> Result<Room, InstallError> {
    let mut host = Host::open()?;
    let context = NodeContext::open(&conf.node, conf.uplink.as_deref(), &mut host)?;
    Ok(neighbour_table::enlarge(claim.line()?.length(), &context.turn()?)?)
}

/// Ends what is left of an uninstallation that was killed, but for the files: they are looked at one by one.
fn stay(journal: &Journal) -> Result<(), InstallError> {
    if journal.undo()?.is_none_or(|undo| undo.going_back.is_empty()) {
        return Ok(());
    }
    let mut stayed = Ok(());
    journal.change_undo(|undo| stayed = undo.stay(sysctl::read))?;
    Ok(stayed?)
}

/// One installs or uninstalls at a time.
fn lock(journal: &Journal) -> Result<fs::File, InstallError> {
    let file = journal.lock_file("install.lock")?;
    let path = journal.state_dir().join("install.lock");
    file.lock().map_err(|source| InstallError::Write { path, source })?;
    Ok(file)
}

/// What runtimes take for network configurations, in their order.
fn configurations(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| READ.iter().any(|read| ending == *read)));
    paths.sort();
    paths
}
