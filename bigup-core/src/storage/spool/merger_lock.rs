//! The right to change the merged file: one merger at a time for each upload.

use super::{MERGER_LOCK, Spool};
use crate::storage::disk::{self, Durability, FileLock, FileVersion, IoContext};
use std::io::{self, Read, Write};

/// Each replacement of this file asks the merger at work to leave. A signal reaches processes of one machine only.
const MERGER_LEAVE: &str = "merger-leave";

/// The right to change `merged`, for as long as it lives.
pub struct MergerLock {
    _lock: FileLock,
}

impl Spool {
    /// Becomes the merger of this upload. `None` while there is one.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn try_merger_lock(&self) -> io::Result<Option<MergerLock>> {
        if !self.is_there()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(lock) = FileLock::try_now(&self.path.join(MERGER_LOCK))? else { return Ok(None) };
        let mut file = lock.file();
        if let Err(e) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            // Only the lock counts, and merging may be the way to get disk space again.
            log::warn!("the merger's process id cannot be written in {}: {e}", self.path.display());
        }
        Ok(Some(MergerLock { _lock: lock }))
    }

    /// Asks the merger at work to leave, whichever machine it runs on. It looks for that at least twice a second. A merger
    /// that begins at the same time may not see it: repeat the call.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn ask_merger_to_leave(&self) -> io::Result<()> {
        disk::replace_file(&self.path, MERGER_LEAVE, b"", Durability::Process)
    }

    /// The last call of [`Spool::ask_merger_to_leave`], as a value that each call changes. `None` if there was none.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn merger_asked_to_leave(&self) -> io::Result<Option<FileVersion>> {
        FileVersion::of(&self.path.join(MERGER_LEAVE))
    }

    /// The pid of the merger at work. `None` while there is none.
    ///
    /// # Errors
    /// As the system gives them; no spool means no merger.
    pub fn merger(&self) -> io::Result<Option<u32>> {
        if !self.is_there()? {
            return Ok(None);
        }
        let path = self.path.join(MERGER_LOCK);
        // The file is opened only to read, so that the pid can be told on a file system that is not to be written to.
        let file = match disk::open_regular(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !disk::is_locked(&file).at("locking", &path)? {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(16).read_to_string(&mut text).at("reading", &path)?;
        // For an instant the file is locked and not yet written: 0 stands for "somebody".
        Ok(Some(text.trim().parse().unwrap_or(0)))
    }
}
