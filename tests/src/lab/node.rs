use super::{Attachment, Binaries, Echo, Fabric, Machine, Netconf, Pod, Server, ping, run};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Name of the pods' interface.
const IF_NAME: &str = "eth0";
const BOOT_ID: &str = "/run/boot_id";
const NETCONF: &str = "/run/10-vnet.conf";
/// What the node trusts and what it is known by outlive a reboot.
const CA: &str = "/var/lib/ca.pem";
const TOKEN: &str = "/var/lib/cni-shim/token";
const JOIN_TOKEN: &str = "/run/join.token";

/// A VM that runs pods, wired by the real `cni-shim`.
#[derive(Debug)]
pub struct Node {
    machine: Machine,
    offset: u64,
    addresses: Vec<IpAddr>,
    boots: u32,
    netconf: Netconf,
    ca: String,
    binaries: Binaries,
}

/// How one run of the plugin ended.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Whether its exit status was 0.
    pub success: bool,
    /// What it printed, which is a result or an error object.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// How long it took, start of its process included.
    pub took: Duration,
}

/// The error object of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// Its code: below 100 the specification's, above the shim's own.
    pub code: u64,
    /// Its message and details.
    pub text: String,
}

impl Reply {
    /// The result of a success; the error object of a failure as an error.
    pub fn into_result(self) -> Result<Value> {
        if !self.success {
            bail!("the shim failed: {} {}", self.stdout.trim(), self.stderr.trim());
        }
        if self.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.stdout).with_context(|| format!("the shim printed {}", self.stdout))
    }

    /// The error object of a failure; an error where it succeeded or printed anything else.
    pub fn into_error(self) -> Result<CniError> {
        if self.success {
            bail!("the shim succeeded where it was to fail: {}", self.stdout.trim());
        }
        let object: Value = serde_json::from_str(&self.stdout)
            .with_context(|| format!("not one error object: {:?}, stderr {:?}", self.stdout, self.stderr))?;
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = object.get("code").and_then(Value::as_u64).context("an error object without a code")?;
        Ok(CniError { code, text: [text("msg"), text("details")].join(" ") })
    }
}

impl Node {
    /// Boots a node and connects it; its shim is configured for this service.
    pub(super) fn boot(
        name: &str,
        offset: u64,
        fabric: &Fabric,
        server: &Server,
        binaries: &Binaries,
    ) -> Result<Self> {
        let node = Self {
            machine: Machine::boot(name, binaries)?,
            offset,
            addresses: fabric.addressing().addresses(offset),
            boots: 1,
            netconf: Netconf::new(name, server.url(), BOOT_ID).with("caFile", CA).with("tokenFile", TOKEN),
            ca: server.authority().pem(),
            binaries: binaries.clone(),
        };
        node.come_up(fabric)?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its own addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The VM.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// How its shim is configured.
    #[must_use]
    pub fn netconf(&self) -> &Netconf {
        &self.netconf
    }

    /// Puts a join token on the node, for [`Node::join_words`].
    pub fn bring_join_token(&self, token: &str) -> Result<()> {
        self.machine.write(JOIN_TOKEN, token.as_bytes())
    }

    /// What `cni-shim` by hand is told so that it swaps the join token for one of the node's own.
    #[must_use]
    pub fn join_words(&self) -> [&'static str; 3] {
        ["join", "--join-token-file", JOIN_TOKEN]
    }

    /// The token that the node is known by, as its file has it.
    #[must_use]
    pub fn token(&self) -> String {
        self.machine.read(TOKEN)
    }

    /// Puts another token in its place.
    pub fn bring_token(&self, token: &str) -> Result<()> {
        self.machine.write(TOKEN, token.as_bytes())
    }

    /// The file on the node that says so.
    #[must_use]
    pub fn config(&self) -> &'static str {
        NETCONF
    }

    /// Configures its shim anew.
    pub fn configure(&mut self, netconf: Netconf) -> Result<()> {
        self.netconf = netconf;
        self.write_netconf()
    }

    /// Boots it again: `/run`, pods, links and routes are gone, `/var/lib` stays, the boot id is another.
    pub fn reboot(&mut self, fabric: &Fabric) -> Result<()> {
        let kept = self.machine.enter("tar").args(["-C", "/var/lib", "-cf", "-", "."]).output()?;
        anyhow::ensure!(kept.status.success(), "saving /var/lib: {}", String::from_utf8_lossy(&kept.stderr));
        fabric.unplug(self.offset)?;
        self.machine = Machine::boot(self.machine.name(), &self.binaries)?;
        self.boots += 1;
        self.come_up(fabric)?;
        self.machine.write("/run/kept.tar", &kept.stdout)?;
        self.machine.script("tar -C /var/lib -xf /run/kept.tar; rm /run/kept.tar")?;
        Ok(())
    }

    /// Takes the uplink down and up, and does what its network manager does then.
    pub fn flap(&self, fabric: &Fabric) -> Result<()> {
        self.machine.script("ip link set eth0 down")?;
        fabric.bring_up(&self.machine, self.offset)
    }

    /// Takes its cable out, and the uplink with it.
    pub fn unplug(&self, fabric: &Fabric) -> Result<()> {
        fabric.unplug(self.offset)
    }

    /// Puts the cable in again: the uplink is another interface of the same name.
    pub fn plug(&self, fabric: &Fabric) -> Result<()> {
        fabric.plug(&self.machine, self.offset)
    }

    fn come_up(&self, fabric: &Fabric) -> Result<()> {
        fabric.plug(&self.machine, self.offset)?;
        let id = format!("00000000-0000-4000-8000-{:04}{:08}\n", self.offset, self.boots);
        self.machine.write(BOOT_ID, id.as_bytes())?;
        self.machine.write(CA, self.ca.as_bytes())?;
        self.write_netconf()
    }

