//! What PostgreSQL brings with it: others on the same database, lost connections, plans that follow statistics.
//! That the store does the same as on SQLite is what the other suites show with `IPAM_TEST_DATABASE=postgres`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod failover;
#[path = "../common/filled.rs"]
mod filled;
mod moving;
mod plans;
mod replicas;
mod service;
mod side_by_side;
mod store;
mod tls;
mod trouble;
