//! The step back, for a finished file that turned out to be damaged. The file is moved out of `files/`, and a copy of
//! it becomes an upload again, as if its source had taken over another source's upload. So a push of that source
//! compares all slices, sends those that differ, and names the digest of the whole, which is compared before the file
//! is published. No byte of the damaged file is trusted.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  files/<name> moved to damaged/<time>/files/<name>  the next push sends the whole file
//! 2  a copy of it at tmp/.new-…                         the same, and a leftover to be swept
//! 3  the copy becomes `merged` of a spool, whole at once  all is done
//! ```

use crate::protocol::digest::{self, SliceHasher};
use crate::protocol::name::FileName;
use crate::protocol::plan::Plan;
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, Copier, FileLock, IoContext};
use crate::storage::info_ini::InfoIni;
use crate::storage::space::{DiskSpace, SpaceError};
use crate::storage::spool::{HeldContent, MAKING, Spool, UploadId, UploadRecord, hash_range};
use crate::storage::store::{Store, StoreError, StoredDigest};
use std::fs::File;

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpublished {
    /// Something else has taken the file's place: nothing was done.
    Replaced,
    /// The file is in its place in `aside`; a push of its source sends the slices that differ.
    Slices,
    /// The file is in its place in `aside`; a push sends all of it. Says why.
    Whole(String),
}

/// A finished file that is damaged.
#[derive(Debug)]
pub struct Damaged<'a> {
    /// The upload that it is to become.
    pub id: &'a UploadId,
    /// Its name.
    pub name: &'a FileName,
    /// It, opened.
    pub file: &'a File,
    /// The digest that the file must have.
    pub stored_digest: &'a StoredDigest,
    /// Bytes that it must have.
    pub size: u64,
    /// Size of the slices that it came in, in bytes. `None` if not known.
    pub slice_size: Option<u64>,
}

/// Takes back a damaged finished file. It is moved into `aside`, and copied where `space` has some.
///
/// # Errors
/// It could not be moved; it is where it was.
pub fn unpublish(
    data: &DataDir,
    aside: &DataDir,
    space: &DiskSpace,
    damaged: &Damaged<'_>,
) -> Result<Unpublished, StoreError> {
    let Damaged { id, name, file, stored_digest, size, slice_size } = *damaged;
    if !Store::new(data).set_aside(name, file, &Store::new(aside))? {
        return Ok(Unpublished::Replaced);
    }
    let whole = |why: &str| Ok(Unpublished::Whole(why.to_owned()));
    let Some(source) = &stored_digest.source else { return whole("its client named no source") };
    let Some(plan) = slice_size.and_then(|slice_size| Plan::new(None, Some(slice_size), Some(size)).ok()) else {
        return whole("the digests of its parts are not known");
    };
    let upload = UploadRecord {
        content: HeldContent::ToCompare,
        ..UploadRecord::begin(name.clone(), plan, Some(source.clone()))
    };
    match become_upload(data, space, id, &upload, file) {
        Ok(true) => Ok(Unpublished::Slices),
        Ok(false) => whole("a push of it has begun meanwhile"),
        Err(e) => whole(&e.to_string()),
    }
}

/// Creates `upload` with a copy of `file` merged. `false` if there is one already.
fn become_upload(
    data: &DataDir,
    space: &DiskSpace,
    id: &UploadId,
    upload: &UploadRecord,
    file: &File,
) -> Result<bool, SpaceError> {
    let (plan, spool) = (&upload.plan, Spool::of(data, id));
    let (mut digests, mut end) = (vec![], 0);
    // Slices that a file cut short has lost are missing.
    let found = file.metadata().at("looking at the file for", spool.path())?.len();
    for slice_id in 0..plan.slices_in(found.min(plan.file_size.unwrap_or(0))) {
        let (offset, len) = (plan.offset_of(slice_id).unwrap_or(0), plan.len_of(slice_id).unwrap_or(0));
        let hasher = SliceHasher::new(digest::kind_of(plan, slice_id), offset);
        digests.push(hash_range(file, offset, len, hasher).at("reading the file for", spool.path())?);
        disk::forget_cached(file, offset, len);
        end = offset + len;
    }
    let copy = data.tmp().join(format!("{MAKING}{}", disk::random_suffix()));
    let made = (|| {
        space.lock()?.check(end, plan.slice_size.unwrap_or(0))?;
        // A sweep leaves locked files alone.
        let to = FileLock::on(disk::create_new(&copy)?, &copy)?;
        Copier::new().copy_range((file, 0), (to.file(), 0), end).at("copying to", &copy)?;
        Spool::create_merged(data, id, upload, &copy, &digests)
    })();
    // It is gone where all went well; else it is swept later if this fails too.
    let _ = std::fs::remove_file(&copy);
    let made = made?;
    if made {
        InfoIni::new(data).refresh(&spool, &upload.file_name, None)?;
    }
    Ok(made)
}
