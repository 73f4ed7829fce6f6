//! A service that says what a test wants: HTTP on a unix socket, so that plugins
//! in any network namespace reach it.

use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// The `Ipam-Node` header, empty without one.
    pub(crate) stamp: String,
    /// The `Authorization` header, empty without one.
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

impl Request {
    /// A number of the stamp.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let at = self.stamp.split(", ").find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        at.unwrap_or_else(|| panic!("no {name} in {:?}", self.stamp)).parse().unwrap()
    }
}

/// What is to be answered, in order, to the next requests of a method.
#[derive(Debug)]
struct Scripted {
    method: &'static str,
    /// `None`: the connection ends without an answer.
    status: Option<u16>,
    body: String,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The node answer.
    pub(crate) node: Value,
    pub(crate) requests: Vec<Request>,
    scripted: VecDeque<Scripted>,
}

impl State {
    /// Answers the next request of this method so.
    pub(crate) fn script(&mut self, method: &'static str, status: u16, body: &Value) {
        self.scripted.push_back(Scripted { method, status: Some(status), body: body.to_string() });
    }

    /// Takes the next request of this method and never answers it.
    pub(crate) fn lose(&mut self, method: &'static str) {
        self.scripted.push_back(Scripted { method, status: None, body: String::new() });
    }

    /// Answers everything as usual again.
    pub(crate) fn as_usual(&mut self) {
        self.scripted.clear();
    }

    /// Answers the next request of this method with one of our problems.
    pub(crate) fn refuse(&mut self, method: &'static str, status: u16, slug: &str) {
        let body = json!({"type": format!("/problems/{slug}"), "title": "t", "status": status, "detail": format!("told {slug}")});
        self.script(method, status, &body);
    }

    pub(crate) fn of(&self, method: &str) -> Vec<&Request> {
        self.requests.iter().filter(|request| request.method == method).collect()
    }
}

/// The service; it ends with the process.
#[derive(Debug)]
pub(crate) struct Service {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Service {
    pub(crate) fn start(directory: &Path, node: Value) -> Self {
        let path = directory.join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = State { node, requests: Vec::new(), scripted: VecDeque::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(&stream, &shared);
            }
        });
        Self { state, path }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

fn answer(mut stream: &UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let (mut stamp, mut authorization, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "ipam-node" => value.trim().clone_into(&mut stamp),
            "authorization" => value.trim().clone_into(&mut authorization),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let request = Request { method, target, stamp, authorization, body };
    let (status, body) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        match state.scripted.iter().position(|scripted| scripted.method == request.method) {
            Some(at) => {
                let scripted = state.scripted.remove(at).unwrap();
                (scripted.status, scripted.body)
            }
            None => {
                let (status, body) = usual(&mut state, &request);
                (Some(status), body)
            }
        }
    };
    let Some(status) = status else { return };
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes());
}

/// What a service in agreement says.
fn usual(state: &mut State, request: &Request) -> (u16, String) {
    if request.target.ends_with("/credential") {
        let token = json!({
            "id": "0123456789abcdef", "name": "node:n1", "role": "node", "node": "n1", "state": "valid",
            "createdAt": "2026-01-01T00:00:00Z", "createdBy": "join", "expiresAt": "2036-01-01T00:00:00Z"
        });
        return (201, token.to_string());
    }
    match (request.method.as_str(), request.target.ends_with("/allocations")) {
        ("GET", _) => (200, state.node.to_string()),
        ("DELETE", _) => (204, String::new()),
        (_, true) => {
            if request.body["deletion"].is_string() {
                return (200, json!({"items": []}).to_string());
            }
            if state.node["state"] == "planned" {
                state.node["state"] = "active".into();
            }
            let items: Vec<Value> = request.body["entries"].as_array().unwrap().iter().map(verdict).collect();
            (200, json!({"items": items, "node": state.node}).to_string())
        }
        _ => {
            let parts: Vec<&str> = request.target.split(['/', '?', '=']).collect();
            let held = json!({
                "node": "n1", "network": parts[8], "containerId": parts[5], "ifName": parts[6],
                "addresses": [{"address": request.body["address"], "prefixLength": 16, "gateway": "10.240.0.1"}],
                "state": "held", "since": "2026-01-01T00:00:00Z"
            });
            (201, held.to_string())
        }
    }
}

fn verdict(entry: &Value) -> Value {
    json!({
        "network": entry["network"], "containerId": entry["containerId"], "ifName": entry["ifName"],
        "address": entry["address"], "result": if entry["state"] == "released" { "released" } else { "kept" }
    })
}
