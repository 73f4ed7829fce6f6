//! The schema's versions: which one a database has, and the way to the program's own.

use super::{Sql, sqlite};
use crate::store::{Result, StoreError};
use sqlx::migrate::{Migrate, MigrateError, Migrator};

/// Where sqlx keeps what was done.
const DONE: &str = "_sqlx_migrations";

pub(super) const IS_MADE: Sql = Sql {
    sqlite: "SELECT COUNT(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'",
    postgres: "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')",
};
pub(super) const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";

/// Whether a schema of this version (`None`: there is none) is this program's.
pub(super) fn check(version: Option<i64>) -> Result<()> {
    let known = schema_version();
    let cure = match version {
        Some(version) if version == known => return Ok(()),
        Some(version) if version > known => {
            format!(
                "its schema has version {version} and this program knows {known}: use the ipam-server that it is of"
            )
        }
        Some(version) => format!(
            "its schema has version {version} and this program's is {known}: bring it up to date by ipam-server migrate"
        ),
        None => "there is nothing of ipam-server in it: is it the right one?".to_owned(),
    };
    Err(StoreError::Unfit(cure))
}

/// What bringing a schema up to date came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version that was found; absent in an empty database.
    pub from: Option<i64>,
    /// The version that is there now.
    pub to: i64,
}

/// The schema version of this program.
#[must_use]
pub fn schema_version() -> i64 {
    // Numbered alike for both databases, which a test keeps so.
    last(&sqlite::MIGRATIONS)
}

fn last(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Takes the steps that are missing; the caller has the database to itself.
pub(super) async fn run<C: Migrate>(
    migrations: &Migrator,
    connection: &mut C,
) -> Result<Migrated, MigrateError> {
    connection.ensure_migrations_table(DONE).await?;
    let from = connection.list_applied_migrations(DONE).await?.iter().map(|step| step.version).max();
    migrations.run_direct(None, connection, false).await?;
    Ok(Migrated { from, to: last(migrations).max(from.unwrap_or_default()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::postgres;

    #[test]
    fn both_databases_have_the_same_versions() {
        let versions = |migrations: &Migrator| -> Vec<(i64, String)> {
            migrations.iter().map(|step| (step.version, step.description.to_string())).collect()
        };
        assert_eq!(versions(&sqlite::MIGRATIONS), versions(&postgres::MIGRATIONS));
    }
}
