//! A node: network and mount namespaces that end with the process that holds
//! them, with the plugin to be run inside.

use crate::service::Service;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_cni-shim");

/// A namespace, held by a process.
#[derive(Debug)]
pub(crate) struct Namespace(Child);

impl Namespace {
    /// A new one, made inside another where one is given.
    pub(crate) fn new(inside: Option<&Self>) -> Self {
        let mut command = match inside {
            None => Command::new("unshare"),
            Some(outer) => {
                let mut command = outer.enter("unshare");
                command.arg("-n");
                command
            }
        };
        if inside.is_none() {
            command.args(["-n", "-m"]);
        }
        // `cat` says that it is there, and ends with its standard input: with this process.
        let child =
            command.args(["sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("unshare: these tests make network namespaces and need root");
        let mut ready = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready)
            .expect("no namespace: these tests make network namespaces and need root");
        Self(child)
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// A command inside.
    pub(crate) fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", "-m", "--", program]);
        command
    }

    /// Runs a script inside; its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.enter("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the plugin printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Printed {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn done(&self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        if self.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.stdout).expect("one JSON value")
        }
    }

    /// The one error object, with this code.
    #[track_caller]
    pub(crate) fn failed(&self, code: u32) -> Value {
        assert_eq!(self.status, 1, "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).expect("one error object");
        assert_eq!(error["code"], code, "{self:?}");
        assert!(error["cniVersion"].is_string() && error["msg"].is_string(), "{error}");
        error
    }
}

/// Runs the plugin's binary in a namespace: only these variables, this on standard input.
pub(crate) fn shim(
    inside: &Namespace,
    variables: &[(&str, &str)],
    arguments: &[&str],
    stdin: &str,
) -> Printed {
    let mut command = inside.enter("timeout");
    command.args(["-s", "KILL", "60", "env", "-i"]).arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(SHIM).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A verb that does not read it may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    Printed::of(child.wait_with_output().unwrap())
}

/// A node with an uplink, a service and directories of its own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) service: Service,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) conf: Value,
}

