//! What the service is told on its command line, by its environment and by a file.

mod database;
pub mod file;

pub use database::{BackupArgs, DatabaseArgs, DoctorArgs, Report, RestoreArgs};

use crate::{api::Credentials, endpoint::Listen, store::DatabaseUrl, tls::TlsFiles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use std::{fmt, path::PathBuf};

/// Plans, reserves, records and guards the addresses of nodes and pods.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API until SIGTERM or SIGINT.
    Serve(Box<ServeArgs>),
    /// Bring the schema of the database up to date, and say from which version to which.
    #[command(after_help = database::MIGRATE_EXAMPLES)]
    Migrate(DatabaseArgs),
    /// Write all that the database holds to a file, while the service goes on.
    #[command(after_help = database::BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Fill an empty database with a backup, of either make, whole or not at all.
    #[command(after_help = database::RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Look for what is wrong with the database, without changing anything.
    #[command(after_help = database::DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
}

/// Form of the log on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// How the service is run. Every option may stand in a file as well (`--config`), by its long name.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// TOML file with any of the options below by their long names; the command line and the environment win.
    #[arg(long, env = "IPAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen: ADDRESS:PORT (port 0 takes a free one and says which) or `unix:///path`; may be given
    /// several times.
    #[arg(
        long,
        env = "IPAM_LISTEN",
        default_value = "127.0.0.1:8420",
        value_delimiter = ',',
        value_name = "ADDRESS:PORT"
    )]
    pub listen: Vec<Listen>,
    /// Where the database is; it is created and brought up to date where need be.
    #[arg(
        long,
        env = "IPAM_DATABASE",
        hide_env_values = true,
        default_value = "sqlite://ipam.db",
        value_name = "URL"
    )]
    pub database: DatabaseText,
    /// Certificate of the service in PEM, with those that lead to its CA; read again when it changes.
    #[arg(long, env = "IPAM_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, env = "IPAM_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// CA certificates in PEM: a client certificate from them is the node that is its only DNS name.
    #[arg(long, env = "IPAM_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Client certificates that count no more: revocation lists in PEM.
    #[arg(long, env = "IPAM_CLIENT_CRL", value_name = "FILE")]
    pub client_crl: Option<PathBuf>,
    /// Whether a credential is asked for; by default it is, unless only this machine can reach the service.
    #[arg(long, env = "IPAM_CREDENTIALS", value_name = "WHETHER")]
    pub credentials: Option<Asked>,
    /// Where there is no admin's token yet, make one and write it to this new file, for its owner alone.
    #[arg(long, env = "IPAM_BOOTSTRAP_TOKEN_FILE", value_name = "FILE")]
    pub bootstrap_token_file: Option<PathBuf>,
    /// For how many days events are kept.
    #[arg(long, env = "IPAM_KEEP_EVENTS_DAYS", default_value = "400", value_name = "DAYS",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub keep_events_days: u16,
    /// Form of the log on stderr.
    #[arg(long, env = "IPAM_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or a filter by module.
    #[arg(long = "log", env = "IPAM_LOG", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// Listen without TLS on an address that others can reach: they can read and change what is sent.
    #[arg(long)]
    pub insecure_no_tls: bool,
    /// Listen without credentials on an address that others can reach: whoever reaches it may do everything.
    #[arg(long)]
    pub insecure_no_auth: bool,
}

/// Whether a credential is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    /// Without one nobody is let in.
    Required,
    /// Whoever reaches the service may do everything.
    Unasked,
}

/// What keeps others out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// Whether a credential is asked for.
    pub credentials: Credentials,
    /// Certificates, where TCP is TLS.
    pub tls: Option<TlsFiles>,
    /// What was accepted word by word, to be warned of.
    pub dangers: Vec<&'static str>,
}

impl ServeArgs {
    /// What keeps others out; the dangers of listeners that they can reach have to be accepted word by word.
    ///
    /// # Errors
    /// One is not accepted; the message says the cure.
    pub fn security(&self) -> Result<Security, String> {
        self.check_pairs()?;
        let tls = self.tls_cert.clone().zip(self.tls_key.clone()).map(|(cert, key)| TlsFiles {
            cert,
            key,
            client_ca: self.client_ca.clone(),
            client_crl: self.client_crl.clone(),
        });
        let Some(open) = self.listen.iter().find(|listen| !listen.is_local()) else {
            let credentials = match self.credentials {
                Some(Asked::Required) => Credentials::Required,
                Some(Asked::Unasked) | None => Credentials::Unasked,
            };
            return Ok(Security { credentials, tls, dangers: Vec::new() });
        };
        let mut dangers = Vec::new();
        let mut cures = Vec::new();
        match (&tls, self.insecure_no_tls) {
            (Some(_), _) => {}
            (None, true) => {
                dangers.push("without TLS others can read and change what is sent, tokens included");
            }
            (None, false) => {
                cures.push("give --tls-cert and --tls-key, or accept that by --insecure-no-tls");
            }
        }
        let credentials = match (self.credentials, self.insecure_no_auth) {
            (Some(Asked::Required), _) | (None, false) => Credentials::Required,
            (Some(Asked::Unasked) | None, true) => {
                dangers.push("without credentials whoever reaches this service may do everything");
                Credentials::Unasked
            }
            (Some(Asked::Unasked), false) => {
                cures.push("leave out --credentials unasked, or accept that by --insecure-no-auth");
                Credentials::Unasked
            }
        };
        if cures.is_empty() {
            return Ok(Security { credentials, tls, dangers });
        }
        Err(format!("--listen {open} can be reached by others: {}", cures.join("; and ")))
    }
}

