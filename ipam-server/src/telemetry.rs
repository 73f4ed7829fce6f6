//! Traces by OTLP, where the environment names a collector.
//!
//! The service makes spans at the level TRACE and knows nothing of who reads them; here they become
//! `OpenTelemetry`'s. Its standard variables say all there is to say (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

mod exporter;
mod transport;

use anyhow::{Context as _, Result};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use exporter::{Exporter, SAID_HERE};
use opentelemetry::{
    Context, KeyValue, StringValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TraceId, TracerProvider},
};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, SpanExporter, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use std::{env, time::Duration};
use tracing::{Level, Metadata, Span, Subscriber, subscriber::Interest};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    Layer,
    filter::{DynFilterFn, filter_fn},
    registry::LookupSpan,
};

/// How long the end waits for the collector to take the last spans.
const FLUSH: Duration = Duration::from_secs(5);

/// Sends spans to a collector from a thread of its own; dropped, it sends the last of them.
#[derive(Debug)]
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// What the environment asks for; nothing where it names no collector or says to keep still.
    ///
    /// # Errors
    /// The collector cannot be reached as the environment says: its URL or a certificate is none.
    pub(crate) fn from_env() -> Result<Option<Self>> {
        let Some(endpoint) = setting(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT) else {
            return Ok(None);
        };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(transport::client(&endpoint)?)
            .build()
            .context("traces cannot be sent")?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(Exporter::new(exporter))
            .build();
        Ok(Some(Self { provider }))
    }

    /// Makes the service's spans `OpenTelemetry`'s, and its warnings their events.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let spans = DynFilterFn::new(|metadata, _| is_traced(metadata)).with_callsite_filter(|metadata| {
            if !concerns(metadata) {
                Interest::never()
            } else if metadata.is_span() {
                Interest::sometimes()
            } else {
                Interest::always()
            }
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(env!("CARGO_PKG_NAME")))
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(spans)
            .and_then(filter_fn(|metadata| !SAID_HERE.contains(&metadata.name())))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces are not delivered");
        }
    }
}

/// Whether spans and events of this kind may be in a trace: all that the service says at the level TRACE of what it
/// does, and of what goes wrong at any.
fn concerns(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("ipam_server")
        && if metadata.is_span() {
            *metadata.level() == Level::TRACE
        } else {
            *metadata.level() <= Level::WARN
        }
}

/// Whether a span is made. Requests and turns of the background begin traces; what the store does is part of one, or it
/// costs no more than this question.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    concerns(metadata)
        && (!metadata.is_span()
            || !metadata.target().starts_with("ipam_server::store")
            || Context::map_current(|context| context.span().span_context().is_sampled()))
}

/// Goes on with the caller's trace (W3C Trace Context) in the span of a request, and names the request's id in it.
/// Which trace it is part of then, sampled or not; none where nobody traces.
pub(crate) fn adopt(span: &Span, headers: &HeaderMap, id: &HeaderValue) -> Option<TraceId> {
    if span.is_disabled() {
        return None;
    }
    let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Caller(headers));
    if caller.has_active_span() {
        // Refused where only the log wants the span: then there is no trace to go on with.
        let _ = span.set_parent(caller);
    }
    let id = StringValue::from(id.to_str().unwrap_or_default().to_owned());
    span.set_attribute("http.response.header.x-request-id", Value::Array(vec![id].into()));
    let trace = span.context().span().span_context().trace_id();
    (trace != TraceId::INVALID).then_some(trace)
}

/// What a caller says of its trace. All of it is kept with every span until that is sent, so longer words than must be
/// passed on (W3C Trace Context, 3.3.1.5) are not heard.
struct Caller<'a>(&'a HeaderMap);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        const LONGEST: usize = 512;
        self.0.get(key)?.to_str().ok().filter(|value| value.len() <= LONGEST)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Who the spans are of.
fn resource() -> Resource {
    let builder = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => builder.with_service_name(name),
        None => builder,
    }
    .build()
}

/// What a variable says; an empty one says nothing.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// What is said of traces, or else of all that is sent.
fn setting(of_traces: &str, of_all: &str) -> Option<String> {
    variable(of_traces).or_else(|| variable(of_all))
}

fn is(name: &str, word: &str) -> bool {
    variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
}
