use crate::database::Database;
use anyhow::{Context, Result, bail};
use ipam_api::client::{Client, Server, Settings, Token};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The real `ipam-server` on loopback, credentials required.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    address: SocketAddr,
    /// From its start until it said that it is ready.
    pub(crate) started_in: Duration,
    dir: TempDir,
}

impl Service {
    /// Starts it over this database.
    pub(crate) async fn start(database: &Database) -> Result<Self> {
        let dir = TempDir::new()?;
        let program = program()?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IPAM_")) {
            command.env_remove(name);
        }
        let began = Instant::now();
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--credentials", "required"])
            .arg("--bootstrap-token-file")
            .arg(dir.path().join("admin.token"))
            .env("IPAM_DATABASE", database.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting ipam-server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            bail!("ipam-server does not listen: {line:?}");
        };
        let mut service = Self { address: address.parse()?, child, started_in: Duration::ZERO, dir };
        service.client(None)?.ready().await.context("ipam-server is not ready")?;
        service.started_in = began.elapsed();
        Ok(service)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first admin's token; only the first service over a database writes it.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let token = fs::read_to_string(self.dir.path().join("admin.token")).context("the admin's token")?;
        Ok(token.trim().to_owned())
    }

    /// A client with this token.
    pub(crate) fn client(&self, token: Option<&str>) -> Result<Client> {
        let server: Server = format!("http://{}", self.address).parse()?;
        let token = token.map(Token::new).transpose()?;
        Ok(Client::new(server, Settings { token, ..Settings::default() })?)
    }

    /// Resident memory in MB (10⁶ bytes).
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Mutations that it has written, and in how many batches.
    pub(crate) async fn batches(&self, token: &str) -> Result<(f64, f64)> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}/metrics", self.address);
        let text = http.get(url).bearer_auth(token).send().await?.error_for_status()?.text().await?;
        let number = |name: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix("ipam_batch_mutations_")?.strip_prefix(name));
            line.and_then(|number| number.trim().parse().ok())
                .with_context(|| format!("no {name} of batches"))
        };
        Ok((number("sum")?, number("count")?))
    }

    /// Processor time that it has used.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

fn program() -> Result<std::path::PathBuf> {
    let directory =
        std::env::var_os("VNET_BIN_DIR").context("VNET_BIN_DIR names the programs: run make bench")?;
    let program = Path::new(&directory).join("ipam-server");
    if !program.is_file() {
        bail!("{} is not there: run make bench", program.display());
    }
    Ok(program)
}
