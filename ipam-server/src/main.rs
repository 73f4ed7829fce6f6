//! The binary of the central service.

use anyhow::{Context, Result};
use clap::Parser;
use ipam_server::{
    api,
    config::{Cli, Command, Exposure, LogFormat, ServeArgs},
    serve,
    store::DatabaseUrl,
};
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Openapi => done(print_document()),
        Command::Serve(args) => match (args.accepted(), args.database.url()) {
            (Ok(exposure), Ok(database)) => done(run(&args, &database, exposure)),
            (Err(message), _) | (_, Err(message)) => {
                eprintln!("error: {message}");
                ExitCode::from(2)
            }
        },
    }
}

fn done(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_document() -> Result<()> {
    std::io::stdout().write_all(api::document().as_bytes()).context("cannot write to stdout")
}

fn run(args: &ServeArgs, database: &DatabaseUrl, exposure: Exposure) -> Result<()> {
    let filter = EnvFilter::builder().parse(&args.log_filter).with_context(|| {
        format!("--log {:?} is not a filter: give error, warn, info, debug or trace", args.log_filter)
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve::serve(args, database, exposure))
}
