//! Spools are made whole, in one step.

use super::{DIGESTS, MAKING, MERGED, Record, Records, Spool, UPLOAD_JSON, UploadId, UploadRecord};
use crate::protocol::digest::SliceDigest;
use crate::storage::data_dir::{self, DataDir};
use crate::storage::disk::{self, BootId, Durability, FileLock, IoContext};
use crate::storage::space::{DiskSpace, SpaceError};
use std::io::ErrorKind;
use std::path::Path;

impl Spool {
    /// Creates the spool of `upload`, which gets the identity `id`, whole at once. `false` if there is one already.
    ///
    /// An upload of more than one slice survives a power cut from here on; one of a single slice is published, and
    /// synced, in the same breath, unless a completion record is to come of it, or it has a role in a concatenation. If
    /// its size is known, `space` is reserved for all of it; a partial upload takes it slice by slice.
    ///
    /// # Errors
    /// Not enough disk space, or as the system gives them; nothing is there then.
    pub fn create(data: &DataDir, id: &UploadId, upload: &UploadRecord, space: &DiskSpace) -> Result<bool, SpaceError> {
        if let (Some(1), Some(size)) = (upload.plan.slice_num, upload.plan.file_size) {
            // Its slice takes the disk space.
            space.lock()?.check(size, 0)?;
        }
        Spool::create_filled(data, id, upload, |making, _| {
            // The only slice of an upload takes its disk space itself, and becomes the merged file.
            let is_merged = !matches!(upload.plan.slice_num, Some(0 | 1)) && !upload.is_partial();
            if is_merged { space.reserve_for(&disk::create_new(&making.join(MERGED))?, upload.ahead()) } else { Ok(()) }
        })
    }

    /// Creates the spool of `upload`, which gets the identity `id`, with all its slices merged already: `merged`, a
    /// file in `tmp/`, becomes the merged file, and `digests` are of its content in the place of each slice. `false` if
    /// there is a spool already.
    ///
    /// # Errors
    /// As the system gives them; nothing is there then, and `merged` may be gone.
    pub fn create_merged(
        data: &DataDir,
        id: &UploadId,
        upload: &UploadRecord,
        merged: &Path,
        digests: &[SliceDigest],
    ) -> Result<bool, SpaceError> {
        Spool::create_filled(data, id, upload, |making, records| {
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
        id: &UploadId,
        upload: &UploadRecord,
        fill: impl FnOnce(&Path, &Records<'_>) -> Result<(), SpaceError>,
    ) -> Result<bool, SpaceError> {
        let spool = Spool::of(data, id);
        let tmp = data.tmp();
        data_dir::check_folder(&tmp)?;
        let making = tmp.join(format!("{MAKING}{}", disk::random_suffix()));
        let durability = match upload.plan.slice_num {
            // A completion record is made of the files that are on disk by then.
            Some(0 | 1) if !data.leaves_notices() && upload.concat.is_none() => Durability::Process,
            _ => Durability::PowerCut,
        };
        let made = (|| -> Result<FileLock, SpaceError> {
            std::fs::create_dir(&making).at("creating the folder", &making)?;
            // Reserving disk space may take minutes, and a sweep leaves alone what is locked.
            let lock = FileLock::of_folder(&making)?;
            let digests = disk::create_new(&making.join(DIGESTS))?;
            Records(&digests).initialise().at("writing", &making.join(DIGESTS))?;
            // This comes before upload.json, which syncs the folder.
            fill(&making, &Records(&digests))?;
            disk::replace_file(&making, UPLOAD_JSON, &upload.to_json(), durability)?;
            Ok(lock)
        })();
        // A folder is renamed onto an empty one at most (rename(2)), and a spool is never empty.
        match made.and_then(|lock| std::fs::rename(&making, &spool.path).map(|()| lock).map_err(SpaceError::Io)) {
            Ok(_lock) if durability == Durability::PowerCut => match disk::sync_dir(&tmp) {
                Ok(()) => Ok(true),
                Err(e) => {
                    // The next process would find it there and take it for durable.
                    let _ = spool.remove_path();
                    Err(e.into())
                }
            },
            Ok(_lock) => Ok(true),
            Err(e) => {
                // If this fails too, a sweep removes it later.
                let _ = disk::remove_folder(&making);
                match e {
                    SpaceError::Io(e)
                        if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) =>
                    {
                        Ok(false)
                    }
                    SpaceError::Io(e) => Ok(Err(e).at("creating the spool", &spool.path)?),
                    no_disk_space => Err(no_disk_space),
                }
            }
        }
    }
}
