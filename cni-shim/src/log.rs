//! Messages: one line each, to the configured file or to standard error, never
//! to standard output, which belongs to the runtime.

use crate::cni::netconf::LogLevel;
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::OnceLock,
    time::SystemTime,
};

struct Sink {
    file: Option<File>,
    level: LogLevel,
    about: String,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// Says where messages go and what each begins with; the first call counts.
/// A file that cannot be opened is no reason not to start a pod: then they go to standard error.
pub fn open(file: Option<&Path>, level: LogLevel, about: &str) {
    let opened =
        file.map(|path| OpenOptions::new().create(true).append(true).open(path).map_err(|e| (path, e)));
    let (file, failed) = match opened {
        None => (None, None),
        Some(Ok(file)) => (Some(file), None),
        Some(Err(failed)) => (None, Some(failed)),
    };
    let _ = SINK.set(Sink { file, level, about: about.to_owned() });
    if let Some((path, error)) = failed {
        warn(format_args!(
            "logFile {} cannot be opened, so this goes to standard error: {error}",
            path.display()
        ));
    }
}

/// What failed.
pub fn error(message: impl fmt::Display) {
    write(LogLevel::Error, "error", &message);
}

/// What should not be.
pub fn warn(message: impl fmt::Display) {
    write(LogLevel::Warn, "warning", &message);
}

/// What was done.
pub fn info(message: impl fmt::Display) {
    write(LogLevel::Info, "info", &message);
}

/// Every step.
pub fn debug(message: impl fmt::Display) {
    write(LogLevel::Debug, "debug", &message);
}

fn write(level: LogLevel, name: &str, message: &dyn fmt::Display) {
    let (file, least, about) = match SINK.get() {
        Some(sink) => (sink.file.as_ref(), sink.level, sink.about.as_str()),
        None => (None, LogLevel::Info, ""),
    };
    if level > least {
        return;
    }
    // Nobody is left to hear that a message could not be written.
    let _ = match file {
        Some(mut file) => {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // One write a line: appends of several processes do not mix.
            let line = format!("{}.{:03} {name} {about}: {message}\n", time.as_secs(), time.subsec_millis());
            file.write_all(line.as_bytes())
        }
        // Standard error is for what is worth a person's or the runtime's attention.
        None if level <= LogLevel::Warn || least == LogLevel::Debug => {
            writeln!(std::io::stderr(), "{name} {about}: {message}")
        }
        None => Ok(()),
    };
}
