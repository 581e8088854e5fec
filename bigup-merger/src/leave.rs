//! Requests to leave an upload: by a signal, or by a file in its spool, which a process on another machine replaces.

use crate::Stop;
use bigup_core::storage::disk::FileVersion;
use bigup_core::storage::spool::Spool;
use std::io;

/// Tells whether the merger is to leave.
pub struct Leave<'a> {
    stop: &'a Stop,
    spool: &'a Spool,
    before: Option<FileVersion>,
}

impl<'a> Leave<'a> {
    /// By requests from now on: earlier ones meant an earlier merger.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn from_now_on(stop: &'a Stop, spool: &'a Spool) -> io::Result<Leave<'a>> {
        Ok(Leave { stop, spool, before: spool.merger_asked_to_leave()? })
    }

    /// True if the merger is to leave.
    pub fn is_asked(&self) -> bool {
        // Nothing is there once the upload has ended, which is found out elsewhere.
        self.stop.is_set()
            || matches!(self.spool.merger_asked_to_leave(), Ok(Some(asked)) if Some(asked) != self.before)
    }
}
