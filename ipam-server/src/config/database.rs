//! The commands that are about a database, not about serving.

use super::DatabaseText;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(super) const MIGRATE_EXAMPLES: &str = "\
`serve` does the same when it starts. Several at once wait for each other, and one does it.

Examples:
  ipam-server migrate --database sqlite:///var/lib/ipam/ipam.db
  IPAM_DATABASE=postgres://ipam:PASSWORD@db.example/ipam ipam-server migrate";

pub(super) const BACKUP_EXAMPLES: &str = "\
The backup is one moment's, is of no database's own form, and holds who may do what: keep it as
you keep secrets.

Examples:
  ipam-server backup --database sqlite:///var/lib/ipam/ipam.db /backup/ipam-$(date +%F).jsonl
  ipam-server backup --database postgres:///ipam?host=/run/postgresql - | gzip > ipam.jsonl.gz";

pub(super) const RESTORE_EXAMPLES: &str = "\
Stop the service first. Without --nothing-since the service begins in recovery: until it is ended,
nobody new gets an address, because VMs and pods made since the backup may have some that the
backup does not know (docs/operations.md).

Examples:
  ipam-server restore --database sqlite:///var/lib/ipam/new.db /backup/ipam-2026-01-31.jsonl
  Move from SQLite to PostgreSQL: stop the service, then
    ipam-server backup --database sqlite:///var/lib/ipam/ipam.db ipam.jsonl
    ipam-server restore --database postgres://ipam@db.example/ipam --nothing-since ipam.jsonl";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Exit status: 0 nothing is broken, 1 something is, 2 wrong usage. A service is looked at by
ipamctl fsck, which also repairs.

Examples:
  ipam-server doctor --database sqlite:///var/lib/ipam/ipam.db
  ipam-server doctor --database postgres://ipam@db.example/ipam --output json";

/// Which database it is about.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Where the database is: `sqlite://PATH` or `postgres://USER@HOST/DATABASE`.
    #[arg(
        long,
        env = "IPAM_DATABASE",
        hide_env_values = true,
        default_value = "sqlite://ipam.db",
        value_name = "URL"
    )]
    pub database: DatabaseText,
}

/// What is backed up, and where to.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// File to write, for its owner alone; it is there whole or not at all. `-` is stdout.
    pub file: PathBuf,
}

/// What is restored, and where.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// File that `backup` wrote. `-` is stdin.
    pub file: PathBuf,
    /// The service was stopped before this backup was made and has not run since: it goes on where it was.
    #[arg(long)]
    pub nothing_since: bool,
}

/// What is looked at, and how it is told.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// How to tell what was found.
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub output: Report,
}

/// How findings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// For people.
    Table,
    /// For programs.
    Json,
}
