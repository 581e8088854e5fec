//! The slices that an upload holds.

use super::{Records, Spool, UploadRecord};
use crate::protocol::plan::MAX_SLICES;
use crate::protocol::ranges::SliceRanges;
use crate::storage::disk::IoContext;
use std::io::{self, ErrorKind};

/// The slices that an upload holds, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Slices below it are in the merged file; those of a partial upload were taken by its final one.
    pub frontier: u64,
    /// Ids of the slices that wait as files, ascending; some may lie below the frontier.
    pub waiting: Vec<u64>,
}

/// Bytes that an upload holds, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// Bytes of all held slices.
    pub held: u64,
    /// Bytes of the slices in the merged file.
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

    /// True if a merger of `upload`, which holds this, would find something to do: a slice at or below the frontier,
    /// or a file to publish. An upload that is blocked or partial, or whose next slice is missing, needs no merger.
    pub fn need_merger(&self, upload: &UploadRecord) -> bool {
        let has_work = self.waiting.first().is_some_and(|first| *first <= self.frontier);
        let is_complete = upload.may_be_published() && Some(self.frontier) == upload.plan.slice_num;
        upload.blocked.is_none() && !upload.is_partial() && (has_work || is_complete)
    }
}

impl Spool {
    /// The slices that `upload`, which this spool is of, holds.
    ///
    /// The result may be outdated when it is returned, if it is read without the lock. But no slice that stays held is
    /// missing from it: the folder is listed first, and a slice that is not a file any more then is in the merged file.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn holdings(&self, upload: &UploadRecord) -> io::Result<Holdings> {
        let mut waiting = self.waiting()?;
        let slice_num = upload.plan.slice_num.unwrap_or(u64::MAX);
        waiting.retain(|id| *id < slice_num);
        if waiting.last().is_some_and(|last| last + 1 == slice_num && !self.fits(upload, *last)) {
            waiting.pop();
        }
        Ok(Holdings { waiting, frontier: self.frontier(upload)? })
    }

    /// Bytes of `holdings`, which this spool of `upload` has. A slice counts for nothing if its file went meanwhile and
    /// only that file tells its length.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn bytes(&self, upload: &UploadRecord, holdings: &Holdings) -> io::Result<HeldBytes> {
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

    /// True if the file of a slice has the length that its place asks for. The length may differ if the end of the
    /// file was told after the slice came: then the slice is another source's, and counts for nothing.
    fn fits(&self, upload: &UploadRecord, slice_id: u64) -> bool {
        let found = self.slice_file(slice_id);
        upload.plan.len_of(slice_id).is_none_or(|len| found.is_some_and(|found| found.len() == len))
    }

    /// The frontier up to which the merged file of `upload`, which this spool is of, is known to be on disk.
    ///
    /// The result may be outdated when it is returned, and never leads: the frontier is looked at first, and slices
    /// below it that are no files any more then were unlinked after a sync.
    ///
    /// # Errors
    /// As for [`Spool::holdings`].
    pub fn synced_frontier(&self, upload: &UploadRecord) -> io::Result<u64> {
        let frontier = self.frontier(upload)?;
        Ok(Holdings { waiting: self.waiting()?, frontier }.synced_frontier())
    }

    /// Bytes that lie between the frontier of `upload`, which this spool is of, and slice `slice_id`, if a merger could
    /// get on with them. 0 if the merger has nothing to merge, since the slice at the frontier is missing, and for a
    /// partial upload, which has no merger.
    ///
    /// # Errors
    /// As for [`Spool::holdings`].
    pub fn lag(&self, upload: &UploadRecord, slice_id: u64) -> io::Result<u64> {
        if upload.is_partial() {
            return Ok(0);
        }
        let frontier = self.frontier(upload)?;
        let offset = |slice_id| upload.plan.offset_of(slice_id).unwrap_or(0);
        Ok(if self.has_slice(frontier) { offset(slice_id).saturating_sub(offset(frontier)) } else { 0 })
    }

    pub(crate) fn frontier(&self, upload: &UploadRecord) -> io::Result<u64> {
        if let Some(place) = upload.placement() {
            return self.taken(upload, place);
        }
        match self.merged_len()? {
            Some(len) => Ok(upload.plan.slices_in(len)),
            // The file is in files/ already, and the spool is about to be removed.
            None if Records(&self.read_digests()?).publication()?.is_some() => Ok(upload.plan.slice_num.unwrap_or(0)),
            None => Ok(0),
        }
    }

    pub(super) fn merged_len(&self) -> io::Result<Option<u64>> {
        let path = self.merged_path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file")).at("looking at", &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", &path),
        }
    }

    pub(super) fn has_slice(&self, slice_id: u64) -> bool {
        self.slice_file(slice_id).is_some_and(|found| found.is_file())
    }

    /// Metadata of the file in the place of a slice. `None` also if that cannot be told, which is logged: then the
    /// slice is asked for again.
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
    pub(super) fn waiting(&self) -> io::Result<Vec<u64>> {
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
