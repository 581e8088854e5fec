//! Locks on files (flock(2)), that follow a name.

use super::{IoContext, open_or_create};
use fs2::FileExt;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An exclusive lock on the file that a path names, given back on drop.
///
/// flock(2) locks: one holder at a time among all processes and all openings, given back by the kernel when the holder
/// dies.
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits for the lock on the file that `path` names, which is created if need be.
    ///
    /// # Errors
    /// The file cannot be opened (its folder can be gone) or locked.
    pub fn wait(path: &Path) -> io::Result<FileLock> {
        loop {
            let file = open_or_create(path)?;
            file.lock_exclusive().at("locking", path)?;
            if let Some(lock) = FileLock::if_still_named(file, path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if it is free. `None` while another process or thread has it.
    ///
    /// # Errors
    /// As for [`FileLock::wait`].
    pub fn try_now(path: &Path) -> io::Result<Option<FileLock>> {
        loop {
            let file = open_or_create(path)?;
            match file.try_lock_exclusive() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e).at("locking", path),
            }
            if let Some(lock) = FileLock::if_still_named(file, path)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Waits for the lock on the folder `path` itself, which is never replaced.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub fn of_folder(path: &Path) -> io::Result<FileLock> {
        FileLock::on(File::open(path).at("opening", path)?, path)
    }

    /// Waits for the lock on an open file or folder; `path` is for messages.
    ///
    /// # Errors
    /// It cannot be locked.
    pub fn on(file: File, path: &Path) -> io::Result<FileLock> {
        file.lock_exclusive().at("locking", path)?;
        Ok(FileLock { file })
    }

    /// Takes the lock on the file or folder at `path` if it is free. `None` while another process or thread has it. A
    /// link is not followed, and nothing is created.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub fn try_on_what_is_there(path: &Path) -> io::Result<Option<FileLock>> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at("opening", path)?;
        match file.try_lock_exclusive() {
            Ok(()) => Ok(Some(FileLock { file })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e).at("locking", path),
        }
    }

    /// The lock, if `path` still names the locked file. `None` if the file was replaced during the wait.
    fn if_still_named(file: File, path: &Path) -> io::Result<Option<FileLock>> {
        let lock = FileLock { file };
        let locked = lock.file.metadata().at("looking at", path)?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => Ok(Some(lock)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", path),
        }
    }

    /// The locked file, open for reading and writing; a folder for reading only.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Unlocking rather than only closing: a child process that is just being started can hold a copy of the
        // descriptor until it executes its program, and would keep the lock that long. An error would mean that it was
        // not locked.
        let _ = FileExt::unlock(&self.file);
    }
}

/// A lock on an open file or folder that several can have at once, given back on drop. It excludes a [`FileLock`].
pub struct SharedLock<'a>(&'a File);

impl<'a> SharedLock<'a> {
    /// Waits until nobody has an exclusive lock.
    ///
    /// # Errors
    /// It cannot be locked.
    pub fn on(file: &'a File) -> io::Result<SharedLock<'a>> {
        FileExt::lock_shared(file)?;
        Ok(SharedLock(file))
    }
}

impl Drop for SharedLock<'_> {
    fn drop(&mut self) {
        // As for `FileLock`.
        let _ = FileExt::unlock(self.0);
    }
}

/// True if an open file is locked, at this instant.
///
/// # Errors
/// As the system gives them.
pub fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_exclusive() {
        // Explicitly, as a FileLock is.
        Ok(()) => FileExt::unlock(file).map(|()| false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// True if an open file is locked exclusively, at this instant. Unlike [`is_locked`], two callers at the same time
/// never take each other for such a lock.
///
/// # Errors
/// As the system gives them.
pub fn is_locked_exclusively(file: &File) -> io::Result<bool> {
    match FileExt::try_lock_shared(file) {
        Ok(()) => FileExt::unlock(file).map(|()| false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, replace_file};
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_follows_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_now(&path).unwrap().unwrap();
        assert!(FileLock::try_now(&path).unwrap().is_none());
        // The holder replaces the file, as happens to info.ini: the next caller locks the new file.
        replace_file(dir.path(), "lock", b"new", Durability::Process).unwrap();
        let second = FileLock::try_now(&path).unwrap().unwrap();
        drop(first);
        assert!(FileLock::try_now(&path).unwrap().is_none());
        drop(second);
        assert!(FileLock::try_now(&path).unwrap().is_some());
    }

    #[test]
    fn a_shared_lock_excludes_an_exclusive_one_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || File::open(dir.path()).unwrap();
        let (one, other) = (folder(), folder());
        let locks = (SharedLock::on(&one).unwrap(), SharedLock::on(&other).unwrap());
        assert!(FileLock::try_on_what_is_there(dir.path()).unwrap().is_none());
        drop(locks);
        assert!(FileLock::try_on_what_is_there(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_lock_is_free_again_while_a_child_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_now(&path).unwrap().unwrap();
        let copy = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(FileLock::try_now(&path).unwrap().is_some());
        drop(copy);
    }
}
