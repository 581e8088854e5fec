//! Comparison of the held slices with their records. A slice that differs is asked for again.

use super::{LockedSpool, MergerLock, Record, Spool, UploadRecord};
use crate::protocol::digest::{SliceDigest, SliceHasher};
use crate::protocol::plan::Plan;
use crate::storage::disk::{self, Copier, IoContext};
use crate::storage::space;
use std::fs::File;
use std::io;
use std::path::Path;

/// Digests `len` bytes at `offset` of `file` by `hasher`.
///
/// # Errors
/// `file` is shorter, or as the system gives them.
pub fn hash_range(file: &File, offset: u64, len: u64, mut hasher: SliceHasher) -> io::Result<SliceDigest> {
    disk::read_range(file, offset, len, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// True if the file of a slice is what its record says; the file is read for that. `false` also if there is no file
/// or no record, if it is no slice of this plan, or if the disk cannot give it back.
///
/// # Errors
/// It cannot be read.
pub fn slice_is_right(path: &Path, plan: &Plan, slice_id: u64, record: Option<Record>) -> io::Result<bool> {
    let Some(record) = record else { return Ok(false) };
    if plan.len_of(slice_id).is_some_and(|len| len != record.len) {
        return Ok(false);
    }
    let file = match disk::open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if file.metadata().at("looking at", path)?.len() != record.len {
        return Ok(false);
    }
    is_as_recorded(&file, 0, plan, slice_id, Some(record)).at("reading", path)
}

/// True if the merged file has in the place of a slice what its record says; the place is read for that. `false` also
/// if there is no record, or if the place cannot be read.
pub fn merged_is_right(merged: &File, plan: &Plan, slice_id: u64, record: Option<Record>) -> bool {
    let place = plan.offset_of(slice_id);
    place.is_some_and(|from| is_as_recorded(merged, from, plan, slice_id, record).unwrap_or(false))
}

/// True if a reader of this descriptor of a slice's file has got exactly the bytes that its sender had when they were
/// digested, under the kernel that runs. `false` if that is not certain. Callers must ask after they have read the last
/// byte.
///
/// The kernel may fail to write a slice back, drop its pages, and read something else. It notes the failure in the
/// inode before the pages may go, and tells it once to each descriptor that was open then, and to the next that is
/// opened if nobody was told. The note is lost only with the inode, which stays while any descriptor is open. So:
///
/// 1. [`Spool::arrival`] locks the file exclusively before its first byte, and nobody else ever does once it is a
///    slice. So the holder of the lock has had it open since, and the inode was there from the first byte until now.
/// 2. A failure before this descriptor was opened is told to it, as one after it is, unless somebody was told before. A
///    process that syncs a slice removes it if the sync fails. A merger may have died between being told and doing
///    something about it. So callers must not ask for slices that such a merger may have seen.
/// 3. So there was no failure before this returns, thus none before the last byte was read.
///
/// Both are asked with this descriptor open, so their order does not matter: from the first byte on either its sender's
/// descriptor keeps the inode or this one. A lock that another node of a shared file system
/// holds says nothing of this kernel's memory; such file systems are none that [`disk::notes_failed_writes`].
pub fn is_as_it_came(slice: &File) -> bool {
    disk::notes_failed_writes(slice)
        && disk::check_no_write_failed(slice).is_ok()
        && disk::is_locked_exclusively(slice).unwrap_or(false)
}

/// True if the slice that begins `from` bytes into `file` is what its record says. `false` also if the disk cannot
/// give it back.
pub(super) fn is_as_recorded(
    file: &File,
    from: u64,
    plan: &Plan,
    slice_id: u64,
    record: Option<Record>,
) -> io::Result<bool> {
    let Some(record) = record else { return Ok(false) };
    let hasher = SliceHasher::new(record.digest.kind, plan.offset_of(slice_id).unwrap_or(0));
    match hash_range(file, from, record.len, hasher) {
        Ok(digest) => Ok(digest == record.digest),
        Err(e) if disk::is_lost(&e) => {
            log::error!("slice {slice_id} cannot be read: {e}");
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

impl LockedSpool {
    /// Unlinks the file of a slice, so that the slice is asked for again, unless it is what its record says. Returns
    /// True if it was unlinked.
    ///
    /// The caller is the merger or has its lock: a merger at work may have opened the file to append it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn discard_if_wrong(&self, slice_id: u64) -> io::Result<bool> {
        let record = self.records().get(slice_id)?;
        if slice_is_right(&self.spool.slice_path(slice_id), &self.upload.plan, slice_id, record)? {
            return Ok(false);
        }
        match self.discard(slice_id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Cuts `merged`, the file so far, to its first `keep` slices, since the rest is not as recorded. A power cut in
    /// between leaves slices that count as unsynced, and are looked at. The caller is the merger or has its lock.
    ///
    /// # Errors
    /// As the system gives them; it is not cut then.
    pub fn cut_to(&self, merged: &File, keep: u64) -> io::Result<()> {
        // The note is first, and for good.
        self.note_cut(keep)?;
        let end = self.upload.plan.offset_of(keep).unwrap_or(0);
        space::cut(merged, end, self.upload.ahead()).at("cutting", &self.spool.merged_path())?;
        if keep == 0 { self.forget_parts() } else { Ok(()) }
    }

    /// The same where the store of objects has lost a part. Clients, who were told that its slices are held, have to ask
    /// anew which are.
    ///
    /// # Errors
    /// As for [`LockedSpool::cut_to`].
    pub fn cut_lost(&mut self, merged: &File, keep: u64) -> io::Result<()> {
        // Saved first: asked in vain they lose a request.
        self.save(UploadRecord { asks_again: true, ..self.upload.clone() })?;
        self.cut_to(merged, keep)
    }

    /// True if the file of a waiting slice is not what its record says. The result holds under the lock: slices come
    /// and go under it only.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_waiting_slice_wrong(&self, slice_id: u64) -> io::Result<bool> {
        if !self.spool.has_slice(slice_id) {
            return Ok(false);
        }
        let record = self.records().get(slice_id)?;
        slice_is_right(&self.spool.slice_path(slice_id), &self.upload.plan, slice_id, record).map(|right| !right)
    }

    /// True if the merged file has something else than recorded in the place of a slice below the frontier.
    ///
    /// The result holds under the lock, whatever the merger does: it writes a slice before it unlinks its file, and
    /// unlinks under this lock. If the file is there, the slice is yet to be written.
    ///
    /// # Errors
    /// The merged file cannot be opened.
    pub fn is_merged_slice_wrong(&self, slice_id: u64) -> io::Result<bool> {
        if self.spool.has_slice(slice_id) || slice_id >= self.frontier()? {
            return Ok(false);
        }
        let merged = match disk::open_regular(&self.spool.merged_path()) {
            Ok(merged) => merged,
            // The file is in files/ already.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        Ok(!merged_is_right(&merged, &self.upload.plan, slice_id, self.records().get(slice_id)?))
    }
}

impl Spool {
    /// Has damaged slices below the frontier asked for again: those of `doubtful`, which were found damaged, that still
    /// are, and no others. The merged file is taken apart from the frontier down to the first of them; its right slices
    /// become waiting slices. Returns the slices that are asked for again.
    ///
    /// A slice whose 200 promised that it survives a power cut still does: its file is synced before it is cut off.
    /// Reserved disk space is given back meanwhile, so that space for one slice is enough, and reserved again at the
    /// end.
    ///
    /// A kill leaves at most a slice that is both merged and waiting, and the first damaged slice to be found anew.
    ///
    /// # Errors
    /// As the system gives them; without disk space for one slice nothing more is taken apart.
    pub fn take_apart(&self, _merger: &MergerLock, doubtful: &[u64]) -> io::Result<Vec<u64>> {
        let Some(locked) = self.lock()? else { return Ok(vec![]) };
        let mut wrong = vec![];
        for slice_id in doubtful {
            if locked.is_merged_slice_wrong(*slice_id)? {
                wrong.push(*slice_id);
            }
        }
        let Some(first) = wrong.iter().min().copied() else { return Ok(vec![]) };
        let (plan, ahead, frontier) = (locked.upload.plan.clone(), locked.upload.ahead(), locked.frontier()?);
        // The note is made for good, before anything is cut. The slices above count as unsynced from now on, and are
        // checked after a power cut.
        locked.note_cut(first)?;
        locked.records().0.sync_data().at("syncing the digests in", &self.path)?;
        drop(locked);
        let path = self.merged_path();
        let merged = disk::open_or_create(&path)?;
        let was_reserved = space::is_reserved(&merged, ahead)?;
        let mut copier = Copier::new();
        let taken = (first..frontier).rev().try_for_each(|slice_id| {
            self.make_wait(&merged, &plan, slice_id, &mut copier)?;
            merged.set_len(plan.offset_of(slice_id).unwrap_or(0)).at("cutting", &path)
        });
        if was_reserved {
            space::reserve_again(&merged, ahead);
        }
        taken.map(|()| wrong)
    }

    /// Copies a slice out of the merged file into one of its own, if it is right and there is none.
    fn make_wait(&self, merged: &File, plan: &Plan, slice_id: u64, copier: &mut Copier) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Err(io::ErrorKind::NotFound.into()) };
        let record = locked.records().get(slice_id)?;
        let Some(record) = record.filter(|_| !self.has_slice(slice_id)) else { return Ok(()) };
        let (Some(offset), true) = (plan.offset_of(slice_id), merged_is_right(merged, plan, slice_id, Some(record)))
        else {
            return Ok(());
        };
        let mut arrival = self.arrival(slice_id)?;
        copier.copy_range((merged, offset), (arrival.file(), 0), record.len).at("copying from", &self.merged_path())?;
        arrival.file().sync_data().at("syncing", arrival.path())?;
        let path = self.slice_path(slice_id);
        std::fs::rename(&arrival.path, &path).at("keeping", &path)?;
        arrival.kept = true;
        disk::sync_dir(&self.path)
    }
}
