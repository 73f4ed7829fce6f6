use super::{Node, Server};
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// What lies between a node's shim and the service, and does what bad networks and proxies do.
#[derive(Debug)]
pub struct Meddler {
    url: String,
    doing: Arc<Mutex<Fault>>,
    met: Arc<AtomicUsize>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It gets through, and so does the answer.
    None,
    /// The connection ends before anything is read.
    Refused,
    /// It is taken, and nothing is ever answered.
    Silent,
    /// It gets this status and nothing that the service would say.
    Answered(u16),
    /// It gets through, and nothing is ever answered.
    AnswerLost,
    /// It gets through; the connection ends in the middle of the answer.
    AnswerCut,
    /// Half of it gets through.
    RequestCut,
}

impl Fault {
    /// All that are faults.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Silent,
        Self::Answered(500),
        Self::Answered(503),
        Self::Answered(401),
        Self::Answered(403),
        Self::Answered(404),
        Self::Answered(429),
        Self::AnswerLost,
        Self::AnswerCut,
        Self::RequestCut,
    ];
}

impl Meddler {
    /// Listens on loopback of the node; what gets through goes to the socket of the service.
    pub fn on(node: &Node, server: &Server) -> Result<Self> {
        let doing = Arc::new(Mutex::new(Fault::None));
        let met = Arc::new(AtomicUsize::new(0));
        let namespace = File::open(format!("/proc/{}/ns/net", node.machine().pid()))?;
        let socket = server.socket();
        let (told, hears) = mpsc::channel();
        let (fault, count) = (Arc::clone(&doing), Arc::clone(&met));
        // A thread of its own goes into the node's network, and ends with this process.
        thread::spawn(move || {
            let listener = setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| TcpListener::bind("127.0.0.1:0"));
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return drop(told.send(Err(error))),
            };
            drop(told.send(listener.local_addr()));
            for stream in listener.incoming().flatten() {
                let fault = *fault.lock().unwrap_or_else(PoisonError::into_inner);
                if fault != Fault::None {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let socket = socket.clone();
                // Whoever is cut off has nobody to tell.
                thread::spawn(move || drop(meddle(stream, fault, &socket)));
            }
        });
        let address = hears.recv().map_err(|_| anyhow!("the meddler did not start"))?;
        let address = address.with_context(|| format!("listening on {}", node.name()))?;
        Ok(Self { url: format!("http://{address}"), doing, met })
    }

    /// Where the node finds it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on every request meets with this.
    pub fn does(&self, fault: Fault) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How many requests have met with a fault.
    #[must_use]
    pub fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

fn meddle(mut client: TcpStream, fault: Fault, service: &PathBuf) -> io::Result<()> {
    if fault == Fault::Refused {
        return client.shutdown(Shutdown::Both);
    }
    let request = request(&client)?;
    match fault {
        Fault::Silent => return silence(&mut client),
        Fault::Answered(status) => {
            let answer = format!(
                "HTTP/1.1 {status} Whatever\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"
            );
            return client.write_all(answer.as_bytes());
        }
        _ => {}
    }
    let mut service = UnixStream::connect(service)?;
    if fault == Fault::RequestCut {
        return service.write_all(&request[..request.len() / 2]);
    }
    service.write_all(&request)?;
    let mut answer = Vec::new();
    service.read_to_end(&mut answer)?;
    match fault {
        Fault::AnswerLost => silence(&mut client),
        Fault::AnswerCut => client.write_all(&answer[..answer.len() / 2]),
        _ => client.write_all(&answer),
    }
}

/// Says nothing until the other side goes away.
fn silence(client: &mut TcpStream) -> io::Result<()> {
    io::copy(client, &mut io::sink()).map(|_| ())
}

/// A whole request, which asks for the connection to end with its answer.
fn request(client: &TcpStream) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let (mut text, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            text.extend_from_slice(b"connection: close\r\n\r\n");
            break;
        }
        if !header.starts_with("connection:") {
            text.extend_from_slice(line.as_bytes());
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    text.extend(body);
    Ok(text)
}
