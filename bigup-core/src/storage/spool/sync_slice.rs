//! The syncs that a held slice needs to survive a power cut.

use super::{Records, Spool, UPLOAD_JSON, is_as_it_came, is_as_recorded};
use crate::storage::disk::{self, BootId, Durability, IoContext};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Spool {
    /// Makes slice `slice_id`, which is held, survive a power cut, with all that makes sense of it. This takes
    /// its time, so it is done without the lock.
    ///
    /// ```text
    /// 1  the slice's content synced            a power cut may take its name or its record: it is asked for again
    /// 2  its record and the upload's synced    the same
    /// 3  the folder synced                     the slice is held, whatever happens
    /// ```
    /// No step changes anything that a kill could leave half done. Anything that is on disk too early is only a name,
    /// whose content is compared with its record before it is used. A slice that is no file any more is in the merged
    /// file, and was synced there before it was unlinked; that of a partial upload is in its final one
    /// ([`Spool::sync_taken`]).
    ///
    /// A slice written under another kernel may not have survived already, and no sync can make up for that. So its
    /// content is compared with its record first. `false` if it is damaged; its file, if it has one, is removed then,
    /// so that it is asked for again.
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
            Err(e) if e.kind() == ErrorKind::NotFound && is_old && !upload.is_partial() => {
                let (merged, from) =
                    (disk::open_regular(&self.merged_path())?, upload.plan.offset_of(slice_id).unwrap_or(0));
                // It was synced before the store of objects had it. If it lost it, merging finds that out.
                let len = record.map_or(0, |record| record.len);
                let is_given_back = upload.gives_parts_back() && len > 0 && disk::is_hole(&merged, from, len)?;
                (!is_given_back).then_some((merged, from))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if let Some((file, from)) = held {
            if is_old && !is_as_recorded(&file, from, &upload.plan, slice_id, record)? {
                log::warn!("{}: slice {slice_id} did not survive; it will be asked for again", self.folder());
                return self.remove_if_same(&path, &file).map(|()| false);
            }
            let synced = file.sync_data().at("syncing", &path);
            let is_lost = synced.is_ok() && !is_old && !is_as_it_came(&file) && {
                // The slice is read from the disk: memory may still hold bytes that never got there.
                disk::forget_cached(&file, 0, 0);
                !is_as_recorded(&file, from, &upload.plan, slice_id, record)?
            };
            if is_lost {
                log::warn!("{}: slice {slice_id} did not reach the disk; it will be asked for again", self.folder());
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
        self.sync_record()?;
        disk::sync_dir(&self.path).map(|()| true)
    }

    /// Makes the record of an upload of a single slice survive a power cut. Others survive from their beginning.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_record(&self) -> io::Result<()> {
        // Such a spool is made without syncs, since it is mostly published in the same breath. The file is written
        // anew: another sync of a file that could not be synced would prove nothing.
        if let Some(locked) = self.lock()?.filter(|locked| matches!(locked.upload.plan.slice_num, Some(0 | 1))) {
            // A folder without the file of records is no upload.
            locked.lock.file().sync_all().at("syncing the digests in", &self.path)?;
            disk::replace_file(&self.path, UPLOAD_JSON, &locked.upload.to_json(), Durability::PowerCut)?;
            self.path.parent().map_or(Ok(()), disk::sync_dir)?;
        }
        Ok(())
    }

    /// Removes `path` under the lock, if it still names `file`.
    fn remove_if_same(&self, path: &Path, file: &File) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        locked.unlink_if(path, file.metadata().at("looking at", path)?.ino())
    }
}
