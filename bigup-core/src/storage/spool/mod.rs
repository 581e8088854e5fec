//! The spool: one unfinished upload on disk, self-describing.
//!
//! It uses `disk`, `space` and the protocol's arithmetic. Finished files and info.ini do not come in here.
//!
//! ```text
//! tmp/<upload>/upload.json       the record of the upload (replaced by rename, under the lock)
//!              digests           the record of each slice; locked for every change of the spool
//!              0 1 2 …           slices that are whole and checked, waiting to be merged
//!              7.RANDOM.part     a slice arriving; locked by its writer, removed when the writer fails
//!              tail, tail.json   the beginning of the slice that follows all held ones, where bytes come in order
//!              give-way          replaced to ask the request at the tail to stop
//!              merged            the file so far: slices 0 up to the frontier, in order
//!              merger.lock       locked by the merger for its whole life; its content is the merger's pid
//!              merger-leave      replaced to ask the merger to leave, from another machine
//!              hash              the progress of the hash of the whole file, if slices' digests do not join
//!              parts             the parts that a store of objects has answered
//! ```
//!
//! # Locks and the changes that they permit
//! `merged` is changed by the holder of `merger.lock` only. All else changes under the lock on `digests`, which is held
//! for microseconds. Locks are taken in the order `merger.lock`, `digests`, info.ini; none waits in the other
//! direction.
//!
//! # Held slices
//! A slice is held if its file is there, or if it lies below the frontier. The frontier is read from the length of
//! `merged`; no counter can disagree with it. Slices are appended first and unlinked after `merged` was synced. Under
//! another kernel than the one that wrote it, `merged` counts only as far as [`Records::synced`] says, until a merger
//! has checked the rest.
//!
//! Of an upload that gives parts back ([`UploadRecord::gives_parts_back`]) a prefix of `merged` can be a hole: the store of
//! objects has these bytes.

use crate::storage::data_dir::{self, DataDir};
use crate::storage::disk::{self, FileLock, FileVersion, IoContext};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

mod arrival;
mod checks;
mod commit;
mod concat;
mod create;
mod finished_mark;
mod holdings;
mod id;
mod idle;
mod locked;
mod marks;
mod merger_lock;
mod part_records;
mod records;
mod sync_slice;
mod tail;
mod upload;
mod whole_hash;

pub use arrival::{Arrival, has_only_zeroes};
use checks::is_as_recorded;
pub use checks::{hash_range, is_as_it_came, merged_is_right, slice_is_right};
pub use commit::{Place, SliceError};
pub use concat::{Concat, FinalState, Placement};
pub use finished_mark::{DONE_TOLD_FOR, FINISHED};
pub use holdings::{HeldBytes, Holdings};
pub use id::UploadId;
pub use idle::{Expired, Idle, is_older, remove_if_left};
pub use locked::LockedSpool;
pub use marks::{CANCELLED, TOLD_FOR};
pub use merger_lock::MergerLock;
pub use part_records::{PartRecord, PartRecords};
pub use records::{Publication, Record, Records};
pub use tail::{HeldRun, Tail};
pub use upload::{FileSha256, HeldContent, OtherVersion, UploadRecord};
pub use whole_hash::WholeHash;

pub(crate) const UPLOAD_JSON: &str = "upload.json";
pub(crate) const DIGESTS: &str = "digests";
const MERGED: &str = "merged";

/// The file in a spool that its merger has locked.
pub const MERGER_LOCK: &str = "merger.lock";

const PART_SUFFIX: &str = ".part";

/// Beginning of the names of spools being made, and of files that become part of one. Their maker has them locked.
pub const MAKING: &str = ".new-";

/// Beginning of the names of spools being removed.
pub const GONE: &str = ".gone-";

/// Largest `upload.json` that is read, in bytes: a name of 2 KiB escaped six-fold, a header of 64 KiB escaped two-fold, the
/// runs of a file joined from 256 others, and some to spare.
pub(crate) const MAX_UPLOAD_JSON: u64 = 256 << 10;

/// The place of one upload; it need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    id: UploadId,
    path: PathBuf,
}

impl Spool {
    /// The spool of an upload.
    pub fn of(data: &DataDir, id: &UploadId) -> Spool {
        Spool { path: data.tmp().join(id.as_str()), id: id.clone() }
    }

    /// All spools of a data folder, in no order.
    ///
    /// # Errors
    /// `tmp/` cannot be read.
    pub fn all(data: &DataDir) -> io::Result<Vec<Spool>> {
        Spool::list(data, true)
    }