impl ServeArgs {
    /// How long events are kept.
    #[must_use]
    pub fn keep_events(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.keep_events_days))
    }

    /// What goes together has to be there together, wherever each half is said.
    fn check_pairs(&self) -> Result<(), String> {
        for (option, given, needed, there) in [
            ("tls-cert", self.tls_cert.is_some(), "tls-key", self.tls_key.is_some()),
            ("tls-key", self.tls_key.is_some(), "tls-cert", self.tls_cert.is_some()),
            ("client-ca", self.client_ca.is_some(), "tls-cert", self.tls_cert.is_some()),
            ("client-crl", self.client_crl.is_some(), "client-ca", self.client_ca.is_some()),
        ] {
            if given && !there {
                return Err(format!("--{option} needs --{needed}: give both or neither"));
            }
        }
        Ok(())
    }
}

/// What `--database` or `IPAM_DATABASE` says, not yet read: it may hold a password, so it is never shown.
#[derive(Clone)]
pub struct DatabaseText(String);

impl From<String> for DatabaseText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for DatabaseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseText(..)")
    }
}

impl DatabaseText {
    /// The database's place.
    ///
    /// # Errors
    /// It is of no kind that is built in, or has a password on the command line, where every user of the machine
    /// sees it. The message says the cure and never repeats the text.
    pub fn url(&self) -> Result<DatabaseUrl, String> {
        database(&self.0).map_err(|cure| format!("--database (or IPAM_DATABASE): {cure}"))
    }
}

fn database(text: &str) -> Result<DatabaseUrl, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split('/').next().unwrap_or_default();
    let has_password =
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains("password=");
    match scheme {
        "postgres" | "postgresql" if has_password && is_argument(text) => Err(
            "it has a password in it, which every user of the machine can read: set IPAM_DATABASE instead, or keep the \
             password in a file"
                .to_owned(),
        ),
        _ => text.parse(),
    }
}

/// Whether the text came as an argument, not by the environment.
fn is_argument(text: &str) -> bool {
    std::env::args().any(|argument| argument == text || argument == format!("--database={text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn args(words: &[&str]) -> Result<ServeArgs, clap::Error> {
        match Cli::try_parse_from([&["ipam-server", "serve"], words].concat())?.command {
            Command::Serve(args) => Ok(*args),
            _ => unreachable!("serve was asked for"),
        }
    }

    fn security(words: &[&str]) -> Result<Security, String> {
        args(words).unwrap().security()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn this_machine_alone_needs_nothing_said() {
        let open = Ok(Security { credentials: Credentials::Unasked, tls: None, dangers: Vec::new() });
        for listen in [&[][..], &["--listen", "[::1]:0"], &["--listen", "unix:///run/s,127.0.0.1:1"]] {
            assert_eq!(security(listen), open, "{listen:?}");
        }
        let asked = security(&["--credentials", "required"]).unwrap();
        assert_eq!(asked.credentials, Credentials::Required);
    }

    #[test]
    fn others_are_kept_out_or_let_in_word_by_word() {
        let open = ["--listen", "127.0.0.1:1", "--listen", "0.0.0.0:8420"];
        let with = |more: &[&str]| security(&[&open[..], more].concat());
        let error = with(&[]).unwrap_err();
        assert!(
            error.contains("0.0.0.0:8420")
                && error.contains("--tls-cert")
                && error.contains("--insecure-no-tls")
        );
        let plain = with(&["--insecure-no-tls"]).unwrap();
        assert_eq!((plain.credentials, plain.dangers.len()), (Credentials::Required, 1));
        let tls = with(&["--tls-cert", "c", "--tls-key", "k"]).unwrap();
        assert_eq!((tls.credentials, tls.dangers.len(), tls.tls.is_some()), (Credentials::Required, 0, true));
        let none = with(&["--insecure-no-tls", "--insecure-no-auth"]).unwrap();
        assert_eq!((none.credentials, none.dangers.len()), (Credentials::Unasked, 2));
        let both = with(&["--insecure-no-tls", "--insecure-no-auth", "--credentials", "required"]).unwrap();
        assert_eq!(both.credentials, Credentials::Required);
        let unasked = with(&["--insecure-no-tls", "--credentials", "unasked"]).unwrap_err();
        assert!(unasked.contains("--insecure-no-auth"), "{unasked}");
    }

    #[test]
    fn what_goes_together_is_wanted_together() {
        for half in [
            &["--tls-cert", "c"][..],
            &["--tls-key", "k"],
            &["--client-ca", "c"],
            &["--tls-cert", "c", "--tls-key", "k", "--client-crl", "r"],
        ] {
            assert!(security(half).unwrap_err().contains(" needs --"), "{half:?}");
        }
        assert!(args(&["--listen", "unix://relative"]).unwrap_err().to_string().contains("unix:///"));
    }

    #[test]
    fn a_database_is_never_shown() {
        let args = args(&["--database", "postgres://ipam:secret@db/ipam"]).unwrap();
        assert!(!format!("{args:?}").contains("secret"));
        let url = args.database.url().unwrap();
        assert!(!format!("{url} {url:?}").contains("secret"));
    }

    #[test]
    fn bad_databases_are_refused_with_their_cure() {
        for (url, cure) in [
            ("postgres://ipam@db:port/ipam", "postgres://USER@HOST"),
            ("mysql://x", "sqlite://"),
            ("ipam.db", "sqlite://"),
            ("sqlite://", "sqlite://"),
        ] {
            let error = args(&["--database", url]).unwrap().database.url().unwrap_err();
            assert!(error.contains(cure), "{url}: {error}");
        }
    }
}
