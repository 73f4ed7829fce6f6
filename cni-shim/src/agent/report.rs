//! What the agent tells of itself: `/livez` and `/metrics` (`OpenMetrics`).

use super::node_metrics::NodeMetrics;
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

/// A round that is older than this is none: the agent hangs.
const ALIVE: Duration = Duration::from_secs(120);

/// What `/metrics` and `/livez` answer by.
#[derive(Debug)]
pub(super) struct Report {
    registry: Registry,
    /// When the last round ended, by the time since boot in µs.
    round: AtomicU64,
    rounds_failed: Counter,
    mended: Counter,
    removed: Counter,
    swept: Counter,
    broken: Gauge,
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
            last_sync,
        }
    }

    pub(super) fn kept(&self, kept: &Kept) {
        self.mended.inc_by(kept.mended.len() as u64);
        self.removed.inc_by(kept.removed.len() as u64);
        self.broken.set(count(kept.broken.len()));
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

    /// A round has ended.
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
                Ok(listener) => axum::serve(listener, router).await,
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
        (StatusCode::SERVICE_UNAVAILABLE, "no round has ended for two minutes\n")
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
    use super::*;
    use std::path::Path;

    fn report() -> Report {
        let conf =
            serde_json::json!({"cniVersion": "1.0.0", "name": "pods", "server": "unix:///s", "node": "n1"});
        let mut conf = crate::cni::NetConf::parse(conf.to_string().as_bytes()).unwrap();
        conf.node.state_dir = Path::new("/nonexistent").to_owned();
        Report::of(&conf.node)
    }

    #[test]
    fn an_agent_hangs_when_no_round_has_ended_for_two_minutes() {
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
}
