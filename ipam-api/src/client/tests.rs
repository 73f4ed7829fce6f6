//! The client against answers made by hand, over real sockets.

mod access;
mod tls;

use super::*;
use crate::{
    names::Attachment,
    wire::{
        BlockVersion, BootSeq, Claim, NodeStamp, PoolPatch, Problem, ProblemType, Seq, Stamp, Vnet, VnetSpec,
    },
};
use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::mpsc,
    thread,
};

const VNET: &str = r#"{"name":"prod","addressSpace":["10.0.0.0/8"],"serviceCidrs":[],"subnets":0,
    "createdAt":"2026-01-02T03:04:05Z","later":"a field of a newer service"}"#;

/// Reads one request of a connection; `None` at its end.
fn request(reader: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if reader.read_line(&mut text).ok()? == 0 {
            return None;
        }
    }
    let length = text.to_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length: ").and_then(|length| length.trim().parse::<usize>().ok())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    text.push_str(&String::from_utf8_lossy(&body));
    Some(text)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn serve(stream: impl Read + std::io::Write, answers: &[String], seen: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream);
    for answer in answers {
        let Some(request) = request(&mut reader) else { return };
        seen.send(request).unwrap();
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

/// A service that gives these answers over one connection, and what it was asked.
fn service(answers: Vec<String>) -> (Client, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || serve(listener.accept().unwrap().0, &answers, &seen));
    (Client::new(server, Settings::default()).unwrap(), requests)
}

fn attachment() -> Attachment {
    Attachment {
        network: "pods".parse().unwrap(),
        container_id: "c1".parse().unwrap(),
        if_name: "a%2f?#ü".parse().unwrap(),
    }
}

fn stamp() -> NodeStamp {
    NodeStamp {
        stamp: Stamp { claim: Claim(3), boot: BootSeq(7), seq: Seq(9) },
        block: BlockVersion(1),
        boot_id: None,
        machine: None,
    }
}

fn spec() -> VnetSpec {
    VnetSpec { address_space: vec!["10.0.0.0/8".parse().unwrap()], service_cidrs: Vec::new() }
}

