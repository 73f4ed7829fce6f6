//! What people type and what they see: `tests/cmd/offline` without a service,
//! `tests/cmd/service` each against a service of its own, `tests/cmd/access`
//! against one that asks for credentials.
//!
//! `TRYCMD=overwrite cargo test -p ipamctl` writes what was seen into the
//! transcripts; read the difference before it is committed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

mod access;
mod conditions;
mod service;

use ipam_api::{
    client::{Client, Settings},
    wire::{BootSeq, NodeStamp, Seq, Stamp, SyncRequest},
};
use service::{Service, server_binary};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where nobody listens: port 1 of this machine.
const NOBODY: &str = "http://127.0.0.1:1";

fn transcripts(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    assert!(!paths.is_empty(), "no transcript in {directory}");
    paths
}

#[test]
fn without_a_service() {
    trycmd::TestCases::new()
        .env("IPAM_SERVER", NOBODY)
        .env("COLUMNS", "100")
        .case("tests/cmd/offline/*.md")
        .run();
}

#[test]
fn against_a_service() {
    for path in transcripts("tests/cmd/service") {
        let service = Service::start();
        trycmd::TestCases::new()
            .env("IPAM_SERVER", service.url.as_str())
            .insert_var("[SERVER]", service.url.clone())
            .unwrap()
            .case(path)
            .run();
    }
}

/// Runs `ipamctl` and expects success: what it printed, data and messages.
fn ipamctl(service: &Service, line: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ipamctl"))
        .args(line.split(' '))
        .env("IPAM_SERVER", &service.url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A service with a node that has taken its claim up, which only its shim can do.
fn with_an_active_node() -> Service {
    let service = Service::start();
    for line in [
        "vnet create prod --address-space 10.240.0.0/16",
        "subnet create prod/nodes --cidr 10.240.0.0/24",
        "pool create workers --subnet prod/nodes --max-pods 30 --nodes 1",
        "node register node-1 --pool workers --address 10.240.0.250",
    ] {
        ipamctl(&service, line);
    }
    empty_sync(&service, 1);
    service
}

/// The node lists no pod, with the block as it is described.
fn empty_sync(service: &Service, seq: u64) {
    let name = "node-1".parse().unwrap();
    let client = Client::new(service.url.parse().unwrap(), Settings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = client.node(&name).await.unwrap().value;
        let stamp = NodeStamp {
            stamp: Stamp { claim: node.claim, boot: BootSeq(1), seq: Seq(seq) },
            block: node.block.version,
            boot_id: Some("first".to_owned()),
            machine: None,
        };
        let empty =
            SyncRequest { as_of_seq: Seq(seq), entries: Vec::new(), conflicts: Vec::new(), deletion: None };
        client.sync(&name, &stamp, &empty).await.unwrap();
    });
}

/// An active node keeps its block until it confirms.
#[test]
fn an_active_node_waits_for_its_confirmation() {
    let service = with_an_active_node();
    let (data, message) = ipamctl(&service, "node delete node-1");
    assert!(message.contains("waits until the node confirms") && message.contains("--vm-gone"), "{message}");
    assert!(data.contains("deleting"), "{data}");
    let (data, message) = ipamctl(&service, "node delete node-1 --vm-gone");
    assert!(message.contains("which frees its block of 30 addresses"), "{message}");
    assert_eq!(data, "");
}

#[test]
fn what_blocks_give_up_is_said_until_their_nodes_confirm() {
    let service = with_an_active_node();
    let waits = "10 addresses given up by claimed blocks wait until the nodes confirm";
    for line in ["pool update workers --max-pods 20 --dry-run", "pool update workers --max-pods 20"] {
        let (_, message) = ipamctl(&service, line);
        assert!(message.contains(waits), "{line}: {message}");
    }
    let (_, message) = ipamctl(&service, "pool scale workers --nodes 2");
    assert!(message.contains(waits), "{message}");
    let leaving = |line: &str| {
        let (data, _) = ipamctl(&service, line);
        let of = |line: &str| line.split_once("Leaving:").map(|(_, value)| value.trim().to_owned());
        data.lines().find_map(of).unwrap()
    };
    assert_eq!(leaving("pool show workers"), "10");
    assert_eq!(leaving("node show node-1"), "10.240.0.24-10.240.0.33");
    empty_sync(&service, 2);
    assert_eq!(leaving("pool show workers"), "0");
    let (_, message) = ipamctl(&service, "pool update workers --max-pods 20");
    assert!(!message.contains("wait"), "{message}");
}

#[test]
fn what_a_restored_backup_leaves_to_do() {
    let lost = with_an_active_node();
    let (backup, restored) = (lost.path("backup"), tempfile::tempdir().unwrap());
    server(&["backup", "--database", &url_of(&lost.path("ipam.db")), backup.to_str().unwrap()]);
    let database = url_of(&restored.path().join("ipam.db"));
    server(&["restore", "--database", &database, backup.to_str().unwrap()]);
    let service = Service::start_with(restored, &[]);
    trycmd::TestCases::new()
        .env("IPAM_SERVER", service.url.as_str())
        .case("tests/cmd/recovery/restored.md")
        .run();
}

fn url_of(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

/// Runs `ipam-server` and expects success.
fn server(arguments: &[&str]) {
    let output = Command::new(server_binary()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_ipamctl"))
        .args(["plan", "--max-pods", "30", "--nodes", "3"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
