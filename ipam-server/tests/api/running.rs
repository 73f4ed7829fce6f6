//! A service in a process of its own, certificates for it, and clients of every kind of listener.

use crate::process::command;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// What a command says that ends by itself.
#[track_caller]
pub(crate) fn ended(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::park_timeout(Duration::from_millis(2));
    }
    let in_time = child.try_wait().unwrap().is_some();
    // One that serves instead would do so for ever.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(in_time, "it does not end: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A running service; it ends with the test.
pub(crate) struct Running {
    child: Child,
    /// Its listeners, in the order in which they were asked for.
    pub(crate) urls: Vec<String>,
    log: PathBuf,
}

impl Running {
    /// Serves the database in a directory, with these arguments more; its log is there as well.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let database = format!("sqlite://{}", dir.join("ipam.db").display());
        let mut all = vec!["serve", "--database", &database];
        all.extend(arguments);
        let listeners = arguments.iter().filter(|argument| **argument == "--listen").count();
        Self::of(dir, &mut command(&all), listeners)
    }

    /// Runs a command that has so many listeners.
    pub(crate) fn of(dir: &Path, command: &mut Command, listeners: usize) -> Self {
        let log = dir.join("log");
        let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut urls = Vec::new();
        while urls.len() < listeners {
            let Some(line) = lines.next() else {
                panic!("it does not start: {}", fs::read_to_string(&log).unwrap());
            };
            urls.push(line.unwrap().strip_prefix("listening on ").unwrap().to_owned());
        }
        Self { child, urls, log }
    }

    /// What it has logged so far, earlier runs included.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How often it has logged a text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of its first listener, on this machine.
    pub(crate) fn address(&self) -> SocketAddr {
        let address: SocketAddr = self.urls[0].split("://").nth(1).unwrap().parse().unwrap();
        SocketAddr::new([127, 0, 0, 1].into(), address.port())
    }

    pub(crate) fn plain(&self) -> Client {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(Box::new(BufReader::new(stream)))
    }

    pub(crate) fn tls(&self, config: &Arc<ClientConfig>) -> io::Result<(Client, CertificateDer<'static>)> {
        tls(self.address(), config)
    }

    /// Ends it without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new connection by TLS, and the certificate that the service showed.
pub(crate) fn tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<(Client, CertificateDer<'static>)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let name = ServerName::IpAddress(address.ip().into());
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let shown = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((Client(Box::new(BufReader::new(stream))), shown))
}

pub(crate) fn unix(path: &Path) -> Client {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Client(Box::new(BufReader::new(stream)))
}

trait Connection: BufRead + Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<S: Read + Write + Send> Connection for BufReader<S> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.get_mut().write_all(bytes)?;
        self.get_mut().flush()
    }
}

/// A connection that requests follow each other on.
pub(crate) struct Client(Box<dyn Connection>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Client {
    /// Sends a request, with the value of `Authorization` and a JSON body where they are given.
    pub(crate) fn send(
        &mut self,
        request: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let authorization = authorization.map(|value| ("authorization", value));
        self.send_with(request, authorization.as_slice(), body)
    }

    /// Sends a request with these headers, and a JSON body where one is given.
    pub(crate) fn send_with(
        &mut self,
        request: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut text = format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n", body.len());
        if !body.is_empty() {
            text.push_str("content-type: application/json\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        self.0.write_all(format!("{text}\r\n{body}").as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut bytes = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut bytes)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, text: String::from_utf8(bytes).unwrap() })
    }

    /// The same with a token.
    pub(crate) fn ask(&mut self, request: &str, token: &str, body: Option<&Value>) -> Answer {
        self.send(request, Some(&format!("Bearer {token}")), body).unwrap()
    }
}

/// A client that goes on asking, and what each of its turns came to.
pub(crate) struct Loop<T> {
    stop: Arc<AtomicBool>,
    turns: Arc<Mutex<Vec<T>>>,
    thread: JoinHandle<Result<(), String>>,
}

impl<T: Send + 'static> Loop<T> {
    /// Goes on until it is told to end or a turn fails.
    pub(crate) fn start(mut turn: impl FnMut() -> Result<T, String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(Mutex::new(Vec::new()));
        let (told, done) = (Arc::clone(&stop), Arc::clone(&turns));
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let came_to = turn()?;
                done.lock().unwrap().push(came_to);
            }
            Ok(())
        });
        Self { stop, turns, thread }
    }

    fn count(&self) -> usize {
        self.turns.lock().unwrap().len()
    }

    /// Waits for turns that began after now.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        // The first may have begun before.
        let enough = self.count() + 3;
        until("the client goes on", || self.thread.is_finished() || self.count() >= enough);
        assert!(!self.thread.is_finished(), "a request failed");
    }

    /// Waits for a turn that came to this.
    #[track_caller]
    pub(crate) fn comes_to(&self, wanted: impl Fn(&T) -> bool) {
        until("the client sees it", || {
            self.thread.is_finished() || self.turns.lock().unwrap().iter().any(&wanted)
        });
        assert!(!self.thread.is_finished(), "a request failed");
    }

    /// Ends it; no turn has failed.
    #[track_caller]
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap().unwrap();
    }
}

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names: addresses, or DNS names.
    pub(crate) fn leaf(&self, names: &[&str], serial: u64) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A list that revokes these serial numbers.
    pub(crate) fn crl(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

impl Leaf {
    /// Writes it where a service is told to look.
    pub(crate) fn write(&self, dir: &Path) {
        fs::write(dir.join("key.pem"), &self.key).unwrap();
        fs::write(dir.join("cert.pem"), &self.cert).unwrap();
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

/// How a client that trusts these CAs comes, with a certificate of its own where one is given.
pub(crate) fn trusting(cas: &[&Ca], own: Option<&Leaf>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.0.der().clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![leaf.der()], key).unwrap()
        }
    })
}

/// The token that a service wrote for its first admin.
pub(crate) fn first_token(dir: &Path) -> String {
    let mut text = String::new();
    File::open(dir.join("token")).unwrap().read_to_string(&mut text).unwrap();
    text.trim().to_owned()
}
