//! The facts that lists told of files: a file that did not change since is not opened for the next list.
//!
//! It is a memory that spares reading and nothing else. A file's digest and its kept time stand in its attributes, and
//! no attribute changes without the time of change (ctime), which no program can set. So facts hold for a file of the
//! same number, size and time of change. A file that changed a moment ago is not remembered: its next change could have
//! the same time.

use crate::protocol::digest::Digest;
use crate::protocol::kept::FileTime;
use crate::storage::disk::FileVersion;
use nix::sys::stat::FileStat;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most files that are remembered, in about 18 MiB: the most that a table of 2^17 places takes.
const MOST: usize = 7 << 14;

// A place has a byte beside its entry (hashbrown).
const _: () = assert!((size_of::<(u64, Facts)>() + 1) << 17 < 19 << 20);

/// Age of a change from which on a later one has another time, also on file systems that keep whole seconds.
pub(crate) const SETTLED: Duration = Duration::from_secs(3);

/// The remembered files of a folder of finished files, by their numbers. Shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct ListMemory(Mutex<HashMap<u64, Facts>>);

#[derive(Clone, Copy, Debug)]
struct Facts {
    device: u64,
    version: FileVersion,
    told: Told,
}

/// The facts of a file that the metadata of its inode do not tell: its digest, if that is certain, and the time of its
/// client's file, if that is kept.
pub(crate) type Told = (Option<Digest>, Option<FileTime>);

impl ListMemory {
    /// The facts that were told of a file with the metadata `found`, if it did not change since.
    pub(crate) fn told_of(&self, found: &FileStat) -> Option<Told> {
        let facts = self.lock().get(&found.st_ino).copied()?;
        let is_same = facts.device == found.st_dev && facts.version == FileVersion::of_stat(found);
        is_same.then_some(facts.told)
    }

    /// Remembers the facts that are told of a file of this `version`, which had the metadata `found` before.
    pub(crate) fn tell(&self, version: FileVersion, told: Told, found: &FileStat) {
        // Between the two looks it may have changed.
        if version != FileVersion::of_stat(found) || !version.is_older(SETTLED) {
            return;
        }
        let mut files = self.lock();
        if files.len() >= MOST {
            let mut is_kept = false;
            files.retain(|_, _| {
                is_kept = !is_kept;
                is_kept
            });
        }
        files.insert(found.st_ino, Facts { device: found.st_dev, version, told });
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Facts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
