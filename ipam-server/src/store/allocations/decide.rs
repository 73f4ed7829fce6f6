//! Holds and releases that a node's shim reports, by the rules of `ipam_api::ledger`.

use super::Outcome;
use crate::store::{
    Result, StoreError, Written,
    book::{Book, Holder, Position, Row, Tenancy},
};
use ipam_api::{
    ledger::{self, Hold, Refusal, Release, Slot, Stale, Taken},
    line::Offset,
    names::{Attachment, NodeName},
    wire::{Allocation, AllocationSpec, AllocationState, NodeStamp, NodeState},
};
use jiff::Timestamp;
use std::net::IpAddr;

/// Records that an attachment holds the address its shim picked.
pub(super) fn hold(
    book: &mut Book,
    now: Timestamp,
    node: &NodeName,
    stamp: &NodeStamp,
    attachment: &Attachment,
    spec: &AllocationSpec,
) -> Result<Outcome> {
    let address = spec.address.ok_or_else(|| {
        StoreError::invalid(
            "/address",
            format!("the shim of node {node} picks its addresses: name the one it picked"),
        )
    })?;
    if let Some(holder) = book.holder(node).filter(|holder| holder.ledger.state == NodeState::Planned) {
        // Refused before its boot and machine are noted: only a sync takes the claim up.
        let stale = holder.ledger.admit(stamp).err().unwrap_or(Stale::NotTakenUp);
        return Err(refused(&stale.into(), address));
    }
    let holder = book.admit(node, stamp, now)?;
    let offset = offset_in_block(&holder, address);
    let row = offset.and_then(|offset| book.row(at(&holder, offset))).map(Row::word).transpose()?;
    let slot =
        offset.map_or(Slot::Outside, |offset| holder.footprint.slot(stamp.block, offset, row.as_ref()));
    let elsewhere = book
        .held_by(holder.id)
        .find(|row| row.is_of(attachment) && Some(row.offset()) != offset)
        .map(Row::word)
        .transpose()?;

    let outside = || refused(&Taken::OutsideBlock.into(), address);
    let verdict = ledger::hold(&holder.ledger, stamp.stamp, attachment, &slot, elsewhere.as_ref())
        .map_err(|refusal| refused(&refusal, address))?;
    let offset = offset.ok_or_else(outside)?;
    let tenancy =
        Tenancy { holder: &holder, attachment, pod: spec.pod.as_ref(), stamp: stamp.stamp, since: now };
    let written = match verdict {
        Hold::Take => {
            book.end(holder.id, now, |row| row.is_of(attachment));
            let row = Row::held(offset, &tenancy).ok_or_else(outside)?;
            let allocation = row.allocation(holder.addresses_at(offset))?;
            book.put(row);
            Written::Created(allocation)
        }
        Hold::AlreadyHeld => Written::Updated(current(book, offset, &tenancy, AllocationState::Held)?),
        Hold::NotNewer(state) => Written::Updated(current(book, offset, &tenancy, state)?),
    };
    Ok(Outcome::Held(Box::new(written)))
}

/// Records that an attachment has given the address back.
pub(super) fn release(
    book: &mut Book,
    now: Timestamp,
    node: &NodeName,
    stamp: &NodeStamp,
    attachment: &Attachment,
    address: Option<IpAddr>,
) -> Result<Outcome> {
    let address = address.ok_or_else(|| {
        StoreError::invalid(
            "query:address",
            format!("a release by the shim of node {node} names its address"),
        )
    })?;
    let holder = book.admit(node, stamp, now)?;
    let Some(offset) = offset_in_block(&holder, address) else { return Ok(Outcome::Released) };
    let word = book.row(at(&holder, offset)).map(Row::word).transpose()?;
    let slot = holder.footprint.slot(stamp.block, offset, word.as_ref());
    match ledger::release(&holder.ledger, stamp.stamp, &slot) {
        Release::Record => {
            let row = book.row(at(&holder, offset)).filter(|row| row.is_of(attachment));
            let pod = row.and_then(Row::pod);
            let tenancy =
                Tenancy { holder: &holder, attachment, pod: pod.as_ref(), stamp: stamp.stamp, since: now };
            book.put(Row::released_by(offset, &tenancy));
        }
        Release::NotNewer | Release::Nothing => {}
    }
    Ok(Outcome::Released)
}

fn at(holder: &Holder, offset: Offset) -> Position {
    Position { subnet: holder.subnet, offset }
}

pub(super) fn offset_in_block(holder: &Holder, address: IpAddr) -> Option<Offset> {
    holder.line.offset_of(address).ok().filter(|&offset| holder.has(offset))
}

/// The attachment's allocation of the address as it is, where the request changed nothing.
fn current(book: &Book, offset: Offset, tenancy: &Tenancy<'_>, state: AllocationState) -> Result<Allocation> {
    let addresses = tenancy.holder.addresses_at(offset);
    match book.row(at(tenancy.holder, offset)).filter(|row| row.is_of(tenancy.attachment)) {
        Some(row) if row.is_held() == (state == AllocationState::Held) => row.allocation(addresses),
        _ => Row::released_by(offset, tenancy).allocation(addresses),
    }
}

/// A refusal with the address it is about.
pub(in crate::store) fn refused(refusal: &Refusal, address: IpAddr) -> StoreError {
    match refusal {
        Refusal::Stale(stale) => StoreError::StaleClaim(stale.to_string()),
        Refusal::Taken(taken) => StoreError::AddressTaken(format!("{address}: {taken}")),
    }
}
