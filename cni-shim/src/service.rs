//! Calls to the service: one budget a call over all its addresses, and one
//! distinction that everything hangs on, whether the service has spoken.

mod access;
mod call;
mod unreachable;

pub use call::{Heard, Service};
pub use unreachable::{Marker, Patience};
