//! The HTTP API over a real database, every answer checked against the document.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod access;
mod app;
mod audit;
#[cfg(feature = "otel")]
mod collector;
mod commands;
mod document;
mod examples;
mod fuzz;
mod limits;
mod metrics;
mod process;
mod refusals;
mod resources;
mod rotation;
mod running;
mod schema;
mod secure;
mod security;
#[cfg(feature = "otel")]
mod traces;
