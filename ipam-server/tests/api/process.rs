//! The binary: what it says, when it refuses to start, and how it stops.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipam-server"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if ["IPAM_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// A running service; it ends with the test.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let database = format!("sqlite://{}", dir.join("ipam.db").display());
        let mut child = command(&["serve", "--listen", "127.0.0.1:0", "--database", &database])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_signal_ends_it_and_what_was_accepted_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start(dir.path());
        let body = format!("{{\"addressSpace\": [\"10.{}.0.0/16\"]}}", signal as i32);
        let path = format!("/v1/vnets/v{}", signal as i32);
        let mut stream = running.connect();
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nexpect: 100-continue\r\n\r\n",
            body.len()
        )
        .unwrap();
        // The service asks for the body: the request is in its handler's hands.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100 Continue"), "{}", String::from_utf8_lossy(&asked));
        running.signal(signal);
        let until = Instant::now() + DEADLINE;
        while TcpStream::connect(running.address).is_ok() {
            assert!(Instant::now() < until, "it goes on accepting");
        }
        stream.write_all(body.as_bytes()).unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 201 Created"));
        assert_eq!(running.exit_code(), Some(0));

        let running = Running::start(dir.path());
        let mut stream = running.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200 OK"));
    }
}

#[test]
fn ten_megabytes_are_refused_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    let mut stream = running.connect();
    write!(
        stream,
        "PUT /v1/vnets/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 10000000\r\n\r\n{{"
    )
    .unwrap();
    let text = answer(&mut stream);
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.contains("/problems/too-large"), "{text}");
}

#[test]
fn bad_arguments_exit_2_with_the_cure() {
    for (arguments, cure) in [
        (&["serve", "--listen", "0.0.0.0:0"][..], "--tls-cert and --tls-key"),
        (
            &["serve", "--listen", "0.0.0.0:0", "--insecure-no-tls", "--credentials", "unasked"],
            "--insecure-no-auth",
        ),
        (&["serve", "--tls-cert", "cert.pem"], "--tls-key"),
        (&["serve", "--config", "/nonexistent/ipam.toml"], "/nonexistent/ipam.toml"),
        (&["serve", "--listen", "localhost"], "--listen"),
        (&["serve", "--database", "ipam.db"], "sqlite://"),
        (&["serve", "--database", "postgres://ipam@db:port/ipam"], "postgres://USER@HOST"),
        (&["serve", "--database", "postgres://ipam:secret@db/ipam"], "IPAM_DATABASE"),
        (&["serve", "--bogus"], "--help"),
        (&[], "Usage"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(cure), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
        assert!(!text.contains("secret"), "{text}");
    }
    // By the environment a password is taken; nobody listens there.
    let nowhere = "postgres://ipam:secret@127.0.0.1:1/ipam";
    let output = command(&["serve"]).env("IPAM_DATABASE", nowhere).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ipam at 127.0.0.1:1 as ipam") && text.contains("refused"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_start_that_fails_exits_1_with_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", dir.path().join("ipam.db").display());
    for (arguments, word) in [
        (
            ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite:///nonexistent/ipam.db"],
            "/nonexistent/ipam.db",
        ),
        (["serve", "--listen", taken.as_str(), "--database", database.as_str()], "another --listen"),
    ] {
        let output = command(&arguments).env("IPAM_LOG", "off").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("error: ") && text.trim().lines().count() == 1, "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn the_document_is_printed() {
    let output = run(&["openapi"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), ipam_server::api::document());
}
