//! Where a block lies while it changes (P7).
//!
//! A block that shrinks gives up its tail in a new version, but pods may run
//! there. The tail *leaves*: it belongs to the node until the node confirms
//! that nothing lives there. Time alone never ends that, for a node that is cut
//! off knows nothing of it and goes on giving those addresses out.
//!
//! A node works with the version that it has adopted, and says so in every
//! request. It adopts a smaller block only when nothing lives in what goes, so
//! a listing of that version without a live entry there is the last word:
//! nothing will live there again. A listing of an older version says nothing, for
//! its node may have given out another address of the tail since.

use super::{Listing, NodeLedger, Row, Slot};
use crate::{
    line::{Extent, Offset},
    wire::BlockVersion,
};
use std::collections::BTreeMap;

/// An extent that a block gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leaving {
    /// Where it lies.
    pub extent: Extent,
    /// The first version of the block without it.
    pub since: BlockVersion,
}

/// Where a node's block lies, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Footprint {
    /// What its current version has.
    pub stays: Vec<Extent>,
    /// What earlier versions had and the node has not confirmed to be empty.
    pub leaves: Vec<Leaving>,
}

impl Footprint {
    /// A block that gives nothing up.
    #[must_use]
    pub fn whole(stays: Vec<Extent>) -> Self {
        Self { stays, leaves: Vec::new() }
    }

    /// All extents, what leaves after what stays.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.stays.iter().copied().chain(self.leaves.iter().map(|leaving| leaving.extent))
    }

    /// Whether an offset is the node's, be it leaving or not.
    #[must_use]
    pub fn has(&self, at: Offset) -> bool {
        self.extents().any(|extent| extent.contains(at))
    }

    /// An offset and its row, as a request of a node that works with this version of the
    /// block is to be [decided](super::hold).
    #[must_use]
    pub fn slot<'a, A>(&self, version: BlockVersion, at: Offset, row: Option<&'a Row<A>>) -> Slot<'a, A> {
        if self.stays.iter().any(|extent| extent.contains(at)) {
            return Slot::InBlock(row);
        }
        match self.leaves.iter().find(|leaving| leaving.extent.contains(at)) {
            None => Slot::Outside,
            Some(leaving) if version < leaving.since => Slot::InBlock(row),
            Some(_) => Slot::Leaving(row),
        }
    }

    /// Whether a listing that is newer than the last one confirms that nothing lives, or will, in
    /// what leaves; `rows` as the listing leaves them.
    pub(super) fn is_given_up<A>(
        &self,
        node: &NodeLedger,
        rows: &BTreeMap<Offset, Row<A>>,
        listing: &Listing<A>,
    ) -> bool {
        let leaves = |at: Offset| self.leaves.iter().any(|leaving| leaving.extent.contains(at));
        !self.leaves.is_empty()
            && listing.block == node.block
            && !listing.entries.iter().any(|entry| entry.state.is_live() && leaves(entry.at))
            && !rows.iter().any(|(&at, row)| row.is_held() && leaves(at))
    }
}