impl Node {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new(None);
        namespace.sh("ip link set lo up
             ip link add up0 type veth peer name far0
             ip link set far0 up
             ip link set up0 up
             ip addr add 10.240.0.10/16 dev up0
             ip -6 addr add fd00:10::a/64 dev up0 nodad
             ip route add default via 10.240.0.1");
        until("the uplink has a carrier", || {
            let links = namespace.sh("ip -o link show type veth");
            links.lines().all(|link| link.contains("state UP"))
        });
        let directory = tempfile::tempdir().unwrap();
        let service = Service::start(directory.path(), node(1));
        let boot_id = directory.path().join("boot_id");
        std::fs::write(&boot_id, "boot-a\n").unwrap();
        let conf = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "cni-shim", "server": service.url(), "node": "n1",
            "stateDir": directory.path().join("state"), "dataDir": directory.path().join("data"),
            "bootIdFile": boot_id, "logLevel": "debug", "dns": {"nameservers": ["10.240.0.2"]}
        });
        Self { namespace, service, directory, conf }
    }

    pub(crate) fn pod(&self) -> Namespace {
        Namespace::new(Some(&self.namespace))
    }

    pub(crate) fn run(&self, verb: &str, container: &str, netns: &str, conf: &Value) -> Printed {
        self.run_until("", verb, container, netns, conf)
    }

    /// The same, stopped at a fault point.
    pub(crate) fn run_until(
        &self,
        point: &str,
        verb: &str,
        container: &str,
        netns: &str,
        conf: &Value,
    ) -> Printed {
        self.run_with(&[("CNI_SHIM_FAULT", point)], verb, container, netns, conf)
    }

    /// The same with these variables, whatever else it sets.
    pub(crate) fn run_with(
        &self,
        more: &[(&str, &str)],
        verb: &str,
        container: &str,
        netns: &str,
        conf: &Value,
    ) -> Printed {
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
            ("CNI_PATH", "/nowhere"),
            ("http_proxy", "http://192.0.2.1:1"),
        ];
        shim(&self.namespace, &[&variables, more].concat(), &[], &conf.to_string())
    }

    pub(crate) fn add(&self, container: &str, pod: &Namespace) -> Printed {
        self.run("ADD", container, &pod.path(), &self.conf)
    }

    pub(crate) fn del(&self, container: &str, netns: &str) -> Printed {
        self.run("DEL", container, netns, &self.conf)
    }

    /// GC or STATUS, as libcni calls them; these keys go into the configuration.
    pub(crate) fn about_network(&self, verb: &str, more: &Value) -> Printed {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = "1.1.0".into();
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.run_with(&[("CNI_IFNAME", ""), ("CNI_ARGS", "")], verb, "", "", &conf)
    }

    /// A GC with these containers' `eth0` as valid.
    pub(crate) fn gc(&self, valid: &[&str]) -> Printed {
        let valid: Vec<Value> =
            valid.iter().map(|container| json!({"containerID": container, "ifname": "eth0"})).collect();
        self.about_network("GC", &json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}))
    }

    /// A command by hand; its output as JSON.
    pub(crate) fn by_hand(&self, command: &str) -> Printed {
        self.by_hand_at("", command, &[])
    }

    /// The same, stopped at a fault point.
    #[cfg(feature = "fault-points")]
    pub(crate) fn by_hand_until(&self, point: &str, command: &str) -> Printed {
        self.by_hand_at(point, command, &[])
    }

    /// The same with more arguments.
    pub(crate) fn by_hand_with(&self, command: &str, more: &[&str]) -> Printed {
        self.by_hand_at("", command, more)
    }

    fn by_hand_at(&self, point: &str, command: &str, more: &[&str]) -> Printed {
        let path = self.directory.path().join("10-pods.conflist");
        let mut plugin = self.conf.clone();
        for key in ["name", "cniVersion"] {
            plugin.as_object_mut().unwrap().remove(key);
        }
        let list = json!({"name": "pods", "cniVersion": "1.0.0", "plugins": [plugin]});
        std::fs::write(&path, list.to_string()).unwrap();
        let arguments = [&[command, "--config", path.to_str().unwrap(), "-o", "json"], more].concat();
        shim(&self.namespace, &[("CNI_SHIM_FAULT", point)], &arguments, "")
    }

    /// The entry of an address, as `status` shows it.
    pub(crate) fn entry(&self, address: &str) -> Value {
        let status = self.by_hand("status").done();
        let entries = status["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["addresses"][0] == address).cloned().unwrap_or(Value::Null)
    }

    /// What the host's firmware says from now on.
    pub(crate) fn firmware(&self, uuid: Option<&str>) {
        self.namespace.sh("mount -t tmpfs none /sys/class");
        if let Some(uuid) = uuid {
            self.namespace
                .sh(&format!("mkdir -p /sys/class/dmi/id; echo {uuid} > /sys/class/dmi/id/product_uuid"));
        }
    }

    /// The host is started anew: nothing of its pods is left.
    pub(crate) fn reboot(&self, boot_id: &str) {
        std::fs::write(self.directory.path().join("boot_id"), format!("{boot_id}\n")).unwrap();
        // Those of pods that have just ended go by themselves, sooner or later.
        self.namespace.sh(
            "ip -o link show type veth | grep -o 'vn[0-9a-f]*' | sort -u | while read -r end; do
                 ip link del $end 2>/dev/null || ! ip link show $end 2>/dev/null
             done",
        );
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Host ends there are.
    pub(crate) fn host_ends(&self) -> usize {
        self.namespace.sh("ip -o link show type veth").lines().filter(|line| line.contains(": vn")).count()
    }
}

/// A node answer: a block of four addresses.
pub(crate) fn node(claim: u64) -> Value {
    json!({
        "name": "n1", "pool": "workers", "subnet": "prod/nodes",
        "addresses": ["10.240.0.10", "fd00:10::a"], "claim": claim,
        "block": {"version": 1, "ranges": [{"first": "10.240.1.0", "last": "10.240.1.3", "first6": "fd00:10::100", "last6": "fd00:10::103"}]},
        "network": {"cidrs": ["10.240.0.0/16", "fd00:10::/64"], "gateways": ["10.240.0.1", "fd00:10::1"],
                    "addressSpace": ["10.240.0.0/12", "fd00:10::/48"]},
        "maxPods": 4, "restSeconds": 130, "allocator": "node", "state": "planned",
        "allocations": 0, "claimedAt": "2026-01-01T00:00:00Z"
    })
}

/// Waits for something, at most ten seconds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not in ten seconds: {what}");
        std::thread::yield_now();
    }
}

/// Whether a directory has nothing in it, or is not there.
pub(crate) fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
