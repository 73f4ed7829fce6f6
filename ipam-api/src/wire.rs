//! Request and answer bodies of the HTTP API, one file a resource.
//!
//! Types that arrive as requests refuse unknown fields; types that only leave
//! as answers do not, so that an older client reads a newer service.

mod address;
mod allocation;
mod capacity;
mod consistency;
mod event;
mod extent;
mod node;
mod page;
mod plan;
mod pool;
mod problem;
mod reservation;
mod stamp;
mod subnet;
mod sync;
mod token;
mod vnet;

pub use address::{AddressInfo, AddressUse};
pub use allocation::{Allocation, AllocationSpec, AllocationState, HeldAddress, PodRef};
pub use capacity::{Capacity, PoolCapacity, SubnetCapacity};
pub use consistency::{Consistency, Finding, Recovery, Severity};
pub use event::Event;
pub use extent::{ExtentInfo, ExtentKind, Range};
pub use node::{Allocator, Block, Boot, Network, Node, NodeCredential, NodeSpec, NodeState, RestingAddress};
pub use page::{DEFAULT_LIMIT, Listing, MAX_LIMIT};
pub use plan::{HypotheticalSubnet, Plan, PlanRequest, PlannedPool, PlannedShare, PoolDemand, SubnetPlan};
pub use pool::{Alignment, Contiguity, NodeAddress, Pool, PoolPatch, PoolSpec, PoolStatus, PoolSubnet};
pub use problem::{FieldError, Problem, ProblemType, SubnetShortage};
pub use reservation::{Reservation, ReservationSpec};
pub use stamp::{BlockVersion, BootSeq, Claim, InvalidStamp, NODE_HEADER, NodeStamp, Seq, Stamp};
pub use subnet::{Subnet, SubnetPatch, SubnetSpec};
pub use sync::{Conflict, EntryResult, EntryState, SyncAnswer, SyncEntry, SyncOutcome, SyncRequest};
pub use token::{CredentialSpec, NewToken, Role, Token, TokenSpec, TokenState};
pub use vnet::{Vnet, VnetPatch, VnetSpec};
