//! Marks beside spools, in `tmp/`: files whose name tells of one source's upload of one name, and which count for a
//! while.

use super::Spool;
use crate::storage::disk::IoContext;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Beginning of the names of marks.
pub const CANCELLED: &str = ".cancelled-";

/// Time for which the source of a cancelled upload is told so, and cannot begin it anew: longer than a client at work
/// takes to its next request.
pub const TOLD_FOR: Duration = Duration::from_secs(60);

impl Spool {
    /// Time since the upload that this source had here was cancelled. `None` if it was not, or not in the last
    /// [`TOLD_FOR`], or if the clock was set.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn cancelled(&self, source: Option<&str>) -> io::Result<Option<Duration>> {
        age_of(&self.mark_of(source))
    }

    /// The place of the mark. Its name is of one length, and tells nothing of a source.
    pub(crate) fn mark_of(&self, source: Option<&str>) -> PathBuf {
        mark_path(self, CANCELLED, source)
    }
}

/// The place of a mark of one source's upload in `spool`, whose name begins with `prefix`.
pub(super) fn mark_path(spool: &Spool, prefix: &str, source: Option<&str>) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(spool.folder().as_bytes());
    // No folder's name has a NUL, and no source is a single one.
    hasher.update(b"\0").update(source.unwrap_or("\0").as_bytes());
    let hash = hasher.finalize().to_hex();
    spool.path.with_file_name(format!("{prefix}{}", &hash[..32]))
}

/// The age of a mark. `None` if there is none that counts.
pub(super) fn age_of(mark: &Path) -> io::Result<Option<Duration>> {
    match std::fs::symlink_metadata(mark).and_then(|found| found.modified()) {
        Ok(when) => Ok(SystemTime::now().duration_since(when).ok().filter(|age| *age < TOLD_FOR)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("looking at", mark),
    }
}
