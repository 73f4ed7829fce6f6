//! The stories of an attachment: ADD, DEL, CHECK, GC, and the sync that tells the
//! service of all of them at once.
//!
//! Layers look down only: a story uses the journal, the service and the wiring,
//! which know nothing of each other.

mod add;
mod check;
mod del;
mod enrol;
mod failure;
mod forgetting;
mod gc;
mod keep;
mod leaks;
mod living;
mod node;
mod status;
mod strangers;
mod sync;

pub use add::{Added, Word, add};
pub use check::check;
pub use del::del;
pub use enrol::enrol;
pub(crate) use failure::retriable;
pub use gc::gc;
pub use keep::{Kept, keep};
pub use leaks::{Leak, Suspect, Swept, suspects, sweep};
pub use node::NodeContext;
pub(crate) use node::{prefixes, turn};
pub use status::status;
pub use strangers::{Asking, Probed, probe_block};
pub use sync::{Summary, sync};
