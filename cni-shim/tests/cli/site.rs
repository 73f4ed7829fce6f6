//! A node with the directories of a runtime, what is installed there, and what it leaves behind.

use crate::{
    agent::get,
    node::{Node, Printed, SHIM, shim, until},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

/// Where Debian's package containernetworking-plugins has them; they speak 1.0.0 at most.
pub(crate) const DEBIANS: &str = "/usr/lib/cni";

/// A node with the directories of a runtime.
pub(crate) struct Site {
    pub(crate) node: Node,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { node: Node::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.node.directory.path().join(name)
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.path("opt/cni/bin/cni-shim")
    }

    pub(crate) fn list(&self) -> PathBuf {
        self.path("etc/cni/net.d/10-pods.conflist")
    }

    pub(crate) fn list_as_read(&self) -> Value {
        serde_json::from_slice(&fs::read(self.list()).unwrap()).unwrap()
    }

    /// Where everything goes.
    pub(crate) fn places(&self) -> Vec<String> {
        [("--bin-dir", "opt/cni/bin"), ("--conf-dir", "etc/cni/net.d")]
            .map(|(flag, path)| [flag.to_owned(), self.path(path).display().to_string()])
            .concat()
    }

    /// Writes a configuration with these plugins behind ours; its path.
    pub(crate) fn source(&self, chained: &[Value]) -> String {
        let mut ours = self.node.conf.clone();
        for key in ["name", "cniVersion"] {
            ours.as_object_mut().unwrap().remove(key);
        }
        let plugins = [&[ours], chained].concat();
        let path = self.path("source.json");
        fs::write(&path, json!({"name": "pods", "plugins": plugins}).to_string()).unwrap();
        path.display().to_string()
    }

    pub(crate) fn words(&self, command: &str, chained: &[Value], more: &[&str]) -> Vec<String> {
        let mut words = vec![command.to_owned(), "--config".to_owned(), self.source(chained)];
        if command != "uninstall" {
            words.extend(self.places());
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }

    pub(crate) fn run_until(&self, point: &str, command: &str, chained: &[Value], more: &[&str]) -> Printed {
        let words = self.words(command, chained, &[&["-o", "json"], more].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        shim(&self.node.namespace, &[("CNI_SHIM_FAULT", point)], &words, "")
    }

    pub(crate) fn run(&self, command: &str, more: &[&str]) -> Printed {
        self.run_until("", command, &[], more)
    }

    pub(crate) fn install(&self) -> Value {
        self.run("install", &[]).done()
    }

    /// All that an installation could leave behind, and what it could change.
    pub(crate) fn traces(&self) -> String {
        let directory = self.node.directory.path().display();
        self.node.namespace.sh(&format!(
            "sysctl -a 2>/dev/null | grep '^net.ip' | grep -v 'mtu_expires\\|\\.stable_secret'
             nft list ruleset; ip neighbour show proxy; ip -6 neighbour show proxy
             find {directory}/opt {directory}/etc -printf '%p %m %s\\n' 2>/dev/null | sort || true
             [ ! -d {directory}/data/found ] || echo found; [ ! -f {directory}/data/install.json ] || echo record"
        ))
    }

    /// An agent on this node; it ends with the value.
    pub(crate) fn agent(&self, chained: &[Value], more: &[&str]) -> Agent {
        let words =
            self.words("agent", chained, &[&["--listen", "127.0.0.1:0", "--every", "1"], more].concat());
        let [log, out] = ["agent.log", "agent.out"].map(|name| self.path(name));
        let mut command = self.node.namespace.enter("env");
        command.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", SHIM]).args(words);
        let sink = |path: &PathBuf| Stdio::from(fs::File::create(path).unwrap());
        Agent { child: command.stdout(sink(&out)).stderr(sink(&log)).spawn().unwrap(), log, out }
    }

    /// What this agent's `/metrics` say.
    pub(crate) fn scrape(&self, agent: &Agent) -> String {
        let port =
            || fs::read_to_string(&agent.out).ok()?.trim().rsplit_once(':').map(|(_, port)| port.to_owned());
        until("the agent listens", || port().is_some());
        get(&self.node.namespace, &port().unwrap(), "/metrics")
    }
}

pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    out: PathBuf,
}

impl Agent {
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn words(printed: &Value, field: &str) -> String {
    printed[field]
        .as_array()
        .unwrap()
        .iter()
        .map(|words| words.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Nothing that was there before is missing, and nothing else is there.
#[track_caller]
pub(crate) fn as_before(before: &str, after: &str) {
    let only = |these: &str, those: &str| {
        these.lines().filter(|line| !those.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
    };
    assert_eq!((only(before, after), only(after, before)), (String::new(), String::new()));
}

pub(crate) fn versions(list: &Value) -> (&Value, &Value) {
    (&list["cniVersion"], list.get("cniVersions").unwrap_or(&Value::Null))
}

#[track_caller]
pub(crate) fn refused(printed: &Printed, parts: &[&str]) {
    assert_eq!(printed.status, 1, "{printed:?}");
    assert!(parts.iter().all(|part| printed.stderr.contains(part)), "{parts:?} in {}", printed.stderr);
}
