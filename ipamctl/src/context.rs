//! What a command works with: the service and the console.

use crate::{
    cli::Global,
    failure::Failure,
    output::{Format, View},
};
use ipam_api::client::{Authorities, Client, ClientError, Identity, Roots, Settings, Token};
use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

pub(crate) struct Context {
    global: Global,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    /// A client of the service named on the command line.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let server = self.global.server.clone();
        let mut settings = Settings { token: self.token()?, ..Settings::default() };
        // A socket has no use for certificates that the environment names for other services.
        if server.is_tls() {
            settings.identity = self.identity()?;
            if let Some(path) = &self.global.ca_file {
                let pem = read(path, "the CA certificates", "--ca-file")?;
                settings.roots = Roots::Only(Authorities::from_pem(&pem).map_err(|error| of(path, &error))?);
            }
        }
        Ok(Client::new(server, settings)?)
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        if let Some(path) = &self.global.token_file {
            let text = read(path, "the token", "--token-file")?;
            self.warn_of_readers(path, "the token");
            // Other bytes are no token, and the error does not show them.
            return Ok(Some(Token::new(&String::from_utf8_lossy(&text)).map_err(|error| of(path, &error))?));
        }
        match std::env::var("IPAM_TOKEN") {
            Ok(text) if !text.is_empty() => Ok(Some(Token::new(&text)?)),
            _ => Ok(None),
        }
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        match (&self.global.cert_file, &self.global.key_file) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => {
                let pem = read(cert, "the client certificate", "--cert-file")?;
                let private = read(key, "the private key", "--key-file")?;
                self.warn_of_readers(key, "the private key");
                Identity::from_pem(&pem, &private).map(Some).map_err(|error| {
                    Failure::Other(format!("{} and {}: {error}", cert.display(), key.display()))
                })
            }
            (Some(_), None) | (None, Some(_)) => Err(Failure::Usage(
                "a client certificate needs its private key: give --cert-file and --key-file together"
                    .to_owned(),
            )),
        }
    }

    fn warn_of_readers(&self, path: &Path, what: &str) {
        let mode = fs::metadata(path).map(|meta| if meta.is_file() { meta.mode() } else { 0 });
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            let path = path.display();
            self.say(format_args!("warning: others can read {what} in {path}: chmod 600 {path}"));
        }
    }

    /// Prints data to stdout in the format asked for.
    pub(crate) fn show(&self, view: &View) -> Result<(), Failure> {
        self.print(&view.render(self.global.output)?)?;
        if matches!(self.global.output, Format::Table | Format::Wide) {
            for note in view.notes() {
                self.say(note);
            }
        }
        Ok(())
    }

    /// Prints text to stdout as it is.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)
    }

    /// How to print data.
    pub(crate) fn format(&self) -> Format {
        self.global.output
    }

    /// Tells people something; a closed stderr is nobody's failure.
    #[expect(clippy::unused_self, reason = "messages belong to the console that a command was given")]
    pub(crate) fn say(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn read(path: &Path, what: &str, option: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::Other(format!("cannot read {what} in {}: {error}: check {option}", path.display()))
    })
}

fn of(path: &Path, error: &ClientError) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}
