use std::{io, net::IpAddr, path::PathBuf};

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error(
        "{path} cannot be read: {why}; delete stateDir's header.json (and dataDir's claim.json, if it is that) and \
         run `cni-shim sync`: they are made again from the host and the service",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What was written down of the node's own state is not what this program writes.
    #[error(
        "{path} cannot be read: {why}; it says what the node was like before: put that back by hand, delete the file \
         and run this again",
        path = path.display()
    )]
    CorruptUndo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file is named as one address and holds the entry of another.
    #[error(
        "{path} holds the entry of {address}: delete it if {address} has a file of its own there, else give it that \
         name",
        path = path.display()
    )]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The address of its entry.
        address: IpAddr,
    },
    /// The claim belongs to another node name.
    #[error("{path} is node {theirs}'s, not {ours}'s: every network of a node must name the same node", path = path.display())]
    OtherNode {
        /// The claim file.
        path: PathBuf,
        /// Whom it names.
        theirs: String,
        /// Whom the configuration names.
        ours: String,
    },
    /// Two configurations of one node have different directories.
    #[error(
        "this node's journal is in {theirs} (stateDir) with {data} (dataDir): write the same two in every network \
         configuration of the node",
        theirs = theirs.display(),
        data = data.display()
    )]
    OtherDirectories {
        /// The `stateDir` in use.
        theirs: PathBuf,
        /// The `dataDir` in use.
        data: PathBuf,
    },
    /// An address that should have been free has a live entry.
    #[error("{address} has a live entry already")]
    Taken {
        /// The address.
        address: IpAddr,
    },
    /// What the service says of the node makes no sense.
    #[error("the service's answer for this node cannot be used: {0}")]
    Node(String),
    /// What the service says to a sync is no answer to what was sent.
    #[error("the service answered a sync {0}")]
    Answer(String),
}

impl JournalError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
