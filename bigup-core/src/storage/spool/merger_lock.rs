//! The right to change the merged file: one merger at a time for each upload.

use super::{MERGER_LOCK, Spool};
use crate::storage::disk::{self, FileLock, IoContext};
use std::io::{self, Read, Write};

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
