//! What lies between an actor and the service: a proxy that loses, delays, doubles and breaks off, by the seed.

mod fate;
mod message;

pub(crate) use fate::Tally;

use crate::seed::Seed;
use anyhow::{Context, Result};
use fate::Fate;
use message::Message;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::Notify,
    time::{sleep, timeout},
};

/// Whether requests meet misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They do, as the seed has it.
    Foul,
    /// They pass.
    Fair,
}

/// All wires of a run.
#[derive(Debug)]
pub(crate) struct Network {
    runtime: Runtime,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: Seed,
    service: Mutex<Option<SocketAddr>>,
    foul: AtomicBool,
    /// Requests that are still to arrive although nobody waits for them.
    strays: AtomicUsize,
    hurry: Notify,
    tally: Tally,
}

/// One actor's way to the service.
#[derive(Debug)]
pub(crate) struct Wire {
    name: String,
    requests: AtomicU64,
    cut: AtomicBool,
}

impl Network {
    /// A network of foul weather without wires.
    pub(crate) fn new(seed: Seed) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting the network")?;
        let shared = Shared {
            seed,
            service: Mutex::new(None),
            foul: AtomicBool::new(true),
            strays: AtomicUsize::new(0),
            hurry: Notify::new(),
            tally: Tally::default(),
        };
        Ok(Self { runtime, shared: Arc::new(shared) })
    }

    /// Where the service is from now on, if anywhere.
    pub(crate) fn leads_to(&self, service: Option<SocketAddr>) {
        *self.shared.service.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }

    /// Whether requests meet misfortune from now on.
    pub(crate) fn weather(&self, weather: Weather) {
        self.shared.foul.store(weather == Weather::Foul, Ordering::SeqCst);
    }

    /// A wire of this name, and where an actor reaches it.
    pub(crate) fn wire(&self, name: &str) -> Result<(Arc<Wire>, SocketAddr)> {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let wire = Arc::new(Wire {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            cut: AtomicBool::new(false),
        });
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&wire));
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, wire) = (Arc::clone(&shared), Arc::clone(&own));
                tokio::spawn(async move { shared.serve(client, &wire).await });
            }
        });
        Ok((wire, address))
    }

    /// Lets everything that is still on its way arrive at once, or be lost; how many are left after `patience`.
    pub(crate) fn settle(&self, patience: Duration) -> usize {
        let begin = std::time::Instant::now();
        loop {
            self.shared.hurry.notify_waiters();
            let left = self.shared.strays.load(Ordering::SeqCst);
            if left == 0 || begin.elapsed() > patience {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What happened to requests.
    pub(crate) fn tally(&self) -> &Tally {
        &self.shared.tally
    }
}

impl Wire {
    /// Cuts it, or joins it again: nothing passes meanwhile.
    pub(crate) fn cut(&self, cut: Cut) {
        self.cut.store(cut == Cut::Off, Ordering::SeqCst);
    }
}

/// Whether a wire leads anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Off,
    Joined,
}

/// How long a request is tried to be brought to a service that is away.
const STRAY_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for an answer of the service.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(20);

impl Shared {
    /// Serves one connection of an actor until one of the two is done with it.
    async fn serve(self: Arc<Self>, mut client: TcpStream, wire: &Wire) {
        let _ = client.set_nodelay(true);
        while let Ok(Some(request)) = Message::read(&mut client).await {
            if wire.cut.load(Ordering::SeqCst) {
                self.tally.count(Fate::CutOff);
                return;
            }
            let nth = wire.requests.fetch_add(1, Ordering::SeqCst);
            let fate = if self.foul.load(Ordering::SeqCst) {
                Fate::of(&mut self.seed.chance(&wire.name, nth))
            } else {
                Fate::Passes
            };
            self.tally.count(fate);
            if !self.suffer(fate, request, &mut client).await {
                return;
            }
        }
    }

    /// What becomes of one request; whether the connection goes on.
    async fn suffer(self: &Arc<Self>, fate: Fate, request: Message, client: &mut TcpStream) -> bool {
        match fate {
            Fate::Passes => self.pass(&request, client).await,
            Fate::RequestSlow(delay) => {
                sleep(delay).await;
                self.pass(&request, client).await
            }
            Fate::ReplySlow(delay) => {
                let Some(reply) = self.ask(&request).await else { return false };
                sleep(delay).await;
                client.write_all(reply.bytes()).await.is_ok()
            }
            Fate::RequestLost | Fate::CutOff => false,
            Fate::RequestLate(delay) => {
                self.stray(request, delay);
                false
            }
            Fate::ReplyLost => {
                let _ = self.ask(&request).await;
                false
            }
            Fate::ReplyTorn => {
                if let Some(reply) = self.ask(&request).await {
                    let bytes = reply.bytes();
                    let _ = client.write_all(&bytes[..bytes.len() / 2]).await;
                }
                false
            }
            Fate::Doubled(delay) => {
                self.stray(request.clone(), delay);
                self.pass(&request, client).await
            }
            Fate::Strange => {
                const STRANGE: &[u8] =
                    b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>oh</p>";
                client.write_all(STRANGE).await.is_ok()
            }
        }
    }

    async fn pass(&self, request: &Message, client: &mut TcpStream) -> bool {
        match self.ask(request).await {
            Some(reply) => client.write_all(reply.bytes()).await.is_ok(),
            None => false,
        }
    }

    /// One request to the service on a connection of its own.
    async fn ask(&self, request: &Message) -> Option<Message> {
        let service = (*self.service.lock().unwrap_or_else(PoisonError::into_inner))?;
        let exchange = async {
            let mut upstream = TcpStream::connect(service).await.ok()?;
            let _ = upstream.set_nodelay(true);
            upstream.write_all(request.bytes()).await.ok()?;
            Message::read(&mut upstream).await.ok().flatten()
        };
        timeout(UPSTREAM_PATIENCE, exchange).await.ok().flatten()
    }

    /// Has a request arrive later, when nobody waits for the answer.
    fn stray(self: &Arc<Self>, request: Message, delay: Duration) {
        let shared = Arc::clone(self);
        shared.strays.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(delay) => {}
                () = shared.hurry.notified() => {}
            }
            let begin = tokio::time::Instant::now();
            while shared.ask(&request).await.is_none() && begin.elapsed() < STRAY_PATIENCE {
                sleep(Duration::from_millis(20)).await;
            }
            shared.strays.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
