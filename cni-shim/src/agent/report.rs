//! What the agent tells of itself: `/livez` and `/metrics` (`OpenMetrics`).

use super::{limited::Limited, node_metrics::NodeMetrics};
use crate::{attach::Kept, cni::netconf::NodeConf, journal::Uptime};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A round that is older than this is none: the agent hangs, or cannot look at its node.
const ALIVE: Duration = Duration::from_secs(120);

/// What `/metrics` and `/livez` answer by.
#[derive(Debug)]
pub(super) struct Report {
    registry: Registry,
    /// When the last round ended that could look, by the time since boot in µs.
    round: AtomicU64,
    rounds_failed: Counter,
    mended: Counter,
    removed: Counter,
    swept: Counter,
    broken: Gauge,
    files_changed: Gauge,
    last_sync: Gauge,
}

impl Report {
    pub(super) fn of(conf: &NodeConf) -> Self {
        let mut registry = Registry::with_prefix("cni_shim");
        registry.register_collector(Box::new(NodeMetrics::of(conf)));
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let broken =
            gauge("datapath_broken", "What is not as it was made and cannot be put right by the agent");
        let files_changed = gauge(
            "files_changed",
            "Files of the installation that somebody has changed since: they are left alone",
        );
        let last_sync = gauge("last_sync_timestamp_seconds", "When journal and ledger last agreed");
        let mut counter = |name: &str, help: &str| {
            let counter: Counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let rounds_failed =
            counter("rounds_failed", "Rounds in which something could not be looked at or told");
        let mended = counter("datapath_mended", "Routes, neighbours, sysctls and rules put back");
        let removed = counter("proxies_removed", "Answers ended for addresses that no pod has");
        let swept = counter("leaks_swept", "Attachments taken away whose end nobody told");
        Self {
            registry,
            round: AtomicU64::new(Uptime::now().0),
            rounds_failed,
            mended,
            removed,
            swept,
            broken,
            files_changed,
            last_sync,
        }
    }

    pub(super) fn kept(&self, kept: &Kept) {
        self.mended.inc_by(kept.mended.len() as u64);
        self.removed.inc_by(kept.removed.len() as u64);
        self.broken.set(count(kept.broken.len()));
    }

    pub(super) fn files_changed(&self, files: usize) {
        self.files_changed.set(count(files));
    }

    pub(super) fn swept(&self, leaks: u64) {
        self.swept.inc_by(leaks);
    }

    pub(super) fn failed(&self) {
        self.rounds_failed.inc();
    }

    pub(super) fn spoken(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_sync.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// A round has ended that could look.
    pub(super) fn ended(&self) {
        self.round.store(Uptime::now().0, Ordering::Relaxed);
    }

    fn is_alive(&self, now: Uptime) -> bool {
        Uptime(self.round.load(Ordering::Relaxed)).age_at(now) < ALIVE
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Answers from a thread of its own; where.
///
/// # Errors
/// Nobody can listen there.
pub(super) fn serve(report: Arc<Report>, listen: SocketAddr) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = Router::new().route("/livez", get(livez)).route("/metrics", get(metrics)).with_state(report);
    std::thread::Builder::new().name("report".to_owned()).spawn(move || {
        runtime.block_on(async {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(Limited::of(listener), router).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                crate::log::error(format_args!("/livez and /metrics have ended: {error}"));
            }
        });
    })?;
    Ok(address)
}

async fn livez(State(report): State<Arc<Report>>) -> impl IntoResponse {
    if report.is_alive(Uptime::now()) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no round could look at the node for two minutes\n")
    }
}

async fn metrics(State(report): State<Arc<Report>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &report.registry) {
        Ok(()) => (
            StatusCode::OK,
            [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::limited, *};
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpStream,
        path::Path,
    };

    fn report() -> Report {
        let conf =
            serde_json::json!({"cniVersion": "1.0.0", "name": "pods", "server": "unix:///s", "node": "n1"});
        let mut conf = crate::cni::NetConf::parse(conf.to_string().as_bytes()).unwrap();
        conf.node.state_dir = Path::new("/nonexistent").to_owned();
        Report::of(&conf.node)
    }

    #[test]
    fn an_agent_hangs_when_no_round_could_look_for_two_minutes() {
        let report = report();
        report.round.store(7_000_000, Ordering::Relaxed);
        let ended = Uptime(7_000_000);
        assert!(report.is_alive(ended.plus(ALIVE - Duration::from_micros(1))));
        assert!(!report.is_alive(ended.plus(ALIVE)));
        report.ended();
        assert!(report.is_alive(Uptime::now()), "the next one ended after all");
    }

    #[tokio::test]
    async fn livez_is_503_while_it_hangs() {
        let report = Arc::new(report());
        assert_eq!(livez(State(Arc::clone(&report))).await.into_response().status(), StatusCode::OK);
        // So long ago that the machine may not have been up yet: the clock counts from the boot.
        let Some(long_ago) = Uptime::now().0.checked_sub(ALIVE.as_micros() as u64) else { return };
        report.round.store(long_ago, Ordering::Relaxed);
        let status = livez(State(report)).await.into_response().status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn connections_beyond_the_limit_wait_for_one_to_end() {
        let address = serve(Arc::new(report()), ([127, 0, 0, 1], 0).into()).unwrap();
        let ask =
            |mut stream: &TcpStream| stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let answer = |stream: &TcpStream| {
            let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
            assert!(lines.next().unwrap().starts_with("HTTP/1.1 200"));
            assert!(lines.any(|line| line == "ok"));
        };
        let mut open: Vec<TcpStream> =
            (0..limited::MOST).map(|_| TcpStream::connect(address).unwrap()).collect();
        open.iter().for_each(|stream| {
            ask(stream);
            answer(stream);
        });
        let late = TcpStream::connect(address).unwrap();
        ask(&late);
        // Asked later, answered first.
        ask(&open[0]);
        answer(&open[0]);
        late.set_nonblocking(true).unwrap();
        assert_eq!(late.peek(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        late.set_nonblocking(false).unwrap();
        open.pop();
        answer(&late);
    }
}
