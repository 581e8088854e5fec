//! The fate of a slice that arrives: the check if it is wanted, and the step by which it is held.

use super::{Arrival, DIGESTS, LockedSpool, Record, UploadRecord};
use crate::protocol::digest::{self, DigestKind, SliceDigest};
use crate::protocol::plan::PlanError;
use crate::storage::disk::{BootId, IoContext};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The reason a slice was refused.
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
        /// Digest of the held content.
        held: SliceDigest,
        /// Digest of the content that came.
        given: SliceDigest,
    },
    /// The upload is cut in another way than the slice.
    #[error("slice {slice_id} begins at byte {is} of this upload, not at {told}: the upload was cut anew; ask how")]
    Recut {
        /// The slice.
        slice_id: u64,
        /// Its offset in this upload, in bytes.
        is: u64,
        /// Its offset as its sender told it, in bytes.
        told: u64,
    },
    /// The same slice came by another request meanwhile, and the two cannot be compared by the digests at hand.
    #[error("slice {0} came by another request at the same time: send it again")]
    Meanwhile(u64),
    /// I/O.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The fate of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is held already, with this content.
    Held,
    /// It is wanted.
    Wanted,
}

/// The slice whose place another one is about to take.
struct Replaced {
    /// Its record.
    record: Option<Record>,
    /// Path of its file now. `None` if it had no file.
    file: Option<PathBuf>,
}

impl LockedSpool {
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

    /// Tells the fate of a slice before or after its bytes came. `given` are its known digests, by kind.
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
        // A slice held without a record means that somebody damaged the file of records. The slice that comes now is
        // checked, so it is the better one.
        let Some(record) = self.records().get(slice_id)? else { return Ok(Place::Wanted) };
        // The length of the held slice fitted until the end of the file was told: the held slice is another source's.
        if record.len != len {
            return Ok(Place::Wanted);
        }
        match given.iter().find(|g| g.kind == record.digest.kind) {
            None => Ok(Place::Wanted),
            Some(given) if *given == record.digest => Ok(Place::Held),
            // The held slice may be another source's, and publication reads all of it.
            Some(_) if self.upload.is_taken_over() => Ok(Place::Wanted),
            Some(given) => Err(SliceError::Content { slice_id, held: record.digest, given: *given }),
        }
    }

    /// The kinds of digest to compute of slice `slice_id` as it arrives: the one to record comes first, then the one by
    /// which it is compared with the held slice, if that differs.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn digest_kinds(&self, slice_id: u64, len: u64) -> Result<Vec<DigestKind>, SliceError> {
        let plan = self.upload.plan.learn(slice_id, len)?;
        // The place of a partial upload's slice in the file, on which a chaining value depends, is not known.
        let kind = if self.upload.is_partial() { DigestKind::Hash } else { digest::kind_of(&plan, slice_id) };
        let mut kinds = vec![kind];
        // A slice that is not held may have a record left. Such a record means nothing, and its kind may not fit this
        // cut.
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
    /// It is refused, or cannot be stored. The held slice stays held then, as it was; sizes that the refused one told
    /// may be known.
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
        self.save(UploadRecord { plan, ..self.upload.clone() })?;
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
            // If that fails, the file is swept: nobody has it locked.
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

    /// Puts back the slice that was set aside. If its record cannot be written again, its file goes: it must not be
    /// seen beside another record.
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

    pub(super) fn unlink_if(&self, path: &Path, inode: u64) -> io::Result<()> {
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
}
