//! What the service says of itself while it runs: lines on stderr, and traces where it is built with the feature `otel`.

use crate::config::{LogFormat, ServeArgs};
#[cfg(feature = "otel")]
use crate::telemetry::Telemetry;
use anyhow::{Context, Result};
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

/// Ends what [`start`] started, within seconds, when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Log {
    #[cfg(feature = "otel")]
    _traces: Option<Telemetry>,
}

/// Starts to log, and to trace where the environment asks for it.
///
/// # Errors
/// The filter is none, or the environment asks for traces in a way that cannot be.
pub fn start(args: &ServeArgs) -> Result<Log> {
    let filter = EnvFilter::builder().parse(&args.log_filter).with_context(|| {
        format!("--log {:?} is not a filter: give error, warn, info, debug or trace", args.log_filter)
    })?;
    #[cfg(feature = "otel")]
    {
        let log = tracing_subscriber::registry().with(filter.clone()).with(lines(args.log_format));
        // Setting up traces may warn as well.
        if let Some(traces) = tracing::subscriber::with_default(log, Telemetry::from_env)? {
            let lines = lines(args.log_format).with_filter(filter);
            tracing_subscriber::registry().with(lines).with(traces.layer()).init();
            return Ok(Log { _traces: Some(traces) });
        }
    }
    tracing_subscriber::registry().with(filter).with(lines(args.log_format)).init();
    Ok(Log {
        #[cfg(feature = "otel")]
        _traces: None,
    })
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    }
}
