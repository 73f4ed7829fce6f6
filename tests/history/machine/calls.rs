use super::{Process, Sent};
use crate::{history::Ask, link::Reply};
use ipam_api::{
    names::Attachment,
    wire::{Allocation, AllocationSpec, Node, NodeStamp, SyncAnswer, SyncOutcome, SyncRequest},
};
use std::net::IpAddr;

/// What a node's process asks the service.
impl Process<'_> {
    /// The node as the service knows it.
    pub(super) fn ask_node(&self) -> Reply<Node> {
        let name = &self.machine.name;
        let ask = Ask::Look(format!("nodes/{name}"));
        let tell = |node: &Node| format!("{:?} claim {} uid {:?}", node.state, node.claim, node.uid);
        self.link.call(ask, tell, async |client| client.node(name).await)
    }

    /// Has an address held.
    pub(super) fn ask_hold(
        &self,
        holder: &Attachment,
        stamp: &NodeStamp,
        address: IpAddr,
    ) -> Reply<Allocation> {
        let node = &self.machine.name;
        let ask = Ask::Hold {
            node: node.clone(),
            stamp: stamp.stamp,
            block: stamp.block,
            holder: holder.clone(),
            address,
        };
        let tell = |allocation: &Allocation| format!("{:?}", allocation.state);
        let spec = AllocationSpec { address: Some(address), pod: None };
        self.link
            .call(ask, tell, async |client| client.put_allocation(node, holder, Some(stamp), &spec).await)
    }

    /// Gives one back.
    pub(super) fn ask_release(&self, holder: &Attachment, stamp: &NodeStamp, address: IpAddr) -> Reply<()> {
        let node = &self.machine.name;
        let ask = Ask::Release { node: node.clone(), stamp: stamp.stamp, holder: holder.clone(), address };
        let request = async |client: &ipam_api::client::Client| {
            client.delete_allocation(node, holder, Some(stamp), Some(address)).await
        };
        self.link.call(ask, |()| String::new(), request)
    }

    /// Sends a whole journal.
    pub(super) fn ask_sync(&self, stamp: &NodeStamp, request: &SyncRequest) -> Reply<SyncAnswer> {
        let node = &self.machine.name;
        let ask = Ask::Sync {
            node: node.clone(),
            stamp: stamp.stamp,
            block: stamp.block,
            live: request.entries.iter().filter(|entry| entry.state.is_live()).count(),
            deletion: request.deletion.clone(),
        };
        let tell = |answer: &SyncAnswer| match &answer.node {
            Some(node) => {
                let ranges = node.block.ranges.iter().map(|range| format!("{}-{}", range.first, range.last));
                let ranges = ranges.collect::<Vec<_>>().join(", ");
                let refused = answer.items.iter().filter(|item| item.result == SyncOutcome::Refused);
                let refused: String = refused.map(|item| format!("; refused {}", item.address)).collect();
                format!("{:?} block {} {ranges}{refused}", node.state, node.block.version)
            }
            None => "ended".to_owned(),
        };
        self.link.call(ask, tell, async |client| client.sync(node, stamp, request).await)
    }

    /// Sends an old request again; nobody is there to hear the answer.
    pub(super) fn resend(&self, sent: &Sent) {
        match sent {
            Sent::Hold(holder, stamp, address) => drop(self.ask_hold(holder, stamp, *address)),
            Sent::Release(holder, stamp, address) => drop(self.ask_release(holder, stamp, *address)),
            Sent::Sync(stamp, request) => drop(self.ask_sync(stamp, request)),
        }
    }
}
