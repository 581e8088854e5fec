//! The spool: one unfinished upload on disk, self-describing.
//!
//! ```text
//! tmp/<upload>/upload.json       what the upload is (replaced by rename, under the lock)
//!              digests           what is recorded of each slice; locked for every change of the spool
//!              0 1 2 …           slices that are whole and checked, waiting to be merged
//!              7.RANDOM.part     a slice arriving; locked by whoever writes it, removed when that fails
//!              merged            the file so far: slices 0 up to the frontier, in order
//!              merger.lock       locked by the merger for its whole life; its content is the merger's pid
//!              hash              how far the hash of the whole file is, where slices' digests do not join
//! ```
//!
//! # Who may change what
//! `merged` is changed by the holder of `merger.lock` only. All else changes under the lock on `digests`, which is held
//! for microseconds. Locks are taken in the order `merger.lock`, `digests`, info.ini; none waits in the other direction.
//!
//! # What is held
//! A slice is held if its file is there, or if it lies below the frontier. The frontier is read from the length of
//! `merged`; no counter can disagree with it. Slices are appended first and unlinked after `merged` was synced. Under
//! another kernel than the one that wrote it, `merged` counts only as far as [`Records::synced`] says, until a merger has
//! checked the rest.

use crate::storage::data_dir::{self, DataDir};
use crate::protocol::digest::{self, DigestKind, SliceDigest};
use crate::storage::disk::{self, BootId, Context, Durability, FileLock};
use crate::protocol::name::FileName;
use crate::protocol::plan::{MAX_SLICES, Plan, PlanError};
use crate::protocol::ranges::SliceRanges;
use crate::storage::space::{self, Room, RoomError};
use fs2::FileExt as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

mod cancel;
mod checks;
mod done;
mod records;
mod rest;
mod upload;
mod whole;

pub use cancel::{CANCELLED, TOLD_FOR, cancelled_upload};
use checks::is_as_recorded;
pub use checks::{hash_range, is_as_it_came, merged_is_right, slice_is_right};
pub use done::{DONE_TOLD_FOR, FINISHED};
pub use records::{Publication, Record, Records};
pub use rest::{Expired, Idle, is_older, remove_if_left};
pub use upload::{OtherVersion, Upload};
pub use whole::WholeHash;

pub(crate) const UPLOAD_JSON: &str = "upload.json";
pub(crate) const DIGESTS: &str = "digests";
const MERGED: &str = "merged";

/// The file in a spool that its merger has locked.
pub const MERGER_LOCK: &str = "merger.lock";

const PART_SUFFIX: &str = ".part";

/// What names of spools being made begin with, and of files that become part of one. Who makes it has it locked.
pub const MAKING: &str = ".new-";

/// What names of spools being removed begin with.
pub const GONE: &str = ".gone-";

/// Largest `upload.json` that is read, in bytes: a name of 2 KiB escaped six-fold, and room.
pub(crate) const MAX_UPLOAD_JSON: u64 = 64 << 10;

/// The place of one upload; it need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    folder: String,
    path: PathBuf,
}

impl Spool {
    /// The spool of the native upload of `name`.
    pub fn of(data: &DataDir, name: &FileName) -> Spool {
        Spool::in_folder(data, name.spool_folder())
    }

    fn in_folder(data: &DataDir, folder: String) -> Spool {
        Spool { path: data.tmp().join(&folder), folder }
    }

    /// All spools of a data folder, in no order.
    ///
    /// # Errors
    /// `tmp/` cannot be read.
    pub fn all(data: &DataDir) -> io::Result<Vec<Spool>> {
        Spool::list(data, true)
    }

