//! Where a database is, as people write it.

use sqlx::postgres::PgConnectOptions;
use std::{
    fmt::{self, Display},
    path::PathBuf,
    str::FromStr,
};

/// Where the database is. Shown, it has no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(PostgresUrl),
}

/// A URL of a PostgreSQL database (libpq's form). It may hold a password, so it is never shown as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

const FORMS: &str = "give sqlite://PATH, for example sqlite://ipam.db or sqlite:///var/lib/ipam/ipam.db, or \
                     postgres://USER@HOST/DATABASE, for example postgres://ipam@db.example:5432/ipam or \
                     postgres:///ipam?host=/run/postgresql";

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            // A database in memory would be another one in every connection.
            Some(("sqlite", path)) if !path.is_empty() && !path.contains('?') && path != ":memory:" => {
                Ok(Self::Sqlite(path.into()))
            }
            Some(("postgres" | "postgresql", _)) => {
                let url = PostgresUrl(text.to_owned());
                // What is wrong would be told with the text, password and all.
                url.options().map(|_| Self::Postgres(url)).map_err(|_| FORMS.to_owned())
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

impl PostgresUrl {
    /// What a connection needs; what the URL leaves out comes from `PGUSER`, `PGPASSFILE` and their like.
    pub(super) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        self.0.parse()
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

impl Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(options) = self.options() else { return f.write_str("postgres://") };
        let place = options.get_socket().map_or_else(
            || format!("{}:{}", options.get_host(), options.get_port()),
            |socket| socket.display().to_string(),
        );
        let (user, database) = (options.get_username(), options.get_database());
        write!(f, "{} at {place} as {user}", database.unwrap_or(user))
    }
}

impl Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let url: DatabaseUrl = "postgres://ipam:secret@db.example:5433/pods".parse().unwrap();
        let shown = format!("{url} {url:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(url.to_string(), "pods at db.example:5433 as ipam");
        let socket: DatabaseUrl =
            "postgres:///pods?host=/run/postgresql&user=ipam&password=secret".parse().unwrap();
        assert_eq!(socket.to_string(), "pods at /run/postgresql as ipam");
    }

    #[test]
    fn what_is_no_database_is_refused_without_being_repeated() {
        for text in [
            "postgres://a:secret@b:port/c",
            "mysql://a:secret@b",
            "ipam.db",
            "sqlite://",
            "sqlite://:memory:",
        ] {
            let cure = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(
                cure.contains("sqlite://PATH") && cure.contains("postgres://USER@HOST"),
                "{text}: {cure}"
            );
            assert!(!cure.contains("secret"), "{cure}");
        }
    }
}
