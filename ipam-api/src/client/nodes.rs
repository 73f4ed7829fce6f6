use super::{Answer, Client, ClientError, Page, Write};
use crate::{
    names::NodeName,
    wire::{Listing, Node, NodeSpec},
};
use reqwest::Method;

/// What the caller knows of a node's VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum VmFate {
    /// Nothing: its pods may still answer.
    #[default]
    Unknown,
    /// It is gone for good, and its pods with it.
    Gone,
}

/// What became of a node's deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeDeletion {
    /// The node is gone and its block is back.
    Freed,
    /// The block waits for the node's confirmation; the node as it is now.
    Waiting(Box<Answer<Node>>),
}

impl Client {
    /// A page of the nodes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self, page: &Page) -> Result<Answer<Listing<Node>>, ClientError> {
        self.request(Method::GET, &["v1", "nodes"]).query(page.query()).answer().await
    }

    /// One node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node(&self, name: &NodeName) -> Result<Answer<Node>, ClientError> {
        self.request(Method::GET, &["v1", "nodes", name.as_str()]).answer().await
    }

    /// Registers a node: claims a block for it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_node(
        &self,
        name: &NodeName,
        spec: &NodeSpec,
        write: &Write,
    ) -> Result<Answer<Node>, ClientError> {
        self.request(Method::PUT, &["v1", "nodes", name.as_str()]).write(write).json(spec).answer().await
    }

    /// Deletes a node. An active one keeps its block until it confirms, unless its VM is gone.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_node(
        &self,
        name: &NodeName,
        fate: VmFate,
        write: &Write,
    ) -> Result<NodeDeletion, ClientError> {
        let gone = (fate == VmFate::Gone).then(|| ("vmGone", "true".to_owned()));
        let request = self.request(Method::DELETE, &["v1", "nodes", name.as_str()]).query(gone).write(write);
        let server = self.server().to_string();
        let Answer { value: (), etag, status, body } = request.send().await?;
        if status == 204 || body.is_empty() && status != 202 {
            return Ok(NodeDeletion::Freed);
        }
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(NodeDeletion::Waiting(Box::new(Answer { value, etag, status, body }))),
            Err(error) => Err(ClientError::Unexpected {
                server,
                status,
                reason: error.to_string(),
                excerpt: String::new(),
            }),
        }
    }
}
