//! Serving until told to stop, and stopping without losing what was accepted.

use crate::{
    api::{self, Credentials, Service},
    bootstrap, clock,
    config::{Security, ServeArgs},
    endpoint::Endpoint,
    store::{DatabaseUrl, Store},
    tls::Tls,
    upkeep,
};
use anyhow::{Context, Result};
use futures::future::try_join_all;
use std::{io::Write, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::MissedTickBehavior,
};

/// How long requests in flight may take once the service is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is written down when tokens were last used.
const NOTE_USES: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, finishes what is in flight, and closes the database.
///
/// # Errors
/// The database cannot be opened, certificates cannot be read, or a listener cannot be bound.
pub async fn serve(args: &ServeArgs, database: &DatabaseUrl, security: Security) -> Result<()> {
    for danger in &security.dangers {
        tracing::warn!("{danger}");
    }
    // Before anything is announced, so that no early signal ends the process by default.
    let signals = (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let store = Store::open(database, clock::of_service())
        .await
        .with_context(|| format!("cannot open the database {database}"))?;
    // Ends with this function: dropped, a set ends its tasks.
    let mut background = JoinSet::new();
    background.spawn(note_uses(store.clone()));
    background.spawn(upkeep::keep_up(store.clone(), args.keep_events()));
    let tls = match security.tls {
        None => None,
        Some(files) => {
            let (tls, reading) = Tls::read(files).context("TLS")?;
            background.spawn(reading);
            Some(tls)
        }
    };
    if let Some(file) = &args.bootstrap_token_file {
        bootstrap::first_admin(&store, file).await?;
    }
    if security.credentials == Credentials::Required && !store.has_admin().await? {
        tracing::warn!(
            "credentials are required and there is no admin's token: start with --bootstrap-token-file FILE, or \
             listen at a unix socket as well, where root is admin"
        );
    }
    let service = Service::new(store.clone(), security.credentials);
    let (stop, stopped) = watch::channel(false);
    let mut urls = Vec::new();
    let mut answering = Vec::new();
    for listen in &args.listen {
        let endpoint = Endpoint::bind(listen, tls.as_ref()).await?;
        urls.push(endpoint.url()?);
        answering.push(endpoint.answer(api::router(service.clone()), stopped.clone()));
    }
    let mut answering = std::pin::pin!(try_join_all(answering));
    for url in &urls {
        tracing::info!(url, credentials = ?security.credentials, "listening");
        announce(url);
    }

    let outcome = tokio::select! {
        outcome = &mut answering => outcome.map(|_| ()),
        signal = either(signals) => {
            tracing::info!(signal, "stopping");
            service.stop();
            stop.send_replace(true);
            tokio::time::timeout(GRACE, answering).await.map_or_else(
                |_| {
                    tracing::warn!(seconds = GRACE.as_secs(), "requests still in flight are cut off");
                    Ok(())
                },
                |ended| ended.map(|_| ()),
            )
        }
    };
    drop(background);
    store.close().await;
    tracing::info!("stopped");
    outcome.context("a listener failed")
}

async fn note_uses(store: Store) {
    let mut ticks = tokio::time::interval(NOTE_USES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = store.note_uses().await {
            tracing::warn!(%error, "when tokens were last used is written down later");
        }
    }
}

/// One line a listener for whoever started the process and reads its stdout.
fn announce(url: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "listening on {url}").and_then(|()| out.flush()).is_err() {
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
