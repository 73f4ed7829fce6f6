//! A portable dump: all that a database holds, in a form that is no database's own.
//!
//! A line is a JSON value. The first says what it is, then comes every table (its name and columns, then a list a row),
//! and the last one has the number of rows and the SHA-256 of all bytes before it: a dump that was cut off is no dump.
//! It is read in one snapshot while the service goes on, and neither side ever has more than a few rows in memory.

mod restore;
pub(super) mod tables;

pub use restore::{Restored, Since};

use super::{
    Result, Store, StoreError,
    db::{DatabaseUrl, Db, Tx, args, schema_version},
    mutation::{corrupt, timestamp},
};
use ipam_api::wire::Finding;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};
use tables::TABLES;

/// What the first line says it is.
const FORMAT: &str = "ipam-dump";

/// Version of the form of a dump, not of the schema.
const FORMAT_VERSION: u64 = 1;

/// Why there is no dump, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever takes the dump.
    #[error("cannot write the backup: {0}")]
    Write(io::Error),
    /// Whoever gives it.
    #[error("cannot read the backup: {0}")]
    Read(io::Error),
    /// It is none, or not whole; the message says the cure.
    #[error("{0}")]
    NotWhole(String),
    /// There is something already.
    #[error("{0}")]
    NotEmpty(String),
    /// What was restored breaks the rules; nothing of it is kept.
    #[error("what the backup holds breaks the rules, nothing is restored: {}", sentences(.0))]
    Broken(Vec<Finding>),
}

fn sentences(findings: &[Finding]) -> String {
    let some: Vec<String> =
        findings.iter().take(3).map(|it| format!("{} {}: {}", it.code, it.object, it.detail)).collect();
    let more = findings.len() - some.len();
    if more == 0 { some.join("; ") } else { format!("{}; and {more} more", some.join("; ")) }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    format: String,
    format_version: u64,
    schema_version: i64,
    /// The program that wrote it.
    program: String,
    at: Timestamp,
    /// Rows of each table.
    rows: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heading {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    rows: u64,
    /// Of all bytes before this line, in hexadecimal.
    sha256: String,
}

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// When it was read.
    pub at: Timestamp,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

impl Dumped {
    /// Rows of all tables.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }
}

impl Store {
    /// Writes all that a database holds, as it is at this moment; a service on it goes on meanwhile.
    ///
    /// # Errors
    /// The database is not there or of another version, or the dump cannot be written.
    pub async fn dump(url: &DatabaseUrl, now: Timestamp, to: impl Write + Send) -> Result<Dumped, DumpError> {
        let db = Db::look(url).await?;
        db.check_version().await?;
        let mut tx = db.survey().await?.patient();
        let dumped = write(&mut tx, now, to).await;
        drop(tx);
        db.close().await;
        dumped
    }
}

async fn write(tx: &mut Tx, now: Timestamp, to: impl Write + Send) -> Result<Dumped, DumpError> {
    let mut rows = BTreeMap::new();
    for table in &TABLES {
        let (count,): (i64,) = tx.fetch_one(table.count, args![]).await?;
        rows.insert(table.name.to_owned(), count.cast_unsigned());
    }
    // To the millisecond, as all times are that a database has.
    let dumped = Dumped { at: timestamp(now.as_millisecond())?, rows };
    let mut out = Summed { to, sum: Sha256::new() };
    out.line(&Header {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        schema_version: schema_version(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        at: dumped.at,
        rows: dumped.rows.clone(),
    })?;
    for table in &TABLES {
        let columns = table.columns.iter().map(|&column| column.to_owned()).collect();
        out.line(&Heading { table: table.name.to_owned(), columns })?;
        let each = |row: &str| {
            // Databases set JSON in type each in its own way.
            let row: Vec<serde_json::Value> = serde_json::from_str(row).map_err(corrupt)?;
            out.line(&row)
        };
        tx.each_text(table.rows, each).await?;
    }
    let sha256 = hex(&out.sum.clone().finalize());
    out.line(&Trailer { rows: dumped.total(), sha256 })?;
    out.to.flush().map_err(DumpError::Write)?;
    Ok(dumped)
}

/// Writes lines and sums them up.
struct Summed<W> {
    to: W,
    sum: Sha256,
}

impl<W: Write> Summed<W> {
    fn line<T: Serialize>(&mut self, line: &T) -> Result<(), DumpError> {
        let mut text = serde_json::to_vec(line).map_err(|error| DumpError::Write(error.into()))?;
        text.push(b'\n');
        self.sum.update(&text);
        self.to.write_all(&text).map_err(DumpError::Write)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
