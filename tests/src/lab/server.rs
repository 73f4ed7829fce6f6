use super::{Authority, Machine, Node, daemon::Daemon, run, until};
use anyhow::{Context, Result, bail};
use ipam_api::wire;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

const PORT: u16 = 8420;
const NAME: &str = "ipam-server";
const CA: &str = "/run/tls/ca.pem";
const CERT: &str = "/run/tls/cert.pem";
const KEY: &str = "/run/tls/key.pem";
/// For questions from outside its network.
const SOCKET: &str = "/run/ipam.sock";
const ADMIN_TOKEN: &str = "/var/lib/ipam/admin.token";
const READY_WITHIN: Duration = Duration::from_secs(15);

/// The real `ipam-server` on SQLite, on a machine of its own.
#[derive(Debug)]
pub struct Server {
    machine: Machine,
    authority: Authority,
    listen: SocketAddr,
    url: String,
    running: Option<Daemon>,
}

impl Server {
    /// A service, not yet started, that will listen with TLS on the first of these addresses of the machine.
    pub(super) fn on(machine: Machine, addresses: &[IpAddr]) -> Result<Self> {
        let listen = SocketAddr::new(*addresses.first().context("a service without an address")?, PORT);
        let authority = Authority::new()?;
        let identity = authority.issue(addresses)?;
        machine.script("umask 077; mkdir -p /run/tls /var/lib/ipam")?;
        for (path, text) in [(CA, authority.pem()), (CERT, identity.cert), (KEY, identity.key)] {
            machine.write(path, text.as_bytes())?;
        }
        machine.script(&format!("chmod 600 {KEY}"))?;
        Ok(Self { machine, authority, listen, url: format!("https://{listen}"), running: None })
    }

    /// Who vouches for it.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
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
        self.start_under("")
    }

    /// The same, started by another program: its name and words, in shell.
    pub fn start_under(&mut self, wrapper: &str) -> Result<()> {
        if self.running.is_some() {
            bail!("the service runs already");
        }
        let command = format!(
            "{wrapper} ipam-server serve --listen {} --tls-cert {CERT} --tls-key {KEY} --client-ca {CA} --listen unix://{SOCKET} \
               --bootstrap-token-file {ADMIN_TOKEN} --database sqlite:///var/lib/ipam/ipam.db",
            self.listen
        );
        let daemon = self.running.insert(Daemon::start(&self.machine, NAME, &command)?);
        let machine = &self.machine;
        until("ipam-server answers /readyz", READY_WITHIN, || {
            if let Some(status) = daemon.ended()? {
                bail!("ipam-server ended at once, {status}: {}", Daemon::log(machine, NAME));
            }
            Ok(ready(machine).then_some(()))
        })
    }

    /// Ends it by SIGTERM and waits; fails unless it then ends well.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it by SIGKILL, wherever it is.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Stops it where it stands: connections stay open, nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.running.as_ref().context("the service does not run")?.freeze(&self.machine)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) -> Result<()> {
        self.running.as_ref().context("the service does not run")?.thaw(&self.machine)
    }

    /// `ipamctl` on the same machine, as the first admin.
    #[must_use]
    pub fn ctl_command(&self, args: &[&str]) -> Command {
        self.ctl_command_with(self.machine.read(ADMIN_TOKEN).trim(), args)
    }

    /// `ipamctl` on the same machine with this token; none: without.
    #[must_use]
    pub fn ctl_command_with(&self, token: &str, args: &[&str]) -> Command {
        let mut command = self.machine.enter("ipamctl");
        command.env("IPAM_SERVER", &self.url).env("IPAM_CA_FILE", CA).env("IPAM_TOKEN", token).args(args);
        command
    }

    /// What `ipamctl` on the same machine prints; fails where it fails, with what it says.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        run(&mut self.ctl_command(args)).with_context(|| format!("ipamctl {}", args.join(" ")))
    }

    /// The same as a value, by `-o json`.
    pub fn ctl_json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.ctl(&[&["-o", "json"], args].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("ipamctl -o json {} printed {text}", args.join(" ")))
    }

    /// The live allocations of a node by the ledger.
    pub fn ledger(&self, node: &Node) -> Result<Vec<wire::Allocation>> {
        let page: wire::Listing<wire::Allocation> =
            self.ctl_json(&["allocation", "list", "--node", node.name()])?;
        if page.next.is_some() {
            bail!("ipamctl allocation list stopped before the last page");
        }
        Ok(page.items.into_iter().filter(|one| one.state == wire::AllocationState::Held).collect())
    }

    /// Fails unless ledger and journal of a node name the same live attachments with the same addresses;
    /// returns how many.
    pub fn agrees_with(&self, node: &Node) -> Result<usize> {
        let mut ledger: Vec<(String, Vec<IpAddr>)> = self
            .ledger(node)?
            .into_iter()
            .map(|one| {
                (one.container_id.to_string(), one.addresses.iter().map(|held| held.address).collect())
            })
            .collect();
        let mut journal: Vec<(String, Vec<IpAddr>)> = node
            .journal()?
            .into_iter()
            .filter(|one| one.state.is_live())
            .map(|one| (one.container_id, one.addresses))
            .collect();
        ledger.sort();
        journal.sort();
        if ledger != journal {
            let only = |of: &[(String, Vec<IpAddr>)], not: &[(String, Vec<IpAddr>)]| {
                of.iter().filter(|one| !not.contains(one)).cloned().collect::<Vec<_>>()
            };
            bail!(
                "{}: ledger and journal differ: only the ledger has {:?}, only the journal has {:?}",
                node.name(),
                only(&ledger, &journal),
                only(&journal, &ledger)
            );
        }
        Ok(ledger.len())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        Daemon::log(&self.machine, NAME)
    }

    /// A socket at which it listens besides, as seen from outside.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.machine.outside(SOCKET)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.running.take().context("the service does not run")?.end(&self.machine, signal)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.put_down(&self.machine);
        }
    }
}

/// Whether a service says it is ready. Not ready and not there are the same to one who waits.
fn ready(machine: &Machine) -> bool {
    let ask = || -> Result<bool> {
        let mut stream = UnixStream::connect(machine.outside(SOCKET))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}
