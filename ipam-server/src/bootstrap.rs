//! The first admin's token: written once, to a file that only its owner reads.

use crate::store::{Change, Store, Written};
use anyhow::{Context, Result, bail};
use ipam_api::{token::Secret, wire::Role};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
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
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_own(file)?,
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    let kept = store.bootstrap(&secret, &Change::default()).await;
    let kept = kept.with_context(|| format!("the token in {shown} does not count: move the file away"))?;
    if let Written::Created(token) = kept {
        tracing::info!(file = %shown, token = %token.id, "the first admin's token is written");
    }
    Ok(())
}

/// The token in a file that an earlier start left.
fn read_own(file: &Path) -> Result<Secret> {
    let shown = file.display();
    let mut opened = fs::File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let meta = opened.metadata().with_context(|| format!("cannot read {shown}"))?;
    if meta.mode() & 0o077 != 0 || meta.uid() != nix::unistd::geteuid().as_raw() {
        bail!(
            "{shown} is there and others may know what it holds (mode {:o}, uid {}): move it away, or name another file",
            meta.mode() & 0o777,
            meta.uid()
        );
    }
    let mut text = String::new();
    // What is no text is no token either.
    let _ = opened.read_to_string(&mut text);
    text.trim().parse().ok().filter(|secret: &Secret| secret.role() == Role::Admin).with_context(|| {
        format!("{shown} is there and holds no admin's token: move it away, or name another file")
    })
}

/// Makes a token and its file, which is there whole or not at all.
fn write_new(file: &Path) -> io::Result<Secret> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let secret = Secret::new(Role::Admin, random);
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    // Left by one that was killed while it wrote.
    if let Err(error) = fs::remove_file(&part)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    writeln!(opened, "{}", secret.expose())?;
    opened.sync_all()?;
    // Unlike a rename, a link takes the place of nothing.
    let linked = fs::hard_link(&part, file);
    fs::remove_file(&part)?;
    linked?;
    if let Some(directory) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(secret)
}
