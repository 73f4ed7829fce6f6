//! The plugin: one verb a process, an answer or an error object on standard output.

use crate::{
    attach::{self, Word},
    cni::{CniError, Code, Invocation, NetConf, SpecVersion, Verb},
    journal::Uptime,
    log,
    tally::{self, Ended},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// The version of the configuration, for error objects, once it is known.
static VERSION: OnceLock<SpecVersion> = OnceLock::new();

/// What is counted when this process ends, once it is known which node's counts these are.
static COUNTED: OnceLock<Counted> = OnceLock::new();

struct Counted {
    state_dir: PathBuf,
    verb: Verb,
    began: Instant,
}

/// Whether the one object that a runtime reads is out.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// Runs the verb of `CNI_COMMAND`.
#[must_use]
pub fn run(command: &str) -> ExitCode {
    let began = Instant::now();
    panic_as_error_object(command);
    match verb(command, began) {
        Ok(()) => {
            count(None);
            ExitCode::SUCCESS
        }
        Err(error) => {
            fail(command, error);
            ExitCode::FAILURE
        }
    }
}

/// Prints the error object, unless something has been printed: a runtime reads one.
fn fail(command: &str, error: CniError) {
    // Wherever it comes from: what reads like "nothing was there" ends the runtime's tries.
    let error = if command == "DEL" { attach::retriable(error) } else { error };
    log::error(&error);
    if !PRINTED.load(Ordering::SeqCst) {
        print(&error.to_json(VERSION.get().copied()));
    }
    count(Some(error.code));
}

fn count(failure: Option<Code>) {
    if let Some(Counted { state_dir, verb, began }) = COUNTED.get() {
        tally::count(state_dir, Some(Ended { verb: *verb, took: began.elapsed(), failure }));
    }
}

fn verb(command: &str, began: Instant) -> Result<(), CniError> {
    let (verb, since) = (Verb::of(command)?, Uptime::now());
    if verb == Verb::Version {
        print(&SpecVersion::report());
        return Ok(());
    }
    // GC and STATUS are about a network, the others about one of its attachments.
    let invocation = match verb {
        Verb::Gc | Verb::Status => None,
        _ => Some(Invocation::read(verb, |name| std::env::var(name).ok())?),
    };
    let conf = NetConf::parse(&standard_input()?)?;
    let _ = VERSION.set(conf.version);
    let _ = COUNTED.set(Counted { state_dir: conf.node.state_dir.clone(), verb, began });
    conf.version.check_speaks(verb)?;
    let about = match &invocation {
        Some(invocation) => format!("{command} {}", invocation.attachment(&conf.network)),
        None => format!("{command} {}", conf.network),
    };
    log::open(conf.log_file.as_deref(), conf.log_level, &about);
    match (verb, invocation) {
        (Verb::Add, Some(invocation)) => {
            let added = attach::add(&invocation, &conf, since, Word::Configured)?;
            print(&added.result.to_json(conf.version));
            // The runtime waits for this process to end, so another one tells the segment.
            added.announce();
            Ok(())
        }
        (Verb::Del, Some(invocation)) => attach::del(&invocation, &conf),
        (Verb::Check, Some(invocation)) => attach::check(&invocation, &conf),
        (Verb::Gc, _) => attach::gc(&conf),
        (Verb::Status, _) => attach::status(&conf),
        _ => Ok(()),
    }
}

/// All of standard input: it may come in pieces, and be larger than a pipe holds.
fn standard_input() -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(|error| {
        CniError::new(Code::Io, "standard input cannot be read").details(error.to_string())
    })?;
    Ok(text)
}

fn print(value: &Value) {
    PRINTED.store(true, Ordering::SeqCst);
    let mut out = std::io::stdout().lock();
    // A runtime that hung up does not read an error about it either.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// A defect still ends with an error object: the runtime shows nothing else. What
/// is half done by then is DEL's to take away.
fn panic_as_error_object(command: &str) {
    let command = command.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        let error = CniError::new(Code::Internal, "cni-shim has a defect; please report it")
            .details(panic.to_string());
        fail(&command, error);
        std::process::exit(1);
    }));
}
