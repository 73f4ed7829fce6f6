//! What a database's refusal means to whoever asked.

use crate::store::StoreError;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // A connection that ends in the middle of a message.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::InvalidSavePointStatement
            | sqlx::Error::BeginFailed => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(refusal) => match trouble(&**refusal) {
                Trouble::Passing => Self::Unavailable(error.to_string()),
                Trouble::Undone => Self::Undone(error.to_string()),
                Trouble::Defect => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The same may work later.
    Passing,
    /// Undone in favour of another transaction: the same works when done again.
    Undone,
    /// It would be refused again.
    Defect,
}

fn trouble(refusal: &dyn DatabaseError) -> Trouble {
    let code = refusal.code().unwrap_or_default();
    if refusal.try_downcast_ref::<PgDatabaseError>().is_some() {
        of_postgres(&code)
    } else {
        match of_sqlite(&code) {
            Some(SQLITE_BUSY | SQLITE_IOERR | SQLITE_FULL) => Trouble::Passing,
            _ => Trouble::Defect,
        }
    }
}

/// Whether SQLite refuses because another has the file.
pub(super) fn is_busy(refusal: &dyn DatabaseError) -> bool {
    of_sqlite(&refusal.code().unwrap_or_default()) == Some(SQLITE_BUSY)
}

const SQLITE_BUSY: u32 = 5;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;

/// The primary result code in an extended one.
fn of_sqlite(code: &str) -> Option<u32> {
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Whether a connection to PostgreSQL is no more, so that another may fare better.
pub(super) fn has_ended(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // connection_exception, admin_shutdown and its like, idle_in_transaction_session_timeout
        sqlx::Error::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            code.starts_with("08") || code.starts_with("57P") || code == "25P03"
        }
        _ => false,
    }
}

/// By SQLSTATE (PostgreSQL, appendix A): its first two characters are the class.
fn of_postgres(code: &str) -> Trouble {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Trouble::Undone,
        // read_only_sql_transaction: a standby, or a primary that is one by now.
        // lock_not_available, and what a transaction that stood too long hears.
        "25006" | "25P03" | "55P03" => Trouble::Passing,
        _ => match code.get(..2) {
            // The connection, who connects, memory and disk and connections, an operator, the server's own disk.
            Some("08" | "28" | "53" | "57" | "58") => Trouble::Passing,
            _ => Trouble::Defect,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for (code, means) in [
            ("40001", Trouble::Undone),
            ("40P01", Trouble::Undone),
            ("25006", Trouble::Passing),
            ("53300", Trouble::Passing),
            ("57P01", Trouble::Passing),
            ("57P03", Trouble::Passing),
            ("08006", Trouble::Passing),
            // unique_violation, undefined_column
            ("23505", Trouble::Defect),
            ("42703", Trouble::Defect),
            ("", Trouble::Defect),
        ] {
            assert_eq!(of_postgres(code), means, "{code}");
        }
    }
}
