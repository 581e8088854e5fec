//! The end of an upload that an operator does not want, and the mark of it, by which its client learns that it ended. An
//! upload whose file another daemon has finished goes without a mark.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  the mark made, synced                      an upload as before: the mark counts only where there is none
//! 2  the spool renamed away, `tmp/` synced      no upload, and a hidden folder: swept
//! 3  its section removed from info.ini          the same
//! 4  the folder deleted                         no upload
//! ```
//! A mark is a file in `tmp/`, `.cancelled-HASH`, for the upload of one name from one source. It counts for
//! [`TOLD_FOR`](crate::storage::spool::TOLD_FOR) from the time of its last change, and is swept then. The sweep writes
//! the upload's line of the audit log before it removes the mark, so a kill between the two writes the line twice.
//! After a kill between steps 1 and 2 the line names an upload that stayed.

use crate::storage::audit::{AuditEvent, AuditLine};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, FileLock, IoContext};
use crate::storage::finish::publish::{Hashed, is_moved, publish};
use crate::storage::info_ini::{self, InfoIni};
use crate::storage::spool::{LockedSpool, MergerLock, Spool, UploadRecord, delete, take_away};
use std::io::{self, Write};
use std::path::Path;

/// Largest mark that is read, in bytes: a name of 2 KiB escaped six-fold, and some more.
const MAX_MARK: u64 = 64 << 10;

/// The end that an upload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is no such upload.
    NoUpload,
    /// Its file was moved into `files/` already: it is finished.
    Finished,
    /// It was cancelled, with this many bytes that it held.
    Cancelled(u64),
}

/// Cancels the upload in `spool`, if it is the one that `is_meant`, and its file is not finished by now. It goes with
/// all that it holds, and leaves a mark. Once this returns that survives a power cut.
///
/// No process may be about to publish it: `merger` proves that.
///
/// # Errors
/// As the system gives them. It is still there unless only the folder could not be synced.
pub fn end(
    data: &DataDir,
    spool: &Spool,
    merger: &MergerLock,
    is_meant: impl FnOnce(&UploadRecord) -> bool,
) -> io::Result<Ended> {
    let Some(locked) = spool.lock()?.filter(|locked| is_meant(locked.upload())) else { return Ok(Ended::NoUpload) };
    if is_moved(data, spool, &locked)? {
        drop(locked);
        publish(data, spool, merger, Hashed::default())?;
        return Ok(Ended::Finished);
    }
    let held = spool.bytes(locked.upload(), &locked.holdings()?)?.held;
    cancel(locked, data, merger)?;
    Ok(Ended::Cancelled(held))
}

/// Removes the upload in `spool`, if it is the one that `is_meant`, with all that it holds: another daemon has finished its
/// file. Its client is told so, and needs no mark. False: there is no such upload.
///
/// No process may be about to publish it: `_merger` proves that.
///
/// # Errors
/// As the system gives them.
pub fn leave_out(
    data: &DataDir,
    spool: &Spool,
    _merger: &MergerLock,
    is_meant: impl FnOnce(&UploadRecord) -> bool,
) -> io::Result<bool> {
    let Some(locked) = spool.lock()?.filter(|locked| is_meant(locked.upload())) else { return Ok(false) };
    take_out(&locked, data)?;
    Ok(true)
}

fn cancel(locked: LockedSpool, data: &DataDir, _merger: &MergerLock) -> io::Result<()> {
    let (spool, upload) = (locked.spool(), locked.upload());
    make_mark(&spool.mark_of(upload.source.as_deref()), &AuditLine::of(AuditEvent::Cancelled, upload, None))?;
    take_out(&locked, data)
}

/// Steps 2 to 4.
fn take_out(locked: &LockedSpool, data: &DataDir) -> io::Result<()> {
    let (spool, upload) = (locked.spool(), locked.upload());
    let gone = take_away(spool.path())?;
    disk::sync_dir(&data.tmp())?;
    info_ini::log_failure(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
    if let Some(objects) = data.objects()
        && let Err(e) = objects.abandon(&gone)
    {
        log::warn!("{}: its parts stay in the store until a sweep finds them: {e}", upload.file_name);
    }
    delete(&gone);
    Ok(())
}

/// The line of the audit log that the sweep of a mark must write. `None` if the mark cannot be read.
pub fn cancelled_upload(mark: &Path) -> Option<AuditLine> {
    serde_json::from_slice(&disk::read_small(mark, MAX_MARK).ok()?).ok()
}

/// Makes the mark, or makes one that is there already count anew. Its content is for the audit log.
fn make_mark(mark: &Path, line: &AuditLine) -> io::Result<()> {
    // A sweep might be about to remove a mark that counts no more.
    let lock = FileLock::wait(mark)?;
    let mut file = lock.file();
    let text = serde_json::to_string(line).expect("strings always serialise") + "\n";
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    written.at("writing", mark)
}
