//! The end of an upload that an operator does not want, and the mark of it, by which its client learns that it ended.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  the mark made, synced                      an upload as before: the mark counts only where there is none
//! 2  the spool renamed away, `tmp/` synced      no upload, and a hidden folder: swept
//! 3  its section removed from info.ini          the same
//! 4  the folder deleted                         no upload
//! ```
//! A mark is a file in `tmp/`, `.cancelled-HASH`, of one source's upload of one name. It counts for [`TOLD_FOR`] from the
//! time of its last change, and is swept then. Whoever sweeps it writes its line of the audit log first, so a kill between the
//! two has the line written twice. A kill between steps 1 and 2 has it written of an upload that stayed.

use super::{LockedSpool, MergerLock, Spool, delete, take_away};
use crate::storage::audit::{Kind, Line};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, Context, FileLock};
use crate::storage::info_ini::{self, InfoIni};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What names of marks begin with.
pub const CANCELLED: &str = ".cancelled-";

/// Largest mark that is read, in bytes: a name of 2 KiB escaped six-fold, and room.
const MAX_MARK: u64 = 64 << 10;

/// How long the source of an upload that was cancelled is told so, and cannot begin it anew: longer than a client at work
/// takes to its next request.
pub const TOLD_FOR: Duration = Duration::from_secs(60);

impl Spool {
    /// How long ago the upload that this source had here was cancelled. None: it was not, or not in the last
    /// [`TOLD_FOR`]; or the clock was set.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn cancelled(&self, source: Option<&str>) -> io::Result<Option<Duration>> {
        age_of(&self.mark_of(source))
    }

    /// The place of the mark. Its name is of one length, and tells nothing of a source.
    pub(super) fn mark_of(&self, source: Option<&str>) -> PathBuf {
        mark_path(self, CANCELLED, source)
    }
}

/// The place of a mark of one source's upload in `spool`, whose name begins with `prefix`.
pub(super) fn mark_path(spool: &Spool, prefix: &str, source: Option<&str>) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(spool.folder.as_bytes());
    // No folder's name has a NUL, and no source is a single one.
    hasher.update(b"\0").update(source.unwrap_or("\0").as_bytes());
    let hash = hasher.finalize().to_hex();
    spool.path.with_file_name(format!("{prefix}{}", &hash[..32]))
}

impl LockedSpool {
    /// Removes the upload, whatever it holds, and leaves the mark of it. Once this returns that survives a power cut.
    ///
    /// Nobody may be about to publish it: `_merger` proves that.
    ///
    /// # Errors
    /// As the system gives them. It is still there unless only the folder could not be synced.
    pub fn cancel(self, data: &DataDir, _merger: &MergerLock) -> io::Result<()> {
        let spool = &self.spool;
        make_mark(&spool.mark_of(self.upload.source.as_deref()), &Line::of(Kind::Cancelled, &self.upload, None))?;
        let gone = take_away(&spool.path)?;
        disk::sync_dir(&data.tmp())?;
        info_ini::tolerate(&self.upload.file_name, InfoIni::new(data).remove(&self.upload.file_name));
        delete(&gone);
        Ok(())
    }
}

/// How old a mark is. None: there is none that counts.
pub(super) fn age_of(mark: &Path) -> io::Result<Option<Duration>> {
    match std::fs::symlink_metadata(mark).and_then(|found| found.modified()) {
        Ok(when) => Ok(SystemTime::now().duration_since(when).ok().filter(|age| *age < TOLD_FOR)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("looking at", mark),
    }
}

/// The line of the audit log that a mark is to leave, for whoever removes the mark. None: it cannot be read.
pub fn cancelled_upload(mark: &Path) -> Option<Line> {
    serde_json::from_slice(&disk::read_small(mark, MAX_MARK).ok()?).ok()
}

/// Makes the mark, or makes one that is there already count anew. Its content is for the audit log.
fn make_mark(mark: &Path, line: &Line) -> io::Result<()> {
    // A sweep may be about to remove one that counts no more.
    let lock = FileLock::wait(mark)?;
    let mut file = lock.file();
    let text = serde_json::to_string(line).expect("strings always serialise") + "\n";
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    written.at("writing", mark)
}
