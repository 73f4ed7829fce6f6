//! One file in its place: whole at every moment, and as it was found in the end.

use super::InstallError;
use crate::{
    fault::{self, Point},
    journal::{FileWas, FoundFile, Journal},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody may run it.
    Program,
    /// Everybody may read it.
    Text,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Program => 0o755,
            Self::Text => 0o644,
        }
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was there already, just so.
    Kept,
    /// It was put there.
    Now,
}

/// What became of a file that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is as it was found: gone, or the former one is back.
    AsFound,
    /// It is somebody else's by now, and left alone.
    Changed,
}

/// Puts a file in place, under its name only when all of it is on disk: whoever reads or runs it meets the old one or
/// the new one. What was there is written down first, with a copy.
pub(super) fn place(
    journal: &Journal,
    path: &Path,
    content: &[u8],
    access: Access,
) -> Result<Placed, InstallError> {
    let failed = |source| InstallError::Write { path: path.to_owned(), source };
    let there = read(path).map_err(failed)?;
    if there.as_ref().is_some_and(|there| there.content == content && there.mode == access.mode()) {
        return Ok(Placed::Kept);
    }
    make_directories(journal, path)?;
    let ours = hash(content);
    let known = journal.undo()?.is_some_and(|undo| undo.file(path).is_some());
    let found = match there {
        Some(there) if !known => Some(keep(journal, path, &there)?),
        _ => None,
    };
    journal.change_undo(|undo| match undo.files.iter_mut().find(|file| file.path == path) {
        Some(file) if file.ours.contains(&ours) => {}
        Some(file) => file.ours.push(ours.clone()),
        None => undo.files.push(FileWas { path: path.to_owned(), ours: vec![ours.clone()], found }),
    })?;
    fault::at(Point::InstallAfterNote);
    write(path, content, access.mode(), Point::InstallAfterDraft).map_err(failed)?;
    fault::at(Point::InstallAfterPlace);
    journal.change_undo(|undo| {
        undo.files
            .iter_mut()
            .filter(|file| file.path == path)
            .for_each(|file| file.ours = vec![ours.clone()]);
    })?;
    Ok(Placed::Now)
}

/// Makes a file as it was found, unless somebody has changed it since; forgets it then.
pub(super) fn take_away(journal: &Journal, file: &FileWas) -> Result<Gone, InstallError> {
    let failed = |source| InstallError::Write { path: file.path.clone(), source };
    let there = read(&file.path).map_err(failed)?;
    let is_ours = there.as_ref().is_some_and(|there| file.ours.contains(&hash(&there.content)));
    let mut gone = Gone::AsFound;
    match (&file.found, &there) {
        (Some(found), there) => match read(&found.copy).map_err(failed)? {
            Some(former) if is_ours => {
                write(&file.path, &former.content, found.mode, Point::InstallAfterDraft).map_err(failed)?;
            }
            // Put back by a run that did not come to its end.
            Some(former) if there.as_ref().is_some_and(|there| there.content == former.content) => {}
            _ => gone = Gone::Changed,
        },
        (None, Some(_)) if is_ours => {
            fs::remove_file(&file.path).and_then(|()| sync_parent(&file.path)).map_err(failed)?;
        }
        (None, Some(_)) => gone = Gone::Changed,
        (None, None) => {}
    }
    remove(&draft(&file.path)).map_err(failed)?;
    fault::at(Point::UninstallAfterFile);
    journal.change_undo(|undo| undo.files.retain(|known| known.path != file.path))?;
    if let Some(found) = &file.found {
        remove(&found.copy).map_err(failed)?;
        let _ = found.copy.parent().map(fs::remove_dir);
    }
    Ok(gone)
}

/// Removes directories that were made for files and have nothing in them.
pub(super) fn remove_directories(directories: &[PathBuf]) -> Result<(), InstallError> {
    for directory in directories.iter().rev() {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(source) => return Err(InstallError::Write { path: directory.clone(), source }),
        }
    }
    Ok(())
}

struct There {
    content: Vec<u8>,
    mode: u32,
}

