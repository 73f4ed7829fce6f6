//! This node's own token: made here, kept by the service, changed without a gap.

use super::{Conf, JoinArguments, Settings, show};
use crate::{
    cni::netconf::{AccessFiles, NodeConf},
    journal::Journal,
    service::{Heard, Marker, Patience, Service},
};
use ipam_api::{
    names::{NodeName, TokenId},
    token::Secret,
    wire::{ProblemType, Role},
};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Nobody's pod waits for this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it; never the token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    node: NodeName,
    /// The token's id.
    token: TokenId,
    token_file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// The first token, by a join token.
pub(super) fn join(arguments: &JoinArguments) -> Result<(), String> {
    let conf = arguments.settings.read_to_call()?;
    let files = Files::of(&conf)?;
    if files.current.exists() {
        return Err(format!(
            "{} is there already: this node has joined; `cni-shim rotate` gets it another token, and if this one \
             counts no more, remove the file and join anew",
            files.current.display()
        ));
    }
    let shown = &arguments.join_token_file;
    File::open(shown).map_err(|error| {
        format!("cannot read the join token in {}: {error}: check --join-token-file", shown.display())
    })?;
    // Whoever gave the join token wants the node, whether or not it was deleted before. First, for once there is a token
    // none is joined with any more.
    let journal = Journal::at(&conf.node.state_dir, &conf.node.data_dir);
    match journal.ended(&conf.node.name) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => journal.lock().and_then(|mut locked| locked.forget_end()),
        Err(error) => Err(error),
    }
    .map_err(|error| error.to_string())?;
    swap(&arguments.settings, &conf, &files, shown)
}

/// Another token, by the one that there is.
pub(super) fn rotate(settings: &Settings) -> Result<(), String> {
    let conf = settings.read_to_call()?;
    let files = Files::of(&conf)?;
    File::open(&files.current).map_err(|error| {
        format!(
            "cannot read this node's token in {}: {error}: a node that has none gets its first by `cni-shim join`",
            files.current.display()
        )
    })?;
    swap(settings, &conf, &files, &files.current)
}

/// Makes a token, or takes up one whose answer was lost, and has the service keep it.
fn swap(settings: &Settings, conf: &Conf, files: &Files, shown: &Path) -> Result<(), String> {
    let made = files.made()?;
    let secret = made.secret();
    let mut heard = service(&conf.node, shown).keep_credential(secret);
    // What was shown may have ended since the answer was lost. If the service kept the new token then,
    // that one speaks for itself.
    if let (Made::Before(_), true) = (&made, is_unauthenticated(&heard)) {
        let again = service(&conf.node, &files.new).keep_credential(secret);
        if matches!(again, Heard::Done(_)) {
            heard = again;
        }
    }
    let new = files.new.display();
    let token = match heard {
        Heard::Done(token) => token,
        Heard::Refused(problem) | Heard::Unreachable { problem: Some(problem), .. } => {
            return Err(format!(
                "the service does not take the new token, which waits in {new}: {}",
                problem.detail
            ));
        }
        Heard::Unreachable { reason, problem: None } => {
            return Err(format!("{reason}; the new token waits in {new}: run this again"));
        }
    };
    files.take_over(secret)?;
    // What failed for want of this token need not be waited for any longer.
    Marker::of(&conf.node.state_dir).clear();
    let summary = Summary {
        node: conf.node.name.clone(),
        token: token.id,
        token_file: files.current.clone(),
        expires_at: token.expires_at,
    };
    show(settings.output, &summary, || {
        let until = summary.expires_at.map_or_else(|| "it is revoked".to_owned(), |at| format!("{at:.0}"));
        format!(
            "node {} has token {} in {}; it counts until {until}",
            summary.node,
            summary.token,
            summary.token_file.display()
        )
    })
}

/// The service, to which the token in this file is shown.
fn service(conf: &NodeConf, token: &Path) -> Service {
    let access = AccessFiles { token: Some(token.to_owned()), ..conf.access.clone() };
    let conf = NodeConf { access, ..conf.clone() };
    Service::of(&conf, Patience::Insist).within(conf.timeout.max(PATIENCE))
}

fn is_unauthenticated<T>(heard: &Heard<T>) -> bool {
    matches!(heard, Heard::Unreachable { problem: Some(problem), .. } if problem.kind == ProblemType::Unauthenticated)
}

/// Where the node's token is.
struct Files {
    /// The one that counts.
    current: PathBuf,
    /// The one that the service may not have heard of.
    new: PathBuf,
}

/// A token in [`Files::new`].
enum Made {
    Now(Secret),
    /// By a run that did not hear the end: the service may have it.
    Before(Secret),
}

impl Made {
    fn secret(&self) -> &Secret {
        match self {
            Self::Now(secret) | Self::Before(secret) => secret,
        }
    }
}

impl Files {
    fn of(conf: &Conf) -> Result<Self, String> {
        let Some(current) = &conf.node.access.token else {
            return Err(
                "no tokenFile: name it in the network configuration, or give --token-file FILE".to_owned()
            );
        };
        Ok(Self { new: beside(current, ".new"), current: current.clone() })
    }

    /// The new token: on disk before anybody hears of it.
    fn made(&self) -> Result<Made, String> {
        let failed = |error: &io::Error| {
            format!(
                "cannot write {}: {error}: its directory has to be there and writable",
                self.new.display()
            )
        };
        if let Some(secret) = self.read_new()? {
            return Ok(Made::Before(secret));
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| format!("the kernel gives no randomness: {error}"))?;
        let secret = Secret::new(Role::Node, random);
        if let Some(parent) = self.new.parent().filter(|parent| !parent.exists()) {
            // A node that has just been made has no directory for it yet.
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| failed(&error))?;
        }
        // Whole or not at all, and one of those who try at the same time.
        let draft = beside(&self.new, &format!(".{}", std::process::id()));
        write(&draft, secret.expose()).map_err(|error| failed(&error))?;
        let linked = fs::hard_link(&draft, &self.new);
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => sync_parent(&self.new).map(|()| Made::Now(secret)).map_err(|error| failed(&error)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match self.read_new()? {
                Some(secret) => Ok(Made::Before(secret)),
                None => Err(failed(&error)),
            },
            Err(error) => Err(failed(&error)),
        }
    }

    fn read_new(&self) -> Result<Option<Secret>, String> {
        let shown = self.new.display();
        let text = match fs::read(&self.new) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {shown}: {error}")),
        };
        let secret = String::from_utf8_lossy(&text).trim().parse().ok();
        match secret.filter(|secret: &Secret| secret.role() == Role::Node) {
            Some(secret) => Ok(Some(secret)),
            None => Err(format!("{shown} holds no node's token: remove it, and run this again")),
        }
    }

    /// The new token is the one that counts.
    fn take_over(&self, secret: &Secret) -> Result<(), String> {
        let renamed = fs::rename(&self.new, &self.current).and_then(|()| sync_parent(&self.current));
        renamed
            .or_else(|error| {
                let there =
                    fs::read_to_string(&self.current).is_ok_and(|text| text.trim() == secret.expose());
                // Another run with the same token was faster.
                if error.kind() == ErrorKind::NotFound && there { Ok(()) } else { Err(error) }
            })
            .map_err(|error| {
                format!(
                    "the service has the new token, but {} cannot become {}: {error}: run this again",
                    self.new.display(),
                    self.current.display()
                )
            })
    }
}

/// The path with more behind its name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn write(path: &Path, secret: &str) -> io::Result<()> {
    // Left by one that was killed and had the same number.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
