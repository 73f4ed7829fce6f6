//! The binary of the central service.

use anyhow::{Context, Result};
use ipam_server::{
    api,
    config::{Command, LogFormat, Security, ServeArgs, file},
    serve,
    store::DatabaseUrl,
};
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match file::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Openapi => done(print_document()),
        Command::Serve(args) => match (args.security(), args.database.url()) {
            (Ok(security), Ok(database)) => done(run(&args, &database, security)),
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

fn run(args: &ServeArgs, database: &DatabaseUrl, security: Security) -> Result<()> {
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
        .block_on(serve::serve(args, database, security))
}
