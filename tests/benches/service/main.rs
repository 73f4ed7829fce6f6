//! Figures of the service, each in one run with what it is compared with: `make bench`.
//!
//! The load maker, the service and PostgreSQL share the machine's cores. Every client is a node: it has a connection and
//! a token of its own, names addresses of its block as its shim would, and waits for each answer. The service listens on
//! plain HTTP and asks for credentials; `fsync` and `synchronous_commit` are on.
//!
//! * `pgbench -M prepared` inserts one row a transaction, over the same PostgreSQL's socket: into a table of the same columns
//!   without an index, as fast as anything can be that makes each allocation durable on its own; and into one with the
//!   ledger's keys, checks and indexes as well.
//! * Large is 1,000,000 live allocations on 100,000 nodes, small 1,000 on 100. They are filled by SQL, as they would be
//!   by nodes; the clients' own nodes come on top.
//!
//! `cargo bench -p vnet-tests --bench service -- postgres` runs one part: `postgres`, `sqlite`, `large`.
//! `BENCH_SECONDS` is how long each measure of a rate takes, `BENCH_CLIENTS` ("8 64") how many clients are compared.

mod database;
mod figures;
mod filling;
mod load;
mod parts;
mod pgbench;
mod reads;
mod service;

use anyhow::{Context, Result, bail};

const PARTS: [&str; 3] = ["postgres", "sqlite", "large"];

fn main() -> Result<()> {
    // Cargo says `--bench` to every benchmark.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(unknown) = asked.iter().find(|word| !PARTS.contains(&word.as_str())) {
        bail!("there is no part {unknown}: give some of {}, or none for all", PARTS.join(", "));
    }
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        if wanted("postgres") {
            parts::against_pgbench().await?;
        }
        if wanted("sqlite") {
            parts::embedded().await?;
        }
        if wanted("large") {
            parts::at_size().await?;
        }
        Ok(())
    })
}