#[tokio::test]
async fn a_change_carries_its_conditions() {
    let (client, requests) =
        service(vec![answer("201 Created", "etag: \"v1\"\r\n", VNET), answer("200 OK", "", VNET)]);
    let name = "prod".parse().unwrap();
    let spec = spec();
    let created = client.put_vnet(&name, &spec, &Write::create()).await.unwrap();
    assert!(created.created());
    assert_eq!(created.etag, Some(ETag::new("\"v1\"")));
    assert!(String::from_utf8(created.body).unwrap().contains("newer service"));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("PUT /v1/vnets/prod HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("if-none-match: *\r\n") && !request.contains("dryRun"), "{request}");
    assert!(request.ends_with(r#"{"addressSpace":["10.0.0.0/8"],"serviceCidrs":[]}"#), "{request}");

    let write = Write { apply: Apply::DryRun, ..Write::if_unchanged(ETag::new("\"v1\"")) };
    assert!(!client.put_vnet(&name, &spec, &write).await.unwrap().created());
    let request = requests.recv().unwrap();
    assert!(request.starts_with("PUT /v1/vnets/prod?dryRun=true HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("if-match: \"v1\"\r\n"), "{request}");
}

#[tokio::test]
async fn a_nodes_requests_carry_its_stamp_and_encode_what_they_name() {
    let (client, requests) =
        service(vec![answer("204 No Content", "", ""), answer("200 OK", "", r#"{"items":[]}"#)]);
    let node = "node-1".parse().unwrap();
    let address = Some("10.0.0.7".parse().unwrap());
    client.delete_allocation(&node, &attachment(), Some(&stamp()), address).await.unwrap();
    let request = requests.recv().unwrap();
    let path = "/v1/nodes/node-1/allocations/c1/a%252f%3F%23%C3%BC?network=pods&address=10.0.0.7";
    assert!(request.starts_with(&format!("DELETE {path} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("ipam-node: claim=3, boot=7, seq=9, block=1\r\n"), "{request}");

    let filter = AllocationFilter { pod: Some("a&b=c".to_owned()), ..AllocationFilter::default() };
    client.allocations(&filter, &Page { limit: Some(5), after: Some("x y".to_owned()) }).await.unwrap();
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /v1/allocations?pod=a%26b%3Dc&limit=5&after=x+y HTTP"), "{request}");
}

#[tokio::test]
async fn a_patch_names_only_what_it_changes() {
    let (client, requests) = service(vec![answer("404 Not Found", "", "")]);
    let patch = PoolPatch { nodes: Some(20.try_into().unwrap()), ..PoolPatch::default() };
    let _ = client.patch_pool(&"workers".parse().unwrap(), &patch, &Write::default()).await;
    let request = requests.recv().unwrap();
    assert!(request.contains("content-type: application/merge-patch+json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"nodes\":20}"), "{request}");
}

#[tokio::test]
async fn problems_are_told_from_strangers_answers() {
    let problem = serde_json::to_string(&Problem::new(ProblemType::StaleClaim, "claim 3 has ended")).unwrap();
    let unavailable = serde_json::to_string(&Problem::new(ProblemType::Unavailable, "later")).unwrap();
    let (client, _requests) = service(vec![
        answer("409 Conflict", "content-type: application/problem+json\r\n", &problem),
        answer("503 Service Unavailable", "retry-after: 3\r\n", &unavailable),
        answer("409 Conflict", "", r#"{"type":"/problems/of-another","status":409}"#),
        answer("502 Bad Gateway", "content-type: text/html\r\n", "<html>"),
        answer("200 OK", "", "hello"),
        answer("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
    ]);
    let name = "prod".parse().unwrap();
    let refused = client.vnet(&name).await.unwrap_err();
    assert_eq!(refused.refusal().map(|problem| problem.kind), Some(ProblemType::StaleClaim));
    assert_eq!(refused.to_string(), "claim 3 has ended");
    match client.vnet(&name).await.unwrap_err() {
        ClientError::Problem { status: 503, retry_after, .. } => {
            assert_eq!(retry_after, Some(Duration::from_secs(3)));
        }
        other => panic!("{other:?}"),
    }
    for status in [409, 502, 200, 302] {
        match client.vnet(&name).await.unwrap_err() {
            error @ ClientError::Unexpected { status: got, .. } => {
                assert_eq!(got, status);
                assert!(error.refusal().is_none());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn silence_is_unreachable() {
    let how = |error| match error {
        ClientError::Unreachable { how, .. } => how,
        other => panic!("{other:?}"),
    };
    let name = "prod".parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server: Server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();

    // The kernel accepts, nobody answers.
    let hasty = Settings { timeout: Duration::from_millis(30), ..Settings::default() };
    let client = Client::new(server.clone(), hasty).unwrap();
    assert_eq!(how(client.vnet(&name).await.unwrap_err()), Unreachability::Timeout);

    drop(listener);
    let client = Client::new(server, Settings::default()).unwrap();
    assert_eq!(how(client.vnet(&name).await.unwrap_err()), Unreachability::NoConnection);

    let (client, _requests) = service(vec!["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned()]);
    assert_eq!(how(client.vnet(&name).await.unwrap_err()), Unreachability::Broken);

    let nowhere = "unix:///nonexistent/ipam.sock".parse().unwrap();
    let client = Client::new(nowhere, Settings::default()).unwrap();
    assert_eq!(how(client.vnet(&name).await.unwrap_err()), Unreachability::NoConnection);
}

#[tokio::test]
async fn a_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || serve(listener.accept().unwrap().0, &[answer("200 OK", "", VNET)], &seen));
    let server = format!("unix://{}", path.display()).parse().unwrap();
    let settings = Settings { token: Some(Token::new("  s3cret\n").unwrap()), ..Settings::default() };
    assert!(!format!("{settings:?}").contains("s3cret"));
    let vnet: Vnet =
        Client::new(server, settings).unwrap().vnet(&"prod".parse().unwrap()).await.unwrap().value;
    assert_eq!(vnet.name.as_str(), "prod");
    assert!(requests.recv().unwrap().contains("authorization: Bearer s3cret\r\n"));
}

#[tokio::test]
async fn all_pages_ends_with_the_list() {
    let page = |next: &str| answer("200 OK", "", &format!(r#"{{"items":[{VNET}]{next}}}"#));
    let (client, requests) = service(vec![page(r#","next":"prod""#), page("")]);
    let vnets = all_pages(async |page| client.vnets(&page).await).await.unwrap();
    assert_eq!(vnets.items().count(), 2);
    assert!(requests.recv().unwrap().starts_with("GET /v1/vnets?limit=1000 "));
    assert!(requests.recv().unwrap().starts_with("GET /v1/vnets?limit=1000&after=prod "));

    let circle = page(r#","next":"prod""#);
    let (client, _requests) = service(vec![circle.clone(), circle.clone(), circle]);
    let error = all_pages(async |page| client.vnets(&page).await).await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error:?}");
}

#[tokio::test]
async fn a_node_is_freed_or_waits() {
    let node = r#"{"name":"node-1","pool":"workers","subnet":"prod/nodes","addresses":["10.0.0.9"],
        "claim":3,"block":{"version":1,"ranges":[{"first":"10.0.1.0","last":"10.0.1.29"}]},
        "network":{"cidrs":["10.0.0.0/16"],"gateways":["10.0.0.1"],"addressSpace":["10.0.0.0/8"]},
        "maxPods":30,"restSeconds":130,"allocator":"node","state":"deleting","deletion":"d1",
        "allocations":2,"claimedAt":"2026-01-02T03:04:05Z"}"#;
    let (client, requests) =
        service(vec![answer("202 Accepted", "", node), answer("204 No Content", "", "")]);
    let name = "node-1".parse().unwrap();
    match client.delete_node(&name, VmFate::Unknown, &Write::default()).await.unwrap() {
        NodeDeletion::Waiting(node) => assert_eq!(node.value.deletion.as_deref(), Some("d1")),
        NodeDeletion::Freed => panic!("freed"),
    }
    let freed = client.delete_node(&name, VmFate::Gone, &Write::default()).await.unwrap();
    assert_eq!(freed, NodeDeletion::Freed);
    assert!(requests.recv().unwrap().starts_with("DELETE /v1/nodes/node-1 "));
    assert!(requests.recv().unwrap().starts_with("DELETE /v1/nodes/node-1?vmGone=true "));
}

#[test]
fn what_http_cannot_carry_is_refused_before_it_is_sent() {
    assert!(Token::new(" \n").is_err());
    assert!(Token::new("a\nb").is_err());
}
