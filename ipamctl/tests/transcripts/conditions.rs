//! What is said when somebody is faster: a service whose node changes between two requests.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Command,
    thread::{self, JoinHandle},
};

/// Answers one request after the other so; the first line of each with the condition that it names.
fn service(answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let mut seen = Vec::new();
        for (n, (status, body)) in answers.into_iter().enumerate() {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            let of = |name: &str| {
                head.iter().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:"))).cloned()
            };
            let length = of("content-length").map_or(0, |line| line[15..].trim().parse().unwrap());
            reader.read_exact(&mut vec![0; length]).unwrap();
            let asked = head[0].trim_end_matches(" HTTP/1.1").to_owned();
            let condition = of("if-match").or_else(|| of("if-none-match")).unwrap_or_default();
            seen.push(format!("{asked} {condition}").trim().to_owned());
            let kind = if status < 400 { "application/json" } else { "application/problem+json" };
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\netag: \"{n}\"\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
        seen
    });
    (url, served)
}

fn node(state: &str, claim: u64) -> Value {
    json!({
        "name": "node-1", "pool": "workers", "subnet": "prod/nodes", "addresses": ["10.240.0.10"], "claim": claim,
        "block": {"version": 1, "ranges": [{"first": "10.240.1.0", "last": "10.240.1.29"}]},
        "network": {"cidrs": ["10.240.0.0/16"], "gateways": ["10.240.0.1"], "addressSpace": ["10.240.0.0/12"]},
        "maxPods": 30, "restSeconds": 130, "allocator": "node", "state": state,
        "allocations": 0, "claimedAt": "2026-01-01T00:00:00Z"
    })
}

fn problem(status: u16, slug: &str) -> (u16, Value) {
    (status, json!({"type": format!("/problems/{slug}"), "title": "t", "status": status, "detail": "d"}))
}

/// What `ipamctl` says on stderr, and what it asked for.
fn refused(line: &str, answers: Vec<(u16, Value)>) -> (String, Vec<String>) {
    let (url, served) = service(answers);
    let output = Command::new(env!("CARGO_BIN_EXE_ipamctl"))
        .args(line.split(' '))
        .env("IPAM_SERVER", &url)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    (String::from_utf8(output.stderr).unwrap(), served.join().unwrap())
}

#[test]
fn a_node_whose_vm_is_gone_is_deleted_as_it_was_read() {
    let (told, asked) = refused(
        "node delete node-1 --vm-gone",
        vec![(200, node("active", 3)), problem(412, "precondition-failed"), (200, node("planned", 4))],
    );
    for part in
        ["nothing was done", "state was active and is planned; claim was 3 and is 4", "ipamctl node show"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(asked[1], "DELETE /v1/nodes/node-1?vmGone=true if-match: \"0\"");
}

#[test]
fn a_name_is_taken_over_from_the_node_that_was_read() {
    let line = "node register node-1 --pool workers --address 10.240.0.11 --replace";
    let gone = || problem(404, "not-found");
    let (told, asked) =
        refused(line, vec![(200, node("active", 3)), problem(412, "precondition-failed"), gone()]);
    assert!(told.contains("nothing was done: it is gone"), "{told}");
    assert_eq!(asked[1], "PUT /v1/nodes/node-1 if-match: \"0\"");
    let (told, asked) =
        refused(line, vec![gone(), problem(412, "precondition-failed"), (200, node("planned", 4))]);
    assert!(told.contains("somebody has registered it"), "{told}");
    assert_eq!(asked[1], "PUT /v1/nodes/node-1 if-none-match: *");
}
