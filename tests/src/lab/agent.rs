use super::{Machine, Node, daemon::Daemon, until};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::{process::ExitStatus, time::Duration};

const NAME: &str = "agent";
/// Long enough for a start on a busy machine.
const LISTENS_WITHIN: Duration = Duration::from_secs(15);

/// A node's agent: the real `cni-shim agent`, which ends with this value.
#[derive(Debug)]
pub struct Agent<'a> {
    machine: &'a Machine,
    running: Daemon,
}

impl Node {
    /// Starts the agent with these words more on its command line, and waits until it listens.
    pub fn agent(&self, words: &[&str]) -> Result<Agent<'_>> {
        let command = format!("cni-shim agent --config {} {}", self.config(), words.join(" "));
        // What an earlier one has said is not this one's word.
        self.machine().script(&format!("rm -f /run/{NAME}.log"))?;
        let running = Daemon::start(self.machine(), NAME, &command)?;
        let mut agent = Agent { machine: self.machine(), running };
        until("the agent listens", LISTENS_WITHIN, || {
            if let Some(status) = agent.ended()? {
                bail!("the agent ended at once, {status}: {}", agent.log());
            }
            Ok(agent.log().contains("listening on http://").then_some(()))
        })?;
        Ok(agent)
    }
}

impl Agent<'_> {
    /// Stops it where it stands.
    pub fn freeze(&self) -> Result<()> {
        self.running.freeze(self.machine)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) -> Result<()> {
        self.running.thaw(self.machine)
    }

    /// Ends it by SIGTERM and waits; fails unless it then ends well.
    pub fn stop(mut self) -> Result<()> {
        self.running.end(self.machine, Signal::SIGTERM)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.running.ended()
    }

    /// What it answers at a path of its default address: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        // Loopback is the machine's own: the question is asked from there.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8421
             printf 'GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3
             cat <&3"
        );
        let answer = super::run(self.machine.enter("bash").args(["-euc", &script]))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// The last lines of its output.
    #[must_use]
    pub fn log(&self) -> String {
        Daemon::log(self.machine, NAME)
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if matches!(self.running.ended(), Ok(None)) {
            self.running.put_down(self.machine);
        }
    }
}
