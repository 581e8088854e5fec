//! Disk space: how much is left, and taking it for a file before its bytes come.
//!
//! The file system itself reserves the space that an upload will need: blocks beyond the end of `merged` (fallocate(2)
//! with FALLOC_FL_KEEP_SIZE). So statvfs(3) alone tells the space available to others. No sum over uploads is kept, a
//! kill leaves nothing that could disagree, and a removed spool gives its space back. The length of the file, from
//! which the frontier is read, stays as it is. Where a file system cannot reserve, space is only checked.
//!
//! With a store of objects only a window behind the end of `merged` is reserved ([`Ahead`]): the space of a part comes back
//! once the store has it (`give_back`).
//!
//! Looking and taking are one step among all daemons on a data folder, by a lock on its `tmp/`.
//!
//! # File systems
//! Btrfs frees an extent only once no part of it is used any more, and sharing the blocks of slices replaces it bit by
//! bit: a large extent would stay to the end, beside all that replaced it. So space is reserved there in pieces of
//! whole slices. Btrfs also counts reserved space only after a sync of the file system. So each process adds the space
//! that it took since the last sync, and makes a sync if too little would be left. Otherwise waiting slices would use
//! up the reserve, and the space of the slice they wait for.

use crate::protocol::plan::Plan;
use crate::protocol::units::{MIB, show_size, show_size_up};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, FileLock, IoContext};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most pieces of a reservation on Btrfs: the more there are, the more each costs; 1024 of them cost about 0.1 s.
const MAX_PIECES: u64 = 1024;

/// Beginning of messages to clients about missing disk space, however it was noticed.
pub const FULL_DISK: &str = "there is not enough disk space on the server";

/// Message to clients when the file system itself says that it is full, without numbers.
pub const FULL_FILE_SYSTEM: &str =
    "there is not enough disk space on the server: its file system is full; free some there";

/// Most inodes that an upload, or a slice of it, needs: a spool, its files, a slice, and files replaced by rename.
const INODES: u64 = 8;

/// The bytes that are reserved in the merged file of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Bytes of the file. `None`: nothing is reserved, since the size is not known, or a slice takes all of it.
    size: Option<u64>,
    /// Bytes of a slice; 0 if that is not known.
    slice_size: u64,
    /// Bytes that are reserved behind the end of the merged file. `None`: all the rest.
    window: Option<u64>,
}

impl Ahead {
    /// All that an upload of this plan needs, if its size is known: that of a file of one slice is with the slice. If
    /// space comes back while it grows, `window` bytes behind its end are enough.
    pub fn of(plan: &Plan, window: Option<u64>) -> Ahead {
        let size = plan.file_size.filter(|_| plan.slice_num.is_some_and(|num| num > 1));
        Ahead { size, slice_size: plan.slice_size.unwrap_or(0), window }
    }

    /// True if space comes back while the file grows, so that less than the whole is reserved.
    pub(crate) fn is_window(self) -> bool {
        self.window.is_some()
    }

    /// The end of the reserved bytes in a merged file of `len` bytes. `None` if nothing is reserved.
    fn end(self, len: u64) -> Option<u64> {
        let size = self.size?;
        Some(self.window.map_or(size, |window| size.min(len.saturating_add(window))))
    }
}

/// The reason there is not enough disk space.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Too few bytes are left.
    #[error(
        "{FULL_DISK}: {} are needed{} and {} stay free, but {} are left; free at least {} there",
        show_size(*.needed), beside_it(*.headroom), show_size(*.reserve), show_size(*.available),
        show_size_up((.needed + .headroom + .reserve).saturating_sub(*.available))
    )]
    Full {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that must be left for a slice beside them.
        headroom: u64,
        /// Bytes that are left.
        available: u64,
        /// Bytes of these that stay free.
        reserve: u64,
    },
    /// There is space for the bytes, but too few inodes.
    #[error(
        "{FULL_DISK}: {needed} inodes are needed, {available} of the {total} of its file system are left, of which {reserve} \
         stay free; remove {} files there",
        (.needed + .reserve).saturating_sub(*.available)
    )]
    NoInodes {
        /// Files and folders that are to be made.
        needed: u64,
        /// Number available.
        available: u64,
        /// Number reserved.
        reserve: u64,
        /// Total number.
        total: u64,
    },
    /// I/O; with [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] if the file system has less space
    /// than it told.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn beside_it(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(", with {} for a slice beside,", show_size(bytes)) }
}

/// The disk space of a data folder.
#[derive(Clone, Debug)]
pub struct DiskSpace {
    tmp: PathBuf,
    reserve: u64,
    uncounted: Arc<AtomicU64>,
}

