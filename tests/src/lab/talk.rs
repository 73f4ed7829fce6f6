use super::run_full;
use anyhow::{Context, Result, ensure};
use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Child, ChildStdin, Command, Stdio},
};

/// The program at both ends of a conversation, `talk`.
const TALK: &str = "talk";

/// Somebody who answers at a port, for as long as this lives.
#[derive(Debug)]
pub struct Answering {
    child: Child,
    life: Option<ChildStdin>,
}

impl Answering {
    /// Starts it; `enter` makes the command that runs a program where it is to answer.
    pub fn start(enter: impl Fn(&str) -> Command, protocol: &str, port: u16, name: &str) -> Result<Self> {
        let mut child = enter(TALK)
            .args(["answer", protocol, &port.to_string(), name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting talk")?;
        let life = child.stdin.take();
        let mut ready = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut ready)?;
        }
        ensure!(ready == "ready\n", "nobody answers at {protocol} {port} (see the message above)");
        Ok(Self { child, life })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.life = None;
        // Nothing to be done about one that is gone already.
        drop(self.child.wait());
    }
}

/// What somebody at a port says: a name, and the address that it sees the question come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The answer.
    Answer(String),
    /// None, and why.
    Nothing(String),
}

impl Heard {
    /// The answer of `name` to somebody whom it sees at this address.
    #[must_use]
    pub fn from(name: &str, seen: IpAddr) -> Self {
        Self::Answer(format!("{name} {seen}"))
    }

    /// Whether nothing came.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing(_))
    }
}

/// Asks once; `enter` makes the command that runs a program where the question comes from.
pub fn ask(enter: impl Fn(&str) -> Command, protocol: &str, to: IpAddr, port: u16) -> Result<Heard> {
    said(enter(TALK).args(["ask", protocol, &to.to_string(), &port.to_string()]))
}

/// The same from a port of its own, so that two questions belong to one flow.
pub fn ask_from(
    enter: impl Fn(&str) -> Command,
    from: u16,
    protocol: &str,
    to: IpAddr,
    port: u16,
) -> Result<Heard> {
    said(enter(TALK).args(["ask", protocol, &to.to_string(), &port.to_string(), &from.to_string()]))
}

fn said(command: &mut Command) -> Result<Heard> {
    let output = run_full(command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(match output.status.success() {
        true => Heard::Answer(text(&output.stdout)),
        false => Heard::Nothing(text(&output.stderr)),
    })
}
