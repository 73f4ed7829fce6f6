//! What a block looks like.

use crate::{
    quantity::{Headroom, MaxPods},
    wire::{Alignment, Contiguity},
};

/// Size of a pool's blocks and how they lie on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockShape {
    size: u64,
    alignment: Alignment,
    contiguity: Contiguity,
}

impl BlockShape {
    /// A block of `max_pods` + `headroom` addresses; with prefix alignment the next power of two.
    #[must_use]
    pub fn new(max_pods: MaxPods, headroom: Headroom, alignment: Alignment, contiguity: Contiguity) -> Self {
        let asked = max_pods.get() + headroom.get();
        let size = match alignment {
            Alignment::Exact => asked,
            Alignment::Prefix => asked.next_power_of_two(),
        };
        Self { size, alignment, contiguity }
    }

    /// Addresses of one block, 1 to 131,072; with prefix alignment a power of two.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A piece of such a block.
    pub(super) fn of_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// How it lies on the line.
    #[must_use]
    pub fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// Whether it may be several extents.
    #[must_use]
    pub fn contiguity(&self) -> Contiguity {
        self.contiguity
    }

    /// Addresses that a node takes in all: its block and its own.
    #[must_use]
    pub fn node_size(&self) -> u64 {
        self.size + 1
    }

    /// Addresses that `nodes` nodes take in all, surge included: each a block and its own.
    #[must_use]
    pub fn demand(&self, nodes: u64) -> u64 {
        nodes.saturating_mul(self.node_size())
    }
}
