//! Replicas in processes of their own, on one database: clients go on while they are killed one by one.

use crate::store::{DATABASE, cluster};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use testdb::Cluster;

const DEADLINE: Duration = Duration::from_secs(60);

/// A running service; it ends with the test.
struct Replica {
    child: Child,
    address: String,
}

impl Replica {
    fn start(cluster: &Cluster) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipam-server"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IPAM_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error"])
            .env("IPAM_DATABASE", cluster.url(DATABASE))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    /// Ends it without a word.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks one replica once.
fn ask(address: &str, request: &str, body: Option<&Value>) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    let whole = body.is_empty() || body.ends_with('}');
    if whole { Ok((status, serde_json::from_str(body).unwrap_or_default())) } else { Err(cut()) }
}

/// Asks one after the other until one answers.
fn ask_any(addresses: &[String], first: usize, request: &str, body: Option<&Value>) -> (u16, Value) {
    let began = Instant::now();
    for turn in first.. {
        match ask(&addresses[turn % addresses.len()], request, body) {
            Ok((503, _)) | Err(_) => assert!(began.elapsed() < DEADLINE, "nobody answers {request}"),
            Ok(answer) => return answer,
        }
    }
    unreachable!("turns do not end")
}

const NODES: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_while_replicas_are_killed() {
    let cluster = cluster(&[]).await;
    // All at once on an empty database.
    let mut replicas = thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| Replica::start(&cluster))).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let addresses: Vec<String> = replicas.iter().map(|replica| replica.address.clone()).collect();
    let put = |turn: usize, path: &str, body: Value| {
        let (status, answer) = ask_any(&addresses, turn, &format!("PUT {path}"), Some(&body));
        assert!(status == 200 || status == 201, "{path}: {status} {answer}");
    };
    put(0, "/v1/vnets/v", json!({"addressSpace": ["10.0.0.0/8"]}));
    put(1, "/v1/vnets/v/subnets/a", json!({"cidrs": ["10.0.0.0/20"]}));
    let pool =
        json!({"subnets": [{"subnet": "v/a"}], "maxPods": 60, "nodes": NODES, "nodeAddress": "assigned"});
    put(2, "/v1/pools/p", pool);
    for node in 0..NODES {
        put(node, &format!("/v1/nodes/n{node}"), json!({"pool": "p", "allocator": "service"}));
    }

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..NODES)
        .map(|node| {
            let (addresses, stop, answered) = (addresses.clone(), stop.clone(), answered.clone());
            thread::spawn(move || {
                let mut held = BTreeMap::new();
                for turn in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let pod = format!("/v1/nodes/n{node}/allocations/c{}/eth0", turn % 40);
                    if held.remove(&pod).is_some() {
                        let (status, answer) =
                            ask_any(&addresses, node + turn, &format!("DELETE {pod}"), None);
                        assert_eq!(status, 204, "{pod}: {answer}");
                    } else {
                        let put = format!("PUT {pod}");
                        let (status, answer) = ask_any(&addresses, node + turn, &put, Some(&json!({})));
                        assert!(status == 200 || status == 201, "{pod}: {status} {answer}");
                        let address = answer["addresses"][0]["address"].as_str().unwrap().to_owned();
                        held.insert(pod, address);
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                held
            })
        })
        .collect();

    let go_on = |more: usize| {
        let (began, wanted) = (Instant::now(), answered.load(Ordering::SeqCst) + more);
        while answered.load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < DEADLINE, "clients stand still");
            thread::park_timeout(Duration::from_millis(2));
        }
    };
    go_on(60);
    for (killed, replica) in replicas.iter_mut().enumerate().take(2) {
        replica.kill();
        go_on(60);
        for (i, address) in addresses.iter().enumerate() {
            let ready = ask(address, "GET /readyz", None).map(|(status, _)| status);
            assert_eq!(ready.ok(), (i > killed).then_some(200), "replica {i} when {killed} is gone");
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut believed = BTreeMap::new();
    for client in clients {
        for (pod, address) in client.join().unwrap() {
            assert_eq!(believed.insert(address.clone(), pod), None, "{address} twice");
        }
    }

    // The last one knows exactly what was acknowledged.
    let (status, list) = ask(&addresses[2], "GET /v1/allocations?limit=1000", None).unwrap();
    assert_eq!(status, 200);
    let recorded: BTreeMap<String, String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap().to_owned();
            let pod = format!("/v1/nodes/{}/allocations/{}/eth0", text("node"), text("containerId"));
            (item["addresses"][0]["address"].as_str().unwrap().to_owned(), pod)
        })
        .collect();
    assert_eq!(recorded, believed);
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_who_can_answer() {
    let mut cluster = cluster(&[]).await;
    let replica = Replica::start(&cluster);
    let status = |path: &str| ask(&replica.address, &format!("GET {path}"), None).unwrap().0;
    assert_eq!((status("/livez"), status("/readyz")), (200, 200));
    cluster.stop();
    assert_eq!((status("/livez"), status("/readyz"), status("/v1/vnets")), (200, 503, 503));
    cluster.run().await;
    assert_eq!((status("/readyz"), status("/v1/vnets")), (200, 200));
}
