mod leave;
mod row;

pub(super) use leave::free_node;

use super::{Change, Departure, Page, Result, Store, Versioned, VmState, Written};
use ipam_api::{
    names::{NodeName, PoolName},
    wire::{Listing, Node, NodeSpec},
};

/// Which nodes a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Only those of this pool.
    pub pool: Option<PoolName>,
}

impl Store {
    /// Registers a node: claims a block in the subnet of its address, or answers the claim it has.
    pub async fn put_node(
        &self,
        name: &NodeName,
        spec: &NodeSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Node>>> {
        todo!()
    }
    /// A node.
    pub async fn node(&self, name: &NodeName) -> Result<Versioned<Node>> {
        todo!()
    }
    /// Nodes by name.
    pub async fn nodes(&self, filter: &NodeFilter, page: &Page) -> Result<Listing<Node>> {
        todo!()
    }
    /// Ends a node's claim, now or when the node confirms that its block is empty (P6).
    pub async fn delete_node(
        &self,
        name: &NodeName,
        vm: VmState,
        change: &Change,
    ) -> Result<Departure<Node>> {
        todo!()
    }
}

/// A node as the API shows it.
pub(super) async fn node_view(
    tx: &mut super::db::Tx,
    name: &NodeName,
    now: jiff::Timestamp,
) -> Result<Option<Node>> {
    match row::find(tx, name).await? {
        Some(row) => Ok(Some(row::view(tx, &row, now.as_millisecond()).await?.value)),
        None => Ok(None),
    }
}