    /// What stands in the places of spools and is no folder.
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
                    spools.push(Spool::in_folder(data, folder))
                }
                _ => {}
            }
        }
        Ok(spools)
    }

    /// Creates the spool of `upload`, whole at once. False: there is one already.
    ///
    /// An upload of more than one slice survives a power cut from here on; one of a single slice is published, and
    /// synced, in the same breath, unless a notice is to come of it. Where its size is known, `room` is reserved for all of it.
    ///
    /// # Errors
    /// There is no room, or as the system gives them; nothing is there then.
    pub fn create(data: &DataDir, upload: &Upload, room: &Room) -> Result<bool, RoomError> {
        if let (Some(1), Some(size)) = (upload.plan.slice_num, upload.plan.file_size) {
            // Its slice takes the room.
            room.lock()?.look(size, 0)?;
        }
        Spool::create_filled(data, upload, |making, _| {
            // The only slice of an upload takes its room itself, and becomes the merged file.
            let is_joined = !matches!(upload.plan.slice_num, Some(0 | 1));
            if is_joined { room.reserve_for(&disk::create_new(&making.join(MERGED))?, &upload.plan) } else { Ok(()) }
        })
    }

    /// Creates the spool of `upload` with all its slices merged already: `merged`, a file in `tmp/`, becomes the merged
    /// file, and `digests` are of what it has in the place of each slice. False: there is a spool already.
    ///
    /// # Errors
    /// As the system gives them; nothing is there then, and `merged` may be gone.
    pub fn create_merged(
        data: &DataDir,
        upload: &Upload,
        merged: &Path,
        digests: &[SliceDigest],
    ) -> Result<bool, RoomError> {
        Spool::create_filled(data, upload, |making, records| {
            for (slice_id, digest) in (0..).zip(digests) {
                let len = upload.plan.len_of(slice_id).unwrap_or(0);
                records.put(slice_id, &Record { digest: *digest, len, boot: BootId::current() })?;
            }
            records.set_merge_boot(BootId::current())?;
            Ok(std::fs::rename(merged, making.join(MERGED)).at("keeping", merged)?)
        })
    }

    fn create_filled(
        data: &DataDir,
        upload: &Upload,
        fill: impl FnOnce(&Path, &Records<'_>) -> Result<(), RoomError>,
    ) -> Result<bool, RoomError> {
        let spool = Spool::of(data, &upload.file_name);
        let tmp = data.tmp();
        data_dir::check_folder(&tmp)?;
        let making = tmp.join(format!("{MAKING}{}", disk::random_suffix()));
        let durability = match upload.plan.slice_num {
            // A notice is made of what is on disk by then.
            Some(0 | 1) if !data.leaves_notices() => Durability::Process,
            _ => Durability::PowerCut,
        };
        let made = (|| -> Result<FileLock, RoomError> {
            std::fs::create_dir(&making).at("creating the folder", &making)?;
            // Making room may take minutes, and a sweep leaves alone what is locked.
            let lock = FileLock::of_folder(&making)?;
            let digests = disk::create_new(&making.join(DIGESTS))?;
            Records(&digests).initialise().at("writing", &making.join(DIGESTS))?;
            // Before upload.json, which syncs the folder.
            fill(&making, &Records(&digests))?;
            disk::replace_file(&making, UPLOAD_JSON, &upload.to_json(), durability)?;
            Ok(lock)
        })();
        // A folder is renamed onto an empty one at most (rename(2)), and a spool is never empty.
        match made.and_then(|lock| std::fs::rename(&making, &spool.path).map(|()| lock).map_err(RoomError::Io)) {
            Ok(_lock) if durability == Durability::PowerCut => match disk::sync_dir(&tmp) {
                Ok(()) => Ok(true),
                Err(e) => {
                    // Whoever comes next would find it there and take it for durable.
                    let _ = spool.remove_path();
                    Err(e.into())
                }
            },
            Ok(_lock) => Ok(true),
            Err(e) => {
                // Swept later if this fails too.
                let _ = disk::remove_folder(&making);
                match e {
                    RoomError::Io(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                        Ok(false)
                    }
                    RoomError::Io(e) => Ok(Err(e).at("creating the spool", &spool.path)?),
                    no_room => Err(no_room),
                }
            }
        }
    }

    /// The folder's name, below `tmp/`.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where slice `slice_id` waits to be merged.
    pub fn slice_path(&self, slice_id: u64) -> PathBuf {
        self.path.join(slice_id.to_string())
    }

    /// The file so far.
    pub fn merged_path(&self) -> PathBuf {
        self.path.join(MERGED)
    }

    /// Whether there is a spool. What is below a link that somebody put in its place is none of ours.
    fn is_there(&self) -> io::Result<bool> {
        data_dir::check_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)).at("opening the spool", &self.path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).at("looking at", &self.path),
        }
    }

    /// What the upload is. None: there is no such spool.
    ///
    /// # Errors
    /// It is unreadable ([`io::ErrorKind::InvalidData`]), another version's ([`OtherVersion`]), something else stands in its
    /// place ([`io::ErrorKind::NotADirectory`]), it is of another name, or as the system gives them.
    pub fn upload(&self) -> io::Result<Option<Upload>> {
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
        if let Some(is) = Upload::other_version(&bytes) {
            let other = OtherVersion { folder: self.folder.clone(), is };
            return Err(io::Error::new(io::ErrorKind::Unsupported, other));
        }
        let upload = Upload::from_json(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let upload = upload.at("reading", &path)?;
        if upload.file_name.spool_folder() != self.folder {
            // It was renamed by hand, or names that differ by case only are one to the file system.
            return Err(io::Error::other(format!("it is the upload of {}", upload.file_name))).at("reading", &path);
        }
        Ok(Some(upload))
    }

    /// Locks the spool for a change. None: there is no such spool.
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

    /// Becomes the merger of this upload. None while there is one.
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
            // The lock is what counts, and merging may be what makes room again.
            log::warn!("the merger's process id cannot be written in {}: {e}", self.path.display());
        }
        Ok(Some(MergerLock { _lock: lock }))
    }

    /// The pid of the merger at work. None while there is none.
    ///
    /// # Errors
    /// As the system gives them; no spool means no merger.
    pub fn merger(&self) -> io::Result<Option<u32>> {
        if !self.is_there()? {
            return Ok(None);
        }
        let path = self.path.join(MERGER_LOCK);
        // Only to read, so that it can be told on a file system that is not to be written to.
        let file = match disk::open_regular(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !disk::is_locked(&file).at("locking", &path)? {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(16).read_to_string(&mut text).at("reading", &path)?;
        // Locked and not yet written for an instant: 0 stands for "somebody".
        Ok(Some(text.trim().parse().unwrap_or(0)))
    }

    /// Opens a file for slice `slice_id` to arrive in.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn arrival(&self, slice_id: u64) -> io::Result<Arrival> {
        let path = self.part_path(slice_id);
        let file = disk::create_new(&path)?;
        let arrival = Arrival { file, path, slice_id, offset: None, mark: None, kept: false };
        // Tells a sweep that somebody is still writing.
        arrival.file.lock_exclusive().at("locking", &arrival.path)?;
        Ok(arrival)
    }

    /// A new name for a file that is no slice yet, or none any more.
    fn part_path(&self, slice_id: u64) -> PathBuf {
        self.path.join(format!("{slice_id}.{}{PART_SUFFIX}", disk::random_suffix()))
    }

    /// Makes slice `slice_id`, which is held, survive a power cut, with all that makes sense of it. Without the lock, since
    /// it takes its time.
    ///
    /// ```text
    /// 1  the slice's content synced      a power cut may take its name or its record: it is asked for again
    /// 2  its record and what the upload is synced     the same
    /// 3  the folder synced               the slice is held, whatever happens
    /// ```
    /// None of them changes anything that a kill could leave half done, and whatever is on disk too early is only a name
    /// whose content is compared with its record before it is used. A slice that is no file any more is in the merged
    /// file, and was synced there before it was unlinked.
    ///
    /// What was written under another kernel cannot be made to survive what it may not have survived: its content is
    /// compared with its record first. False: it is damaged; a file of it is removed then, so that it is asked for again.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_slice(&self, slice_id: u64) -> io::Result<bool> {
        let synced = self.sync_slice_if_there(slice_id);
        match synced {
            // The file was published meanwhile, which syncs all of it.
            Err(e) if e.kind() == ErrorKind::NotFound && !self.path.exists() => Ok(true),
            synced => synced,
        }
    }

    fn sync_slice_if_there(&self, slice_id: u64) -> io::Result<bool> {
        let digests = self.open_digests()?;
        let Some(upload) = self.upload()? else { return Ok(true) };
        let record = Records(&digests).get(slice_id)?;
        let is_old = record.is_none_or(|record| record.boot != BootId::current());
        let path = self.slice_path(slice_id);
        let held = match disk::open_regular(&path) {
            Ok(slice) => Some((slice, 0)),
            Err(e) if e.kind() == ErrorKind::NotFound && is_old => {
                Some((disk::open_regular(&self.merged_path())?, upload.plan.offset_of(slice_id).unwrap_or(0)))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if let Some((file, from)) = held {
            if is_old && !is_as_recorded(&file, from, &upload.plan, slice_id, record)? {
                log::warn!("{}: slice {slice_id} did not survive; it will be asked for again", self.folder);
                return self.remove_if_same(&path, &file).map(|()| false);
            }
            let synced = file.sync_data().at("syncing", &path);
            let is_lost = synced.is_ok() && !is_old && !is_as_it_came(&file) && {
                // Read from the disk: memory may still hold what never got there.
                disk::forget_cached(&file, 0, 0);
                !is_as_recorded(&file, from, &upload.plan, slice_id, record)?
            };
            if is_lost {
                log::warn!("{}: slice {slice_id} did not reach the disk; it will be asked for again", self.folder);
                return self.remove_if_same(&path, &file).map(|()| false);
            }
            if let Err(e) = synced.and_then(|()| digests.sync_data().at("syncing the digests in", &self.path)) {
                // Another sync could succeed without having written them, and reading them would tell nothing.
                self.remove_if_same(&path, &file)?;
                return Err(e);
            }
        } else {
            digests.sync_data().at("syncing the digests in", &self.path)?;
        }
        if matches!(upload.plan.slice_num, Some(0 | 1)) {
            // Such a spool is made without syncs, since it is mostly published in the same breath.
            // Written anew, since another sync of what could not be synced would prove nothing.
            if let Some(locked) = self.lock()? {
                disk::replace_file(&self.path, UPLOAD_JSON, &locked.upload.to_json(), Durability::PowerCut)?;
            }
            self.path.parent().map_or(Ok(()), disk::sync_dir)?;
        }
        disk::sync_dir(&self.path).map(|()| true)
    }

    /// Removes `path` under the lock, if it still names `file`.
    fn remove_if_same(&self, path: &Path, file: &File) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        locked.unlink_if(path, file.metadata().at("looking at", path)?.ino())
    }

    /// What `upload`, which this spool is of, holds.
    ///
    /// Read without the lock it may be older than the answer, but no slice that stays held is missing from it: the
    /// folder is listed first, and a slice that is not a file any more then is in the merged file.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn holdings(&self, upload: &Upload) -> io::Result<Holdings> {
        let mut waiting = self.waiting()?;
        let slice_num = upload.plan.slice_num.unwrap_or(u64::MAX);
        waiting.retain(|id| *id < slice_num);
        if waiting.last().is_some_and(|last| last + 1 == slice_num && !self.fits(upload, *last)) {
            waiting.pop();
        }
        Ok(Holdings { waiting, frontier: self.frontier(upload)? })
    }

    /// Bytes of `holdings`, which this spool of `upload` has. A slice whose file went meanwhile and of which only that tells
    /// the length counts for nothing.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn bytes(&self, upload: &Upload, holdings: &Holdings) -> io::Result<HeldBytes> {
        let (plan, frontier) = (&upload.plan, holdings.frontier);
        let merged = match (plan.slice_num == Some(frontier), plan.file_size) {
            (true, Some(size)) => size,
            (is_all, _) => match plan.offset_of(frontier).filter(|_| !is_all) {
                Some(offset) => offset,
                None => self.merged_len()?.unwrap_or(0),
            },
        };
        let len_of = |id| plan.len_of(id).or_else(|| self.slice_file(id).map(|found| found.len())).unwrap_or(0);
        let waiting = holdings.waiting.iter().filter(|id| **id >= frontier);
        Ok(HeldBytes { held: merged + waiting.map(|id| len_of(*id)).sum::<u64>(), merged })
    }

    /// Whether the file of a slice has the length that its place asks for. It may not where the end of the file was told
    /// after it came: then it is another source's, and counts for nothing.
    fn fits(&self, upload: &Upload, slice_id: u64) -> bool {
        let found = self.slice_file(slice_id);
        upload.plan.len_of(slice_id).is_none_or(|len| found.is_some_and(|found| found.len() == len))
    }

    /// The frontier up to which the merged file of `upload`, which this spool is of, is known to be on disk.
    ///
    /// It may be older than the answer and never leads: the frontier is looked at first, and slices below it that are no
    /// files any more then were unlinked after a sync.
    ///
    /// # Errors
    /// As for [`Spool::holdings`].
    pub fn synced_frontier(&self, upload: &Upload) -> io::Result<u64> {
        let frontier = self.frontier(upload)?;
        Ok(Holdings { waiting: self.waiting()?, frontier }.synced_frontier())
    }

    /// Bytes that lie between the frontier of `upload`, which this spool is of, and slice `slice_id`, if a merger could get on
    /// with them. 0: it has nothing to merge, since the slice at the frontier is missing.
    ///
    /// # Errors
    /// As for [`Spool::holdings`].
    pub fn lag(&self, upload: &Upload, slice_id: u64) -> io::Result<u64> {
        let frontier = self.frontier(upload)?;
        let offset = |slice_id| upload.plan.offset_of(slice_id).unwrap_or(0);
        Ok(if self.has_slice(frontier) { offset(slice_id).saturating_sub(offset(frontier)) } else { 0 })
    }

    pub(crate) fn frontier(&self, upload: &Upload) -> io::Result<u64> {
        match self.merged_len()? {
            Some(len) => Ok(upload.plan.slices_in(len)),
            // It is in files/ already, and the spool about to be removed.
            None if Records(&self.read_digests()?).publication()?.is_some() => Ok(upload.plan.slice_num.unwrap_or(0)),
            None => Ok(0),
        }
    }

    fn merged_len(&self) -> io::Result<Option<u64>> {
        let path = self.merged_path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file")).at("looking at", &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", &path),
        }
    }

    fn has_slice(&self, slice_id: u64) -> bool {
        self.slice_file(slice_id).is_some_and(|found| found.is_file())
    }

    /// What stands in the place of a slice's file. None also where that cannot be told, which is logged: then the slice is
    /// asked for again.
    fn slice_file(&self, slice_id: u64) -> Option<std::fs::Metadata> {
        let path = self.slice_path(slice_id);
        match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                log::error!("looking at {}: {e}", path.display());
                None
            }
            found => found.ok(),
        }
    }

    /// Ids of the slices that wait to be merged, ascending.
    fn waiting(&self) -> io::Result<Vec<u64>> {
        let mut ids = vec![];
        for entry in std::fs::read_dir(&self.path).at("listing", &self.path)? {
            let entry = entry.at("listing", &self.path)?;
            let name = entry.file_name();
            // `007`, `+7` and numbers of no slice are not ours, nor is a link or a folder of such a name.
            let id = name.to_str().and_then(crate::protocol::units::parse_u64);
            let id = id.filter(|id| *id < MAX_SLICES && *name == *id.to_string());
            ids.extend(id.filter(|_| entry.file_type().is_ok_and(|t| t.is_file())));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// The right to change `merged`, for as long as it lives.
pub struct MergerLock {
    _lock: FileLock,
}

/// A slice arriving. Unless it is committed its file is removed on drop.
#[derive(Debug)]
pub struct Arrival {
    file: File,
    path: PathBuf,
    slice_id: u64,
    /// Where it begins in the file, in bytes, as the upload was cut when it was let in. None: not known then.
    offset: Option<u64>,
    /// Where it will be told if the upload is cancelled. None: nobody asks.
    mark: Option<PathBuf>,
    kept: bool,
}

impl Arrival {
    /// Where its bytes go.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path of that file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the upload was cancelled since, in the last [`TOLD_FOR`].
    pub fn is_cancelled(&self) -> bool {
        let is_removed = self.file.metadata().is_ok_and(|found| found.nlink() == 0);
        // What cannot be told is found out with the last byte.
        is_removed && self.mark.as_ref().is_some_and(|mark| cancel::age_of(mark).is_ok_and(|age| age.is_some()))
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = std::fs::remove_file(&self.path)
            && e.kind() != io::ErrorKind::NotFound
        {
            log::warn!("removing {}: {e}", self.path.display());
        }
    }
}

/// What an upload holds, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Slices below it are in the merged file.
    pub frontier: u64,
    /// Ids of the slices that wait as files, ascending; some may lie below the frontier.
    pub waiting: Vec<u64>,
}

/// Bytes that an upload holds, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// Of all held slices.
    pub held: u64,
    /// Of those in the merged file.
    pub merged: u64,
}

