//! The binary against a service that says what a test wants: the contract with
//! the runtime, and the turns of the protocol that a well-meaning service never takes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod attachments;
mod contract;
mod credentials;
#[cfg(feature = "fault-points")]
mod faults;
mod gc;
mod machines;
mod metrics;
mod node;
mod ports;
mod rest;
mod service;
mod status;
mod syncs;
mod upstream;
mod wishes;
