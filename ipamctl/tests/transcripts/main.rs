//! What people type and what they see: `tests/cmd/offline` without a service,
//! `tests/cmd/service` each against a service of its own, `tests/cmd/access`
//! against one that asks for credentials.
//!
//! `TRYCMD=overwrite cargo test -p ipamctl` writes what was seen into the
//! transcripts; read the difference before it is committed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

mod access;
mod service;

use ipam_api::{
    client::{Client, Settings},
    wire::{BootSeq, NodeStamp, Seq, Stamp, SyncRequest},
};
use service::Service;
use std::{
    path::PathBuf,
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

/// An active node keeps its block until it confirms; only its shim can make it active.
#[test]
fn an_active_node_waits_for_its_confirmation() {
    let service = Service::start();
    let ipamctl = |line: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ipamctl"))
            .args(line.split(' '))
            .env("IPAM_SERVER", &service.url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    ipamctl("vnet create prod --address-space 10.240.0.0/16");
    ipamctl("subnet create prod/nodes --cidr 10.240.0.0/24");
    ipamctl("pool create workers --subnet prod/nodes --max-pods 30 --nodes 1");
    ipamctl("node register node-1 --pool workers --address 10.240.0.250");

    let name = "node-1".parse().unwrap();
    let client = Client::new(service.url.parse().unwrap(), Settings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = client.node(&name).await.unwrap().value;
        let stamp = NodeStamp {
            stamp: Stamp { claim: node.claim, boot: BootSeq(1), seq: Seq(1) },
            block: node.block.version,
            boot_id: Some("first".to_owned()),
            machine: None,
        };
        let empty =
            SyncRequest { as_of_seq: Seq(1), entries: Vec::new(), conflicts: Vec::new(), deletion: None };
        client.sync(&name, &stamp, &empty).await.unwrap();
    });

    let (data, message) = ipamctl("node delete node-1");
    assert!(message.contains("waits until the node confirms") && message.contains("--vm-gone"), "{message}");
    assert!(data.contains("deleting"), "{data}");
    let (data, message) = ipamctl("node delete node-1 --vm-gone");
    assert!(message.contains("which frees its block of 30 addresses"), "{message}");
    assert_eq!(data, "");
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
