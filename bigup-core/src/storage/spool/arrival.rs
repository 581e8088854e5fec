//! A slice that is arriving.

use super::{PART_SUFFIX, Spool, marks};
use crate::storage::disk::{self, IoContext};
use fs2::FileExt as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use xattr::FileExt as _;

/// Name of the file that the slice after all held ones arrives in, where bytes come in order.
pub(super) const TAIL: &str = "tail";

/// Name of the extended attribute of a slice without bytes: it has only zeroes, and nothing was ever written to it.
const ZEROES: &str = "user.bigup.zeroes";

/// True if all of a slice are zeroes, and nothing was ever written to its file. False if that is not noted.
pub fn has_only_zeroes(slice: &File) -> bool {
    slice.get_xattr(ZEROES).is_ok_and(|noted| noted.is_some())
}

/// A slice arriving. Its file is removed on drop, unless the slice is committed.
#[derive(Debug)]
pub struct Arrival {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) slice_id: u64,
    /// Offset of the slice in the file, in bytes, by the plan of the time when it was let in. `None` if the offset was
    /// not known then.
    pub(super) offset: Option<u64>,
    /// Path of the mark that tells if the upload is cancelled. `None` if nobody asks.
    pub(super) mark: Option<PathBuf>,
    pub(super) kept: bool,
    /// True if the disk is to begin before all has come.
    pub(super) is_early: bool,
}

impl Spool {
    /// Opens a file for slice `slice_id` to arrive in.
    ///
    /// # Errors
    /// There is no such spool, or as the system gives them.
    pub fn arrival(&self, slice_id: u64) -> io::Result<Arrival> {
        let path = self.part_path(slice_id);
        let file = disk::create_new(&path)?;
        let arrival = Arrival { file, path, slice_id, offset: None, mark: None, kept: false, is_early: false };
        // The lock tells a sweep that somebody is still writing.
        arrival.file.lock_exclusive().at("locking", &arrival.path)?;
        Ok(arrival)
    }

    /// A new name for a file that is no slice yet, or none any more.
    pub(super) fn part_path(&self, slice_id: u64) -> PathBuf {
        self.path.join(format!("{slice_id}.{}{PART_SUFFIX}", disk::random_suffix()))
    }
}

impl Arrival {
    /// The file that its bytes go to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has the disk begin with its bytes while others arrive. It is for a slice that becomes the finished file as it is: any
    /// other is written to the disk in vain if it is copied and removed soon.
    pub fn write_back_early(&mut self) {
        self.is_early = true;
    }

    /// Has the disk begin with the bytes that came, if that is wanted early.
    ///
    /// # Errors
    /// Written bytes might never reach the disk.
    pub fn write_back(&self) -> io::Result<()> {
        if self.is_early { disk::begin_write_back(&self.file).at("writing back", &self.path) } else { Ok(()) }
    }

    /// Takes `len` zeroes for its bytes. Nothing is written: they take no room. Nothing else may have been written to it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn take_zeroes(&self, len: u64) -> io::Result<()> {
        disk::make_hole(&self.file, 0, len).at("making a hole in", &self.path)?;
        if let Err(e) = self.file.set_xattr(ZEROES, b"1") {
            // It is merged like any other then.
            log::debug!("{}: that it has only zeroes is not noted: {e}", self.path.display());
        }
        Ok(())
    }

    /// Makes other machines that share the file system see the bytes that came. This machine may keep bytes of a file
    /// from the file system's servers until a descriptor of it is closed (nfs(5), close-to-open consistency).
    ///
    /// # Errors
    /// The servers did not take them all.
    pub fn show_to_other_machines(&self) -> io::Result<()> {
        let copy = self.file.try_clone().at("copying the descriptor of", &self.path)?;
        // A drop would say nothing of an error.
        nix::unistd::close(copy).at("handing over", &self.path)
    }

    /// True if it is the tail, of which bytes may be told to be held before it is whole.
    pub fn is_tail(&self) -> bool {
        is_tail(&self.path)
    }

    /// The path of that file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the upload was cancelled since, in the last [`TOLD_FOR`](super::TOLD_FOR).
    pub fn is_cancelled(&self) -> bool {
        let is_removed = self.file.metadata().is_ok_and(|found| found.nlink() == 0);
        // A cancellation that cannot be told now is found out with the last byte.
        is_removed && self.mark.as_ref().is_some_and(|mark| marks::age_of(mark).is_ok_and(|age| age.is_some()))
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

/// True if `path` is that of a tail.
pub(super) fn is_tail(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == TAIL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn the_disk_begins_early_with_a_slice_of_which_that_is_wanted() {
        // Nothing of a pipe can be written back (sync_file_range(2), ESPIPE), so an error tells that it was tried.
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        let mut arrival =
            Arrival { file, path: "a".into(), slice_id: 0, offset: None, mark: None, kept: true, is_early: false };
        arrival.write_back().unwrap();
        arrival.write_back_early();
        assert!(arrival.write_back().is_err());
    }
}
