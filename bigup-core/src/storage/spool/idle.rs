//! Spools that nobody works on: their idle time, leftovers in them and beside them, and their end.

use super::arrival::is_tail;
use super::{DIGESTS, MERGER_LOCK, OtherVersion, PART_SUFFIX, Records, Spool, UPLOAD_JSON};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, FileLock, IoContext};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An upload that was removed because nothing came any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Time for which nothing had come.
    pub idle: Duration,
    /// Bytes of the slices that were held.
    pub bytes: u64,
}

/// The uploads that go once they are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Any upload, readable or not.
    WhateverIsHeld,
    /// Uploads without content: nothing has come, or nothing of it is left.
    NothingHeld,
}

/// Proof that nobody works on a spool, for as long as it lives.
struct AtRest {
    _digests: Option<FileLock>,
    _merger: Option<FileLock>,
}

impl Spool {
    /// Time since the last byte arrived or the spool last changed; zero if clocks disagree.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn idle(&self) -> io::Result<Duration> {
        let found = std::fs::symlink_metadata(&self.path).and_then(|m| m.modified());
        let mut last = found.at("looking at", &self.path)?;
        for entry in std::fs::read_dir(&self.path).at("listing", &self.path)? {
            let entry = entry.at("listing", &self.path)?;
            if is_arriving(&entry.path())
                && let Ok(modified) = entry.metadata().and_then(|m| m.modified())
            {
                last = last.max(modified);
            }
        }
        Ok(SystemTime::now().duration_since(last).unwrap_or_default())
    }

    /// Notes that the client whose upload this is has given up, so that another client that waits for its silence need
    /// not. The time of change of `upload.json`, which all daemons see, tells that: it is 1970 then. So a sign of life,
    /// or a new save of the upload, takes it back. Nothing is synced.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn set_left(&self) -> io::Result<()> {
        self.touch(&TimeSpec::new(0, 0))
    }

    /// Notes that the client whose upload this is has been heard of. The note is the time of change of `upload.json`:
    /// every daemon sees it, and it wakes nobody who watches the folder. Nothing is synced.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn sign_of_life(&self) -> io::Result<()> {
        self.touch(&TimeSpec::UTIME_NOW)
    }

    fn touch(&self, time: &TimeSpec) -> io::Result<()> {
        let path = self.path.join(UPLOAD_JSON);
        let touched = utimensat(AT_FDCWD, &path, time, time, UtimensatFlags::NoFollowSymlink);
        touched.map_err(io::Error::from).at("touching", &path)
    }

    /// Time since anything was heard of the client whose upload this is; zero if clocks disagree, for ever if it has
    /// given up.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn silent(&self) -> io::Result<Duration> {
        let path = self.path.join(UPLOAD_JSON);
        let heard = std::fs::symlink_metadata(&path).and_then(|found| found.modified()).at("looking at", &path)?;
        if heard == UNIX_EPOCH {
            return Ok(Duration::MAX);
        }
        Ok(self.idle()?.min(SystemTime::now().duration_since(heard).unwrap_or_default()))
    }

    /// Bytes of slices that are arriving: those that are being written, as far as they came.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn arriving(&self) -> io::Result<u64> {
        let parts = self.entries()?.into_iter().filter(|path| is_part(path) && is_locked(path));
        // A slice that came whole meanwhile has another name.
        Ok(parts.filter_map(|path| std::fs::symlink_metadata(path).ok()).map(|found| found.len()).sum())
    }

    /// Ids of the slices that are arriving.
    pub(super) fn arriving_ids(&self) -> io::Result<Vec<u64>> {
        let parts = self.entries()?.into_iter().filter(|path| is_part(path) && is_locked(path));
        Ok(parts.filter_map(|path| path.file_name()?.to_str()?.split_once('.')?.0.parse().ok()).collect())
    }

    /// True if slices of an upload that is merged came or went within the last `time`, so that the disk space they
    /// took may come back by itself.
    pub fn moved_within(&self, time: Duration) -> bool {
        self.merged_path().exists() && !is_older(&self.path, time)
    }

    /// Removes the leftovers of killed processes: arrivals that nobody writes and temporary files, untouched for `age`.
    /// A file that cannot be removed is logged and stays.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn sweep(&self, age: Duration) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path).at("listing", &self.path)? {
            let path = entry.at("listing", &self.path)?.path();
            let is_temporary = path.extension().is_some_and(|extension| extension == "tmp");
            // A folder of such a name is none of ours.
            if (is_part(&path) || is_temporary) && !is_folder(&path) && is_older(&path, age) {
                if self.upload().is_err_and(|e| OtherVersion::of(&e).is_some()) {
                    // The program version that made it knows the meaning of its files.
                    return Ok(());
                }
                match remove_if_left(&path, age, || {}) {
                    Ok(true) => log::info!("removed {}, left by a process that died", path.display()),
                    Ok(false) => {}
                    Err(e) => log::warn!("{e}"),
                }
            }
        }
        Ok(())
    }

    /// Removes the upload, if nothing has come for `age`, nobody works on it, and it is one of `which`. `None` if it
    /// stays.
    ///
    /// It goes from sight by one rename; a kill leaves at most a hidden folder that is swept later. Symlinks in it are
    /// removed and not followed. `tell` is called just before that, so that whatever dies, no upload goes untold; a
    /// kill in between, or an error, leaves an upload that was told of, and is told of again.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn remove_if_idle(&self, age: Duration, which: Idle, tell: impl FnOnce()) -> io::Result<Option<Expired>> {
        // The first check is without locks: most are at work, or young.
        let is_one = || Ok::<_, io::Error>(which == Idle::WhateverIsHeld || self.holds_nothing()?);
        if self.idle()? < age || !is_one()? {
            return Ok(None);
        }
        let Some(_at_rest) = self.at_rest()? else { return Ok(None) };
        let idle = self.idle()?;
        if idle < age || !is_one()? {
            return Ok(None);
        }
        let found = self.entries()?.into_iter().filter_map(|path| std::fs::symlink_metadata(path).ok());
        let bytes = found.map(|found| found.len()).sum();
        let expired = Expired { idle, bytes };
        tell();
        self.remove_path()?;
        Ok(Some(expired))
    }

    /// True if nothing is held. `false` if that cannot be told, and if the file is in `files/` already.
    fn holds_nothing(&self) -> io::Result<bool> {
        let is_empty = match self.merged_len() {
            Ok(len) => len.unwrap_or(0) == 0,
            Err(_) => return Ok(false),
        };
        if !is_empty || self.has_tail() || !self.waiting()?.is_empty() || !is_file(&self.path.join(DIGESTS)) {
            return Ok(false);
        }
        Ok(Records(&self.read_digests()?).publication()?.is_none())
    }

    /// Moves a spool that cannot be used, or the thing in its place, into `tmp/` of `aside`, if nobody works on it.
    /// `false` if somebody does, or if it can be used after all.
    ///
    /// # Errors
    /// As the system gives them; it is where it was.
    pub fn set_aside(&self, aside: &DataDir) -> io::Result<bool> {
        self.set_aside_if(aside, || !(matches!(self.upload(), Ok(Some(_))) && is_file(&self.path.join(DIGESTS))))
    }

    /// Moves a spool whose `upload.json` cannot be read into `tmp/` of `aside`, with all that it holds. `false` if
    /// somebody works on it, or if it can be read after all.
    ///
    /// # Errors
    /// As the system gives them; it is where it was.
    pub fn set_aside_if_unreadable(&self, aside: &DataDir) -> io::Result<bool> {
        self.set_aside_if(aside, || self.upload().is_err_and(|e| e.kind() == io::ErrorKind::InvalidData))
    }

    fn set_aside_if(&self, aside: &DataDir, is_unusable: impl FnOnce() -> bool) -> io::Result<bool> {
        // Nobody can work on a thing that is no folder.
        let is_folder = std::fs::symlink_metadata(&self.path).at("looking at", &self.path)?.is_dir();
        let at_rest = if is_folder { self.at_rest()? } else { None };
        // Somebody else may have moved it, and a third one have begun anew here, before this lock was taken.
        if (is_folder && at_rest.is_none()) || !is_unusable() {
            return Ok(false);
        }
        std::fs::rename(&self.path, aside.tmp().join(self.folder())).at("moving aside", &self.path)?;
        Ok(true)
    }

    /// Keeps everybody from working on the spool. `None` while a merger is at work or a slice arrives.
    ///
    /// Nothing is created: that would look like a sign of life. Nobody can have a thing locked that is no file of ours.
    fn at_rest(&self) -> io::Result<Option<AtRest>> {
        let lock_path = |name| Some(self.path.join(name)).filter(|path| is_file(path));
        let digests = lock_path(DIGESTS).map(|path| FileLock::wait(&path)).transpose()?;
        let merger = match lock_path(MERGER_LOCK) {
            Some(path) => match FileLock::try_now(&path)? {
                None => return Ok(None),
                lock => lock,
            },
            None => None,
        };
        let arrives = self.entries()?.iter().any(|path| is_arriving(path) && is_locked(path));
        Ok((!arrives).then_some(AtRest { _digests: digests, _merger: merger }))
    }

    fn entries(&self) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.path).at("listing", &self.path)?;
        entries.map(|entry| entry.map(|entry| entry.path()).at("listing", &self.path)).collect()
    }
}

