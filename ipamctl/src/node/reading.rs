//! What a node was when it was looked at: what ends pods' addresses is done to that one alone.

use crate::{
    arguments::DryRun,
    failure::Failure,
    output::{joined, optional, range, word},
};
use ipam_api::{
    client::{Answer, Client, ClientError, Precondition, Write},
    names::NodeName,
    wire::{Node, ProblemType},
};

/// A word for something about a node, and what it is.
type Field = (&'static str, fn(&Node) -> String);

/// What somebody may change about a node, and which VM it is of.
const FIELDS: &[Field] = &[
    ("state", |node| word(&node.state)),
    ("claim", |node| node.claim.to_string()),
    ("pool", |node| node.pool.to_string()),
    ("address", |node| joined(&node.addresses)),
    ("block", |node| joined(node.block.ranges.iter().map(range))),
    ("UID", |node| optional(node.uid.as_ref())),
    ("MAC", |node| optional(node.mac.as_ref())),
];

/// A name and what was registered by it.
pub(super) struct Reading<'a> {
    name: &'a NodeName,
    found: Option<Answer<Node>>,
}

impl<'a> Reading<'a> {
    /// Looks.
    pub(super) async fn of(client: &Client, name: &'a NodeName) -> Result<Self, ClientError> {
        match client.node(name).await {
            Ok(node) => Ok(Self { name, found: Some(node) }),
            Err(error) if error.kind() == Some(ProblemType::NotFound) => Ok(Self { name, found: None }),
            Err(error) => Err(error),
        }
    }

    /// What was looked at before.
    pub(super) fn that_is(name: &'a NodeName, found: Answer<Node>) -> Self {
        Self { name, found: Some(found) }
    }

    /// How a change is asked for that is about what was found.
    pub(super) fn write(&self, dry_run: &DryRun) -> Write {
        let precondition = match &self.found {
            Some(node) => node.etag.clone().map_or(Precondition::None, Precondition::Unchanged),
            None => Precondition::Absent,
        };
        Write { precondition, ..dry_run.write() }
    }

    /// The failure of such a change: where it is another by now, what it was and what it is.
    pub(super) async fn failure(&self, client: &Client, error: ClientError) -> Failure {
        if error.kind() != Some(ProblemType::PreconditionFailed) {
            return error.into();
        }
        let now = match Self::of(client, self.name).await {
            Ok(now) => now,
            Err(_) => return error.into(),
        };
        let name = self.name;
        Failure::Other(format!(
            "node {name} is not what it was a moment ago, and nothing was done: {}: look at it \
             (ipamctl node show {name}), and ask again if it is still right",
            self.difference(&now)
        ))
    }

    fn difference(&self, now: &Self) -> String {
        match (&self.found, &now.found) {
            (None, Some(_)) => "somebody has registered it".to_owned(),
            (_, None) => "it is gone".to_owned(),
            (Some(before), Some(now)) => {
                let both = FIELDS.iter().map(|(field, of)| (field, of(&before.value), of(&now.value)));
                let changed = both.filter(|(_, before, now)| before != now);
                let words: Vec<String> = changed
                    .map(|(field, before, now)| format!("{field} was {before} and is {now}"))
                    .collect();
                if words.is_empty() { "somebody wrote to it".to_owned() } else { words.join("; ") }
            }
        }
    }
}