impl DiskSpace {
    /// The disk space of `data`, where `reserve` bytes stay free.
    pub fn new(data: &DataDir, reserve: u64) -> DiskSpace {
        DiskSpace { tmp: data.tmp(), reserve, uncounted: Arc::clone(&data.uncounted) }
    }

    /// Bytes that are left beside those that stay free. `None` if the file system tells no size.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn left(&self) -> io::Result<Option<u64>> {
        let found = self.stat()?;
        let available = found.blocks_available() * found.fragment_size();
        Ok((found.blocks() > 0).then(|| available.saturating_sub(self.reserve)))
    }

    /// Number of files and folders that can still be made. The share of inodes kept free equals the share of bytes kept
    /// free. `None` if the file system tells no number, and mostly has as many inodes as fit.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn inodes_left(&self) -> io::Result<Option<u64>> {
        let found = self.stat()?;
        let left = found.files_available().saturating_sub(kept_inodes(&found, self.reserve));
        Ok((found.files() > 0).then_some(left))
    }

    fn stat(&self) -> io::Result<Statvfs> {
        let folder = File::open(&self.tmp).at("opening", &self.tmp)?;
        fstatvfs(&folder).map_err(io::Error::from).at("looking for disk space in", &self.tmp)
    }

    /// Keeps all others, in this daemon and in other ones, from taking disk space until the result is dropped. No other
    /// wait happens under this lock.
    pub(crate) fn lock(&self) -> io::Result<LockedDiskSpace<'_>> {
        FileLock::of_folder(&self.tmp).map(|folder| LockedDiskSpace { space: self, folder })
    }

    /// Reserves in `merged` those bytes of `ahead` that are not there yet.
    ///
    /// # Errors
    /// Not enough disk space; nothing is reserved then, or part of it.
    pub(crate) fn reserve_for(&self, merged: &File, ahead: Ahead) -> Result<(), SpaceError> {
        let Some(end) = ahead.end(merged.metadata()?.len()) else { return Ok(()) };
        let missing = missing(merged, end)?;
        if missing == 0 {
            return Ok(());
        }
        let space = self.lock()?;
        let headroom = if is_btrfs(merged)? {
            space.settle()?;
            piece_len(end, ahead.slice_size)
        } else {
            ahead.slice_size
        };
        space.check(missing, headroom)?;
        Ok(reserve_from(merged, merged.metadata()?.len(), ahead)?)
    }
}

/// The disk space of a data folder, locked against all others.
pub(crate) struct LockedDiskSpace<'a> {
    space: &'a DiskSpace,
    folder: FileLock,
}

