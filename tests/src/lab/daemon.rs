use super::{Machine, until};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// A program that stays on a machine. Its output goes to `/run/NAME.log`.
#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    /// The `nsenter` that it is a child of.
    entered: Child,
}

impl Daemon {
    /// Starts it; `command` is shell.
    pub(super) fn start(machine: &Machine, name: &'static str, command: &str) -> Result<Self> {
        let script = format!("echo $$ >{}; exec {command} >>{} 2>&1", pid_file(name), log_file(name));
        let entered = machine
            .enter("sh")
            .args(["-euc", &script])
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, entered })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.entered.try_wait()?)
    }

    /// Stops it where it stands: connections stay open, nothing is answered.
    pub(super) fn freeze(&self, machine: &Machine) -> Result<()> {
        self.signal(machine, Signal::SIGSTOP)
    }

    /// Lets a frozen one go on.
    pub(super) fn thaw(&self, machine: &Machine) -> Result<()> {
        self.signal(machine, Signal::SIGCONT)?;
        // `nsenter` stopped when it saw its child stop.
        kill(Pid::from_raw(self.entered.id().try_into()?), Signal::SIGCONT)?;
        Ok(())
    }

    /// Ends it and waits; fails unless it then ends well where it is asked to (SIGTERM).
    pub(super) fn end(&mut self, machine: &Machine, signal: Signal) -> Result<()> {
        self.signal(machine, signal)?;
        let name = self.name;
        let status = until(&format!("{name} ends"), ENDS_WITHIN, || self.ended())?;
        if signal == Signal::SIGTERM && !status.success() {
            bail!("{name} ended with {status} on SIGTERM: {}", Self::log(machine, name));
        }
        Ok(())
    }

    /// Ends it in whatever state it is, where there is nobody to tell of a failure.
    pub(super) fn put_down(&mut self, machine: &Machine) {
        // A machine ends when its last process is reaped, which a stopped `nsenter` would not do.
        drop(self.thaw(machine));
        drop(self.end(machine, Signal::SIGKILL));
    }

    /// The last lines of its output.
    pub(super) fn log(machine: &Machine, name: &str) -> String {
        let log = machine.read(&log_file(name));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn signal(&self, machine: &Machine, signal: Signal) -> Result<()> {
        let word = signal.as_str().trim_start_matches("SIG");
        machine.script(&format!("kill -{word} \"$(cat {})\"", pid_file(self.name)))?;
        Ok(())
    }
}

fn pid_file(name: &str) -> String {
    format!("/run/{name}.pid")
}

fn log_file(name: &str) -> String {
    format!("/run/{name}.log")
}
