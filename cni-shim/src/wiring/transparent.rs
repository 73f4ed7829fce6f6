//! Transparent mode: a veth pair, host routes, and answers on the uplink for exactly the pod's
//! addresses.
//!
//! Everything in the pod hangs on its end of the pair and every route and neighbour of the host on the
//! other, so deleting the pair takes all of it away; only the proxy neighbours on the uplink are
//! apart. [`wire`] undoes what it made on any failure; [`unwire`] needs no namespace.

mod unwire;
mod wire;

pub use unwire::{Unwired, Unwiring, unwire};
pub(crate) use wire::POD_SYSCTLS_V6;
pub use wire::{Wired, Wiring, reassert, wire};
