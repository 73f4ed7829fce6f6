//! The words that the service, the node and the command lines share.
//!
//! Everything here is pure: no clock, no randomness, no I/O (the HTTP client
//! behind the `client` feature aside).
//!
//! * [`names`], [`quantity`], [`mod@line`]: newtypes parsed once at the edge.
//! * [`planning`]: one pure function answers the dry run and does the real thing.
//! * [`ledger`]: which of two requests of a node wins.
//! * [`token`]: how credentials look, and what of them is kept.
//! * [`wire`]: request and answer bodies of the HTTP API.

#[cfg(feature = "client")]
pub mod client;
pub mod ledger;
pub mod line;
pub mod names;
pub mod planning;
pub mod quantity;
pub mod token;
pub mod wire;