impl Holdings {
    /// All held slices.
    pub fn ranges(&self) -> SliceRanges {
        SliceRanges::with_frontier(self.frontier, self.waiting.clone())
    }

    /// The frontier up to which the merged file is known to be on disk: slices are unlinked after a sync only.
    pub fn synced_frontier(&self) -> u64 {
        self.waiting.first().map_or(self.frontier, |first| self.frontier.min(*first))
    }

    /// Whether a merger of `upload`, which holds this, would find something to do: a slice at or below the frontier, or a
    /// file to publish. What is missing or blocked needs no merger.
    pub fn need_merger(&self, upload: &Upload) -> bool {
        let has_work = self.waiting.first().is_some_and(|first| *first <= self.frontier);
        let is_complete = upload.may_be_published() && Some(self.frontier) == upload.plan.slice_num;
        upload.blocked.is_none() && (has_work || is_complete)
    }
}

/// Why a slice was refused.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// Its numbers do not fit the upload.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It comes from another source than the upload's.
    #[error("this upload belongs to another push, which began it or has taken it over")]
    OtherSource,
    /// Another content is held.
    #[error("slice {slice_id} is held with the digest {held}, this one has {given}: the content differs")]
    Content {
        /// The slice.
        slice_id: u64,
        /// Digest of what is held.
        held: SliceDigest,
        /// Digest of what came.
        given: SliceDigest,
    },
    /// The upload is cut in another way than the slice.
    #[error("slice {slice_id} begins at byte {is} of this upload, not at {told}: the upload was cut anew; ask how")]
    Recut {
        /// The slice.
        slice_id: u64,
        /// Where it begins, in bytes.
        is: u64,
        /// Where it began for whoever sent it.
        told: u64,
    },
    /// The same slice came by another request meanwhile, and the two cannot be compared by the digests at hand.
    #[error("slice {0} came by another request at the same time: send it again")]
    Meanwhile(u64),
    /// I/O.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What becomes of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is held already, with this content.
    Held,
    /// It is wanted.
    Wanted,
}

