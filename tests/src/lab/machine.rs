use super::{Binaries, Echo, ping, run};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

/// Runs as the first process of a machine. It tells its PID as seen from outside (its /proc is still the outer
/// one then), gives the machine file systems of its own, and lives until its input ends.
const HOLDER: &str = r#"
read -r outer rest </proc/self/stat
mount -t tmpfs tmpfs /run
mkdir -p /run/bin
mount --bind "$1" /run/bin
mount -t tmpfs tmpfs /var/lib
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6
echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6
for all in all default; do
    echo 0 >/proc/sys/net/ipv6/conf/$all/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/$all/accept_ra
    echo 0 >/proc/sys/net/ipv6/conf/$all/forwarding
    echo 0 >/proc/sys/net/ipv4/conf/$all/rp_filter
done
echo 0 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
echo "$outer"
exec cat >/dev/null
"#;

/// A machine: a network, a mount and a PID namespace, with `/run` and `/var/lib` of its own.
#[derive(Debug)]
pub struct Machine {
    name: String,
    /// As this process sees it.
    pid: u32,
    holder: Child,
    /// Open as long as the machine is to live.
    life: Option<ChildStdin>,
}

impl Machine {
    /// Starts a machine that is connected to nothing yet.
    pub fn boot(name: &str, binaries: &Binaries) -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "sh",
                "-euc",
                HOLDER,
                "holder",
            ])
            .arg(binaries.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let life = holder.stdin.take();
        let mut first = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut first)?;
        }
        let pid = first
            .trim()
            .parse()
            .map_err(|_| anyhow!("machine {name} did not come up (see the message above)"))?;
        Ok(Self { name: name.to_owned(), pid, holder, life })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first process, as this process sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A command that runs on the machine, with nothing of our environment.
    #[must_use]
    pub fn enter(&self, program: &str) -> Command {
        self.enter_with(&format!("/proc/{}/ns/net", self.pid), program)
    }

    /// A command that runs on the machine in another of its network namespaces, named as for `ip netns`.
    #[must_use]
    pub fn enter_netns(&self, netns: &str, program: &str) -> Command {
        self.enter_with(&self.outside(&format!("/run/netns/{netns}")).to_string_lossy(), program)
    }

    fn enter_with(&self, netns: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env("PATH", "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LANG", "C.UTF-8").env("HOME", "/root");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--pid", "--wd=/"]);
        command.arg(format!("--net={netns}")).arg("--").arg(program);
        command
    }

    /// Sends one echo request; it is lost after a second.
    pub fn ping(&self, to: IpAddr) -> Result<Echo> {
        self.ping_within(to, Duration::from_secs(1))
    }

    /// Sends one echo request; it is lost after that time.
    pub fn ping_within(&self, to: IpAddr, patience: Duration) -> Result<Echo> {
        ping(self.enter("ping"), to, patience)
    }

    /// Runs a shell script on the machine; it stops at the first command that fails.
    pub fn script(&self, script: &str) -> Result<String> {
        run(self.enter("sh").args(["-euc", script])).with_context(|| format!("on {}: {script}", self.name))
    }

    /// The same in the machine's network namespace only, so that PIDs are those of this process.
    pub(super) fn script_net(&self, script: &str) -> Result<String> {
        let net = format!("--net=/proc/{}/ns/net", self.pid);
        run(Command::new("nsenter").args([&net, "--", "sh", "-euc", script]))
            .with_context(|| format!("on the network of {}: {script}", self.name))
    }

    /// Where a file of the machine lies as seen from outside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file on the machine.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        fs::write(self.outside(path), content).with_context(|| format!("writing {path} on {}", self.name))
    }

    /// Reads a file of the machine; empty if there is none.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.outside(path)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.life = None;
        // Nothing to be done about a holder that is gone already.
        drop(self.holder.wait());
    }
}
