//! Who holds which address: the hot path and its lists.

mod decide;
mod known;
mod listing;
mod service;
#[cfg(test)]
mod tests;

pub(super) use decide::refused;
pub(super) use known::commit as commit_known;
pub use listing::AllocationFilter;

use super::db::statements;
use super::{
    Page, Result, Store, StoreError, Written,
    book::{Book, KnownHolders, Position},
    db::{Db, Scope},
    error::Kind,
    writer::Mutation,
};
use ipam_api::{
    names::{Attachment, NodeName},
    wire::{Allocation, AllocationSpec, Allocator, Listing, NodeStamp},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, net::IpAddr};

statements!(; known, listing);

/// A request of the node plane: for which node, and with which stamp where its shim sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCall {
    /// The node in the path.
    pub node: NodeName,
    /// Its `Ipam-Node` header; absent for `allocator: service`.
    pub stamp: Option<NodeStamp>,
}

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The allocation as it is now.
    Held(Box<Written<Allocation>>),
    /// Nothing is held any more.
    Released,
}

impl Store {
    /// Records that an attachment holds an address, or picks one for it (`allocator: service`).
    ///
    /// A request that is not newer than what the ledger has changes nothing and
    /// gets the allocation as it is (P2).
    ///
    /// # Errors
    /// A stale claim, an address that is not the node's to give, an exhausted block.
    pub async fn allocate(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        spec: &AllocationSpec,
    ) -> Result<Written<Allocation>> {
        if call.stamp.is_none() && spec.address.is_none() {
            self.may_pick(call, attachment).await?;
        }
        self.writer.hold(call, attachment, spec).await
    }

    /// Records that an attachment has given its address back; nothing to do is success.
    ///
    /// # Errors
    /// A stale claim.
    pub async fn release(
        &self,
        call: &NodeCall,
        attachment: &Attachment,
        address: Option<IpAddr>,
    ) -> Result<()> {
        self.writer.release(call, attachment, address).await
    }

    /// The allocation of an attachment: held, else the last released one.
    ///
    /// # Errors
    /// The node or the allocation is not there.
    pub async fn allocation(&self, node: &NodeName, attachment: &Attachment) -> Result<Allocation> {
        let mut tx = self.db.read().await?;
        listing::of_attachment(&mut tx, node, attachment).await
    }

    /// Held allocations by address.
    ///
    /// # Errors
    /// `after` is not a key of this list.
    pub async fn allocations(&self, filter: &AllocationFilter, page: &Page) -> Result<Listing<Allocation>> {
        let mut tx = self.db.read().await?;
        listing::list(&mut tx, filter, page).await
    }
}

/// Commits mutations in one transaction; one answer each, in order. Their nodes are known afterwards.
///
/// # Errors
/// The database refused the transaction: nothing of it happened.
pub(super) async fn commit(
    db: &Db,
    known: &KnownHolders,
    now: Timestamp,
    mutations: &[Mutation],
) -> Result<Vec<Result<Outcome>>> {
    let mut tx = db.write(Scope::Nodes).await?;
    let mut book = Book::default();
    let names: BTreeSet<&NodeName> = mutations.iter().map(|mutation| &mutation.call().node).collect();
    book.load_holders(&mut tx, &names).await?;

    let (mut positions, mut attachments) = (BTreeSet::new(), BTreeSet::new());
    let (mut rebooted, mut picking) = (BTreeSet::new(), BTreeSet::new());
    for mutation in mutations {
        let call = mutation.call();
        let Some(holder) = book.holder(&call.node) else { continue };
        attachments.insert((holder.id, mutation.attachment()));
        if let Some(offset) = mutation.address().and_then(|address| holder.line.offset_of(address).ok()) {
            positions.insert(Position { subnet: holder.subnet, offset });
        }
        match &call.stamp {
            Some(stamp) if stamp.stamp.boot > holder.ledger.boot => {
                rebooted.insert(holder.id);
            }
            None if holder.allocator == Allocator::Service => {
                picking.insert(holder.block);
            }
            _ => {}
        }
    }
    if !attachments.is_empty() {
        book.load_rows(&mut tx, &positions, &attachments).await?;
    }
    for holder in rebooted {
        book.load_held_by(&mut tx, holder).await?;
    }
    for block in picking {
        book.load_block(&mut tx, block).await?;
    }

    let outcomes = mutations.iter().map(|mutation| decide(&mut book, now, mutation)).collect();
    book.save(&mut tx).await?;
    tx.commit().await?;
    db.measures().rested(book.rested());
    known.keep(book, &names);
    Ok(outcomes)
}

fn decide(book: &mut Book, now: Timestamp, mutation: &Mutation) -> Result<Outcome> {
    let call = mutation.call();
    let Some(holder) = book.holder(&call.node) else { return Err(unknown_node(call)) };
    match (&call.stamp, holder.allocator, mutation) {
        (Some(stamp), Allocator::Node, Mutation::Hold { attachment, spec, .. }) => {
            decide::hold(book, now, &call.node, stamp, attachment, spec)
        }
        (Some(stamp), Allocator::Node, Mutation::Release { attachment, address, .. }) => {
            decide::release(book, now, &call.node, stamp, attachment, *address)
        }
        (None, Allocator::Service, Mutation::Hold { attachment, spec, .. }) => {
            service::hold(book, now, &call.node, attachment, spec)
        }
        (None, Allocator::Service, Mutation::Release { attachment, address, .. }) => {
            service::release(book, now, &call.node, attachment, *address)
        }
        (None, Allocator::Node, _) => Err(needs_stamp(&call.node)),
        (Some(_), Allocator::Service, _) => Err(StoreError::StaleClaim(format!(
            "the service picks the addresses of node {}, not a shim; register it with allocator node to change that",
            call.node
        ))),
    }
}

/// A node that is not registered: to a shim its claim is stale, to others it is missing.
pub(super) fn unknown_node(call: &NodeCall) -> StoreError {
    match call.stamp {
        Some(_) => StoreError::StaleClaim(format!(
            "node {} is not registered (any more); register it again",
            call.node
        )),
        None => StoreError::NotFound(Kind::Node, call.node.to_string()),
    }
}

/// A request without a stamp for a node whose shim allocates.
pub(super) fn needs_stamp(node: &NodeName) -> StoreError {
    StoreError::invalid(
        "header:ipam-node",
        format!(
            "the shim of node {node} picks its addresses and says so in this header \
             (claim=3, boot=7, seq=918273645, block=1); for an API client register the node with allocator service"
        ),
    )
}

impl Mutation {
    fn call(&self) -> &NodeCall {
        match self {
            Self::Hold { call, .. } | Self::Release { call, .. } => call,
        }
    }

    fn attachment(&self) -> &Attachment {
        match self {
            Self::Hold { attachment, .. } | Self::Release { attachment, .. } => attachment,
        }
    }

    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Hold { spec, .. } => spec.address,
            Self::Release { address, .. } => *address,
        }
    }
}
