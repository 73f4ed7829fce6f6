//! The stories of an attachment: ADD, DEL, CHECK, and the sync that tells the
//! service of all of them at once.
//!
//! Layers look down only: a story uses the journal, the service and the wiring,
//! which know nothing of each other.

mod add;
mod check;
mod del;
mod failure;
mod node;
mod sync;

pub use add::{Added, add};
pub use check::check;
pub use del::del;
pub(crate) use failure::retriable;
pub use node::NodeContext;
pub use sync::{Outcome, Summary, sync};
