//! The first admin's token: written once, to a file that only its owner reads.

use crate::store::{Change, Store, Written};
use anyhow::{Context, Result};
use ipam_api::{token::Secret, wire::Role};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Makes the first admin's token and writes it to the file, unless there is an admin already.
///
/// The file is written before the token is kept: a crash between the two leaves a file
/// whose token is kept at the next start.
///
/// # Errors
/// The file cannot be written, or holds something else.
pub(crate) async fn first_admin(store: &Store, file: &Path) -> Result<()> {
    if store.has_admin().await? {
        return Ok(());
    }
    let shown = file.display();
    let secret = match write_new(file) {
        Ok(secret) => secret,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(file)
            .with_context(|| format!("cannot read {shown}"))?
            .trim()
            .parse()
            .ok()
            .filter(|secret: &Secret| secret.role() == Role::Admin)
            .with_context(|| {
                format!("{shown} is there and holds no admin's token: move it away, or name another file")
            })?,
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    if let Written::Created(token) = store.bootstrap(&secret, &Change::default()).await? {
        tracing::info!(file = %shown, token = %token.id, "the first admin's token is written");
    }
    Ok(())
}

fn write_new(file: &Path) -> io::Result<Secret> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let secret = Secret::new(Role::Admin, random);
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(opened, "{}", secret.expose())?;
    opened.sync_all()?;
    if let Some(directory) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(secret)
}
