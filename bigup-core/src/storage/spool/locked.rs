//! A spool under its lock, and the changes that are permitted there.

use super::{Arrival, Holdings, MergerLock, Records, Spool, UPLOAD_JSON, UploadRecord};
use crate::protocol::plan::Plan;
use crate::storage::disk::{self, Durability, FileLock, IoContext};
use crate::storage::space::{self, Ahead, DiskSpace, SpaceError};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A spool under its lock.
pub struct LockedSpool {
    pub(super) spool: Spool,
    pub(super) lock: FileLock,
    pub(super) upload: UploadRecord,
}

impl LockedSpool {
    /// The spool, without the lock.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The record of the upload.
    pub fn upload(&self) -> &UploadRecord {
        &self.upload
    }

    /// The records of its slices.
    pub fn records(&self) -> Records<'_> {
        Records(self.lock.file())
    }

    /// Changes the record of the upload for good: it survives a power cut once this returns. A file replaced without a
    /// sync may come back empty after one, and this file makes sense of all others. An upload replaces it a few times.
    ///
    /// # Errors
    /// As the system gives them; the record is unchanged then.
    pub fn save(&mut self, upload: UploadRecord) -> io::Result<()> {
        if upload == self.upload {
            return Ok(());
        }
        if let Err(e) = disk::replace_file(&self.spool.path, UPLOAD_JSON, &upload.to_json(), Durability::PowerCut) {
            // It may be there without being durable, and the next caller would find nothing left to save.
            let old = self.upload.to_json();
            let put_back = |durability| disk::replace_file(&self.spool.path, UPLOAD_JSON, &old, durability);
            let _ = put_back(Durability::PowerCut).or_else(|_| put_back(Durability::Process));
            return Err(e);
        }
        self.upload = upload;
        Ok(())
    }

    /// The slices that are held.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn holdings(&self) -> io::Result<Holdings> {
        self.spool.holdings(&self.upload)
    }

    /// The frontier: the number of slices in the merged file.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn frontier(&self) -> io::Result<u64> {
        self.spool.frontier(&self.upload)
    }

    /// True if slice `slice_id` is held.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn is_held(&self, slice_id: u64) -> io::Result<bool> {
        Ok(self.spool.has_slice(slice_id) || slice_id < self.frontier()?)
    }

    /// Cuts the upload anew into several slices, by `plan`, if nothing of it is held; `space` is the disk space that it
    /// may take from. `false` if something is held, or if a merger may be looking for it.
    ///
    /// Slices that are arriving were let in by the old plan, and are refused when they are whole. A kill in between
    /// leaves the old plan. If that is of a single slice, perhaps beside an empty merged file, it is merged like
    /// several.
    ///
    /// # Errors
    /// Not enough disk space, or as the system gives them; the upload is cut as before then.
    pub fn recut(&mut self, plan: Plan, space: &DiskSpace) -> Result<bool, SpaceError> {
        // Slices beyond the end that was told since are found too: they count for nothing as long as they lie there.
        if self.spool.merged_len()?.is_some_and(|len| len > 0) || !self.spool.waiting()?.is_empty() {
            return Ok(false);
        }
        // The lock of the merger comes before that of the spool; it is only tried, so nobody waits in a circle.
        let Some(_merger) = self.spool.try_merger_lock()? else { return Ok(false) };
        let is_single = self.upload.plan.slice_num == Some(1);
        if is_single {
            let ahead = self.upload.ahead_by(&plan);
            space.reserve_for(&disk::open_or_create(&self.spool.merged_path())?, ahead)?;
        }
        self.save(UploadRecord { plan, ..self.upload.clone() })?;
        if is_single {
            // Such a spool is made without syncs, since it is mostly published in the same breath.
            self.spool.path.parent().map_or(Ok(()), disk::sync_dir)?;
        }
        Ok(true)
    }

    /// Reserves in `space` what an upload of this plan, whose size may have become known only now, still needs. It adds
    /// blocks beyond the end of the merged file, which change neither its length nor anything that a merger does.
    ///
    /// # Errors
    /// Not enough disk space, or as the system gives them.
    pub fn reserve(&self, space: &DiskSpace, plan: &Plan) -> Result<(), SpaceError> {
        let ahead = self.upload.ahead_by(plan);
        self.merged()?.map_or(Ok(()), |merged| space.reserve_for(&merged, ahead))
    }

    /// The same of all bytes, also where their space would come back on the way.
    ///
    /// # Errors
    /// Not enough disk space, or as the system gives them.
    pub fn reserve_whole(&self, space: &DiskSpace, plan: &Plan) -> Result<(), SpaceError> {
        self.merged()?.map_or(Ok(()), |merged| space.reserve_for(&merged, Ahead::of(plan, None)))
    }

    /// The merged file, to reserve disk space in it. `None` if there is none: the upload is of a single slice, or its
    /// file stands in `files/` already, and must not seem to be here again.
    fn merged(&self) -> io::Result<Option<File>> {
        let path = self.spool.merged_path();
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        match File::options().read(true).write(true).custom_flags(flags).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).at("opening", &path),
        }
    }

    /// Opens a file for slice `slice_id` of `len` bytes to arrive in, with disk space for all of it. Also reserves its
    /// place in the merged file, unless all of that is reserved already, so that merging needs no disk space. `plan` is
    /// this upload's, with the numbers that this slice tells.
    ///
    /// A slice beyond the first that is missing leaves disk space for that one: the space of that one comes back with
    /// the merging, that of others may never come back. If others took that space all the same, the slice that merging
    /// waits for may use the space that is to stay free: its space comes back, and so does the space of those that wait
    /// for it.
    ///
    /// # Errors
    /// Not enough disk space, and nothing was changed; or as the system gives them.
    pub fn arrival(&self, slice_id: u64, len: u64, plan: &Plan, space: &DiskSpace) -> Result<Arrival, SpaceError> {
        self.with_space(slice_id, len, plan, space, || self.spool.arrival(slice_id))
    }

    /// The arrival that `open` opens of slice `slice_id`, with disk space as for [`LockedSpool::arrival`].
    pub(super) fn with_space(
        &self,
        slice_id: u64,
        len: u64,
        plan: &Plan,
        space: &DiskSpace,
        open: impl FnOnce() -> io::Result<Arrival>,
    ) -> Result<Arrival, SpaceError> {
        let (frontier, merged, ahead) = (self.frontier()?, self.merged()?, self.upload.ahead_by(plan));
        let place = match &merged {
            // Where space comes back, merging takes none but that of the slice before it is unlinked.
            _ if ahead.is_window() => 0,
            Some(merged) if slice_id >= frontier && !space::is_reserved(merged, ahead)? => len,
            _ => 0,
        };
        let needed = len.saturating_add(place);
        let beside = if slice_id > frontier { needed } else { 0 };
        let taking = space.lock()?;
        match taking.check(needed, beside) {
            // All slices before it are there, and wait only to be merged: their space comes back without it.
            Err(SpaceError::Full { .. }) if beside > 0 && self.holdings()?.ranges().first_gap() == slice_id => {
                taking.check(needed, 0)?
            }
            Err(SpaceError::Full { .. }) if slice_id == frontier && self.is_stuck_at(frontier)? => {
                taking.check_all(needed)?
            }
            looked => looked?,
        }
        let mut arrival = open()?;
        arrival.offset = plan.offset_of(slice_id);
        arrival.mark = Some(self.spool.mark_of(self.upload.source.as_deref()));
        space::reserve(&arrival.file, 0, len)?;
        if let (Some(merged), Some(offset)) = (merged, plan.offset_of(slice_id)) {
            space::reserve(&merged, offset, place)?;
        }
        Ok(arrival)
    }

    /// True if slices wait, or are arriving, and none of them can be merged before slice `frontier` is there. `false`
    /// while that one is arriving: one at a time is enough.
    fn is_stuck_at(&self, frontier: u64) -> io::Result<bool> {
        let (waiting, arriving) = (self.spool.waiting()?, self.spool.arriving_ids()?);
        let least = waiting.iter().chain(&arriving).min();
        Ok(least.is_some_and(|least| *least > frontier))
    }

    /// Drops all slices from `keep` on, so that the upload can go on by another plan that shares the first `keep`.
    /// Anything is dropped only with `merger` in hand: a merger at work may have opened a waiting slice and be about to
    /// append it, and would take it for the one that comes in its place. Disk space stays reserved for the plan `next`.
    ///
    /// # Errors
    /// As the system gives them. [`io::ErrorKind::ResourceBusy`]: something is to be dropped, and `merger` is `None`.
    pub fn keep_first(&self, keep: u64, next: &Plan, merger: Option<&MergerLock>) -> io::Result<()> {
        let end = self.upload.plan.offset_of(keep).unwrap_or(0);
        let is_cut = self.spool.merged_len()?.is_some_and(|len| len > end);
        let dropped: Vec<u64> = self.spool.waiting()?.into_iter().filter(|id| *id >= keep).collect();
        if merger.is_none() && (is_cut || !dropped.is_empty()) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if is_cut {
            let path = self.spool.merged_path();
            space::cut(&disk::open_or_create(&path)?, end, self.upload.ahead_by(next)).at("cutting", &path)?;
            self.note_cut(keep)?;
            if keep == 0 {
                self.forget_parts()?;
            }
        }
        dropped.into_iter().try_for_each(|slice_id| self.discard(slice_id))
    }

    /// Notes, for good, that the merged file was cut to its first `keep` slices: slices appended now are not on disk
    /// yet.
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
    /// It goes from sight by one rename; a kill or an error after it leaves at most a hidden folder that is swept
    /// later.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub fn remove(self) -> io::Result<()> {
        self.spool.remove_path()
    }

    /// Moves the whole spool to `path`. A process that waits for its lock there gets it once `work` is done with it.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub(crate) fn move_to(self, path: &Path, work: impl FnOnce(&Path)) -> io::Result<()> {
        std::fs::rename(&self.spool.path, path).at("moving the spool to", path)?;
        work(path);
        Ok(())
    }
}