    fn write_netconf(&self) -> Result<()> {
        self.machine.write(NETCONF, self.netconf.json(None).to_string().as_bytes())
    }

    /// Makes a pod's sandbox: a network namespace without a network.
    pub fn sandbox(&self, name: &str) -> Result<Pod> {
        let pod = Pod::named(name);
        self.machine
            .script(&format!("ip netns add {netns}; ip -n {netns} link set lo up", netns = pod.netns()))?;
        Ok(pod)
    }

    /// Takes a pod's sandbox away.
    pub fn remove_sandbox(&self, pod: &Pod) -> Result<()> {
        self.machine.script(&format!("ip netns delete {}", pod.netns()))?;
        Ok(())
    }

    /// ADD as libcni calls it; fails where the shim fails.
    pub fn add(&self, pod: &Pod) -> Result<Attachment> {
        let reply = self.plugin("ADD", pod, None)?;
        Attachment::of(reply).with_context(|| format!("ADD of {} on {}", pod.name(), self.name()))
    }

    /// CHECK as libcni calls it.
    pub fn check(&self, pod: &Pod, attachment: &Attachment) -> Result<()> {
        let reply = self.plugin("CHECK", pod, Some(&attachment.result))?;
        reply.into_result().with_context(|| format!("CHECK of {} on {}", pod.name(), self.name()))?;
        Ok(())
    }

    /// DEL as libcni calls it, with the result of the ADD if there was one; returns how long it took.
    pub fn del(&self, pod: &Pod, attachment: Option<&Attachment>) -> Result<Duration> {
        let reply = self.plugin("DEL", pod, attachment.map(|one| &one.result))?;
        let took = reply.took;
        reply.into_result().with_context(|| format!("DEL of {} on {}", pod.name(), self.name()))?;
        Ok(took)
    }

    /// ADD of a pod that asks for ports of the node, as a runtime passes them on.
    pub fn add_with_ports(&self, pod: &Pod, mappings: &Value) -> Result<Attachment> {
        let reply = self.plugin_with_ports("ADD", pod, mappings)?;
        Attachment::of(reply).with_context(|| format!("ADD of {} on {}", pod.name(), self.name()))
    }

    /// Runs the plugin for such a pod.
    pub fn plugin_with_ports(&self, verb: &str, pod: &Pod, mappings: &Value) -> Result<Reply> {
        let asked = serde_json::json!({"portMappings": mappings});
        self.run_plugin(&[], verb, pod, &self.netconf.clone().with("runtimeConfig", asked).json(None))
    }

    /// Runs the plugin with an input of the test's own.
    pub fn plugin_with(&self, verb: &str, pod: &Pod, input: &Value) -> Result<Reply> {
        self.run_plugin(&[], verb, pod, input)
    }

    /// Runs the plugin with environment and input as libcni gives them.
    pub fn plugin(&self, verb: &str, pod: &Pod, previous: Option<&Value>) -> Result<Reply> {
        self.plugin_under(&[], verb, pod, previous)
    }

    /// The same, started by another program: its name and words, which the plugin's name follows.
    pub fn plugin_under(
        &self,
        wrapper: &[&str],
        verb: &str,
        pod: &Pod,
        previous: Option<&Value>,
    ) -> Result<Reply> {
        self.run_plugin(wrapper, verb, pod, &self.netconf.json(previous))
    }

    fn run_plugin(&self, wrapper: &[&str], verb: &str, pod: &Pod, input: &Value) -> Result<Reply> {
        let words = [wrapper, &["cni-shim"]].concat();
        let mut command = self.machine.enter(words[0]);
        command.args(&words[1..]);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", pod.container_id())
            .env("CNI_NETNS", pod.netns_path())
            .env("CNI_IFNAME", IF_NAME)
            .env("CNI_ARGS", pod.cni_args())
            .env("CNI_PATH", "/run/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().context("starting nsenter")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends before it has read all has its reasons, which its output tells.
            drop(stdin.write_all(input.to_string().as_bytes()));
        }
        let output = child.wait_with_output()?;
        Ok(Reply {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// `cni-shim` by hand on the node.
    #[must_use]
    pub fn shim_command(&self, words: &[&str]) -> Command {
        let mut command = self.machine.enter("cni-shim");
        command.args(words).args(["--config", NETCONF]);
        command
    }

    /// What `cni-shim` by hand prints; fails where it fails.
    pub fn shim(&self, words: &[&str]) -> Result<String> {
        run(&mut self.shim_command(words))
            .with_context(|| format!("cni-shim {} on {}", words.join(" "), self.name()))
    }

    /// What the node's kernel has of pods: their links, host routes and proxy neighbours, a line each.
    pub fn traces(&self) -> Result<Vec<String>> {
        let all = self.machine.script(
            "ip -o link; ip route; ip -6 route; ip neighbour; ip -6 neighbour
             ip neighbour show proxy; ip -6 neighbour show proxy",
        )?;
        let of_a_pod =
            |line: &&str| line.split_whitespace().any(|word| word.starts_with("vn") || word == "proxy");
        Ok(all.lines().filter(of_a_pod).map(str::to_owned).collect())
    }

    /// A command that runs inside a pod.
    #[must_use]
    pub fn inside(&self, pod: &Pod, program: &str) -> Command {
        self.machine.enter_netns(pod.netns(), program)
    }

    /// Sends one echo request from inside a pod; it is lost after a second.
    pub fn ping_from(&self, pod: &Pod, to: IpAddr) -> Result<Echo> {
        ping(self.inside(pod, "ping"), to, Duration::from_secs(1))
    }
}