fn read(path: &Path) -> io::Result<Option<There>> {
    match fs::read(path) {
        Ok(content) => {
            let mode = fs::metadata(path)?.permissions().mode() & PERMISSIONS;
            Ok(Some(There { content, mode }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps what was found, before anything says that it is kept.
fn keep(journal: &Journal, path: &Path, there: &There) -> Result<FoundFile, InstallError> {
    let directory = journal.data_dir().join("found");
    let copy = directory.join(hash(path.as_os_str().as_encoded_bytes()));
    let kept = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    kept.and_then(|()| write(&copy, &there.content, 0o600, Point::InstallAfterDraft))
        .map_err(|source| InstallError::Write { path: copy.clone(), source })?;
    Ok(FoundFile { copy, mode: there.mode })
}

fn make_directories(journal: &Journal, path: &Path) -> Result<(), InstallError> {
    let mut missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
    missing.reverse();
    let Some(last) = missing.last() else { return Ok(()) };
    journal.change_undo(|undo| {
        for directory in &missing {
            if !undo.directories.iter().any(|known| known == directory) {
                undo.directories.push(directory.to_path_buf());
            }
        }
    })?;
    let made = DirBuilder::new().recursive(true).mode(0o755).create(last);
    made.map_err(|source| InstallError::Write { path: last.to_path_buf(), source })
}

/// Where a file is before it has its name: in the same directory, for runtimes notice what is renamed there, and under
/// a name that none of them reads.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write(path: &Path, content: &[u8], mode: u32, drafted: Point) -> io::Result<()> {
    let draft = draft(path);
    // Left by one that was killed.
    remove(&draft)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    drop(file);
    fault::at(drafted);
    fs::rename(&draft, path)?;
    sync_parent(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        journal: Journal,
        path: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
            let path = directory.path().join("opt/cni/bin/x");
            Self { directory, journal, path }
        }

        fn put(&self, content: &str) -> Placed {
            place(&self.journal, &self.path, content.as_bytes(), Access::Program).unwrap()
        }

        fn undo(&self) -> Gone {
            let file = self.journal.undo().unwrap().unwrap().file(&self.path).unwrap().clone();
            take_away(&self.journal, &file).unwrap()
        }

        fn text(&self) -> Option<String> {
            fs::read_to_string(&self.path).ok()
        }
    }

    #[test]
    fn what_was_not_there_goes_with_its_directories() {
        let place = Place::new();
        assert_eq!(
            (place.put("1"), place.put("1"), place.put("2")),
            (Placed::Now, Placed::Kept, Placed::Now)
        );
        assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & PERMISSIONS, 0o755);
        assert_eq!(place.undo(), Gone::AsFound);
        remove_directories(&place.journal.undo().unwrap().unwrap().directories).unwrap();
        assert!(!place.directory.path().join("opt").exists());
    }

    #[test]
    fn what_was_found_first_comes_back_as_it_was() {
        let place = Place::new();
        fs::create_dir_all(place.path.parent().unwrap()).unwrap();
        fs::write(&place.path, "theirs").unwrap();
        fs::set_permissions(&place.path, Permissions::from_mode(0o700)).unwrap();
        for content in ["1", "2"] {
            place.put(content);
        }
        assert_eq!(place.text().unwrap(), "2");
        assert_eq!(place.undo(), Gone::AsFound);
        assert_eq!(place.text().unwrap(), "theirs");
        assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & PERMISSIONS, 0o700);
        assert!(!place.journal.data_dir().join("found").exists());
    }

    #[test]
    fn what_somebody_else_put_there_since_stays() {
        let place = Place::new();
        place.put("1");
        fs::write(&place.path, "another tool's").unwrap();
        assert_eq!(place.undo(), Gone::Changed);
        assert_eq!(place.text().unwrap(), "another tool's");
        // What was just so before us is none of ours.
        let place = Place::new();
        fs::create_dir_all(place.path.parent().unwrap()).unwrap();
        write(&place.path, b"1", 0o755, Point::InstallAfterDraft).unwrap();
        assert_eq!(place.put("1"), Placed::Kept);
        assert_eq!(place.journal.undo().unwrap(), None);
    }
}
