use super::{Machine, until};
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    process::Child,
    time::Duration,
};

const PORT: u16 = 8420;
const LOG: &str = "/run/ipam-server.log";
const PID: &str = "/run/ipam-server.pid";
const READY_WITHIN: Duration = Duration::from_secs(15);
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// How a running service is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Term,
    Kill,
}

/// The real `ipam-server` on SQLite, on a machine of its own.
#[derive(Debug)]
pub struct Server {
    machine: Machine,
    listen: SocketAddr,
    url: String,
    running: Option<Child>,
}

impl Server {
    /// A service, not yet started, that will listen on this address of the machine.
    #[must_use]
    pub(super) fn on(machine: Machine, address: IpAddr) -> Self {
        let listen = SocketAddr::new(address, PORT);
        Self { machine, listen, url: format!("http://{listen}"), running: None }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The machine it runs on.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("the service runs already");
        }
        let script = format!(
            "mkdir -p /var/lib/ipam; echo $$ >{PID}
             exec ipam-server serve --listen {} --database sqlite:///var/lib/ipam/ipam.db >>{LOG} 2>&1",
            self.listen
        );
        let child =
            self.machine.enter("sh").args(["-euc", &script]).spawn().context("starting ipam-server")?;
        let child = self.running.insert(child);
        let (machine, listen) = (&self.machine, self.listen);
        until("ipam-server answers /readyz", READY_WITHIN, || {
            if let Some(status) = child.try_wait()? {
                bail!("ipam-server ended at once, {status}: {}", machine.read(LOG));
            }
            Ok(ready(machine, listen).then_some(()))
        })
    }

    /// Ends it by SIGTERM and waits; fails unless it then ends well.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::Term)
    }

    /// Ends it by SIGKILL, wherever it is.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::Kill)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.machine.read(LOG);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.running.take() else { bail!("the service does not run") };
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
        };
        self.machine.script(&format!("kill -{name} \"$(cat {PID})\""))?;
        let status = until("ipam-server ends", STOPS_WITHIN, || Ok(child.try_wait()?))?;
        if signal == Signal::Term && !status.success() {
            bail!("ipam-server ended with {status} on SIGTERM: {}", self.log());
        }
        Ok(())
    }
}

/// Whether a service says it is ready. Not ready and not there are the same to one who waits.
fn ready(machine: &Machine, listen: SocketAddr) -> bool {
    let ask = || -> Result<bool> {
        let mut stream = machine.connect(listen, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}
