//! One file in its place: whole at every moment, and as it was found in the end.

use super::InstallError;
use crate::{
    fault::{self, Point},
    journal::{FileWas, FoundFile, Journal, Undo},
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
    /// It is somebody else's by now, and left alone.
    Anothers,
}

/// What becomes of a file that somebody has changed since we put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edited {
    /// It is ours again: a person has said so.
    TakenBack,
    /// It stays: whoever changed it knew why.
    Stays,
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
/// the new one. What was there is written down first, with a copy. A link stays one: what it leads to is what changes.
pub(super) fn place(
    journal: &Journal,
    path: &Path,
    content: &[u8],
    access: Access,
    edited: Edited,
) -> Result<Placed, InstallError> {
    let failed = |source| InstallError::Write { path: path.to_owned(), source };
    if path.is_symlink() && !path.exists() {
        return Err(InstallError::LeadsNowhere { path: path.to_owned() });
    }
    let there = read(path).map_err(failed)?;
    let ours = hash(content);
    let undo = journal.undo()?.unwrap_or_default();
    if there.as_ref().is_some_and(|there| there.content == content && there.mode == access.mode()) {
        // Whoever put it there did what we would have done.
        if undo.file(path).is_some_and(|file| file.ours != [ours.clone()]) {
            settle(journal, path, &ours)?;
        }
        return Ok(Placed::Kept);
    }
    if edited == Edited::Stays && there.as_ref().is_some_and(|there| is_anothers(&undo, path, there)) {
        return Ok(Placed::Anothers);
    }
    make_directories(journal, path)?;
    let found = match there {
        Some(there) if undo.file(path).is_none() => Some(keep(journal, path, &there)?),
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
    settle(journal, path, &ours)?;
    Ok(Placed::Now)
}

/// Writes down what is there by now.
fn settle(journal: &Journal, path: &Path, ours: &str) -> Result<(), InstallError> {
    journal.change_undo(|undo| {
        let files = undo.files.iter_mut().filter(|file| file.path == path);
        files.for_each(|file| file.ours = vec![ours.to_owned()]);
    })?;
    Ok(())
}

/// Whether a file is there that is not as we left it.
pub(super) fn is_edited(journal: &Journal, path: &Path) -> Result<bool, InstallError> {
    let there = read(path).map_err(|source| InstallError::Write { path: path.to_owned(), source })?;
    let undo = journal.undo()?.unwrap_or_default();
    Ok(there.is_some_and(|there| is_anothers(&undo, path, &there)))
}

/// Whether a file is not as we left it. One under another name is measured by what we put beside it: somebody may
/// have renamed ours.
fn is_anothers(undo: &Undo, path: &Path, there: &There) -> bool {
    let content = hash(&there.content);
    let mut beside = undo.files.iter().filter(|file| file.path.parent() == path.parent()).peekable();
    beside.peek().is_some() && !beside.any(|file| file.ours.contains(&content))
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
    behind(&file.path).and_then(|path| remove(&draft(&path))).map_err(failed)?;
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

/// The file itself, where the path is a link to it.
fn behind(path: &Path) -> io::Result<PathBuf> {
    if path.is_symlink() && path.exists() { fs::canonicalize(path) } else { Ok(path.to_owned()) }
}

fn write(path: &Path, content: &[u8], mode: u32, drafted: Point) -> io::Result<()> {
    let path = &behind(path)?;
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
            self.put_by(content, Edited::TakenBack)
        }

        fn put_by(&self, content: &str, edited: Edited) -> Placed {
            place(&self.journal, &self.path, content.as_bytes(), Access::Program, edited).unwrap()
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

    #[test]
    fn what_somebody_changed_is_taken_back_at_a_persons_word_alone() {
        let place = Place::new();
        assert_eq!(place.put_by("1", Edited::Stays), Placed::Now);
        assert_eq!(place.put_by("2", Edited::Stays), Placed::Now, "a newer one of ours");
        fs::write(&place.path, "another's").unwrap();
        for _ in 0..2 {
            assert_eq!(place.put_by("2", Edited::Stays), Placed::Anothers);
        }
        assert_eq!(place.text().unwrap(), "another's");
        assert_eq!(place.put("2"), Placed::Now);
        assert_eq!(place.put_by("3", Edited::Stays), Placed::Now);
        // Somebody was first with the next.
        fs::write(&place.path, "4").unwrap();
        assert_eq!(place.put_by("4", Edited::Stays), Placed::Kept);
        assert_eq!((place.undo(), place.text()), (Gone::AsFound, None));
    }

    #[test]
    fn a_link_stays_one() {
        let place = Place::new();
        let behind = place.directory.path().join("kept/elsewhere");
        for directory in [&place.path, &behind].map(|path| path.parent().unwrap()) {
            fs::create_dir_all(directory).unwrap();
        }
        std::os::unix::fs::symlink(&behind, &place.path).unwrap();
        let error = place_refused(&place);
        assert!(error.contains("leads nowhere") && error.contains("remove it"), "{error}");
        fs::write(&behind, "theirs").unwrap();
        place.put("1");
        assert!(place.path.is_symlink());
        assert_eq!(fs::read_to_string(&behind).unwrap(), "1");
        assert_eq!(place.undo(), Gone::AsFound);
        assert!(place.path.is_symlink());
        assert_eq!(fs::read_to_string(&behind).unwrap(), "theirs");
        assert_eq!(fs::read_dir(behind.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    fn place_refused(at: &Place) -> String {
        super::place(&at.journal, &at.path, b"1", Access::Text, Edited::TakenBack).unwrap_err().to_string()
    }

    #[test]
    fn one_of_ours_that_somebody_renamed_is_ours_until_it_is_changed() {
        let mut place = Place::new();
        place.put("1");
        let renamed = place.path.with_file_name("y");
        fs::rename(&place.path, &renamed).unwrap();
        place.path = renamed;
        assert_eq!(place.put_by("2", Edited::Stays), Placed::Now);
        fs::write(&place.path, "another's").unwrap();
        assert_eq!(place.put_by("3", Edited::Stays), Placed::Anothers);
    }
}