/// True if `path` was last changed more than `age` ago. `false` if that cannot be told.
pub fn is_older(path: &Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|m| m.modified());
    modified.is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|a| a > age))
}

/// Removes `path`, a file or a folder with all that is in it, if it was last changed more than `age` ago and nobody has
/// it locked. A process holds a lock on anything that it makes or uses and that may look like a leftover, however long
/// that takes. `false` if it stays, or if somebody else has removed it.
///
/// `tell` is called just before it is removed, under its lock: a kill in between, or an error, leaves a thing that was
/// told of.
///
/// # Errors
/// As the system gives them; part of a folder may be gone.
pub fn remove_if_left(path: &Path, age: Duration, tell: impl FnOnce()) -> io::Result<bool> {
    if !is_older(path, age) {
        return Ok(false);
    }
    let removed = (|| {
        let found = std::fs::symlink_metadata(path).at("looking at", path)?;
        // Nobody can lock a thing that is neither.
        let is_lockable = found.is_file() || found.is_dir();
        let lock = if is_lockable { FileLock::try_on_what_is_there(path)? } else { None };
        // It may have been made to count anew in the meantime.
        if (is_lockable && lock.is_none()) || !is_older(path, age) {
            return Ok(false);
        }
        tell();
        if found.is_dir() { disk::remove_folder(path) } else { std::fs::remove_file(path).at("removing", path) }
            .map(|()| true)
    })();
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed,
    }
}

fn is_part(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(PART_SUFFIX.as_bytes())
}

/// True if bytes of a slice arrive in the file, or did.
fn is_arriving(path: &Path) -> bool {
    is_part(path) || is_tail(path)
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// True if somebody writes the file. Nobody writes a thing that is no regular file.
fn is_locked(path: &Path) -> bool {
    disk::open_regular(path).is_ok_and(|file| disk::is_locked(&file).unwrap_or(true))
}
