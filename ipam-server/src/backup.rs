//! `ipam-server backup` and `restore`: a dump as a file that is there whole or not at all.

use crate::{
    clock,
    config::RestoreArgs,
    store::{DatabaseUrl, Dumped, Restored, Since, Store},
};
use anyhow::{Context, Result};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes that go to a file at once.
const BUFFER: usize = 1 << 20;

/// Writes all that a database holds to a file, or to stdout.
///
/// # Errors
/// The database cannot be read or the file not be written; an older file of that name stays then.
pub async fn write(database: &DatabaseUrl, file: &Path) -> Result<Dumped> {
    let now = clock::of_service().now();
    let reading = || format!("cannot back up the database {database}");
    if file == Path::new("-") {
        let stdout = BufWriter::with_capacity(BUFFER, io::stdout());
        return Store::dump(database, now, stdout).await.with_context(reading);
    }
    let shown = file.display();
    let part = beside(file);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let out = made.with_context(|| format!("cannot make {}", Path::new(&part).display()))?;
    let dumped = match Store::dump(database, now, BufWriter::with_capacity(BUFFER, &out)).await {
        Ok(dumped) => dumped,
        Err(error) => {
            // What is left of it is of no use; that it stays would be no harm either.
            let _ = fs::remove_file(&part);
            return Err(error).with_context(reading);
        }
    };
    out.sync_all().with_context(|| format!("cannot write {shown}"))?;
    fs::rename(&part, file).with_context(|| format!("cannot write {shown}"))?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|it| it.sync_all()).with_context(|| format!("cannot write {shown}"))?;
    Ok(dumped)
}

/// A name of this process's own beside the file's.
fn beside(file: &Path) -> OsString {
    let mut part = file.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    part
}

/// Fills an empty database with what `write` wrote.
///
/// # Errors
/// The database is not empty, or the file not whole or against the rules; nothing is restored then.
pub async fn restore(database: &DatabaseUrl, args: &RestoreArgs) -> Result<Restored> {
    let from: Box<dyn BufRead + Send> = if args.file == Path::new("-") {
        Box::new(BufReader::with_capacity(BUFFER, io::stdin()))
    } else {
        let shown = args.file.display();
        let file = File::open(&args.file).with_context(|| format!("cannot read {shown}"))?;
        Box::new(BufReader::with_capacity(BUFFER, file))
    };
    let since = if args.nothing_since { Since::Nothing } else { Since::Unknown };
    let restored = Store::restore(database, clock::of_service().now(), from, since).await;
    restored.with_context(|| format!("cannot restore into {database}"))
}

/// What was restored and what is to be done now.
#[must_use]
pub fn words(restored: &Restored) -> String {
    let Restored { dumped, since } = restored;
    let rows = format!("{} rows as of {} are restored\n", dumped.total(), dumped.at);
    let next = match since {
        Since::Nothing => "start the service on this database; the former one must not run again\n",
        Since::Unknown => {
            "the service begins in recovery, nobody new gets an address: start it, run cni-shim sync on every node, \
             end the VMs made after the backup, then ipamctl recovery end (docs/operations.md)\n"
        }
    };
    rows + next
}
