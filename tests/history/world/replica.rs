use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use vnet_tests::lab::Binaries;

/// One real `ipam-server` on loopback.
#[derive(Debug)]
pub(super) struct Replica {
    program: PathBuf,
    /// Of its database, as `IPAM_DATABASE` has it.
    url: String,
    log: PathBuf,
    /// Says by how many milliseconds its clock is wrong.
    clock: PathBuf,
    wrong: SignedDuration,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Replica {
    /// One over the database of this URL, not yet started, that writes its log below this directory.
    pub(super) fn over(url: String, number: usize, below: &Path) -> Result<Self> {
        let program = Binaries::find()?.program("ipam-server");
        let (log, clock) =
            (below.join(format!("ipam-server-{number}.log")), below.join(format!("clock-{number}")));
        Ok(Self { program, url, log, clock, wrong: SignedDuration::ZERO, running: None })
    }

    /// Where it listens, if it runs.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|running| running.address)
    }

    /// Starts it and waits until it listens.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IPAM_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"])
            .env("IPAM_DATABASE", &self.url)
            .env("IPAM_FAULT_CLOCK", &self.clock)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting ipam-server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            child.kill()?;
            child.wait()?;
            bail!("ipam-server does not listen: {line:?}; its log ends so:\n{}", self.log());
        };
        self.running = Some(Running { child, address: address.parse()? });
        Ok(())
    }

    /// Ends it by SIGKILL, wherever it is.
    pub(super) fn kill(&mut self) -> Result<()> {
        if let Some(Running { mut child, .. }) = self.running.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops it where it stands: connections stay open, nothing is answered.
    pub(super) fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on.
    pub(super) fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sets its clock wrong by so much from now on.
    pub(super) fn set_wrong(&mut self, wrong: SignedDuration) -> Result<()> {
        self.wrong = wrong;
        // In one go: it may look at any moment.
        let draft = self.clock.with_extension("new");
        fs::write(&draft, wrong.as_millis().to_string())?;
        Ok(fs::rename(&draft, &self.clock)?)
    }

    /// Fails if what it takes for now is not as wrong as it was set.
    pub(super) fn is_as_wrong(&self, its_now: Timestamp) -> Result<()> {
        let off = its_now.duration_since(Timestamp::now().checked_add(self.wrong)?).abs();
        ensure!(
            off < SignedDuration::from_mins(1),
            "the clock of ipam-server does not jump: build it with --features ipam-server/fault-points"
        );
        Ok(())
    }

    /// The last lines of its log.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.running.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(running.child.id().try_into()?), signal)?)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.kill());
    }
}
