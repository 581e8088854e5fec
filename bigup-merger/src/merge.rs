//! Appending slices, syncing, unlinking.
//!
//! # The order of things, and what a kill leaves
//! ```text
//! 1  slices appended to merged            merged longer by whole slices and a part of one; all slice files still there
//!    each known to be what came, or       the same; a wrong one is cut off, and asked for again
//!    compared
//! 2  merged and digests synced            the same, for good
//! 3  synced frontier recorded             as before; not on disk before the next sync, until then it lags
//!    slice files unlinked, oldest first   merged as before; some slice files left, which are merged again
//!    hash replaced, where digests do not  an older one, which is as true: less is spared
//!    join
//! 4  frontier in info.ini                 it lags behind merged
//! ```
//! Steps 2 to 4, a checkpoint, come every [`CHECKPOINT_BYTES`] or [`CHECKPOINT_TIME`], so that most slice files are
//! unlinked before the kernel has written them back: the disk sees each byte once. While there is more to append the
//! sync runs beside it, so that the disk is never idle and the last sync finds little left.
//!
//! # What is known of each byte
//! The sync of step 2 tells whether each byte written since this merger opened `merged` reached the disk. So the
//! content of `merged` before that sync is published, and must match its sender's digest. Either this is certain of the
//! slice that was copied ([`is_as_it_came`]), which costs four system calls; or the written bytes are read back and
//! compared with the record. They are read from `merged` and not from the slice: where blocks are shared the slice can
//! read well from memory while the disk has something else. Where slices' digests do not join, the merged bytes are
//! read for the digest of the file anyway, and always compared. Wrong bytes are cut off, and asked for again.

