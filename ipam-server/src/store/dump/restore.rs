//! A dump back into a database: an empty one, whole or not at all.

use super::{
    DumpError, Dumped, FORMAT, FORMAT_VERSION, Header, Heading, Trailer, hex,
    tables::{TABLES, Table},
};
use crate::store::{
    Result, Store,
    db::{DatabaseUrl, Db, Engine, Scope, Tx, args, schema_version},
    doctor, recovery,
};
use ipam_api::wire::Severity;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, Read},
};

/// Rows that are inserted at once.
const BATCH: usize = 1000;

/// Longest line that is read: a row has a few hundred bytes, an event of a large pool some thousand.
const LONGEST_LINE: u64 = 64 << 20;

const FORGET_COUNTERS: &str = "DELETE FROM counter";

/// The input may come slowly, and the transaction waits for it.
const NEVER_IDLE: &str = "SELECT set_config('idle_in_transaction_session_timeout', '0', true)";

/// What the service has done since the backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Nobody can say: it goes back in time, and addresses may be in use that it knows nothing of.
    Unknown,
    /// Nothing: it was stopped before, and has not run since.
    Nothing,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub dumped: Dumped,
    /// What the service has done since.
    pub since: Since,
}

impl Store {
    /// Fills an empty database with a dump. What is there is checked before it counts.
    ///
    /// # Errors
    /// The database is not empty, or the dump not whole, of another version, or against the rules. Then nothing is
    /// restored.
    pub async fn restore(
        url: &DatabaseUrl,
        now: Timestamp,
        from: impl BufRead + Send,
        since: Since,
    ) -> Result<Restored, DumpError> {
        let db = Db::open(url).await?;
        let restored = restore(&db, now, from, since).await;
        db.close().await;
        restored
    }
}

async fn restore(
    db: &Db,
    now: Timestamp,
    from: impl BufRead + Send,
    since: Since,
) -> Result<Restored, DumpError> {
    let mut lines = Lines { from, sum: Sha256::new(), number: 0 };
    let header = header(&mut lines)?;
    db.migrate().await?;
    let mut tx = db.write(Scope::Plan).await?.patient();
    if tx.engine() == Engine::Postgres {
        tx.fetch_one::<(String,)>(NEVER_IDLE, args![]).await?;
    }
    check_empty(&mut tx).await?;
    tx.execute(FORGET_COUNTERS, args![]).await?;
    let rows = fill(&mut tx, &mut lines).await?;
    if rows != header.rows {
        return Err(not_whole(format!("its first line promises {:?} and it has {rows:?}", header.rows)));
    }
    let dumped = Dumped { at: header.at, rows };
    if since == Since::Unknown {
        recovery::begin(&mut tx, dumped.at, now).await?;
    }
    if tx.engine() == Engine::Postgres {
        for go_on in TABLES.iter().filter_map(|table| table.go_on) {
            tx.fetch_one::<(i64,)>(go_on, args![]).await?;
        }
    }
    let mut findings = doctor::invariants(&mut tx).await?;
    findings.retain(|finding| finding.severity == Severity::Broken);
    if !findings.is_empty() {
        return Err(DumpError::Broken(findings));
    }
    tx.commit().await?;
    Ok(Restored { dumped, since })
}

fn header(lines: &mut Lines<impl BufRead>) -> Result<Header, DumpError> {
    let line = lines.next()?;
    // What is no backup at all has no such fields; what is one of another version may have others.
    let what: Value = serde_json::from_slice(&line).unwrap_or_default();
    let number = |field: &str| what.get(field).and_then(Value::as_i64);
    if what.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(DumpError::NotWhole(
            "this is no backup of ipam-server: name a file that ipam-server backup wrote".to_owned(),
        ));
    }
    let program = what.get("program").and_then(Value::as_str).unwrap_or("another version");
    let fits = number("formatVersion") == Some(FORMAT_VERSION.cast_signed())
        && number("schemaVersion") == Some(schema_version());
    if !fits {
        return Err(DumpError::NotWhole(format!(
            "the backup is of schema {} and this program's is {}: restore it with ipam-server {program}, which wrote it, then \
             bring the database up to date by migrate",
            number("schemaVersion").unwrap_or_default(),
            schema_version()
        )));
    }
    parsed(lines, &line)
}

