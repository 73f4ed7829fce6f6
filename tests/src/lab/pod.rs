use super::Reply;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};

/// A sandbox as a container runtime makes it: a container id and a network namespace at a path of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    name: String,
    container_id: String,
    netns: String,
}

impl Pod {
    /// A pod whose container id and network namespace are told from its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), container_id: container_id(name), netns: name.to_owned() }
    }

    /// Another container in the same network namespace.
    #[must_use]
    pub fn reincarnated(&self, name: &str) -> Self {
        Self { netns: self.netns.clone(), ..Self::named(name) }
    }

    /// Its name; its Kubernetes namespace is `demo`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 64 hex digits, as containerd makes them.
    #[must_use]
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Name of its network namespace, as for `ip netns`.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// Path of that namespace on its node.
    #[must_use]
    pub fn netns_path(&self) -> String {
        format!("/run/netns/{}", self.netns)
    }

    /// `CNI_ARGS` as containerd gives them for a Kubernetes pod.
    #[must_use]
    pub fn cni_args(&self) -> String {
        let Self { name, container_id, .. } = self;
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={container_id};\
             K8S_POD_UID=uid-{name}"
        )
    }
}

/// 64 hex digits that differ wherever names do: the name in hex from its end on, filled up with zeros.
fn container_id(name: &str) -> String {
    let hex: String = name.bytes().rev().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().chain("0".repeat(64).chars()).take(64).collect()
}

/// A pod that the shim has wired.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The result as the shim printed it, for the later CHECK and DEL.
    pub result: Value,
    /// How long the shim took, start of its process included.
    pub took: Duration,
}

impl Attachment {
    /// What an ADD printed; fails where it failed.
    pub fn of(reply: Reply) -> Result<Self> {
        let took = reply.took;
        let result = reply.into_result()?;
        let addresses = result
            .get("ips")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.get("address")?.as_str()?.split_once('/')?.0.parse().ok())
            .collect::<Vec<IpAddr>>();
        ensure!(!addresses.is_empty(), "ADD printed a result without addresses: {result}");
        Ok(Self { addresses, result, took })
    }
}
