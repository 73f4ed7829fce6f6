//! The central service: it plans, reserves, records and guards addresses.
//!
//! Layers look down only: [`api`] (HTTP) → [`store`] (SQL; a method is a
//! transaction) → `ipam_api::planning` and `ipam_api::ledger` (pure).

pub mod api;
pub mod backup;
mod bootstrap;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod endpoint;
pub mod log;
pub mod peer;
pub mod serve;
pub mod store;
#[cfg(feature = "otel")]
mod telemetry;
pub mod tls;
mod upkeep;
