//! Zeroes that take no room: holes of a file.

use super::{IoContext, create_new, random_suffix};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes that are written at once where the file system has no holes.
const PIECE: usize = 64 << 10;

/// Makes `len` bytes of `file` from `offset` on zeroes that take no room. The file grows if it ends before that. Space
/// that is reserved behind them stays reserved. Where the file system has no holes, zeroes are written.
///
/// At every instant the file has, as far as it reaches, its old bytes there or zeroes.
///
/// # Errors
/// As the system gives them.
pub fn make_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let (end, old_end) = (offset + len, file.metadata()?.len());
    if old_end < end {
        // Another length could give back what is reserved beyond it: on XFS it does.
        file.write_all_at(&[0], end - 1)?;
    }
    if punch(file, offset, len)? {
        return Ok(());
    }
    // Behind the old end there are zeroes.
    write_zeroes(file, offset, end.min(old_end))
}

/// Gives back to the file system the blocks of `len` bytes of `file` from `offset` on: they are a hole then. The length
/// of the file stays. False if the file system has no holes: then nothing changes.
///
/// # Errors
/// As the system gives them.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset as i64, len as i64) {
            // On tmpfs signals interrupt it.
            Err(Errno::EINTR) => {}
            Ok(()) => return Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Beginning of the name of the file with which [`has_holes`] tries. A kill leaves one, which is to be swept.
pub const HOLE_TRIAL: &str = ".holes.";

/// True if files in `folder` can have holes. It makes a file there and removes it.
///
/// # Errors
/// As the system gives them.
pub fn has_holes(folder: &Path) -> io::Result<bool> {
    let path = folder.join(format!("{HOLE_TRIAL}{}.tmp", random_suffix()));
    let file = create_new(&path)?;
    let has_holes = punch(&file, 0, 1).at("making a hole in", &path);
    std::fs::remove_file(&path).at("removing", &path)?;
    has_holes
}

/// True if `len` bytes of `file` from `offset` on are told to be a hole by the file system. False where it does not tell.
/// This moves the place where the file is read and written next.
///
/// # Errors
/// As the system gives them.
pub fn is_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    if offset + len > file.metadata()?.len() {
        return Ok(false);
    }
    match seek(file, offset, Whence::SeekData) {
        Ok(data) => Ok(data >= offset + len),
        // There is no data from there on.
        Err(Errno::ENXIO) => Ok(true),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn write_zeroes(file: &File, mut offset: u64, end: u64) -> io::Result<()> {
    let zeroes = [0; PIECE];
    while offset < end {
        let len = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(&zeroes[..len], offset)?;
        offset += len as u64;
    }
    Ok(())
}

/// Bytes of `file` before `end` that the file system tells to be holes. This moves the place where the file is read and
/// written next. 0 where the file system does not tell.
///
/// # Errors
/// As the system gives them.
pub fn holes_before(file: &File, end: u64) -> io::Result<u64> {
    let (mut holes, mut at) = (0, 0);
    while at < end {
        let hole = match seek(file, at, Whence::SeekHole) {
            Ok(hole) => hole.min(end),
            Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP) => break,
            Err(e) => return Err(e.into()),
        };
        if hole == end {
            break;
        }
        at = match seek(file, hole, Whence::SeekData) {
            Ok(data) => data.min(end),
            // There is no more data.
            Err(Errno::ENXIO) => end,
            Err(e) => return Err(e.into()),
        };
        holes += at - hole;
    }
    Ok(holes)
}

fn seek(file: &File, from: u64, to: Whence) -> nix::Result<u64> {
    lseek(file, from as i64, to).map(|at| at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_hole_reads_as_zeroes_and_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_new(&dir.path().join("f")).unwrap();
        file.write_all_at(&vec![7; 3 * MIB as usize], 0).unwrap();
        // In the middle, not at borders of blocks.
        make_hole(&file, 1000, MIB).unwrap();
        let mut bytes = vec![1; 3 * MIB as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let (hole, end) = (1000, 1000 + MIB as usize);
        assert!(bytes[hole..end].iter().all(|byte| *byte == 0));
        assert!(bytes[..hole].iter().chain(&bytes[end..]).all(|byte| *byte == 7));
        // From behind its end on, across it, and nowhere.
        make_hole(&file, 4 * MIB, 8 * MIB).unwrap();
        make_hole(&file, 0, 0).unwrap();
        make_hole(&file, 11 * MIB, 2 * MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 13 * MIB);
        let mut bytes = vec![1; 9 * MIB as usize];
        file.read_exact_at(&mut bytes, 4 * MIB).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        file.sync_all().unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 < 3 * MIB);
        let holes = holes_before(&file, 13 * MIB).unwrap();
        assert!((10 * MIB..12 * MIB).contains(&holes), "{holes}");
        assert!(has_holes(dir.path()).unwrap() && std::fs::read_dir(dir.path()).unwrap().count() == 1);
        assert!(is_hole(&file, 5 * MIB, 7 * MIB).unwrap() && !is_hole(&file, 5 * MIB, 20 * MIB).unwrap());
        assert!(!is_hole(&file, 2 * MIB, 4 * MIB).unwrap());
        assert!(punch(&file, 2 * MIB, MIB).unwrap() && is_hole(&file, 2 * MIB, 4 * MIB).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 13 * MIB);
    }

    #[test]
    fn what_is_reserved_behind_a_hole_stays_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_new(&dir.path().join("f")).unwrap();
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 8 << 20).unwrap();
        make_hole(&file, 0, 2 * MIB).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), 2 * MIB);
        assert!((6 * MIB..7 * MIB).contains(&(found.blocks() * 512)), "{}", found.blocks());
    }

    #[test]
    fn zeroes_are_written_where_there_are_no_holes() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_new(&dir.path().join("f")).unwrap();
        file.write_all_at(&[7; 300_000], 0).unwrap();
        write_zeroes(&file, 1, 200_000).unwrap();
        let mut bytes = vec![1; 300_000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[0] == 7 && bytes[1..200_000].iter().all(|b| *b == 0) && bytes[200_000..].iter().all(|b| *b == 7));
    }
}