use crate::events::Events;
use crate::leave::Leave;
use crate::parts::PartSender;
use crate::recover::Recovered;
use crate::sync::Syncer;
use bigup_core::merger_events::MergerEvent;
use bigup_core::protocol::digest::{self, Digest, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::sha256::{RunningSha256, Sha256};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{self, BootId, Copier, CopyError, CopyMethod, IoContext};
use bigup_core::storage::finish::publish::{Hashed, damaged_since_merged, lost_by_store, must_be_hashed};
use bigup_core::storage::info_ini::{self, InfoIni};
use bigup_core::storage::space;
use bigup_core::storage::spool::{
    LockedSpool, Record, Records, Spool, UploadRecord, WholeHash, has_only_zeroes, is_as_it_came, merged_is_right,
    slice_is_right,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes merged before a checkpoint is begun: enough that its fixed cost is small, few enough to be synced in the time
/// that one slice takes on a slow disk.
pub const CHECKPOINT_BYTES: u64 = 32 << 20;

/// Longest time between two checkpoints while anything was merged; info.ini lags by as much.
pub const CHECKPOINT_TIME: Duration = Duration::from_secs(1);

/// Parts of the time between two syncs that each sync of a part may take: on a disk that is slow to sync they are fewer.
const SYNC_SHARE: u32 = 4;

/// Most slices unlinked under one lock of the spool, for which clients wait.
const UNLINK_BATCH: usize = 256;

/// The merging of one upload. Its maker holds the merger's lock.
pub struct Merge<'a> {
    data: &'a DataDir,
    spool: &'a Spool,
    name: &'a FileName,
    upload: UploadRecord,
    end_was_told: bool,
    merged: Arc<File>,
    digests: Arc<File>,
    syncer: Syncer,
    frontier: u64,
    again: BTreeSet<u64>,
    copier: Copier,
    method: Option<CopyMethod>,
    /// Slices that an earlier merger may have seen: they are not certain ([`is_as_it_came`]).
    found: BTreeSet<u64>,
    /// Hashes the whole file where its slices' digests do not join. `None` if nothing was hashed yet, or the hash is of
    /// no use any more.
    whole: Option<WholeHash>,
    /// SHA-256 of the slices below the frontier, where it is of interest. `None` if a slice among them was not hashed,
    /// or was written again: then the whole file is read once all of it is there.
    sha256: Option<RunningSha256>,
    /// Slices merged since the last sync began, with the inodes of the files that were merged.
    unsynced: BTreeMap<u64, u64>,
    /// Their bytes.
    unsynced_bytes: u64,
    /// Those of them that are holes: a sync has nothing to write of them.
    unsynced_holes: u64,
    /// The same of those that the sync under way is about.
    syncing: BTreeMap<u64, u64>,
    /// Their bytes.
    syncing_bytes: u64,
    /// Sends parts to a store of objects. `None` if there is no such store.
    parts: Option<PartSender>,
    events: Events,
    last_checkpoint: Instant,
    /// The reason why parts wait for the store, as it is written down.
    told_trouble: Option<String>,
    /// The disk is full, and the store has parts to take whose space comes back then.
    waits_for_space: bool,
    /// info.ini tells less than the synced frontier.
    info_lags: bool,
    last_info: Instant,
}

impl<'a> Merge<'a> {
    /// Goes on from the recovered state, and writes it to info.ini. Checkpoints are told to `events`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn begin(
        data: &'a DataDir,
        spool: &'a Spool,
        name: &'a FileName,
        from: Recovered,
        events: Events,
    ) -> io::Result<Merge<'a>> {
        let (merged, digests) = (Arc::new(from.merged), Arc::new(spool.open_digests()?));
        let parts = data.objects().map(|objects| {
            PartSender::start(Arc::clone(objects), spool.clone(), Arc::clone(&merged), Arc::clone(&digests))
        });
        let mut merge = Merge {
            data,
            spool,
            name,
            upload: from.upload,
            end_was_told: false,
            syncer: Syncer::start(vec![Arc::clone(&merged), Arc::clone(&digests)])?,
            merged,
            digests,
            frontier: from.frontier,
            again: from.again.into_iter().collect(),
            copier: Copier::new(),
            method: None,
            found: from.found,
            whole: None,
            sha256: (from.frontier == 0).then(RunningSha256::default),
            unsynced: BTreeMap::new(),
            unsynced_bytes: 0,
            unsynced_holes: 0,
            syncing: BTreeMap::new(),
            syncing_bytes: 0,
            parts: parts.transpose()?,
            events,
            last_checkpoint: Instant::now(),
            told_trouble: None,
            waits_for_space: false,
            info_lags: true,
            last_info: Instant::now(),
        };
        merge.tell_ready();
        merge.refresh_info();
        Ok(merge)
    }

    /// Tells the sender of parts how many bytes are synced.
    fn tell_ready(&self) {
        let Some(parts) = &self.parts else { return };
        let slices = self.again.first().map_or(self.synced_frontier(), |again| self.synced_frontier().min(*again));
        let all = self.upload.plan.file_size.filter(|_| self.upload.plan.slice_num == Some(slices));
        parts.ready(&self.upload, all.or(self.upload.plan.offset_of(slices)).unwrap_or(0));
    }

    /// Sends no more parts, and waits for those on their way.
    pub fn end_parts(&mut self) {
        self.parts = None;
    }

    /// Looks at a slice that differed from its record when the part that it lies in was to be sent. A part that the store
    /// had and lost is missing here: it is cut off with all behind it, and asked for again.
    ///
    /// # Errors
    /// It is missing or damaged, and was cut off; or as the system gives them.
    pub fn check_parts(&mut self) -> io::Result<()> {
        let Some(slice_id) = self.parts.as_ref().and_then(PartSender::damaged) else { return Ok(()) };
        // Nothing reads or gives back what is cut.
        self.parts = None;
        self.checkpoint()?;
        let is_wrong = match self.lock()? {
            Some(locked) if !locked.upload().is_taken_over() => locked.is_merged_slice_wrong(slice_id)?,
            _ => false,
        };
        if !is_wrong {
            // It was written again meanwhile. The next merger goes on.
            return Err(io::Error::other(format!("slice {slice_id} changed while it was sent to the store")));
        }
        let (offset, len) = (self.upload.plan.offset_of(slice_id), self.upload.plan.len_of(slice_id));
        let is_hole = disk::is_hole(&self.merged, offset.unwrap_or(0), len.unwrap_or(0))?;
        let is_lost = self.spool.has_part_records() && is_hole;
        if is_lost && let Some(mut locked) = self.lock()? {
            locked.cut_lost(&self.merged, slice_id)?;
        }
        self.cut_to(slice_id)?;
        Err(if is_lost { lost_by_store(slice_id) } else { damaged_since_merged(slice_id) })
    }

    /// True if the upload being merged is still there. Its folder may have been removed by hand, which inotify does not
    /// tell while files in it are open. An upload begun after that is another upload, although of the same path.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn has_its_upload(&self) -> io::Result<bool> {
        let path = self.spool.merged_path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.ino() == self.merged.metadata().at("looking at", &path)?.ino()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).at("looking at", &path),
        }
    }

    /// Locks the spool for a change. `None` if the upload is gone.
    fn lock(&self) -> io::Result<Option<LockedSpool>> {
        let locked = self.spool.lock()?;
        Ok(if self.has_its_upload()? { locked } else { None })
    }

    /// The next slice to be appended.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// True if all slices are in the merged file.
    pub fn is_whole(&self) -> bool {
        Some(self.frontier) == self.upload.plan.slice_num && self.again.is_empty()
    }

    /// The digests of the whole merged file that were computed while it grew.
    ///
    /// # Errors
    /// As the system gives them; or a slice was damaged after it was merged, and is asked for again.
    pub fn hashed(&mut self) -> io::Result<Hashed> {
        let (digest, sha256) = (self.digest()?, self.sha256());
        self.parts.iter().for_each(PartSender::send_rest);
        // The publication sends what is left.
        self.parts = None;
        Ok(Hashed { digest, sha256 })
    }

    fn sha256(&self) -> Option<Sha256> {
        self.upload.sha256.and(self.sha256.as_ref()).map(RunningSha256::finish)
    }

    /// The digest of the whole merged file, where its slices' digests do not join to it.
    fn digest(&mut self) -> io::Result<Option<Digest>> {
        if !must_be_hashed(&self.upload, &Records(&self.digests))? {
            return Ok(None);
        }
        Ok(self.hash_up_to(self.frontier)?.map(WholeHash::finish))
    }

    /// Takes note of files that appeared in the spool: slices to be written again, a changed upload. `None`: any file
    /// could have appeared.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn noticed(&mut self, names: &Option<Vec<String>>) -> io::Result<()> {
        let slice_ids: Vec<u64> = match names {
            Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
            None => self.lock()?.map_or(Ok(vec![]), |locked| locked.holdings().map(|h| h.waiting))?,
        };
        for slice_id in slice_ids.into_iter().filter(|id| *id < self.frontier) {
            // Most were merged since they appeared and only wait to be synced and unlinked.
            let found = std::fs::symlink_metadata(self.spool.slice_path(slice_id)).map(|m| m.ino()).ok();
            let merged = self.unsynced.get(&slice_id).or(self.syncing.get(&slice_id)).copied();
            if found.is_some() && found != merged {
                self.again.insert(slice_id);
            }
        }
        self.reload()
    }

    /// Reads the record of the upload again.
    fn reload(&mut self) -> io::Result<()> {
        if let Some(upload) = self.spool.upload()? {
            self.end_was_told |= self.upload.plan.slice_num.is_none() && upload.plan.slice_num.is_some();
            self.upload = upload;
        }
        Ok(())
    }

    /// True if the end of the file was told since merging began. The merged file can then hold slices of another source
    /// beyond that end: merging must begin anew.
    pub fn end_was_told(&self) -> bool {
        self.end_was_told
    }

    /// Merges whatever can be merged now, with checkpoints on the way, until it is to leave. True if there was anything.
    ///
    /// # Errors
    /// As the system gives them. The merged file ends at a slice's end then, and no slice counts as merged that might
    /// not have reached the disk.
    pub fn merge_what_is_there(&mut self, leave: &Leave<'_>) -> io::Result<bool> {
        let mut any = false;
        self.waits_for_space = false;
        while !leave.is_asked() {
            self.check_parts()?;
            let slice_id = self.again.first().copied().unwrap_or(self.frontier);
            if Some(slice_id) == self.upload.plan.slice_num || !self.merge_or_free_space(slice_id)? {
                if self.again.remove(&slice_id) {
                    continue;
                }
                self.sync_part()?;
                break;
            }
            self.again.remove(&slice_id);
            any = true;
            self.sync_beside()?;
        }
        Ok(any)
    }

    /// Time until the next checkpoint is due. `None` while there is nothing to be done at one.
    pub fn checkpoint_due(&self) -> Option<Duration> {
        let is_behind = self.waits_for_space || self.is_behind();
        let anything = !self.unsynced.is_empty() || !self.syncing.is_empty() || self.info_lags || is_behind;
        anything.then(|| CHECKPOINT_TIME.saturating_sub(self.last_checkpoint.elapsed()))
    }

    /// Makes a checkpoint if it is time for one.
    ///
    /// # Errors
    /// As for [`Merge::checkpoint`].
    pub fn checkpoint_if_due(&mut self) -> io::Result<()> {
        if self.checkpoint_due().is_some_and(|due| due.is_zero()) { self.checkpoint() } else { Ok(()) }
    }

    /// Syncs the merged slices, unlinks their files, and tells the frontier to info.ini, the last about once in
    /// [`CHECKPOINT_TIME`].
    ///
    /// # Errors
    /// As the system gives them.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        self.last_checkpoint = Instant::now();
        self.end_sync(None)?;
        if !self.unsynced.is_empty() {
            self.begin_sync();
            self.end_sync(None)?;
        }
        self.tell_frontier();
        Ok(())
    }

    /// Begins and ends syncs while appending goes on.
    fn sync_beside(&mut self) -> io::Result<()> {
        if self.end_sync(Some(Duration::ZERO))? {
            self.tell_frontier();
        }
        let to_write = self.unsynced_bytes - self.unsynced_holes;
        let due = to_write >= CHECKPOINT_BYTES || self.last_checkpoint.elapsed() >= CHECKPOINT_TIME;
        if due && !self.syncer.is_at_work() {
            self.last_checkpoint = Instant::now();
            self.begin_sync();
        }
        Ok(())
    }

    /// While there is nothing to append, each part is synced once it is there, so that it is sent while slices still come.
    fn sync_part(&mut self) -> io::Result<()> {
        let Some(part) = self.parts.as_ref().and_then(PartSender::part_size) else { return Ok(()) };
        let parts = |slices: u64| self.upload.plan.offset_of(slices).unwrap_or(0) / part;
        let is_there = parts(self.frontier) > parts(self.synced_frontier());
        let is_due = self.last_checkpoint.elapsed() >= SYNC_SHARE * self.syncer.took();
        if is_there && is_due { self.checkpoint() } else { Ok(()) }
    }

    fn begin_sync(&mut self) {
        self.syncing = std::mem::take(&mut self.unsynced);
        self.syncing_bytes = std::mem::take(&mut self.unsynced_bytes);
        self.unsynced_holes = 0;
        self.syncer.begin();
    }

    /// Takes the end of a sync, and unlinks its slices. `false` if no sync ended.
    ///
    /// After a sync that failed the kernel can hold pages as clean that never reached the disk, and a second sync would
    /// succeed without having written them. So all bytes merged since the last good sync count as lost: they are cut
    /// off, and their slices must be checked before they are merged again.
    fn end_sync(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        match self.syncer.end(patience) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(e) => {
                self.count_as_lost()?;
                return Err(e).at("syncing the merged file of", self.spool.path());
            }
        }
        let sync_seconds = self.syncer.took().as_secs_f64();
        self.events.tell(MergerEvent::Checkpoint { bytes: self.syncing_bytes, sync_seconds });
        let synced: Vec<(u64, u64)> = std::mem::take(&mut self.syncing).into_iter().collect();
        // On disk with the next sync; until then a power cut makes the next merger read a little more.
        Records(&self.digests).set_synced(self.synced_frontier())?;
        for batch in synced.chunks(UNLINK_BATCH) {
            let Some(locked) = self.lock()? else { return Ok(true) };
            for (slice_id, inode) in batch {
                locked.unlink_this(*slice_id, *inode)?;
            }
        }
        // Slices that are sent and still have files would be merged again after a kill, where a hole may be by then.
        self.tell_ready();
        if let Some(whole) = &self.whole
            && let Err(e) = self.spool.keep_hash(whole)
        {
            // The next merger hashes the merged bytes again.
            log::debug!("{}: {e}", self.name);
        }
        self.info_lags = true;
        Ok(true)
    }

    fn count_as_lost(&mut self) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        let lost: BTreeSet<u64> = self.syncing.keys().chain(self.unsynced.keys()).copied().collect();
        for slice_id in &lost {
            locked.distrust(*slice_id)?;
        }
        let first = end_of_kept(self.frontier, &lost);
        space::cut(&self.merged, self.upload.plan.offset_of(first).unwrap_or(0), self.upload.ahead())?;
        locked.note_cut(first)
    }

    fn tell_frontier(&mut self) {
        self.tell_trouble();
        if self.info_lags && self.last_info.elapsed() >= CHECKPOINT_TIME / 2 {
            self.refresh_info();
        }
    }

    /// Writes the reason why parts wait for the store into the record of the upload, or that they do not any more.
    fn tell_trouble(&mut self) {
        let Some(trouble) = self.parts.as_ref().map(PartSender::trouble) else { return };
        if trouble == self.told_trouble {
            return;
        }
        let noted = self.lock().and_then(|locked| {
            let Some(mut locked) = locked else { return Ok(()) };
            let last_error = trouble.clone();
            let upload = UploadRecord { last_error, ..locked.upload().clone() };
            locked.save(upload)
        });
        match noted {
            Ok(()) => (self.told_trouble, self.info_lags) = (trouble, true),
            Err(e) => log::debug!("{}: the store's trouble cannot be noted: {e}", self.name),
        }
    }

    fn refresh_info(&mut self) {
        self.last_info = Instant::now();
        let told = InfoIni::new(self.data).refresh(self.spool, self.name, Some(self.synced_frontier()));
        // It can lag; merging goes on.
        self.info_lags = told.is_err();
        info_ini::log_failure(self.name, told);
    }

    fn synced_frontier(&self) -> u64 {
        let first = self.syncing.keys().chain(self.unsynced.keys()).min();
        first.map_or(self.frontier, |first| self.frontier.min(*first))
    }

    /// Takes note of a slice that could not be merged, from the file `inode`. It may be damaged, so it is read before
    /// the next attempt. A slice that could not be written back is asked for again, since reading it would tell
    /// nothing.
    fn doubt(&self, slice_id: u64, inode: u64, error: &CopyError) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        match error {
            CopyError::SourceLost(_) => locked.unlink_this(slice_id, inode),
            CopyError::Io(e) if is_full(e) => Ok(()),
            CopyError::Io(_) => locked.distrust(slice_id),
        }
    }

    /// Puts a slice in its place, as [`Merge::merge_one`] does. If that fails, the slices merged before it are synced
    /// and unlinked all the same. On a full disk that frees the space for another try; without it no later merger would
    /// get any further.
    fn merge_or_free_space(&mut self, slice_id: u64) -> io::Result<bool> {
        let merged = match self.merge_one(slice_id) {
            Err(e) if !self.unsynced.is_empty() || !self.syncing.is_empty() => {
                self.checkpoint()?;
                if is_full(&e) { self.merge_one(slice_id) } else { Err(e) }
            }
            done => done,
        };
        match merged {
            Err(e) if is_full(&e) && self.upload.gives_parts_back() && self.is_behind() => {
                self.waits_for_space = true;
                Ok(false)
            }
            done => done,
        }
    }

    /// True while parts that could be sent are not in the store.
    pub fn is_behind(&self) -> bool {
        self.parts.as_ref().is_some_and(PartSender::is_behind)
    }

    /// Puts one slice in its place. `false` if it is not there.
    fn merge_one(&mut self, slice_id: u64) -> io::Result<bool> {
        let path = self.spool.slice_path(slice_id);
        // Before the file is opened, and again once it was copied: a client can replace both in between.
        let record = Records(&self.digests).get(slice_id)?;
        let slice = match disk::open_regular(&path) {
            Ok(slice) => slice,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let Some(offset) = self.offset_of(slice_id)? else { return Ok(false) };
        let found = slice.metadata().at("looking at", &path)?;
        // A slice of another source that came before the end of the file was told can be too long for its place.
        let fits = self.upload.plan.len_of(slice_id).is_none_or(|len| len == found.len());
        let trusted = fits && record.is_some_and(|r| r.boot == BootId::current() && r.len == found.len());
        if !trusted && !slice_is_right(&path, &self.upload.plan, slice_id, record)? {
            log::warn!(slice = slice_id; "{}: slice {slice_id} is damaged; it will be asked for again", self.name);
            if let Some(locked) = self.lock()? {
                locked.discard_if_wrong(slice_id)?;
            }
            return Ok(false);
        }
        match self.put(&slice, slice_id, offset, record) {
            Ok(Put::Right) => {}
            Ok(Put::Wrong) => {
                log::warn!(slice = slice_id; "{}: slice {slice_id} did not reach the disk; it will be asked for again", self.name);
                self.lose(slice_id, found.ino())?;
                self.look_at_waiting()?;
                return Ok(false);
            }
            Ok(Put::Replaced) => {
                // The watch tells of the file that came in its place.
                self.cut_part(slice_id, offset);
                return Ok(false);
            }
            Err(e) => {
                self.cut_part(slice_id, offset);
                self.doubt(slice_id, found.ino(), &e)?;
                return Err(e).at("merging", &path);
            }
        }
        self.sha256 = self.sha256.take().and_then(|hash| self.sha256_with(hash, slice_id, found.len()));
        self.found.remove(&slice_id);
        self.unsynced.insert(slice_id, found.ino());
        self.unsynced_bytes += found.len();
        self.unsynced_holes += if has_only_zeroes(&slice) { found.len() } else { 0 };
        self.frontier = self.frontier.max(slice_id + 1);
        Ok(true)
    }

    /// The hash of all slices up to this one, which was merged just now, from that of those before it. `None` if they are
    /// not known, or of no interest.
    fn sha256_with(&self, mut hash: RunningSha256, slice_id: u64, len: u64) -> Option<RunningSha256> {
        self.upload.sha256.filter(|_| slice_id == self.frontier)?;
        let offset = self.upload.plan.offset_of(slice_id)?;
        disk::read_range(&self.merged, offset, len, |bytes| hash.update(bytes)).is_ok().then_some(hash)
    }

    /// Offset of a slice; the upload may have learned it since it was read.
    fn offset_of(&mut self, slice_id: u64) -> io::Result<Option<u64>> {
        if self.upload.plan.offset_of(slice_id).is_none() {
            self.reload()?;
        }
        Ok(self.upload.plan.offset_of(slice_id))
    }

    /// Copies a slice to its place, and makes sure of the bytes there.
    fn put(&mut self, slice: &File, slice_id: u64, offset: u64, record: Option<Record>) -> Result<Put, CopyError> {
        let Some(record) = record else { return Ok(Put::Wrong) };
        if has_only_zeroes(slice) {
            disk::make_hole(&self.merged, offset, record.len)?;
        } else {
            let method = self.copier.copy(slice, &self.merged, offset, record.len)?;
            if self.method != Some(method) {
                log::info!(slice = slice_id; "{}: merging slice {slice_id} by {method}", self.name);
                self.method = Some(method);
            }
        }
        // Asked now, once all of it was read.
        let is_certain = !self.found.contains(&slice_id) && is_as_it_came(slice);
        if Records(&self.digests).get(slice_id)? != Some(record) {
            return Ok(Put::Replaced);
        }
        let joins =
            self.upload.plan.slice_num == Some(1) || self.upload.plan.slice_size.is_some_and(digest::is_subtree_size);
        let is_hashed = slice_id == self.frontier && !joins && !self.upload.is_taken_over();
        let whole = if is_hashed { self.hash_up_to(slice_id)?.cloned() } else { None };
        let Some(mut whole) = whole else {
            // The bytes hashed so far may differ from the present content.
            self.whole = None;
            let is_right = is_certain || merged_is_right(&self.merged, &self.upload.plan, slice_id, Some(record));
            return Ok(if is_right { Put::Right } else { Put::Wrong });
        };
        let is_right = self.hash_next(&mut whole)?;
        self.whole = Some(whole).filter(|_| is_right);
        Ok(if is_right { Put::Right } else { Put::Wrong })
    }

    /// The hash of the first `end` slices of the merged file: from where this merger, or one before it, has come to.
    /// `None` if the upload was taken over meanwhile: records may be of slices that are still to be written again.
    fn hash_up_to(&mut self, end: u64) -> io::Result<Option<&WholeHash>> {
        let mut whole = match self.whole.take().filter(|whole| whole.slices() <= end) {
            Some(whole) => whole,
            None => self.spool.kept_hash(&Records(&self.digests), end)?,
        };
        while whole.slices() < end {
            let slice_id = whole.slices();
            if !self.hash_next(&mut whole)? {
                // That was saved before the first record was changed.
                self.reload()?;
                if self.upload.is_taken_over() {
                    return Ok(None);
                }
                self.cut_to(slice_id)?;
                return Err(damaged_since_merged(slice_id));
            }
        }
        Ok(Some(self.whole.insert(whole)))
    }

    /// Hashes the next slice of the merged file. `false` if it does not match its record; then the hash so far is of no
    /// use.
    fn hash_next(&self, whole: &mut WholeHash) -> io::Result<bool> {
        let slice_id = whole.slices();
        let record = Records(&self.digests).get(slice_id)?;
        let offset = self.upload.plan.offset_of(slice_id).unwrap_or(0);
        let in_file = || self.merged.metadata().map(|found| found.len().saturating_sub(offset));
        let len = record.map_or_else(|| self.upload.plan.len_of(slice_id).map_or_else(in_file, Ok), |r| Ok(r.len))?;
        let mut hasher = record.map(|record| SliceHasher::new(record.digest.kind, offset));
        let read = disk::read_range(&self.merged, offset, len, |bytes| {
            whole.update(bytes);
            hasher.iter_mut().for_each(|hasher| hasher.update(bytes));
        });
        if let Err(e) = read {
            // As in every comparison, bytes that the disk cannot give back are wrong.
            return if disk::is_lost(&e) { Ok(false) } else { Err(e) };
        }
        whole.end_slice(record.as_ref());
        Ok(record.zip(hasher).is_none_or(|(record, is)| is.finish() == record.digest))
    }

    /// Part of a slice at the end is no slice. If the cut fails here, the next merger makes it.
    fn cut_part(&self, slice_id: u64, offset: u64) {
        if slice_id == self.frontier {
            let _ = space::cut(&self.merged, offset, self.upload.ahead());
        }
    }

    /// Has a slice asked for again that is neither in its file, of the inode `inode`, nor in the merged file.
    fn lose(&mut self, slice_id: u64, inode: u64) -> io::Result<()> {
        self.found.remove(&slice_id);
        self.cut_to(slice_id)?;
        self.lock()?.map_or(Ok(()), |locked| locked.unlink_this(slice_id, inode))
    }

    /// Has all waiting slices that are wrong asked for again at once. A fault that lost one slice has mostly lost more,
    /// and each alone would take its sender a turn.
    fn look_at_waiting(&self) -> io::Result<()> {
        let waiting = self.spool.holdings(&self.upload)?.waiting;
        for slice_id in waiting.into_iter().filter(|slice_id| *slice_id > self.frontier) {
            let path = self.spool.slice_path(slice_id);
            let is_certain =
                !self.found.contains(&slice_id) && disk::open_regular(&path).is_ok_and(|slice| is_as_it_came(&slice));
            let record = Records(&self.digests).get(slice_id)?;
            if is_certain || slice_is_right(&path, &self.upload.plan, slice_id, record)? {
                continue;
            }
            if self.lock()?.map_or(Ok(false), |locked| locked.discard_if_wrong(slice_id))? {
                log::warn!(slice = slice_id; "{}: slice {slice_id} did not reach the disk either", self.name);
            }
        }
        Ok(())
    }

    /// Cuts the merged file to its first `keep` slices. Slices above that are merged again if their files are still
    /// there; the others are asked for again.
    fn cut_to(&mut self, keep: u64) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        locked.cut_to(&self.merged, keep)?;
        self.frontier = keep;
        self.whole = None;
        self.sha256 = (keep == 0).then(RunningSha256::default);
        self.info_lags = true;
        self.unsynced.retain(|slice_id, _| *slice_id < keep);
        self.syncing.retain(|slice_id, _| *slice_id < keep);
        self.again.retain(|slice_id| *slice_id < keep);
        Ok(())
    }
}

/// The result of copying a slice to its place.
enum Put {
    /// The bytes in place are those that came.
    Right,
    /// It is not.
    Wrong,
    /// Another one came in its place meanwhile.
    Replaced,
}

/// Number of slices of a merged file that stay when those in `lost` are missing: only lost slices at its end are cut
/// off. A slice that was written again in its place has its file beside it, and is written once more.
fn end_of_kept(frontier: u64, lost: &BTreeSet<u64>) -> u64 {
    (0..frontier).rev().take_while(|slice_id| lost.contains(slice_id)).last().unwrap_or(frontier)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_above_a_slice_that_was_written_again_stays() {
        let kept = |frontier, lost: &[u64]| end_of_kept(frontier, &lost.iter().copied().collect());
        assert_eq!(kept(1000, &[3]), 1000, "only written again");
        assert_eq!(kept(1000, &[3, 998, 999]), 998);
        assert_eq!(kept(5, &[0, 1, 2, 3, 4]), 0);
        assert_eq!((kept(0, &[]), kept(7, &[])), (0, 7));
    }
}
