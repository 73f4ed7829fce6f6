use ipam_api::wire::{FieldError, SubnetShortage};
use std::fmt;

/// The kinds of thing that can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VNet.
    Vnet,
    /// A subnet.
    Subnet,
    /// A reservation.
    Reservation,
    /// A pool.
    Pool,
    /// A node.
    Node,
    /// An allocation.
    Allocation,
    /// An address of a subnet.
    Address,
    /// A token.
    Token,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vnet => "VNet",
            Self::Subnet => "subnet",
            Self::Reservation => "reservation",
            Self::Pool => "pool",
            Self::Node => "node",
            Self::Allocation => "allocation",
            Self::Address => "address",
            Self::Token => "token",
        })
    }
}

/// What a demand lacks, in addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What was asked for and why it does not fit, in a sentence.
    pub detail: String,
    /// Addresses needed.
    pub need: u64,
    /// Addresses there for it.
    pub have: u64,
    /// Size of the largest free extent.
    pub largest_free: u64,
    /// Most nodes that would fit.
    pub nodes_that_fit: u64,
    /// The same per subnet.
    pub subnets: Vec<SubnetShortage>,
}

/// Why a store method did nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("there is no {0} {1}")]
    NotFound(Kind, String),
    /// The input contradicts itself or what is there; each field with its cure.
    #[error("{}", .0.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// It exists and differs in a field fixed at creation.
    #[error("{0}")]
    Exists(String),
    /// Ranges overlap.
    #[error("{0}")]
    Overlap(String),
    /// Others depend on it.
    #[error("{0}")]
    InUse(String),
    /// Another attachment holds the address, or the node may not hold it.
    #[error("{0}")]
    AddressTaken(String),
    /// The node's claim, boot or block version is not the current one.
    #[error("{0}")]
    StaleClaim(String),
    /// An older backup was restored, and nobody new gets an address until that is looked after.
    #[error("{0}")]
    Recovering(String),
    /// The caller's credential is not for this.
    #[error("{0}")]
    Forbidden(String),
    /// It changed since it was read.
    #[error("{0}")]
    PreconditionFailed(String),
    /// Not enough addresses.
    #[error("{}", .0.detail)]
    Exhausted(Box<Shortage>),
    /// Enough addresses, but no hole is large enough.
    #[error("{}", .0.detail)]
    NoContiguousBlock(Box<Shortage>),
    /// The database undid it in favour of another transaction; the store does it again by itself.
    #[error("the database undid the transaction: {0}")]
    Undone(String),
    /// The database is not one that the service can work with; the message says the cure.
    #[error("{0}")]
    Unfit(String),
    /// The database cannot be reached or is busy; the same call may work later.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The database says something the code does not expect: a defect.
    #[error("the database refused a statement: {0}")]
    Database(sqlx::Error),
}

impl StoreError {
    /// One wrong field.
    pub(crate) fn invalid(pointer: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.to_owned(), detail: detail.into() }])
    }
}