    /// Shows the folder name of each spool of a data folder, and the version of the folder, until `look` returns false. Takes
    /// one system call for each, and no memory. False if `look` returned false.
    ///
    /// # Errors
    /// `tmp/` cannot be read.
    pub fn look_at_folders(data: &DataDir, mut look: impl FnMut(&str, FileVersion) -> bool) -> io::Result<bool> {
        let tmp = data.tmp();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let failed = |e: Errno| io::Error::from(e);
        let mut folder = Dir::open(&tmp, flags, Mode::empty()).map_err(failed).at("opening", &tmp)?;
        let entries = Dir::open(&tmp, flags, Mode::empty()).map_err(failed).at("opening", &tmp)?;
        for entry in folder.iter() {
            let entry = entry.map_err(failed).at("listing", &tmp)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') || entry.file_type().is_some_and(|kind| kind != Type::Directory) {
                continue;
            }
            let found = match fstatat(&entries, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                found => found.map_err(failed).at("looking into", &tmp)?,
            };
            if !look(name, FileVersion::of_stat(&found)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Things in the places of spools that are no folders.
    ///
    /// # Errors
    /// `tmp/` cannot be read.
    pub fn strays(data: &DataDir) -> io::Result<Vec<Spool>> {
        Spool::list(data, false)
    }

    fn list(data: &DataDir, folders: bool) -> io::Result<Vec<Spool>> {
        let tmp = data.tmp();
        data_dir::check_folder(&tmp)?;
        let mut spools = vec![];
        for entry in std::fs::read_dir(&tmp).at("listing", &tmp)? {
            let entry = entry.at("listing", &tmp)?;
            let is_dir = entry.file_type().at("looking at", &entry.path())?.is_dir();
            match entry.file_name().into_string() {
                Ok(folder) if is_dir == folders && !folder.starts_with('.') => {
                    spools.push(Spool::of(data, &UploadId::of_folder(folder)))
                }
                _ => {}
            }
        }
        Ok(spools)
    }

    /// The identity of the upload.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// The folder's name, below `tmp/`.
    pub fn folder(&self) -> &str {
        self.id.as_str()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path at which slice `slice_id` waits to be merged.
    pub fn slice_path(&self, slice_id: u64) -> PathBuf {
        self.path.join(slice_id.to_string())
    }

    /// Path of the file so far.
    pub fn merged_path(&self) -> PathBuf {
        self.path.join(MERGED)
    }

    /// True if there is a spool. Things below a link that somebody put in its place are none of ours.
    fn is_there(&self) -> io::Result<bool> {
        data_dir::check_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)).at("opening the spool", &self.path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).at("looking at", &self.path),
        }
    }

    /// The record of the upload. `None` if there is no such spool.
    ///
    /// # Errors
    /// It is unreadable ([`io::ErrorKind::InvalidData`]), another version's ([`OtherVersion`]), something else stands
    /// in its place ([`io::ErrorKind::NotADirectory`]), it is of another name, or as the system gives them.
    pub fn upload(&self) -> io::Result<Option<UploadRecord>> {
        if !self.is_there()? {
            return Ok(None);
        }
        let path = self.path.join(UPLOAD_JSON);
        let bytes = match disk::read_small(&path, MAX_UPLOAD_JSON) {
            Ok(bytes) => bytes,
            // A folder without upload.json is no upload: one is made whole and goes as a whole.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.path.exists() => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string()));
            }
            Err(e) => return Err(e),
        };
        if let Some(is) = UploadRecord::other_version(&bytes) {
            let other = OtherVersion { folder: self.folder().to_owned(), is };
            return Err(io::Error::new(io::ErrorKind::Unsupported, other));
        }
        let upload = UploadRecord::from_json(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let upload = upload.at("reading", &path)?;
        self.id.check_is_of(&upload.file_name).at("reading", &path)?;
        Ok(Some(upload))
    }

    /// Locks the spool for a change. `None` if there is no such spool.
    ///
    /// # Errors
    /// As for [`Spool::upload`].
    pub fn lock(&self) -> io::Result<Option<LockedSpool>> {
        if !self.is_there()? {
            return Ok(None);
        }
        let lock = match FileLock::wait(&self.path.join(DIGESTS)) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(self.upload()?.map(|upload| LockedSpool { spool: self.clone(), lock, upload }))
    }

    /// The file of records, to read without the lock, to sync, or to write as the merger.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn open_digests(&self) -> io::Result<File> {
        disk::open_or_create(&self.path.join(DIGESTS))
    }

    /// The file of records, only to read.
    ///
    /// # Errors
    /// There is none, or as the system gives them.
    pub fn read_digests(&self) -> io::Result<File> {
        disk::open_regular(&self.path.join(DIGESTS))
    }
}

impl Spool {
    /// Removes a spool that cannot be read, with all that is in it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn remove_unreadable(&self) -> io::Result<()> {
        let _lock = FileLock::wait(&self.path.join(DIGESTS))?;
        self.remove_path()
    }

    fn remove_path(&self) -> io::Result<()> {
        take_away(&self.path).map(|gone| delete(&gone))
    }
}

/// Takes a spool, or its successor, from sight, by one rename: a kill after it leaves a hidden folder, which is swept.
/// Returns its path now.
pub(crate) fn take_away(path: &Path) -> io::Result<PathBuf> {
    let gone = path.with_file_name(format!("{GONE}{}", disk::random_suffix()));
    std::fs::rename(path, &gone).at("removing", path).map(|()| gone)
}

/// Deletes a folder that was taken from sight. Anything that cannot be deleted is swept later.
pub(crate) fn delete(gone: &Path) {
    match disk::remove_folder(gone) {
        // A sweep was faster.
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => log::warn!("to be swept later: {e}"),
        Ok(()) => {}
    }
}
