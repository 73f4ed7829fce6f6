//! The binary against a service that says what a test wants: the contract with
//! the runtime, and the turns of the protocol that a well-meaning service never takes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent;
mod attachments;
mod contract;
mod corpus;
mod credentials;
#[cfg(feature = "fault-points")]
mod faults;
mod gc;
mod install;
mod leaks;
mod leaving;
mod machines;
mod metrics;
mod networks;
mod node;
mod ports;
mod rest;
mod service;
mod site;
mod status;
mod strangers;
mod syncs;
mod upkeep;
mod upstream;
mod wishes;
