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
    /// Where each replica of the service is, if anywhere.
    replicas: Mutex<Vec<Option<SocketAddr>>>,
    foul: Arc<AtomicBool>,
    /// Requests that are still to arrive, or to be answered, whether or not anybody waits.
    under_way: Arc<AtomicUsize>,
    hurry: Notify,
    tally: Tally,
}

/// One actor's way to the service.
#[derive(Debug)]
pub(crate) struct Wire {
    name: String,
    /// Which replica comes first in its list of servers.
    first: usize,
    requests: AtomicU64,
    cut: AtomicBool,
    foul: Arc<AtomicBool>,
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
            replicas: Mutex::default(),
            foul: Arc::new(AtomicBool::new(true)),
            under_way: Arc::default(),
            hurry: Notify::new(),
            tally: Tally::default(),
        };
        Ok(Self { runtime, shared: Arc::new(shared) })
    }

    /// Where each replica of the service is from now on, if anywhere.
    pub(crate) fn leads_to(&self, replicas: &[Option<SocketAddr>]) {
        replicas.clone_into(&mut self.shared.replicas.lock().unwrap_or_else(PoisonError::into_inner));
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
            first: usize::try_from(self.shared.seed.chance(name, u64::MAX).below(1 << 16))?,
            requests: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            foul: Arc::clone(&self.shared.foul),
        });
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&wire));
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, wire) = (Arc::clone(&shared), Arc::clone(&own));
                tokio::spawn(async move { shared.serve(client, wire).await });
            }
        });
        Ok((wire, address))
    }

    /// Lets everything that is still on its way arrive at once, or be lost, and be done with; how many are left after
    /// `patience`.
    pub(crate) fn settle(&self, patience: Duration) -> usize {
        let begin = std::time::Instant::now();
        loop {
            self.shared.hurry.notify_waiters();
            let left = self.shared.under_way.load(Ordering::SeqCst);
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

    /// Whether its requests meet misfortune.
    pub(crate) fn weather(&self) -> Weather {
        weather(&self.foul)
    }
}

fn weather(foul: &AtomicBool) -> Weather {
    if foul.load(Ordering::SeqCst) { Weather::Foul } else { Weather::Fair }
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
/// The share of its time that an actor waits for one of several replicas.
const SHARE: Duration = Duration::from_millis(200);

/// A request that counts as under way as long as this lives.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    /// Serves one connection of an actor until one of the two is done with it.
    async fn serve(self: Arc<Self>, mut client: TcpStream, wire: Arc<Wire>) {
        let _ = client.set_nodelay(true);
        while let Ok(Some(request)) = Message::read(&mut client).await {
            if wire.cut.load(Ordering::SeqCst) {
                self.tally.count(Fate::CutOff);
                return;
            }
            let nth = wire.requests.fetch_add(1, Ordering::SeqCst);
            let fate = match weather(&self.foul) {
                Weather::Foul => Fate::of(&mut self.seed.chance(&wire.name, nth)),
                Weather::Fair => Fate::Passes,
            };
            self.tally.count(fate);
            if !self.suffer(fate, &wire, request, &mut client).await {
                return;
            }
        }
    }

    /// What becomes of one request; whether the connection goes on.
    async fn suffer(
        self: &Arc<Self>,
        fate: Fate,
        wire: &Arc<Wire>,
        request: Message,
        client: &mut TcpStream,
    ) -> bool {
        match fate {
            Fate::Passes => self.pass(wire, &request, client).await,
            Fate::RequestSlow(delay) => {
                sleep(delay).await;
                self.pass(wire, &request, client).await
            }
            Fate::ReplySlow(delay) => {
                let Some(reply) = self.ask(wire.first, &request).await else { return false };
                sleep(delay).await;
                client.write_all(reply.bytes()).await.is_ok()
            }
            Fate::RequestLost | Fate::CutOff => false,
            Fate::RequestLate(delay) => {
                self.stray(wire, request, delay);
                false
            }
            Fate::ReplyLost => {
                let _ = self.ask(wire.first, &request).await;
                false
            }
            Fate::ReplyTorn => {
                if let Some(reply) = self.ask(wire.first, &request).await {
                    let bytes = reply.bytes();
                    let _ = client.write_all(&bytes[..bytes.len() / 2]).await;
                }
                false
            }
            Fate::Doubled(delay) => {
                self.stray(wire, request.clone(), delay);
                self.pass(wire, &request, client).await
            }
            Fate::Strange => {
                const STRANGE: &[u8] =
                    b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>oh</p>";
                client.write_all(STRANGE).await.is_ok()
            }
        }
    }

    async fn pass(&self, wire: &Wire, request: &Message, client: &mut TcpStream) -> bool {
        match self.ask(wire.first, request).await {
            Some(reply) => client.write_all(reply.bytes()).await.is_ok(),
            None => false,
        }
    }

    /// One request to the replicas, beginning with the one of this number, as a shim goes through its list of servers:
    /// until one can answer.
    async fn ask(&self, first: usize, request: &Message) -> Option<Message> {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = replicas.len();
        if count > 0 {
            replicas.rotate_left(first % count);
        }
        let mut heard = None;
        for (tried, replica) in replicas.into_iter().enumerate() {
            let Some(replica) = replica else { continue };
            let hurries = weather(&self.foul) == Weather::Foul && tried + 1 < count;
            let patience = if hurries { SHARE } else { UPSTREAM_PATIENCE };
            // Whoever waits no longer leaves it behind: it may be carried out all the same.
            let under_way = UnderWay::one_more(&self.under_way);
            let exchange = tokio::spawn(exchange(under_way, replica, request.clone()));
            let Ok(Ok(Some(reply))) = timeout(patience, exchange).await else { continue };
            if !reply.is_unavailable() {
                return Some(reply);
            }
            heard = Some(reply);
        }
        heard
    }

    /// Has a request arrive later, at another replica, when nobody waits for the answer.
    fn stray(self: &Arc<Self>, wire: &Wire, request: Message, delay: Duration) {
        let (shared, first) = (Arc::clone(self), wire.first + 1);
        let under_way = UnderWay::one_more(&self.under_way);
        tokio::spawn(async move {
            let _under_way = under_way;
            tokio::select! {
                () = sleep(delay) => {}
                () = shared.hurry.notified() => {}
            }
            let begin = tokio::time::Instant::now();
            while shared.ask(first, &request).await.is_none() && begin.elapsed() < STRAY_PATIENCE {
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

/// One request to one replica on a connection of its own.
async fn exchange(_under_way: UnderWay, replica: SocketAddr, request: Message) -> Option<Message> {
    let exchange = async {
        let mut upstream = TcpStream::connect(replica).await.ok()?;
        let _ = upstream.set_nodelay(true);
        upstream.write_all(request.bytes()).await.ok()?;
        Message::read(&mut upstream).await.ok().flatten()
    };
    timeout(UPSTREAM_PATIENCE, exchange).await.ok().flatten()
}
