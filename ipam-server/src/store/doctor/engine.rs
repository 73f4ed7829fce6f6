//! The database's own health: its integrity, and settings by which it would lose what it has acknowledged.

use super::MOST;
use crate::store::{
    Result,
    db::{Engine, Tx, args},
};
use ipam_api::wire::{Finding, Severity};
use nix::sys::statvfs::statvfs;
use std::{fs, os::unix::fs::MetadataExt, path::Path};

const INTEGRITY: &str = "PRAGMA integrity_check(100)";
const FOREIGN_KEYS: &str = "SELECT \"table\", parent, COUNT(*) FROM pragma_foreign_key_check GROUP BY 1, 2";
const JOURNAL: &str = "SELECT journal_mode FROM pragma_journal_mode";

/// Settings without which an answer may be given for what a power cut takes back.
const SETTINGS: &str = "SELECT s.name, s.setting FROM pg_settings AS s
    WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND s.setting = 'off' ORDER BY s.name";
const STANDBY: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'yes' ELSE 'no' END";
const SWITCHED_OFF: &str = "SELECT c.relname::TEXT, COUNT(*) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE t.tgenabled <> 'O' AND c.relnamespace = current_schema()::REGNAMESPACE GROUP BY c.relname ORDER BY 1";
const UNCHECKED: &str = "SELECT c.conrelid::REGCLASS::TEXT, c.conname::TEXT FROM pg_constraint AS c
    WHERE NOT c.convalidated AND c.connamespace = current_schema()::REGNAMESPACE ORDER BY 1, 2";
const UNUSABLE: &str = "SELECT i.indrelid::REGCLASS::TEXT, i.indexrelid::REGCLASS::TEXT FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE NOT (i.indisvalid AND i.indisready) AND c.relnamespace = current_schema()::REGNAMESPACE ORDER BY 1, 2";
const COLLATED: &str = "SELECT c.relname::TEXT, a.attname::TEXT FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::REGNAMESPACE AND c.relname NOT LIKE '\\_sqlx%'
      AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'text'::REGTYPE
      AND a.attcollation <> (SELECT o.oid FROM pg_collation AS o WHERE o.collname = 'C' AND o.collnamespace = 'pg_catalog'::REGNAMESPACE)
    ORDER BY 1, 2";

/// Free space that a day's work fits into, in bytes.
const ROOM: u64 = 256 << 20;

pub(super) async fn look(tx: &mut Tx) -> Result<Vec<Finding>> {
    match tx.engine() {
        Engine::Sqlite => sqlite(tx).await,
        Engine::Postgres => postgres(tx).await,
    }
}

async fn sqlite(tx: &mut Tx) -> Result<Vec<Finding>> {
    const RESTORE: &str =
        "stop the service, keep a copy of the file, and restore the last good backup (docs/operations.md)";
    let mut found = Vec::new();
    let integrity: Vec<(String,)> = tx.fetch_all(INTEGRITY, args![]).await?;
    for (words,) in integrity.into_iter().filter(|(words,)| words != "ok").take(MOST) {
        found.push(broken("damaged-file", "database", words, RESTORE));
    }
    for (table, parent, count) in tx.fetch_all::<(String, String, i64)>(FOREIGN_KEYS, args![]).await? {
        let detail = format!("{count} rows point to rows of {parent} that are not there");
        found.push(broken("broken-reference", &format!("table/{table}"), detail, RESTORE));
    }
    let (journal,): (String,) = tx.fetch_one(JOURNAL, args![]).await?;
    if journal != "wal" {
        let detail = format!("its journal mode is {journal}, not wal");
        let cure = "start the service on it once: it sets the mode";
        found.push(attention("journal-mode", "database", detail, cure));
    }
    Ok(found)
}

async fn postgres(tx: &mut Tx) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (name, setting) in tx.fetch_all::<(String, String)>(SETTINGS, args![]).await? {
        let detail =
            format!("it is {setting}: what was acknowledged may be lost when the server loses power");
        let cure = "set it to on in postgresql.conf and restart the server";
        found.push(broken("unsafe-setting", &format!("setting/{name}"), detail, cure));
    }
    let (standby,): (String,) = tx.fetch_one(STANDBY, args![]).await?;
    if standby == "yes" {
        let detail = "this server is a standby: nothing can be written".to_owned();
        found.push(attention("standby", "database", detail, "name the primary in --database"));
    }
    for (table, count) in tx.fetch_all::<(String, i64)>(SWITCHED_OFF, args![]).await? {
        let detail = format!("{count} of its triggers are switched off, foreign keys among them");
        let cure = "ALTER TABLE … ENABLE TRIGGER ALL, then run doctor again";
        found.push(broken("switched-off", &format!("table/{table}"), detail, cure));
    }
    for (table, name) in tx.fetch_all::<(String, String)>(UNCHECKED, args![]).await? {
        let detail = format!("its constraint {name} was never checked");
        let cure = "ALTER TABLE … VALIDATE CONSTRAINT, which says what breaks it";
        found.push(broken("unchecked-constraint", &format!("table/{table}"), detail, cure));
    }
    for (table, name) in tx.fetch_all::<(String, String)>(UNUSABLE, args![]).await? {
        let detail = format!("its index {name} is not usable");
        found.push(broken("unusable-index", &format!("table/{table}"), detail, "REINDEX it"));
    }
    for (table, column) in tx.fetch_all::<(String, String)>(COLLATED, args![]).await? {
        let detail =
            format!("its column {column} is not compared byte by byte: lists and their pages may lose items");
        let cure = "ALTER TABLE … ALTER COLUMN … TYPE TEXT COLLATE \"C\"";
        found.push(broken("collation", &format!("table/{table}"), detail, cure));
    }
    Ok(found)
}

/// What is wrong around a file of SQLite.
pub(super) fn file(file: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    for suffix in ["", "-wal"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.mode() & 0o077 != 0 {
            let shown = path.display();
            let detail =
                format!("others may read it (mode {:o}), and it holds who may do what", meta.mode() & 0o777);
            found.push(attention("open-file", &format!("file/{shown}"), detail, "chmod go-rwx"));
        }
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(stat) = statvfs(directory) {
        let free = stat.blocks_available() * stat.fragment_size();
        if free < ROOM {
            let detail = format!("{} MiB are left on its disk", free >> 20);
            found.push(attention(
                "little-space",
                "database",
                detail,
                "make room: without it nothing is written",
            ));
        }
    }
    found
}

fn broken(code: &str, object: &str, detail: String, cure: &str) -> Finding {
    finding(code, Severity::Broken, object, detail, cure)
}

fn attention(code: &str, object: &str, detail: String, cure: &str) -> Finding {
    finding(code, Severity::Attention, object, detail, cure)
}

fn finding(code: &str, severity: Severity, object: &str, detail: String, cure: &str) -> Finding {
    Finding {
        code: code.to_owned(),
        severity,
        object: object.to_owned(),
        detail,
        cure: cure.to_owned(),
        repairable: false,
    }
}
