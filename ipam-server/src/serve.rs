//! Serving until told to stop, and stopping without losing what was accepted.

use crate::{
    api::{self, Service},
    clock::SystemClock,
    config::{Exposure, ServeArgs},
    store::{DatabaseUrl, Store},
};
use anyhow::{Context, Result};
use axum::serve::ListenerExt;
use std::{future::IntoFuture, io::Write, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How long requests in flight may take once the service is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Where requests come from. Other kinds of listener join here.
#[derive(Debug)]
enum Endpoint {
    Tcp(TcpListener),
}

impl Endpoint {
    async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}: stop what listens there, or choose another --listen")
        })?;
        Ok(Self::Tcp(listener))
    }

    fn address(&self) -> Result<SocketAddr> {
        let Self::Tcp(listener) = self;
        listener.local_addr().context("the listener has no address")
    }

    /// Answers requests until `stop` changes, then those in flight.
    async fn answer(self, router: axum::Router, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let Self::Tcp(listener) = self;
        // An answer is one small segment: it must not wait for the acknowledgement of the one before.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
        });
        axum::serve(listener, router)
            .with_graceful_shutdown(async move {
                // The sender lives as long as this future; an error means that it is gone, so stop as well.
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .into_future()
            .await
    }
}

/// Serves until SIGTERM or SIGINT, finishes what is in flight, and closes the database.
///
/// # Errors
/// The database cannot be opened, or the listener cannot be bound.
pub async fn serve(args: &ServeArgs, database: &DatabaseUrl, exposure: Exposure) -> Result<()> {
    if exposure == Exposure::Others {
        tracing::warn!(
            listen = %args.listen,
            "listening without TLS and without credentials: whoever reaches this address may do everything"
        );
    }
    // Before anything is announced, so that no early signal ends the process by default.
    let signals = (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let store = Store::open(database, Arc::new(SystemClock))
        .await
        .with_context(|| format!("cannot open the database {}", place(database)))?;
    let endpoint = Endpoint::bind(args.listen).await?;
    let address = endpoint.address()?;
    let service = Service::new(store.clone());
    let (stop, stopped) = watch::channel(false);
    let mut answering = std::pin::pin!(endpoint.answer(api::router(service.clone()), stopped));

    tracing::info!(%address, "listening");
    announce(address);

    let outcome = tokio::select! {
        outcome = &mut answering => outcome,
        signal = either(signals) => {
            tracing::info!(signal, "stopping");
            service.stop();
            stop.send_replace(true);
            tokio::time::timeout(GRACE, answering).await.unwrap_or_else(|_| {
                tracing::warn!(seconds = GRACE.as_secs(), "requests still in flight are cut off");
                Ok(())
            })
        }
    };
    store.close().await;
    tracing::info!("stopped");
    outcome.context("the listener failed")
}

/// Where a database is, for people; never with a secret.
fn place(database: &DatabaseUrl) -> String {
    match database {
        DatabaseUrl::Sqlite(path) => path.display().to_string(),
    }
}

/// One line for whoever started the process and reads its stdout.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "listening on http://{address}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads stdout");
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

async fn either((mut terminate, mut interrupt): (Signal, Signal)) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
