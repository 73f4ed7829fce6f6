//! The configuration file: every option of `serve` by its long name, in TOML. It comes last: what the command line
//! or the environment says wins.

use super::Cli;
use clap::{CommandFactory, FromArgMatches, builder::OsStr, error::ErrorKind};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// The options that stand on the command line alone.
const NOT_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// Reads the command line, and the file that it or `IPAM_CONFIG` names.
///
/// # Errors
/// Any of them is wrong; the message names the option and the cure, and never repeats a value.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = Cli::command();
    if let Some(path) = named(&words) {
        let options = read(&path).map_err(|why| {
            let message = format!("--config {}: {why}\n", path.display());
            command.error(ErrorKind::InvalidValue, message)
        })?;
        for (name, values) in options {
            command = command.mut_subcommand("serve", |serve| {
                let id = name.replace('-', "_");
                let id = if name == "log" { "log_filter".to_owned() } else { id };
                // Help shows no value of the file: one may hold a password.
                serve.mut_arg(id, |arg| {
                    let takes_value = arg.get_action().takes_values();
                    arg.default_values(values.into_iter().map(OsStr::from)).hide_default_value(takes_value)
                })
            });
        }
    }
    Cli::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// The file that is named, before anything else is read.
fn named(words: &[OsString]) -> Option<PathBuf> {
    if words.get(1).is_none_or(|word| word != "serve") {
        return None;
    }
    let mut given = words.iter().skip(2);
    while let Some(word) = given.next() {
        if word == "--config" {
            return given.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("IPAM_CONFIG").map(PathBuf::from)
}

/// The options of a file with their values as words.
fn read(path: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // The parser's own message quotes the line, which may hold a secret.
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text[..at.min(text.len())].lines().count().max(1);
        format!("is no TOML at line {line}: {}", error.message())
    })?;
    let known = known();
    table
        .into_iter()
        .map(|(name, value)| {
            if !known.contains(&name) {
                return Err(format!("{name} is no option: there are {}", known.join(", ")));
            }
            let words = words(value).ok_or_else(|| {
                format!("{name} has to be a text, a number, true or false, or a list of texts")
            })?;
            Ok((name, words))
        })
        .collect()
}

fn known() -> Vec<String> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve");
    let options = serve.into_iter().flat_map(|serve| serve.get_arguments());
    let names = options.filter_map(|option| option.get_long().map(str::to_owned));
    names.filter(|name| !NOT_IN_A_FILE.contains(&name.as_str())).collect()
}

fn words(value: Value) -> Option<Vec<String>> {
    Some(match value {
        Value::String(text) => vec![text],
        Value::Integer(number) => vec![number.to_string()],
        Value::Boolean(flag) => vec![flag.to_string()],
        Value::Array(items) => {
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, ServeArgs};
    use std::io::Write;

    fn parsed(file: &str, more: &[&str]) -> Result<ServeArgs, String> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let config = format!("--config={}", on_disk.path().display());
        let words = [&["ipam-server", "serve", &config], more].concat();
        match parse(words.into_iter().map(OsString::from)).map_err(|error| error.to_string())?.command {
            Command::Serve(args) => Ok(*args),
            _ => unreachable!("serve was asked for"),
        }
    }

    #[test]
    fn a_file_says_what_nobody_else_says() {
        let file = "listen = [\"127.0.0.1:1\", \"unix:///run/s\"]\nlog = \"debug\"\ninsecure-no-tls = true\n";
        let args = parsed(file, &[]).unwrap();
        assert_eq!((args.listen.len(), args.log_filter.as_str(), args.insecure_no_tls), (2, "debug", true));
        assert!(!args.insecure_no_auth);
        let args = parsed(file, &["--listen", "127.0.0.1:9", "--log", "warn"]).unwrap();
        assert_eq!((args.listen.len(), args.log_filter.as_str()), (1, "warn"));
    }

    #[test]
    fn a_file_and_the_command_line_share_what_goes_together() {
        let args = parsed("tls-key = \"k\"", &["--tls-cert", "c"]).unwrap();
        assert!(args.security().unwrap().tls.is_some());
        let half = parsed("tls-cert = \"c\"", &[]).unwrap().security().unwrap_err();
        assert!(half.contains("--tls-cert needs --tls-key"), "never without TLS by mistake: {half}");
        assert!(parsed("client-ca = \"c\"", &[]).unwrap().security().is_err());
    }

    #[test]
    fn help_shows_no_secret_of_the_file() {
        let help = parsed("database = \"postgres://a:secret@b\"", &["--help"]).unwrap_err();
        assert!(help.contains("--database") && !help.contains("secret"), "{help}");
    }

    #[test]
    fn a_wrong_file_is_named_and_not_quoted() {
        for (file, why) in [
            ("database = \"postgres://a:secret@b", "no TOML at line 1"),
            ("bogus = 1", "bogus is no option: there are"),
            ("config = \"x\"", "config is no option"),
            ("[listen]\na = 1", "listen has to be"),
            ("listen = \"nowhere\"", "ADDRESS:PORT"),
        ] {
            let error = parsed(file, &[]).unwrap_err();
            assert!(error.contains(why), "{file}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(parse(["ipam-server", "serve", "--config", "/nowhere"].map(OsString::from)).is_err());
    }
}
