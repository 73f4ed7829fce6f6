//! Small files that are there whole or not at all.

use super::JournalError;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// How much a write must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// This process: for a file system that a reboot empties anyway.
    Process,
    /// Loss of power.
    Power,
}

/// Makes a directory, its parents too, for root only; no error if it is there.
///
/// # Errors
/// The file system refuses.
pub fn make_directory(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(JournalError::io(path))
}

/// Opens a file to be locked, made where there is none; for root only, for whoever can open it can keep it locked.
///
/// # Errors
/// The file system refuses.
pub fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not what it should be.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JournalError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io(path)(error)),
    };
    let value = serde_json::from_slice(&text);
    value.map(Some).map_err(|why| JournalError::Corrupt { path: path.to_owned(), why: why.to_string() })
}

/// Where a file is written before it takes its name. One name a file will do:
/// only the holder of the node's lock writes.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write_draft<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> Result<PathBuf, JournalError> {
    let draft = draft(path);
    let mut text = serde_json::to_vec(value).map_err(|why| JournalError::Corrupt {
        path: path.to_owned(),
        why: format!("it cannot be written: {why}"),
    })?;
    text.push(b'\n');
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        if durability == Durability::Power { file.sync_all() } else { Ok(()) }
    };
    write().map_err(JournalError::io(&draft))?;
    Ok(draft)
}

/// Writes a file in place of the one of that name, if any.
///
/// # Errors
/// The file system refuses; the old file is then as it was.
pub fn replace<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), JournalError> {
    let draft = write_draft(path, value, durability)?;
    fs::rename(&draft, path).map_err(JournalError::io(path))?;
    if durability == Durability::Power { sync_parent(path) } else { Ok(()) }
}

/// Writes a file that must not be there yet. Whether it was made.
///
/// # Errors
/// The file system refuses.
pub fn create<T: Serialize>(path: &Path, value: &T) -> Result<bool, JournalError> {
    let draft = write_draft(path, value, Durability::Process)?;
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(JournalError::io(path)(error)),
    }
}

/// Tries out whether a directory takes files: makes it, writes one of a page and removes it.
///
/// # Errors
/// The file system refuses.
pub fn try_out(directory: &Path) -> Result<(), JournalError> {
    make_directory(directory)?;
    // One name for all who try at once: no matter what stays of it, it is one file.
    let path = directory.join(".try");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&[0; 4096]));
    let removed = remove(&path, Durability::Process);
    written.map_err(JournalError::io(&path))?;
    removed
}

/// Removes a file; no error if there is none.
///
/// # Errors
/// The file system refuses.
pub fn remove(path: &Path, durability: Durability) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Ok(()) if durability == Durability::Power => sync_parent(path),
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(JournalError::io(path)(error)),
    }
}

fn sync_parent(path: &Path) -> Result<(), JournalError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(JournalError::io(parent))
}

/// Files of a directory that are not drafts; none if there is no directory.
///
/// # Errors
/// It cannot be listed.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io(directory)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(JournalError::io(directory))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10.0.0.1");
        assert_eq!(read::<u64>(&path).unwrap(), None);
        assert!(create(&path, &1u64).unwrap());
        assert!(!create(&path, &2u64).unwrap());
        assert_eq!(read::<u64>(&path).unwrap(), Some(1));
        replace(&path, &3u64, Durability::Power).unwrap();
        assert_eq!(read::<u64>(&path).unwrap(), Some(3));
        assert_eq!(list(directory.path()).unwrap(), [path.as_path()]);
        remove(&path, Durability::Process).unwrap();
        remove(&path, Durability::Process).unwrap();
        assert!(list(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn a_half_written_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "{").unwrap();
        let error = read::<u64>(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}
