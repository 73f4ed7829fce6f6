//! Holds and releases where the service itself picks (`allocator: service`).

use super::Outcome;
use crate::store::{
    Kind, Result, Shortage, StoreError, Written,
    book::{Book, Holder, Position, Row, Tenancy},
};
use ipam_api::{
    line::Offset,
    names::{Attachment, NodeName},
    wire::{AllocationSpec, BootSeq, Seq, Stamp},
};
use jiff::Timestamp;
use std::net::IpAddr;

/// Holds the address asked for, or picks one: never used first, then released longest ago.
pub(super) fn hold(
    book: &mut Book,
    now: Timestamp,
    node: &NodeName,
    attachment: &Attachment,
    spec: &AllocationSpec,
) -> Result<Outcome> {
    let holder = known(book, node)?;
    let asked = match spec.address {
        Some(address) => Some(holder.line.offset_of(address).map_err(|error| {
            StoreError::AddressTaken(format!(
                "{error}, the subnet of node {node}; leave the address out to have one picked"
            ))
        })?),
        None => None,
    };
    if let Some(row) = book.held_by(holder.id).find(|row| row.is_of(attachment)) {
        if asked.is_some_and(|asked| asked != row.offset()) {
            return Err(StoreError::Exists(format!(
                "{attachment} of node {node} holds another address; release that first"
            )));
        }
        let allocation = row.allocation(holder.addresses_at(row.offset()))?;
        return Ok(Outcome::Held(Box::new(Written::Updated(allocation))));
    }
    let offset = match asked {
        Some(offset) => free(book, &holder, offset)?,
        None => pick(book, &holder)?,
    };
    let tenancy =
        Tenancy { holder: &holder, attachment, pod: spec.pod.as_ref(), stamp: stamp(&holder), since: now };
    let row = Row::held(offset, &tenancy).ok_or_else(|| outside(&holder, offset))?;
    let allocation = row.allocation(holder.addresses_at(offset))?;
    book.put(row);
    Ok(Outcome::Held(Box::new(Written::Created(allocation))))
}

/// Releases what the attachment holds, if it holds the address named.
pub(super) fn release(
    book: &mut Book,
    now: Timestamp,
    node: &NodeName,
    attachment: &Attachment,
    address: Option<IpAddr>,
) -> Result<Outcome> {
    let holder = known(book, node)?;
    let named = address.map(|address| holder.line.offset_of(address).ok());
    let row = book
        .held_by(holder.id)
        .find(|row| row.is_of(attachment) && named.is_none_or(|named| named == Some(row.offset())))
        .map(|row| row.released(stamp(&holder), now));
    if let Some(row) = row {
        book.put(row);
    }
    Ok(Outcome::Released)
}

fn known(book: &Book, node: &NodeName) -> Result<Holder> {
    book.holder(node).cloned().ok_or_else(|| StoreError::NotFound(Kind::Node, node.to_string()))
}

/// The service is its own only writer: one claim orders everything.
fn stamp(holder: &Holder) -> Stamp {
    Stamp { claim: holder.ledger.claim, boot: BootSeq(0), seq: Seq(0) }
}

fn outside(holder: &Holder, offset: Offset) -> StoreError {
    let address = holder.line.address_at(offset).map(|address| address.to_string()).unwrap_or_default();
    StoreError::AddressTaken(format!(
        "{address} is not in the block of node {}; leave the address out to have one picked",
        holder.name
    ))
}

fn free(book: &Book, holder: &Holder, offset: Offset) -> Result<Offset> {
    if !holder.footprint.stays.iter().any(|extent| extent.contains(offset)) {
        return Err(outside(holder, offset));
    }
    match book.row(Position { subnet: holder.subnet, offset }) {
        Some(row) if row.is_held() => Err(StoreError::AddressTaken(format!(
            "{} of node {} holds that address; leave the address out to have one picked",
            row.attachment()?,
            row.node_name
        ))),
        _ => Ok(offset),
    }
}

fn pick(book: &Book, holder: &Holder) -> Result<Offset> {
    let mut longest_released: Option<(i64, Offset)> = None;
    for extent in &holder.footprint.stays {
        let mut rows = book.rows_in(holder.subnet, extent.first(), extent.next()).peekable();
        for offset in (extent.first().0..extent.next().0).map(Offset) {
            match rows.next_if(|row| row.offset() == offset) {
                None => return Ok(offset),
                Some(row) if row.is_held() => {}
                Some(row) => {
                    let released = (row.since, offset);
                    longest_released = Some(longest_released.map_or(released, |best| best.min(released)));
                }
            }
        }
    }
    longest_released.map(|(_, offset)| offset).ok_or_else(|| {
        let size = holder.footprint.stays.iter().map(|extent| extent.size()).sum::<u64>();
        StoreError::Exhausted(Box::new(Shortage {
            detail: format!(
                "all {size} addresses of the block of node {} are held: release one, or use another node, of a pool with more maxPods if need be",
                holder.name
            ),
            need: 1,
            have: 0,
            largest_free: 0,
            nodes_that_fit: 0,
            subnets: Vec::new(),
        }))
    })
}
