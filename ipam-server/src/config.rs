//! What the service is told on its command line and by its environment.

use crate::store::DatabaseUrl;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{fmt, net::SocketAddr};

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
    Serve(ServeArgs),
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

/// How the service is run.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one and says which.
    #[arg(long, env = "IPAM_LISTEN", default_value = "127.0.0.1:8420", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where the database is; it is created and brought up to date where need be.
    #[arg(
        long,
        env = "IPAM_DATABASE",
        hide_env_values = true,
        default_value = "sqlite://ipam.db",
        value_name = "URL"
    )]
    pub database: DatabaseText,
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

impl ServeArgs {
    /// Whether the listener is safe, or its dangers are accepted word by word.
    ///
    /// # Errors
    /// Others can reach it and that is not accepted; the message says the cure.
    pub fn accepted(&self) -> Result<Exposure, String> {
        if self.listen.ip().is_loopback() {
            return Ok(Exposure::Loopback);
        }
        let missing: Vec<&str> =
            [(self.insecure_no_tls, "--insecure-no-tls"), (self.insecure_no_auth, "--insecure-no-auth")]
                .into_iter()
                .filter_map(|(given, flag)| (!given).then_some(flag))
                .collect();
        if missing.is_empty() {
            return Ok(Exposure::Others);
        }
        Err(format!(
            "--listen {} can be reached by others, and this service has neither TLS nor credentials yet: listen on \
             127.0.0.1, or accept that by {}",
            self.listen,
            missing.join(" and ")
        ))
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

/// Who can reach the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Only this machine.
    Loopback,
    /// Others.
    Others,
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
        "postgres" | "postgresql" => {
            Err("PostgreSQL is not built in yet: use sqlite://PATH, for example sqlite://ipam.db".to_owned())
        }
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
            Command::Serve(args) => Ok(args),
            Command::Openapi => unreachable!("serve was asked for"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn loopback_is_the_default_and_needs_nothing_said() {
        assert_eq!(args(&[]).unwrap().accepted(), Ok(Exposure::Loopback));
        assert_eq!(args(&["--listen", "[::1]:0"]).unwrap().accepted(), Ok(Exposure::Loopback));
    }

    #[test]
    fn other_listeners_want_both_dangers_accepted() {
        let open = ["--listen", "0.0.0.0:8420"];
        assert!(
            args(&open).unwrap().accepted().unwrap_err().contains("--insecure-no-tls and --insecure-no-auth")
        );
        let half = [&open[..], &["--insecure-no-tls"]].concat();
        assert!(args(&half).unwrap().accepted().unwrap_err().ends_with("--insecure-no-auth"));
        let both = [&half[..], &["--insecure-no-auth"]].concat();
        assert_eq!(args(&both).unwrap().accepted(), Ok(Exposure::Others));
    }

    #[test]
    fn a_database_is_never_shown() {
        let args = args(&["--database", "postgres://ipam:secret@db/ipam"]).unwrap();
        assert!(!format!("{args:?}").contains("secret"));
        assert!(!args.database.url().unwrap_err().contains("secret"));
    }

    #[test]
    fn bad_databases_are_refused_with_their_cure() {
        for (url, cure) in [
            ("postgres://ipam@db/ipam", "sqlite://"),
            ("mysql://x", "sqlite://"),
            ("ipam.db", "sqlite://"),
            ("sqlite://", "sqlite://"),
        ] {
            let error = args(&["--database", url]).unwrap().database.url().unwrap_err();
            assert!(error.contains(cure), "{url}: {error}");
        }
    }
}