impl LockedDiskSpace<'_> {
    /// True if `needed` bytes can be taken, with `headroom` left besides the reserve. A file system that tells no size
    /// (ramfs) has space for anything.
    ///
    /// # Errors
    /// Not enough disk space.
    pub(crate) fn check(&self, needed: u64, headroom: u64) -> Result<(), SpaceError> {
        self.check_keeping(self.space.reserve, needed, headroom)
    }

    /// True if `needed` bytes can be taken of the whole disk space, including the reserve.
    ///
    /// # Errors
    /// Not enough disk space.
    pub(crate) fn check_all(&self, needed: u64) -> Result<(), SpaceError> {
        self.check_keeping(0, needed, 0)
    }

    fn check_keeping(&self, reserve: u64, needed: u64, headroom: u64) -> Result<(), SpaceError> {
        let uncounted = &self.space.uncounted;
        // Every caller that changes it holds the lock on the folder.
        let looked = self.check_once(reserve, needed, headroom.saturating_add(uncounted.load(Ordering::Relaxed)));
        if !is_btrfs(self.folder.file())? {
            return looked;
        }
        match looked {
            // The system may not yet count the space of files that were just removed.
            Err(SpaceError::Full { .. }) => {
                self.settle()?;
                self.check_once(reserve, needed, headroom)?;
            }
            looked => looked?,
        }
        uncounted.fetch_add(needed, Ordering::Relaxed);
        Ok(())
    }

    fn check_once(&self, reserve: u64, needed: u64, headroom: u64) -> Result<(), SpaceError> {
        let found =
            fstatvfs(self.folder.file()).map_err(io::Error::from).at("looking for disk space in", &self.space.tmp)?;
        let available = found.blocks_available() * found.fragment_size();
        if found.blocks() > 0 && available < needed.saturating_add(headroom).saturating_add(reserve) {
            return Err(SpaceError::Full { needed, headroom, available, reserve });
        }
        let (needed, available, reserve) = (INODES, found.files_available(), kept_inodes(&found, reserve));
        // Btrfs reports 0 inodes: its number of inodes is not limited.
        if found.files() > 0 && available < needed.saturating_add(reserve) {
            return Err(SpaceError::NoInodes { needed, available, reserve, total: found.files() });
        }
        Ok(())
    }

    /// Has the file system count all that was taken and given back so far.
    fn settle(&self) -> io::Result<()> {
        nix::unistd::syncfs(self.folder.file())
            .map_err(io::Error::from)
            .at("syncing the file system of", &self.space.tmp)?;
        self.space.uncounted.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// True if all of `ahead` is in `merged`, or reserved there. False where that is not known.
pub(crate) fn is_reserved(merged: &File, ahead: Ahead) -> io::Result<bool> {
    Ok(match ahead.end(merged.metadata()?.len()) {
        Some(end) => missing(merged, end)? == 0,
        None => false,
    })
}

/// Gives back the blocks of `len` bytes at `offset` of `merged`, a file in `tmp`, and reserves what is missing of `ahead`
/// then, but no more than was given back: no other process takes the space in between, and none is taken of the space
/// that stays free. False if the file system has no holes: then nothing changes.
///
/// # Errors
/// The blocks cannot be given back. Space that cannot be reserved is no error: each slice must find its own then.
pub(crate) fn give_back(tmp: &Path, merged: &File, offset: u64, len: u64, ahead: Ahead) -> io::Result<bool> {
    let _space = FileLock::of_folder(tmp)?;
    if !disk::punch(merged, offset, len)? {
        return Ok(false);
    }
    let merged_len = merged.metadata()?.len();
    let missing = ahead.end(merged_len).map_or(Ok(0), |end| missing(merged, end))?;
    let more = Ahead { window: ahead.window.map(|window| window.saturating_sub(missing.saturating_sub(len))), ..ahead };
    if let Err(e) = reserve_from(merged, merged_len, more) {
        log::debug!("no disk space for the next part of an upload, which goes on without: {e}");
    }
    Ok(true)
}

/// Reserves `len` bytes of `file` from `offset` on, as one piece; its length stays as it is. Where the file system cannot
/// nothing happens.
///
/// # Errors
/// Not enough disk space, or as the system gives them.
pub(crate) fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset as i64, len as i64) {
            // On tmpfs signals interrupt it.
            Err(Errno::EINTR) => {}
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Cuts `merged`, the file so far of an upload, to its first `len` bytes.
///
/// A cut gives back all that is reserved beyond the new end, even if that is the old end. So it is left out if there is
/// nothing to cut; and the reserve is taken again afterwards, unless another process was faster.
///
/// # Errors
/// It cannot be cut.
pub fn cut(merged: &File, len: u64, ahead: Ahead) -> io::Result<()> {
    if merged.metadata()?.len() == len {
        return Ok(());
    }
    let was_reserved = is_reserved(merged, ahead)?;
    merged.set_len(len)?;
    if was_reserved {
        reserve_again(merged, ahead);
    }
    Ok(())
}

/// Reserves again the space of `merged` beyond its end that was reserved before it was cut. If another process was
/// faster, that is logged, and each slice must find its own space.
pub(crate) fn reserve_again(merged: &File, ahead: Ahead) {
    let reserved = merged.metadata().and_then(|found| reserve_from(merged, found.len(), ahead));
    if let Err(e) = reserved {
        log::warn!("cannot reserve disk space for the rest of an upload, which goes on without a reserve: {e}");
    }
}

/// Gives back the space reserved beyond the end of `file`.
///
/// # Errors
/// As the system gives them.
pub fn give_back_rest(file: &File) -> io::Result<()> {
    file.set_len(file.metadata()?.len())
}

/// Bytes that `merged`, which is to have `size` bytes, still needs. Holes in it are zeroes that were merged, or parts that
/// the store of objects has, and need nothing.
fn missing(merged: &File, size: u64) -> io::Result<u64> {
    let missing = size.saturating_sub(allocated(merged)?);
    if missing == 0 {
        return Ok(0);
    }
    Ok(missing.saturating_sub(disk::holes_before(merged, merged.metadata()?.len())?))
}

/// Bytes that a file has on the disk, reserved ones too.
fn allocated(file: &File) -> io::Result<u64> {
    // Blocks of 512 bytes, whatever those of the file system (stat(2)).
    Ok(file.metadata()?.blocks() * 512)
}

/// Inodes that stay free where so many bytes do: as large a part.
fn kept_inodes(found: &Statvfs, reserve: u64) -> u64 {
    let size = u128::from(found.blocks()) * u128::from(found.fragment_size());
    let reserve = u128::from(found.files()) * u128::from(reserve) / size.max(1);
    u64::try_from(reserve).unwrap_or(u64::MAX)
}

fn is_btrfs(file: &File) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Bytes of a piece on Btrfs: whole slices, a mebibyte at least, and so that there are no more than [`MAX_PIECES`].
fn piece_len(size: u64, slice_size: u64) -> u64 {
    let least = (size / MAX_PIECES).max(MIB);
    least.div_ceil(slice_size.max(1)).saturating_mul(slice_size.max(1))
}

/// Reserves in `merged` the bytes of `ahead` from `offset` on.
fn reserve_from(merged: &File, mut offset: u64, ahead: Ahead) -> io::Result<()> {
    let size = ahead.end(offset).unwrap_or(0);
    let piece = if is_btrfs(merged)? { piece_len(size, ahead.slice_size) } else { size };
    while offset < size {
        let next = (offset / piece + 1).saturating_mul(piece).min(size);
        reserve(merged, offset, next - offset)?;
        offset = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn want_of_disk_space_is_told_in_one_way_and_in_units() {
        let full = SpaceError::Full { needed: 20 * MIB, headroom: 0, available: 72_263_000_000, reserve: 200 << 40 };
        assert_eq!(
            full.to_string(),
            "there is not enough disk space on the server: 20.0 MiB are needed and 200 TiB stay free, but 67.3 GiB are \
             left; free at least 200 TiB there"
        );
        assert!(
            SpaceError::NoInodes { needed: 8, available: 5, reserve: 0, total: 9 }.to_string().starts_with(FULL_DISK)
                && FULL_FILE_SYSTEM.starts_with(FULL_DISK)
        );
    }

    #[test]
    fn pieces_are_whole_slices_and_not_too_many() {
        assert_eq!(piece_len(64 * MIB, 8 * MIB), 8 * MIB);
        assert_eq!(piece_len(64 * MIB, 300_000), 1_200_000);
        assert_eq!(piece_len(1 << 40, 8 * MIB), 1 << 30);
        assert_eq!(piece_len(1000, 10), 1_048_580);
    }

    #[test]
    fn what_is_reserved_goes_neither_with_a_cut_nor_into_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let plan = Plan::new(None, Some(MIB), Some(8 * MIB)).unwrap();
        let merged = crate::storage::disk::create_new(&data.tmp().join("merged")).unwrap();
        merged.set_len(2 * MIB + 5).unwrap();
        let ahead = Ahead::of(&plan, None);
        DiskSpace::new(&data, 0).reserve_for(&merged, ahead).unwrap();
        assert_eq!(merged.metadata().unwrap().len(), 2 * MIB + 5);
        // The first two mebibytes are a hole.
        reserve(&merged, 0, 2 * MIB).unwrap();
        assert!(is_reserved(&merged, ahead).unwrap());
        cut(&merged, 2 * MIB, ahead).unwrap();
        assert!(is_reserved(&merged, ahead).unwrap());
        assert_eq!(merged.metadata().unwrap().len(), 2 * MIB);
        // What was merged as a hole needs nothing.
        disk::make_hole(&merged, 0, 2 * MIB).unwrap();
        assert!(allocated(&merged).unwrap() < 7 * MIB && is_reserved(&merged, ahead).unwrap());
        give_back_rest(&merged).unwrap();
        assert!(allocated(&merged).unwrap() < 3 * MIB);
    }

    #[test]
    fn a_window_moves_with_the_end_and_with_each_part_that_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let plan = Plan::new(None, Some(MIB), Some(64 * MIB)).unwrap();
        let merged = crate::storage::disk::create_new(&data.tmp().join("merged")).unwrap();
        let ahead = Ahead::of(&plan, Some(4 * MIB));
        let has = |mib: u64| {
            let is = allocated(&merged).unwrap();
            assert!((mib * MIB..(mib + 1) * MIB).contains(&is), "{is} bytes and not {mib} MiB");
        };
        DiskSpace::new(&data, 0).reserve_for(&merged, ahead).unwrap();
        has(4);
        for end in 1..=3 {
            merged.write_all_at(&vec![7; MIB as usize], (end - 1) * MIB).unwrap();
            has(4);
            assert!(!is_reserved(&merged, ahead).unwrap());
        }
        assert!(give_back(&data.tmp(), &merged, 0, 2 * MIB, ahead).unwrap());
        // No more than before: the space that stays free is not ours.
        has(4);
        assert!(!is_reserved(&merged, ahead).unwrap());
        assert_eq!(merged.metadata().unwrap().len(), 3 * MIB);
        merged.write_all_at(&vec![7; MIB as usize], 3 * MIB).unwrap();
        assert!(give_back(&data.tmp(), &merged, 2 * MIB, 2 * MIB, ahead).unwrap());
        has(4);
        assert!(is_reserved(&merged, ahead).unwrap());
        cut(&merged, 0, ahead).unwrap();
        has(4);
    }
}
