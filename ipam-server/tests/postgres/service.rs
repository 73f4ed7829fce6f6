//! Services in processes of their own, on one database, and clients that remember what was acknowledged.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running service; it ends with the test.
pub(crate) struct Replica {
    child: Child,
    pub(crate) address: String,
}

impl Replica {
    pub(crate) fn start(database: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipam-server"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IPAM_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "off"])
            .env("IPAM_DATABASE", database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The status of a GET.
    pub(crate) fn status(&self, path: &str) -> u16 {
        ask(&self.address, &format!("GET {path}"), None).unwrap().0
    }

    /// Waits until it says that it is ready, or that it is not.
    pub(crate) fn until_ready(&self, status: u16) {
        let began = Instant::now();
        while self.status("/readyz") != status {
            assert!(began.elapsed() < DEADLINE, "/readyz never says {status}");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks one replica once. Whoever is told to come again is told when.
pub(crate) fn ask(address: &str, request: &str, body: Option<&Value>) -> io::Result<(u16, Value)> {
    let (status, head, body) = exchange(address, request, body)?;
    assert!(status != 503 || head.to_lowercase().contains("\r\nretry-after: "), "{request}: {head}");
    let whole = body.is_empty() || body.ends_with('}');
    if whole { Ok((status, serde_json::from_str(&body).unwrap_or_default())) } else { Err(cut_off()) }
}

/// One number of a replica's `/metrics`, by its name with its labels.
pub(crate) fn metric(address: &str, name: &str) -> Option<f64> {
    let (_, _, text) = exchange(address, "GET /metrics", None).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

fn exchange(address: &str, request: &str, body: Option<&Value>) -> io::Result<(u16, String, String)> {
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
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut_off)?;
    Ok((status, head.to_owned(), body.to_owned()))
}

fn cut_off() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Clients of several replicas.
#[derive(Clone)]
struct Clients {
    addresses: Vec<String>,
    /// Requests that were answered.
    answered: Arc<AtomicUsize>,
    /// Requests whose connection ended without an answer.
    cut: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// An answer that counts, and whether the same may have been done by a request before that had none.
struct Answered {
    status: u16,
    body: Value,
    again: bool,
}

impl Clients {
    /// Asks one after the other until one answers.
    fn ask(&self, first: usize, request: &str, body: Option<&Value>) -> Answered {
        let began = Instant::now();
        let mut again = false;
        for turn in first.. {
            match ask(&self.addresses[turn % self.addresses.len()], request, body) {
                Ok((503, _)) => {}
                Ok((status, body)) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    return Answered { status, body, again };
                }
                Err(_) => {
                    self.cut.fetch_add(1, Ordering::SeqCst);
                }
            }
            assert!(began.elapsed() < DEADLINE, "nobody answers {request}");
            again = true;
        }
        unreachable!("turns do not end")
    }

    fn put(&self, turn: usize, path: &str, body: &Value) -> Value {
        let Answered { status, body: answer, .. } = self.ask(turn, &format!("PUT {path}"), Some(body));
        assert!(status == 200 || status == 201, "{path}: {status} {answer}");
        answer
    }

    fn delete(&self, turn: usize, path: &str) {
        let Answered { status, body, again } = self.ask(turn, &format!("DELETE {path}"), None);
        assert!(status == 204 || (status == 404 && again), "{path}: {status} {body}");
    }

    /// Whether to go on.
    fn go_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }
}

/// What is held and planned, by what was acknowledged or by what the ledger says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Attachments by their addresses.
    held: BTreeMap<String, String>,
    reservations: BTreeSet<String>,
}

/// As the service tells it.
pub(crate) fn recorded(address: &str) -> Ledger {
    let items = |path: &str| {
        let (status, list) = ask(address, &format!("GET {path}?limit=1000"), None).unwrap();
        assert_eq!(status, 200, "{list}");
        list["items"].as_array().unwrap().clone()
    };
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    let mut ledger = Ledger::default();
    for item in items("/v1/allocations") {
        let pod =
            format!("/v1/nodes/{}/allocations/{}/eth0", text(&item, "node"), text(&item, "containerId"));
        let held = ledger.held.insert(text(&item["addresses"][0], "address"), pod);
        assert_eq!(held, None, "listed twice");
    }
    for item in items("/v1/vnets/v/subnets/b/reservations") {
        let name = text(&item, "name");
        // Every subnet has one at each end that nobody made.
        if name.starts_with('r') {
            ledger.reservations.insert(name);
        }
    }
    ledger
}

/// Clients at work: some hold and release addresses, each for a node of its own, one plans.
pub(crate) struct Load {
    clients: Clients,
    holding: Vec<JoinHandle<BTreeMap<String, String>>>,
    planning: JoinHandle<BTreeSet<String>>,
}

const NODES: usize = 6;

impl Load {
    /// Makes a plan on an empty database and begins.
    pub(crate) fn start(replicas: &[Replica]) -> Self {
        let clients = Clients {
            addresses: replicas.iter().map(|replica| replica.address.clone()).collect(),
            answered: Arc::default(),
            cut: Arc::default(),
            stop: Arc::default(),
        };
        clients.put(0, "/v1/vnets/v", &json!({"addressSpace": ["10.0.0.0/8"]}));
        clients.put(1, "/v1/vnets/v/subnets/a", &json!({"cidrs": ["10.0.0.0/20"]}));
        clients.put(1, "/v1/vnets/v/subnets/b", &json!({"cidrs": ["10.1.0.0/24"]}));
        let pool =
            json!({"subnets": [{"subnet": "v/a"}], "maxPods": 60, "nodes": NODES, "nodeAddress": "assigned"});
        clients.put(2, "/v1/pools/p", &pool);
        for node in 0..NODES {
            let body = json!({"pool": "p", "allocator": "service"});
            clients.put(node, &format!("/v1/nodes/n{node}"), &body);
        }
        let spawned = |node: usize| {
            let clients = clients.clone();
            thread::spawn(move || hold_and_release(&clients, node))
        };
        let holding = (0..NODES).map(spawned).collect();
        let planner = clients.clone();
        Self { clients, holding, planning: thread::spawn(move || reserve(&planner)) }
    }

    /// Waits until so many more requests were answered.
    pub(crate) fn go_on(&self, more: usize) {
        let (began, wanted) = (Instant::now(), self.clients.answered.load(Ordering::SeqCst) + more);
        while self.clients.answered.load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < DEADLINE, "clients stand still");
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Requests that had no answer at all, so far.
    pub(crate) fn cut(&self) -> usize {
        self.clients.cut.load(Ordering::SeqCst)
    }

    /// Ends it; what was acknowledged.
    pub(crate) fn finish(self) -> Ledger {
        self.clients.stop.store(true, Ordering::SeqCst);
        let mut believed = Ledger::default();
        for client in self.holding {
            for (pod, address) in client.join().unwrap() {
                assert_eq!(believed.held.insert(address.clone(), pod), None, "{address} twice");
            }
        }
        believed.reservations = self.planning.join().unwrap();
        believed
    }
}

/// The addresses of the attachments that are held at the end.
fn hold_and_release(clients: &Clients, node: usize) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for turn in (0..).take_while(|_| clients.go_on()) {
        let pod = format!("/v1/nodes/n{node}/allocations/c{}/eth0", turn % 40);
        if held.remove(&pod).is_some() {
            clients.delete(node + turn, &pod);
        } else {
            let answer = clients.put(node + turn, &pod, &json!({}));
            let address = answer["addresses"][0]["address"].as_str().unwrap().to_owned();
            held.insert(pod, address);
        }
    }
    held
}

/// The reservations that are there at the end.
fn reserve(clients: &Clients) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for turn in (0..).take_while(|_| clients.go_on()) {
        let at = 20 + turn % 30;
        let name = format!("r{at}");
        let path = format!("/v1/vnets/v/subnets/b/reservations/{name}");
        if there.remove(&name) {
            clients.delete(turn, &path);
        } else {
            let address = format!("10.1.0.{at}");
            clients.put(turn, &path, &json!({"first": address, "last": address, "reason": "a printer"}));
            there.insert(name);
        }
    }
    there
}
