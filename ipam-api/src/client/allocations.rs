use super::{Answer, Client, ClientError, Page};
use crate::{
    names::{Attachment, NetworkName, NodeName},
    wire::{Allocation, AllocationSpec, Listing, NodeStamp, SyncAnswer, SyncRequest},
};
use reqwest::Method;
use std::net::IpAddr;

/// Which allocations a list has; what is absent does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationFilter {
    /// Of this node.
    pub node: Option<NodeName>,
    /// Of this CNI network.
    pub network: Option<NetworkName>,
    /// Of pods of this namespace.
    pub namespace: Option<String>,
    /// Of pods of this name.
    pub pod: Option<String>,
    /// Of this address.
    pub address: Option<IpAddr>,
}

impl AllocationFilter {
    fn query(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("node", self.node.as_ref().map(ToString::to_string)),
            ("network", self.network.as_ref().map(ToString::to_string)),
            ("namespace", self.namespace.clone()),
            ("pod", self.pod.clone()),
            ("address", self.address.map(|address| address.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

fn segments<'a>(node: &'a NodeName, attachment: &'a Attachment) -> [&'a str; 6] {
    let Attachment { container_id, if_name, .. } = attachment;
    ["v1", "nodes", node.as_str(), "allocations", container_id.as_str(), if_name.as_str()]
}

fn network(attachment: &Attachment) -> [(&'static str, String); 1] {
    [("network", attachment.network.to_string())]
}

impl Client {
    /// A page of all allocations.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn allocations(
        &self,
        filter: &AllocationFilter,
        page: &Page,
    ) -> Result<Answer<Listing<Allocation>>, ClientError> {
        let request = self.request(Method::GET, &["v1", "allocations"]);
        request.query(filter.query()).query(page.query()).answer().await
    }

    /// A page of a node's allocations.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node_allocations(
        &self,
        node: &NodeName,
        page: &Page,
    ) -> Result<Answer<Listing<Allocation>>, ClientError> {
        let request = self.request(Method::GET, &["v1", "nodes", node.as_str(), "allocations"]);
        request.query(page.query()).answer().await
    }

    /// One allocation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn allocation(
        &self,
        node: &NodeName,
        attachment: &Attachment,
    ) -> Result<Answer<Allocation>, ClientError> {
        self.request(Method::GET, &segments(node, attachment)).query(network(attachment)).answer().await
    }

    /// Records an address of a node's block as held by an attachment. `stamp`
    /// goes with `allocator: node` only; without an address the service picks
    /// one, with `allocator: service` only.
    ///
    /// # Errors
    /// See [`ClientError`] and [`ClientError::refusal`].
    pub async fn put_allocation(
        &self,
        node: &NodeName,
        attachment: &Attachment,
        stamp: Option<&NodeStamp>,
        spec: &AllocationSpec,
    ) -> Result<Answer<Allocation>, ClientError> {
        let request = self.request(Method::PUT, &segments(node, attachment)).query(network(attachment));
        request.stamp(stamp).json(spec).answer().await
    }

    /// Gives an address back. A node (`stamp`) names the address.
    ///
    /// # Errors
    /// See [`ClientError`] and [`ClientError::refusal`].
    pub async fn delete_allocation(
        &self,
        node: &NodeName,
        attachment: &Attachment,
        stamp: Option<&NodeStamp>,
        address: Option<IpAddr>,
    ) -> Result<Answer<()>, ClientError> {
        let address = address.map(|address| ("address", address.to_string()));
        let request = self.request(Method::DELETE, &segments(node, attachment));
        request.query(network(attachment)).query(address).stamp(stamp).send().await
    }

    /// Sends a node's whole journal.
    ///
    /// # Errors
    /// See [`ClientError`] and [`ClientError::refusal`].
    pub async fn sync(
        &self,
        node: &NodeName,
        stamp: &NodeStamp,
        journal: &SyncRequest,
    ) -> Result<Answer<SyncAnswer>, ClientError> {
        let request = self.request(Method::PUT, &["v1", "nodes", node.as_str(), "allocations"]);
        request.stamp(Some(stamp)).json(journal).answer().await
    }
}