/// What another slice is about to take the place of.
struct Replaced {
    /// What is recorded of it.
    record: Option<Record>,
    /// Where its file is now. None: it had none.
    file: Option<PathBuf>,
}

/// A spool under its lock.
pub struct LockedSpool {
    spool: Spool,
    lock: FileLock,
    upload: Upload,
}

impl LockedSpool {
    /// What the upload is.
    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// What is recorded of its slices.
    pub fn records(&self) -> Records<'_> {
        Records(self.lock.file())
    }

    /// Changes what the upload is, for good: it survives a power cut once this returns. A file replaced without a sync may
    /// come back empty after one, and this one is what makes sense of all others; it is replaced a few times an upload.
    ///
    /// # Errors
    /// As the system gives them; it is what it was then.
    pub fn save(&mut self, upload: Upload) -> io::Result<()> {
        if upload == self.upload {
            return Ok(());
        }
        if let Err(e) = disk::replace_file(&self.spool.path, UPLOAD_JSON, &upload.to_json(), Durability::PowerCut) {
            // It may be there without being durable, and whoever asks again would find nothing left to save.
            let old = self.upload.to_json();
            let put_back = |durability| disk::replace_file(&self.spool.path, UPLOAD_JSON, &old, durability);
            let _ = put_back(Durability::PowerCut).or_else(|_| put_back(Durability::Process));
            return Err(e);
        }
        self.upload = upload;
        Ok(())
    }

    /// What is held.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn holdings(&self) -> io::Result<Holdings> {
        self.spool.holdings(&self.upload)
    }

    /// The frontier: how many slices the merged file holds.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn frontier(&self) -> io::Result<u64> {
        self.spool.frontier(&self.upload)
    }

    /// Whether slice `slice_id` is held.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn is_held(&self, slice_id: u64) -> io::Result<bool> {
        Ok(self.spool.has_slice(slice_id) || slice_id < self.frontier()?)
    }

    /// Makes sure that slice `slice_id` begins where its sender said, if they did and it is known.
    ///
    /// # Errors
    /// It does not: the upload was cut anew since.
    pub fn check_offset(&self, slice_id: u64, told: Option<u64>) -> Result<(), SliceError> {
        match (self.upload.plan.offset_of(slice_id), told) {
            (Some(is), Some(told)) if is != told => Err(SliceError::Recut { slice_id, is, told }),
            _ => Ok(()),
        }
    }

    /// Cuts the upload anew into several slices, by `plan`, if nothing of it is held; `room` is what it may take. False:
    /// something is held, or a merger may be looking for it.
    ///
    /// Slices that are arriving were let in by the old plan, and are refused when they are whole. A kill in between leaves
    /// the old plan; where that is of a single slice, perhaps beside an empty merged file, it is merged like several.
    ///
    /// # Errors
    /// There is no room, or as the system gives them; it is cut as it was then.
    pub fn recut(&mut self, plan: Plan, room: &Room) -> Result<bool, RoomError> {
        // Also what lies beyond the end that was told since, and counts for nothing as long as it does.
        if self.spool.merged_len()?.is_some_and(|len| len > 0) || !self.spool.waiting()?.is_empty() {
            return Ok(false);
        }
        // The lock of the merger comes before that of the spool; it is only tried, so nobody waits in a circle.
        let Some(_merger) = self.spool.try_merger_lock()? else { return Ok(false) };
        let is_single = self.upload.plan.slice_num == Some(1);
        if is_single {
            room.reserve_for(&disk::open_or_create(&self.spool.merged_path())?, &plan)?;
        }
        self.save(Upload { plan, ..self.upload.clone() })?;
        if is_single {
            // Such a spool is made without syncs, since it is mostly published in the same breath.
            self.spool.path.parent().map_or(Ok(()), disk::sync_dir)?;
        }
        Ok(true)
    }

    /// Says what becomes of a slice before, or after, its bytes came: `given` are the digests known of it, by kind.
    ///
    /// # Errors
    /// It is refused.
    pub fn place(
        &self,
        slice_id: u64,
        len: u64,
        source: Option<&str>,
        given: &[SliceDigest],
    ) -> Result<Place, SliceError> {
        if source != self.upload.source.as_deref() {
            return Err(SliceError::OtherSource);
        }
        self.upload.plan.learn(slice_id, len)?;
        if !self.is_held(slice_id)? {
            return Ok(Place::Wanted);
        }
        // Held without a record: somebody damaged the file of records. What comes now is checked, so it is the better.
        let Some(record) = self.records().get(slice_id)? else { return Ok(Place::Wanted) };
        // Its length fitted until the end of the file was told: what is held is another source's.
        if record.len != len {
            return Ok(Place::Wanted);
        }
        match given.iter().find(|g| g.kind == record.digest.kind) {
            None => Ok(Place::Wanted),
            Some(given) if *given == record.digest => Ok(Place::Held),
            // What is held may be another source's, and publication reads all of it.
            Some(_) if self.upload.taken_over => Ok(Place::Wanted),
            Some(given) => Err(SliceError::Content { slice_id, held: record.digest, given: *given }),
        }
    }

    /// The kinds of digest to compute of slice `slice_id` as it arrives: the one to record comes first, then the one by
    /// which it is compared with what is held, where that differs.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn digest_kinds(&self, slice_id: u64, len: u64) -> Result<Vec<DigestKind>, SliceError> {
        let mut kinds = vec![digest::kind_of(&self.upload.plan.learn(slice_id, len)?, slice_id)];
        // Of a slice that is not held a record may be left that means nothing, and is of a kind that does not fit this cut.
        let recorded = if self.is_held(slice_id)? { self.records().get(slice_id)? } else { None };
        let recorded = recorded.map(|record| record.digest.kind);
        kinds.extend(recorded.filter(|kind| *kind != kinds[0]));
        Ok(kinds)
    }

    /// Takes a slice that arrived whole: `digests` are of its content, of the kinds that [`LockedSpool::digest_kinds`]
    /// asks for, in that order.
    ///
    /// Once this returns the slice survives the death of any process.
    ///
    /// # Errors
    /// It is refused, or cannot be stored. What is held stays held then, and as it was; sizes that it told may be known.
    pub fn commit(
        &mut self,
        arrival: &mut Arrival,
        len: u64,
        source: Option<&str>,
        digests: &[SliceDigest],
    ) -> Result<Place, SliceError> {
        let slice_id = arrival.slice_id;
        self.check_offset(slice_id, arrival.offset)?;
        if self.place(slice_id, len, source, digests)? == Place::Held {
            return Ok(Place::Held);
        }
        if self.is_held(slice_id)?
            && let Some(held) = self.records().get(slice_id)?.filter(|held| held.len == len)
            && !digests.iter().any(|digest| digest.kind == held.digest.kind)
        {
            return Err(SliceError::Meanwhile(slice_id));
        }
        let plan = self.upload.plan.learn(slice_id, len)?;
        self.save(Upload { plan, ..self.upload.clone() })?;
        // A slice must not be seen beside the record of another content, whichever of the two is written first: so the
        // old slice goes, then the record changes, then the new slice appears.
        let replaced = self.set_aside(slice_id)?;
        let record = Record { digest: digests[0], len, boot: BootId::current() };
        let path = self.spool.slice_path(slice_id);
        let put = self.records().put(slice_id, &record).at("recording a slice in", &self.spool.path);
        if let Err(e) = put.and_then(|()| std::fs::rename(&arrival.path, &path).at("keeping", &path)) {
            if let Err(lost) = self.put_back(slice_id, &replaced) {
                log::error!("{}: slice {slice_id} will be asked for again: {lost}", self.spool.path.display());
            }
            return Err(e.into());
        }
        arrival.kept = true;
        if let Some(file) = replaced.file {
            // Else it is swept: nobody has it locked.
            let _ = std::fs::remove_file(file);
        }
        Ok(Place::Wanted)
    }

    /// Takes the file of a slice, if there is one, from sight. A kill leaves a part file that is swept.
    fn set_aside(&self, slice_id: u64) -> io::Result<Replaced> {
        let record = self.records().get(slice_id)?;
        let path = self.spool.slice_path(slice_id);
        let aside = self.spool.part_path(slice_id);
        let moved = match std::fs::rename(&path, &aside) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            moved => Some(moved.at("setting aside", &path)?),
        };
        Ok(Replaced { record, file: moved.map(|()| aside) })
    }

    /// Puts back what was set aside. Where its record cannot be written again, its file goes: it must not be seen beside
    /// another one.
    fn put_back(&self, slice_id: u64, replaced: &Replaced) -> io::Result<()> {
        let recorded = match &replaced.record {
            Some(record) => self.records().put(slice_id, record),
            None => self.records().forget(slice_id),
        };
        let Some(aside) = &replaced.file else { return recorded };
        let path = self.spool.slice_path(slice_id);
        match recorded {
            Ok(()) => std::fs::rename(aside, &path).at("putting back", &path),
            Err(e) => std::fs::remove_file(aside).at("removing", aside).and(Err(e)),
        }
    }

    /// Unlinks the slice `slice_id` whose file has the inode `inode`. Another one came later, and stays.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn unlink_this(&self, slice_id: u64, inode: u64) -> io::Result<()> {
        self.unlink_if(&self.spool.slice_path(slice_id), inode)
    }

    fn unlink_if(&self, path: &Path, inode: u64) -> io::Result<()> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.ino() == inode => std::fs::remove_file(path).at("removing", path),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).at("looking at", path),
        }
    }

    /// Notes that a slice must be compared with its digest before it is merged.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn distrust(&self, slice_id: u64) -> io::Result<()> {
        match self.records().get(slice_id)? {
            Some(record) => self.records().put(slice_id, &Record { boot: BootId::NONE, ..record }),
            None => Ok(()),
        }
        .at("writing", &self.spool.path.join(DIGESTS))
    }

    /// Unlinks a slice that is not what its record says, so that it is asked for again.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn discard(&self, slice_id: u64) -> io::Result<()> {
        let path = self.spool.slice_path(slice_id);
        std::fs::remove_file(&path).at("removing", &path)
    }

    /// Reserves in `room` what an upload of this plan, whose size may have become known only now, still needs. It adds
    /// blocks beyond the end of the merged file, which change neither its length nor anything that a merger does.
    ///
    /// # Errors
    /// There is no room, or as the system gives them.
    pub fn reserve(&self, room: &Room, plan: &Plan) -> Result<(), RoomError> {
        self.merged()?.map_or(Ok(()), |merged| room.reserve_for(&merged, plan))
    }

    /// The merged file, to reserve room in it. None where there is none: the upload is of a single slice, or its file
    /// stands in `files/` already, and must not seem to be here again.
    fn merged(&self) -> io::Result<Option<File>> {
        let path = self.spool.merged_path();
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        match File::options().read(true).write(true).custom_flags(flags).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).at("opening", &path),
        }
    }

    /// Opens a file for slice `slice_id` of `len` bytes to arrive in, with room for all of it; and reserves its place in
    /// the merged file, where all of that is not reserved yet, so that merging needs no room. `plan` is this upload's, with
    /// what this slice tells.
    ///
    /// A slice beyond the next to be merged leaves room for that one: its room comes back with the merging, which that
    /// of others may never come to. Where others took that room all the same, the one that merging waits for may use what
    /// is to stay free: what it takes comes back, and so does what those take that wait for it.
    ///
    /// # Errors
    /// There is no room, and nothing was changed; or as the system gives them.
    pub fn arrival(&self, slice_id: u64, len: u64, plan: &Plan, room: &Room) -> Result<Arrival, RoomError> {
        let (frontier, merged) = (self.frontier()?, self.merged()?);
        let place = match &merged {
            Some(merged) if slice_id >= frontier && !space::is_reserved(merged, plan)? => len,
            _ => 0,
        };
        let needed = len.saturating_add(place);
        let beside = if slice_id > frontier { needed } else { 0 };
        let taking = room.lock()?;
        match taking.look(needed, beside) {
            Err(RoomError::Full { .. }) if slice_id == frontier && self.is_stuck_at(frontier)? => {
                taking.look_at_all(needed)?
            }
            looked => looked?,
        }
        let mut arrival = self.spool.arrival(slice_id)?;
        arrival.offset = plan.offset_of(slice_id);
        arrival.mark = Some(self.spool.mark_of(self.upload.source.as_deref()));
        space::reserve(&arrival.file, 0, len)?;
        if let (Some(merged), Some(offset)) = (merged, plan.offset_of(slice_id)) {
            space::reserve(&merged, offset, place)?;
        }
        Ok(arrival)
    }

    /// Whether slices wait, or are arriving, and none of them can be merged before slice `frontier` is there. False while
    /// that one is arriving: one at a time is enough.
    fn is_stuck_at(&self, frontier: u64) -> io::Result<bool> {
        let (waiting, arriving) = (self.spool.waiting()?, self.spool.arriving_ids()?);
        let least = waiting.iter().chain(&arriving).min();
        Ok(least.is_some_and(|least| *least > frontier))
    }

    /// Drops all slices from `keep` on, so that the upload can go on by another plan that shares the first `keep`.
    /// Anything is dropped only with `merger` in hand: a merger at work may have opened a waiting slice and be about to
    /// append it, and would take it for the one that comes in its place. Room stays reserved for the plan `next`.
    ///
    /// # Errors
    /// As the system gives them. [`io::ErrorKind::ResourceBusy`]: something is to be dropped, and `merger` is None.
    pub fn keep_first(&self, keep: u64, next: &Plan, merger: Option<&MergerLock>) -> io::Result<()> {
        let end = self.upload.plan.offset_of(keep).unwrap_or(0);
        let is_cut = self.spool.merged_len()?.is_some_and(|len| len > end);
        let dropped: Vec<u64> = self.spool.waiting()?.into_iter().filter(|id| *id >= keep).collect();
        if merger.is_none() && (is_cut || !dropped.is_empty()) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if is_cut {
            let path = self.spool.merged_path();
            space::cut(&disk::open_or_create(&path)?, end, next).at("cutting", &path)?;
            self.note_cut(keep)?;
        }
        dropped.into_iter().try_for_each(|slice_id| self.discard(slice_id))
    }

    /// Notes, for good, that the merged file was cut to its first `keep` slices: what is appended now is not on disk yet.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn note_cut(&self, keep: u64) -> io::Result<()> {
        let records = self.records();
        if records.synced()? > keep {
            records.set_synced(keep).and_then(|()| records.0.sync_data()).at("noting a cut in", &self.spool.path)?;
        }
        Ok(())
    }

    /// Removes the whole spool.
    ///
    /// It goes from sight by one rename; a kill or an error after it leaves at most a hidden folder that is swept later.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub fn remove(self) -> io::Result<()> {
        self.spool.remove_path()
    }

    /// Moves the whole spool to `path`. Whoever waits for its lock there gets it once `work` is done with it.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub(crate) fn move_to(self, path: &Path, work: impl FnOnce(&Path)) -> io::Result<()> {
        std::fs::rename(&self.spool.path, path).at("moving the spool to", path)?;
        work(path);
        Ok(())
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

/// Takes a spool, or what became of one, from sight, by one rename: a kill after it leaves a hidden folder, which is swept.
/// Gives where it is now.
pub(crate) fn take_away(path: &Path) -> io::Result<PathBuf> {
    let gone = path.with_file_name(format!("{GONE}{}", disk::random_suffix()));
    std::fs::rename(path, &gone).at("removing", path).map(|()| gone)
}

/// Deletes what was taken from sight. What cannot be deleted is swept later.
pub(crate) fn delete(gone: &Path) {
    match disk::remove_folder(gone) {
        // A sweep was faster.
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => log::warn!("to be swept later: {e}"),
        Ok(()) => {}
    }
}
