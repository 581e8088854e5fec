//! The end of a local file that is stored: it stays, is moved away, or removed. Only a file that is still the stored one.
//!
//! Another program may put a new file in its place at any moment. So the file is set aside first, by a rename into the folder
//! `.bigup-aside` beside it; there it is compared with what was stored, and nobody may have it open for writing. Only then it
//! is removed or moved on. Another one goes back to its place.
//!
//! A kill in between leaves the file aside, whole. The next scan brings it back, unless a new file has its name by then: then
//! it stays aside, and that is told.

use crate::download::place::rename_new;
use crate::source::fingerprint::Fingerprint;
use crate::source::system::{self, Writers};
use crate::watch::paths::{numbered, place};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder beside a file in which it is set aside.
pub const ASIDE: &str = ".bigup-aside";

/// Most files of one name in the folder that files are moved to.
const MOST_DOUBLES: u32 = 10_000;

/// The wanted end of a file that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays.
    Keep,
    /// It is moved to its path below this folder.
    Move(PathBuf),
    /// It is removed.
    Delete,
}

/// The end of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It stays, as wanted.
    Kept,
    /// It is there now.
    Moved(PathBuf),
    /// It is gone.
    Deleted,
    /// It is not the stored one any more, or is being written to: it stays.
    Changed,
}

/// Ends the file at `path` below `root`, which is stored as it was with the fingerprint `stored`.
///
/// # Errors
/// As the system gives them; the file is in its place, or aside.
pub fn end(root: &Path, path: &str, stored: &Fingerprint, then: &Then) -> io::Result<End> {
    if *then == Then::Keep {
        return Ok(End::Kept);
    }
    let full = place(root, path);
    // A first look, so that a file which stays is not set aside.
    if system::fingerprint_at(&full)? != *stored || system::writers_of(&full)? == Writers::Some {
        return Ok(End::Changed);
    }
    // Before it is set aside: whoever cannot move it need not touch it.
    let goal = match then {
        Then::Move(folder) => {
            fs::create_dir_all(place(folder, path).parent().unwrap_or(folder))?;
            Some((folder.as_path(), path))
        }
        Then::Keep | Then::Delete => None,
    };
    let aside = aside(&full)?;
    let result = end_aside(&aside, stored, goal);
    if !matches!(result, Ok(End::Moved(_) | End::Deleted)) {
        rename_new(&aside, &full)?;
    }
    // With others in it, it stays.
    let _ = aside.parent().map(fs::remove_dir);
    result
}

fn end_aside(aside: &Path, stored: &Fingerprint, goal: Option<(&Path, &str)>) -> io::Result<End> {
    let found = system::fingerprint_at(aside)?;
    // A rename gives another time of change.
    let is_stored = Fingerprint { changed: stored.changed, ..found } == *stored;
    if !is_stored || system::writers_of(aside)? == Writers::Some {
        return Ok(End::Changed);
    }
    let Some((folder, path)) = goal else {
        fs::remove_file(aside)?;
        return Ok(End::Deleted);
    };
    for number in 1..MOST_DOUBLES {
        let goal = if number == 1 { place(folder, path) } else { place(folder, &numbered(path, number)) };
        match rename_new(aside, &goal) {
            Ok(()) => return Ok(End::Moved(goal)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let message = format!("{} is on another file system: files are moved by renaming", goal.display());
                return Err(io::Error::new(error.kind(), message));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Sets a file aside; its path there.
///
/// # Errors
/// As the system gives them; the file is in its place.
pub fn aside(path: &Path) -> io::Result<PathBuf> {
    let folder = path.with_file_name(ASIDE);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let aside = folder.join(path.file_name().unwrap_or_default());
    if fs::symlink_metadata(&aside).is_ok() {
        let message = format!("{} is in the way: a file that was set aside before", aside.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // Not by a link and an unlink: a new file under the old name would be lost in between.
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Brings all files back that were set aside in `folder`.
///
/// # Errors
/// As the system gives them. A new file has the name of one (`AlreadyExists`): that stays aside.
pub fn restore(folder: &Path) -> io::Result<()> {
    let aside = folder.join(ASIDE);
    let mut result = Ok(());
    for entry in fs::read_dir(&aside)? {
        let entry = entry?;
        if let Err(error) = rename_new(&entry.path(), &folder.join(entry.file_name())) {
            let message = format!("{} was set aside, and cannot go back: {error}", entry.path().display());
            result = Err(io::Error::new(error.kind(), message));
        }
    }
    if result.is_ok() {
        fs::remove_dir(&aside)?;
    }
    result
}

/// Removes the folder at `path` and those below it, as far as they are empty.
pub fn remove_empty(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|e| remove_empty(&e.path()));
    // One with files in it stays.
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn file(dir: &Path, path: &str) -> Fingerprint {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), path).unwrap();
        system::fingerprint_at(&dir.join(path)).unwrap()
    }

    #[test]
    fn a_stored_file_is_kept_removed_or_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (root, done) = (dir.path().join("root"), dir.path().join("done"));
        let moves = Then::Move(done.clone());
        for (path, then, expected) in [
            ("a", Then::Keep, End::Kept),
            ("b/c", Then::Delete, End::Deleted),
            ("x/y.tif", moves.clone(), End::Moved(done.join("x/y.tif"))),
            ("x/y.tif", moves.clone(), End::Moved(done.join("x/y-2.tif"))),
        ] {
            let stored = file(&root, path);
            assert_eq!(end(&root, path, &stored, &then).unwrap(), expected);
            assert_eq!(root.join(path).exists(), then == Then::Keep, "{path}");
        }
        assert_eq!(fs::read_to_string(done.join("x/y-2.tif")).unwrap(), "x/y.tif");
        assert!(!root.join("b").join(ASIDE).exists());
        remove_empty(&root);
        assert!(root.join("a").exists() && !root.join("x").exists() && !root.join("b").exists());
    }

    #[test]
    fn a_file_that_changed_stays_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let stored = file(dir.path(), "a");
        let other = Fingerprint { modified: 1, ..stored };
        assert_eq!(end(dir.path(), "a", &other, &Then::Delete).unwrap(), End::Changed);
        let writer = File::options().append(true).open(dir.path().join("a")).unwrap();
        assert_eq!(end(dir.path(), "a", &stored, &Then::Delete).unwrap(), End::Changed);
        drop(writer);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "a");
        assert!(!dir.path().join(ASIDE).exists());
        // Replaced, or opened, in the moment after the first look at it.
        let aside = aside(&dir.path().join("a")).unwrap();
        let writer = File::options().append(true).open(&aside).unwrap();
        assert_eq!(end_aside(&aside, &stored, None).unwrap(), End::Changed);
        drop(writer);
        fs::write(&aside, "other").unwrap();
        assert_eq!(end_aside(&aside, &stored, None).unwrap(), End::Changed);
        assert!(aside.exists());
    }

    #[test]
    fn a_file_that_was_set_aside_comes_back_unless_there_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "a");
        let kept = aside(&dir.path().join("a")).unwrap();
        assert!(!dir.path().join("a").exists());
        file(dir.path(), "a");
        assert!(aside(&dir.path().join("a")).unwrap_err().to_string().contains("in the way"));
        assert!(restore(dir.path()).unwrap_err().to_string().contains("cannot go back"));
        assert!(kept.exists());
        fs::remove_file(dir.path().join("a")).unwrap();
        restore(dir.path()).unwrap();
        assert!(dir.path().join("a").exists() && !dir.path().join(ASIDE).exists());
    }
}
