//! FICLONERANGE: sharing blocks between files on file systems that can (XFS, Btrfs). Linux only.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// The kernel's `struct file_clone_range` (linux/fs.h).
#[repr(C)]
pub struct FileCloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

// _IOW(0x94, 13, struct file_clone_range), ioctl_ficlonerange(2).
nix::ioctl_write_ptr!(ficlonerange, 0x94, 13, FileCloneRange);

/// Makes `len` bytes at an offset of `to` share the blocks of those at an offset of `from`.
///
/// # Errors
/// EINVAL: the range is not aligned to blocks, and does not end at the end of `from` and at or past the end of `to`;
/// also for a length of 0, which for the kernel means "all". EOPNOTSUPP, EXDEV: not on this file system.
pub fn clone_range((from, src_offset): (&File, u64), (to, dest_offset): (&File, u64), len: u64) -> nix::Result<()> {
    if len == 0 {
        return Err(nix::errno::Errno::EINVAL);
    }
    let range = FileCloneRange { src_fd: i64::from(from.as_raw_fd()), src_offset, src_length: len, dest_offset };
    // SAFETY: `range` lives through the call and has the layout that this request code asks for; both descriptors are
    // open for as long as their `File`s are borrowed.
    unsafe { ficlonerange(to.as_raw_fd(), &range) }?;
    Ok(())
}
