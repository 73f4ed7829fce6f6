//! The binary of the central service.

use anyhow::{Context, Result};
use ipam_server::{
    api, backup,
    config::{BackupArgs, Command, DatabaseText, DoctorArgs, RestoreArgs, Security, ServeArgs, file},
    doctor, log, serve,
    store::{DatabaseUrl, Store},
};
use std::{io::Write, process::ExitCode};

/// A request makes and drops some hundred small things, which takes glibc a tenth of the time that it takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match file::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Openapi => done(print_document()),
        Command::Serve(args) => match args.security() {
            Ok(security) => with(&args.database, |database| run(&args, &database, security)),
            Err(message) => misused(&message),
        },
        Command::Migrate(args) => with(&args.database, |database| migrate(&database)),
        Command::Backup(args) => with(&args.database.database, |database| back_up(&database, &args)),
        Command::Restore(args) => with(&args.database.database, |database| restore(&database, &args)),
        Command::Doctor(args) => match args.database.database.url() {
            Ok(database) => examine(&database, &args),
            Err(message) => misused(&message),
        },
    }
}

/// Does something with the database that is named.
fn with(database: &DatabaseText, work: impl FnOnce(DatabaseUrl) -> Result<()>) -> ExitCode {
    match database.url() {
        Ok(database) => done(work(database)),
        Err(message) => misused(&message),
    }
}

fn misused(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
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
    say(&api::document())
}

/// Writes to stdout what was asked for.
fn say(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

fn migrate(database: &DatabaseUrl) -> Result<()> {
    let migrated = runtime()?
        .block_on(Store::migrate(database))
        .with_context(|| format!("cannot bring the database {database} up to date"))?;
    let to = migrated.to;
    say(&match migrated.from {
        Some(from) if from == to => format!("the schema is at version {to} already\n"),
        Some(from) => format!("the schema went from version {from} to {to}\n"),
        None => format!("the schema was made, at version {to}\n"),
    })
}

fn back_up(database: &DatabaseUrl, args: &BackupArgs) -> Result<()> {
    let dumped = runtime()?.block_on(backup::write(database, &args.file))?;
    // Stdout may be the backup.
    eprintln!("{} rows as of {}", dumped.total(), dumped.at);
    Ok(())
}

fn restore(database: &DatabaseUrl, args: &RestoreArgs) -> Result<()> {
    let restored = runtime()?.block_on(backup::restore(database, args))?;
    say(&backup::words(&restored))
}

/// Exit status 0: nothing is broken; 1: something is, or nothing could be looked at.
fn examine(database: &DatabaseUrl, args: &DoctorArgs) -> ExitCode {
    let diagnosis = runtime().and_then(|runtime| runtime.block_on(doctor::examine(database)));
    match diagnosis {
        Ok(diagnosis) => {
            let said = done(doctor::report(&diagnosis, args.output).and_then(|text| say(&text)));
            if doctor::is_sound(&diagnosis) { said } else { ExitCode::FAILURE }
        }
        Err(error) => done(Err(error)),
    }
}

fn run(args: &ServeArgs, database: &DatabaseUrl, security: Security) -> Result<()> {
    let _log = log::start(args)?;
    runtime()?.block_on(serve::serve(args, database, security))
}
