//! What a command works with: the service and the console.

use crate::{
    cli::Global,
    failure::Failure,
    output::{Format, View},
};
use ipam_api::client::{Client, Settings, Token};
use std::{
    fmt::Display,
    io::{self, Write},
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
        let settings = Settings { token: self.token()?, ..Settings::default() };
        Ok(Client::new(self.global.server.clone(), settings)?)
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        if let Some(path) = &self.global.token_file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let path = path.display();
                Failure::Other(format!("cannot read the token in {path}: {error}: check --token-file"))
            })?;
            return Ok(Some(Token::new(&text)?));
        }
        match std::env::var("IPAM_TOKEN") {
            Ok(text) if !text.is_empty() => Ok(Some(Token::new(&text)?)),
            _ => Ok(None),
        }
    }

    /// Prints data to stdout in the format asked for.
    pub(crate) fn show(&self, view: &View) -> Result<(), Failure> {
        let text = view.render(self.global.output)?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)?;
        if matches!(self.global.output, Format::Table | Format::Wide) {
            for note in view.notes() {
                self.say(note);
            }
        }
        Ok(())
    }

    /// Tells people something; a closed stderr is nobody's failure.
    #[expect(clippy::unused_self, reason = "messages belong to the console that a command was given")]
    pub(crate) fn say(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}
