//! A node installs itself, by the real service: what it is registered by, what its runtime reads, what is left.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Stdio;
use std::{io::Write, path::Path};
use vnet_tests::lab::{Echo, Families, Lab, Node, Pod};

const PLACES: [&str; 4] = ["--bin-dir", "/run/opt/bin", "--conf-dir", "/run/etc/net.d"];
const BINARY: &str = "/run/opt/bin/cni-shim";
const LIST: &str = "/run/etc/net.d/10-vnet.conflist";

/// What an installation may change on a node.
fn traces(node: &Node) -> Result<String> {
    node.machine().script(
        "sysctl -a 2>/dev/null | grep '^net.ip' | grep -v '\\.stable_secret'
         nft list ruleset; ip neighbour show proxy; ip -6 neighbour show proxy; find /run/opt /run/etc 2>/dev/null || true",
    )
}

/// A verb as a runtime calls it that has read the installed list; what the plugin printed.
fn by_runtime(node: &Node, verb: &str, pod: &Pod) -> Result<Value> {
    let list: Value = serde_json::from_str(&node.machine().read(LIST)).context("the installed list")?;
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersions"][1].clone();
    let mut child = node
        .machine()
        .enter(BINARY)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", pod.container_id())
        .env("CNI_NETNS", pod.netns_path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", Path::new(BINARY).parent().context("a directory")?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("its input")?.write_all(conf.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{verb}: {text}");
    if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}

#[test]
fn a_node_that_has_joined_registers_itself_and_runs_pods_and_is_left_as_it_was() -> Result<()> {
    let lab = Lab::boot(Families::Dual, 1)?;
    let node = &lab.nodes[0];
    lab.lay_out_without_nodes()?;
    lab.let_join(node)?;
    let before = traces(node)?;
    let install = [&["install"], &PLACES[..]].concat();
    let refused = node.shim(&install).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(
        refused.contains("is not registered") && refused.contains("waits for this node's claim"),
        "{refused}"
    );
    ensure!(node.machine().read(LIST).is_empty(), "nobody is told of a node without a claim");

    node.shim(&[&install[..], &["--pool", "workers"]].concat())?;
    ensure!(lab.ctl(&["node", "show", node.name(), "-o", "json"])?.contains("\"state\": \"active\""));
    let pod = node.sandbox("installed")?;
    ensure!(by_runtime(node, "STATUS", &pod)?.is_null());
    let result = by_runtime(node, "ADD", &pod)?;
    ensure!(result["cniVersion"] == "1.1.0", "{result}");
    for ip in result["ips"].as_array().context("addresses")? {
        let address = ip["address"].as_str().and_then(|text| text.split('/').next()).context("an address")?;
        lab.vm.ping(address.parse()?).and_then(Echo::time)?;
    }
    let refused = node.shim(&["uninstall"]).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(refused.contains("pods of this node run"), "{refused}");
    by_runtime(node, "DEL", &pod)?;
    node.shim(&["uninstall"])?;
    let after = traces(node)?;
    for (line, all) in
        before.lines().map(|line| (line, &after)).chain(after.lines().map(|line| (line, &before)))
    {
        ensure!(all.lines().any(|other| other == line), "not as it was: {line}");
    }
    Ok(())
}
