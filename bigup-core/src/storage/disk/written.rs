//! Write-back: begins it, and tells if the kernel failed at it. Linux only.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE, sync_file_range};
use nix::sys::statfs::{FsType, fstatfs};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// File systems that are known to note each failed write-back in the inode: ext2 to ext4, XFS, Btrfs, and tmpfs, which
/// has no write-back (statfs(2)).
const NOTE_FAILURES: [i64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// An offset that no file reaches, in bytes.
const BEYOND: i64 = 1 << 62;

/// True if the file system of `file` notes in the inode each write-back that fails. False where that is not known.
pub fn notes_failed_writes(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| NOTE_FAILURES.iter().any(|known| found.filesystem_type() == FsType(*known as _)))
}

/// Reports a write-back of `file` that failed and was not yet reported to this descriptor. It neither writes nor waits:
/// SYNC_FILE_RANGE_WAIT_BEFORE (sync_file_range(2)) waits for pages in the range alone, which is beyond any file, and
/// then reports failures of the whole file. A descriptor opened after a failure still gets it if no other descriptor
/// did.
///
/// # Errors
/// Written bytes might never reach the disk; or the file system cannot tell.
pub fn check_no_write_failed(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as its `File` is borrowed, and no memory is passed.
    let status = unsafe { sync_file_range(file.as_raw_fd(), BEYOND, 1, SYNC_FILE_RANGE_WAIT_BEFORE) };
    Errno::result(status).map(drop).map_err(io::Error::from)
}

/// Has the kernel begin to write what was written to `file` to the disk, and waits for nothing (SYNC_FILE_RANGE_WRITE,
/// sync_file_range(2)). It is a head start for the sync that must follow: nothing is durable by it. Where the system has
/// no such call nothing is done.
///
/// # Errors
/// Written bytes might never reach the disk.
pub fn begin_write_back(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as its `File` is borrowed, and no memory is passed.
    let status = unsafe { sync_file_range(file.as_raw_fd(), 0, 0, SYNC_FILE_RANGE_WRITE) };
    match Errno::result(status) {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_can_be_written_is_not_lost() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"x").unwrap();
        check_no_write_failed(&file).unwrap();
        // /proc has nothing to write back.
        assert!(!notes_failed_writes(&File::open("/proc/self/status").unwrap()));
    }
}