async fn check_empty(tx: &mut Tx) -> Result<(), DumpError> {
    for table in TABLES.iter().filter(|table| table.name != "counter") {
        let (count,): (i64,) = tx.fetch_one(table.count, args![]).await?;
        if count > 0 {
            return Err(DumpError::NotEmpty(format!(
                "the database is not empty (table {} has {count} rows), and a backup is restored into an empty one only: \
                 name a new file or database, and point the service at that once it is restored",
                table.name
            )));
        }
    }
    Ok(())
}

/// Reads tables and rows up to the trailer, and checks that.
async fn fill(tx: &mut Tx, lines: &mut Lines<impl BufRead>) -> Result<BTreeMap<String, u64>, DumpError> {
    let mut counts = BTreeMap::new();
    let mut tables = TABLES.iter();
    let mut filling: Option<Filling> = None;
    loop {
        let before = lines.sum.clone();
        let line = lines.next()?;
        if line.first() == Some(&b'[') {
            let Some(filling) = &mut filling else { return Err(lines.wrong("a row without a table")) };
            filling.add(tx, parsed(lines, &line)?, lines).await?;
            continue;
        }
        if let Some(filled) = filling.take() {
            counts.insert(filled.table.name.to_owned(), filled.finish(tx).await?);
        }
        match tables.next() {
            Some(table) => {
                let heading: Heading = parsed(lines, &line)?;
                if heading.table != table.name || heading.columns != table.columns {
                    return Err(lines.wrong(&format!("not the columns of table {}", table.name)));
                }
                filling = Some(Filling { table, batch: Vec::new(), rows: 0 });
            }
            None => {
                let trailer: Trailer = parsed(lines, &line)?;
                let sha256 = hex(&before.finalize());
                if trailer.sha256 != sha256 || trailer.rows != counts.values().sum::<u64>() {
                    return Err(not_whole("its checksum is not that of what it holds".to_owned()));
                }
                if !lines.from.fill_buf().map_err(DumpError::Read)?.is_empty() {
                    return Err(lines.wrong("more comes after it"));
                }
                return Ok(counts);
            }
        }
    }
}

/// A table that is being filled.
struct Filling {
    table: &'static Table,
    batch: Vec<Value>,
    rows: u64,
}

impl Filling {
    async fn add(
        &mut self,
        tx: &mut Tx,
        row: Vec<Value>,
        lines: &Lines<impl BufRead>,
    ) -> Result<(), DumpError> {
        if row.len() != self.table.columns.len() {
            return Err(lines.wrong("another number of values than columns"));
        }
        let names = self.table.columns.iter().map(|&column| column.to_owned());
        self.batch.push(Value::Object(names.zip(row).collect::<Map<_, _>>()));
        self.rows += 1;
        if self.batch.len() == BATCH { self.flush(tx).await } else { Ok(()) }
    }

    async fn flush(&mut self, tx: &mut Tx) -> Result<(), DumpError> {
        if !self.batch.is_empty() {
            let rows = Value::Array(std::mem::take(&mut self.batch));
            tx.execute(self.table.insert, args![rows.to_string()]).await?;
        }
        Ok(())
    }

    async fn finish(mut self, tx: &mut Tx) -> Result<u64, DumpError> {
        self.flush(tx).await?;
        Ok(self.rows)
    }
}

/// Lines of a dump, summed up as they are read.
struct Lines<R> {
    from: R,
    sum: Sha256,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line with its end.
    fn next(&mut self) -> Result<Vec<u8>, DumpError> {
        let mut line = Vec::new();
        (&mut self.from).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(DumpError::Read)?;
        self.number += 1;
        if line.last() != Some(&b'\n') {
            return Err(not_whole(format!("it ends within line {}", self.number)));
        }
        self.sum.update(&line);
        Ok(line)
    }

    fn wrong(&self, what: &str) -> DumpError {
        not_whole(format!("line {}: {what}", self.number))
    }
}

fn parsed<T: DeserializeOwned>(lines: &Lines<impl BufRead>, line: &[u8]) -> Result<T, DumpError> {
    serde_json::from_slice(line).map_err(|error| lines.wrong(&error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "a sentence made for it")]
fn not_whole(why: String) -> DumpError {
    DumpError::NotWhole(format!("the backup is not whole: {why}; take another one"))
}
