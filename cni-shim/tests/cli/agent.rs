//! The node agent inside a node.

use crate::node::{Namespace, Node, SHIM};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

/// An agent inside a node, ended with this.
pub(crate) struct Agent<'a> {
    node: &'a Node,
    process: Child,
    port: String,
}

impl<'a> Agent<'a> {
    pub(crate) fn start(node: &'a Node) -> Self {
        Self::start_with(node, "", &[])
    }

    /// The same with more arguments, stopped at a fault point.
    pub(crate) fn start_with(node: &'a Node, point: &str, more: &[&str]) -> Self {
        // Writes the configuration where the agent is told to find it.
        node.by_hand("status").done();
        let config = node.directory.path().join("10-pods.conflist");
        let mut command = node.namespace.enter(SHIM);
        command.env("CNI_SHIM_FAULT", point).args(["agent", "--listen", "127.0.0.1:0"]).args(more);
        let mut process = command.arg("--config").arg(config).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        Self { node, process, port }
    }

    /// One number of `/metrics`, by its name with its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics");
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> String {
        get(&self.node.namespace, &self.port, path)
    }
}

/// What an agent in there answers at this port.
pub(crate) fn get(inside: &Namespace, port: &str, path: &str) -> String {
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let output = inside.enter("bash").args(["-ec", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
