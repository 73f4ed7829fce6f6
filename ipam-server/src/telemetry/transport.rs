//! How the collector is reached: HTTP, with TLS by rustls like everything else here.

use super::setting;
use anyhow::{Context, Result};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
};
use reqwest::{Certificate, Identity, blocking::Client};
use rustls::crypto::ring;
use std::{fs, time::Duration};

/// Files in PEM by the variables of the exporter's specification, which the library does not read itself:
/// who vouches for the collector, and who the service is to it.
const CERTIFICATE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const CLIENT_KEY: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

/// A client that gives up on a collector in time.
///
/// # Errors
/// A file that the environment names cannot be read or is none in PEM.
pub(super) fn client(endpoint: &str) -> Result<Client> {
    // A process has one provider: whoever installed another meant it.
    drop(ring::default_provider().install_default());
    let mut builder = Client::builder().timeout(timeout());
    if !endpoint.starts_with("https:") {
        // Without TLS as well, the builder would read the system's certificates.
        return builder.tls_certs_only([]).build().context("traces cannot be sent");
    }
    if let Some(pem) = file(CERTIFICATE)? {
        let all = Certificate::from_pem_bundle(&pem).with_context(|| unfit(CERTIFICATE))?;
        builder = builder.tls_certs_only(all);
    }
    if let Some((mut pem, certificate)) = file(CLIENT_KEY)?.zip(file(CLIENT_CERTIFICATE)?) {
        pem.push(b'\n');
        pem.extend(certificate);
        builder = builder.identity(Identity::from_pem(&pem).with_context(|| unfit(CLIENT_CERTIFICATE))?);
    }
    builder.build().context("traces cannot be sent")
}

/// How long the collector may take over a batch.
fn timeout() -> Duration {
    setting(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT)
        .and_then(|milliseconds| milliseconds.parse().ok())
        .map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
}

fn file([of_traces, of_all]: [&str; 2]) -> Result<Option<Vec<u8>>> {
    setting(of_traces, of_all)
        .map(|path| fs::read(&path).with_context(|| format!("{of_all}: cannot read {path}")))
        .transpose()
}

fn unfit([_, variable]: [&str; 2]) -> String {
    format!("{variable}: the file cannot be used")
}
