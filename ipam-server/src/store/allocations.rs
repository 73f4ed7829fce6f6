use super::{Page, Result, Store, Written};
use ipam_api::{
    names::{Attachment, NetworkName, NodeName},
    wire::{Allocation, AllocationSpec, Listing, NodeStamp},
};
use std::net::IpAddr;

/// A request of the node plane: for which node, and with which stamp where its shim sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCall {
    /// The node in the path.
    pub node: NodeName,
    /// Its `Ipam-Node` header; absent for `allocator: service`.
    pub stamp: Option<NodeStamp>,
}

/// Which allocations a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationFilter {
    /// Only those of this node.
    pub node: Option<NodeName>,
    /// Only those of this network.
    pub network: Option<NetworkName>,
    /// Only those of pods of this name.
    pub pod: Option<String>,
    /// Only those of pods of this namespace.
    pub namespace: Option<String>,
    /// Only the one that holds this address.
    pub address: Option<IpAddr>,
}

impl Store {
    /// Records that an attachment holds an address, or picks one for it (`allocator: service`).
    pub async fn allocate(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        spec: &AllocationSpec,
    ) -> Result<Written<Allocation>> {
        todo!()
    }
    /// Records that an attachment has given its address back; nothing to do is success.
    pub async fn release(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        address: Option<IpAddr>,
    ) -> Result<()> {
        todo!()
    }
    /// The allocation of an attachment: held, else the last released one.
    pub async fn allocation(&self, node: &NodeName, attachment: &Attachment) -> Result<Allocation> {
        todo!()
    }
    /// Held allocations by address.
    pub async fn allocations(&self, filter: &AllocationFilter, page: &Page) -> Result<Listing<Allocation>> {
        todo!()
    }
}
