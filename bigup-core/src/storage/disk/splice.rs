//! Moving bytes between files by way of a pipe (splice(2)): the kernel copies them once, from one file's memory to the
//! other's, in larger steps than copy_file_range(2) takes where the file system leaves the copying to it.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::pipe2;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Bytes that a pipe holds, and that are copied at once. Four times the usual size, since each step has a cost in the
/// file system. Larger pipes were slower where the kernel had to search memory for such large pieces.
const PIPE_LEN: usize = 256 << 10;

/// File systems that copy by themselves, some without the bytes coming here at all: NFS, CIFS, SMB, Ceph, FUSE (statfs(2)).
const COPY_THEMSELVES: [i64; 5] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x6573_5546];

/// True if it is worth while for a file on this file system.
pub fn is_fit_for(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| COPY_THEMSELVES.iter().all(|other| found.filesystem_type() != FsType(*other as _)))
}

/// A pipe, empty between two uses.
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    /// A new one.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn new() -> nix::Result<Pipe> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC)?;
        // Many pipes of one user stay small (pipe(7), pipe-user-pages-soft): slower, not wrong.
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_LEN as i32));
        Ok(Pipe { out, into })
    }

    /// Moves `len` bytes from an offset of one file to an offset of another. After an error bytes can be left in the
    /// pipe: it must not be used any more.
    ///
    /// # Errors
    /// ENODATA: the first file is too short; or as the system gives them.
    pub fn copy(&self, (from, from_offset): (&File, u64), (to, to_offset): (&File, u64), len: u64) -> nix::Result<()> {
        let (mut at, mut to_at) = (from_offset as i64, to_offset as i64);
        let mut left = len;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIPE_LEN);
            let mut held = again(|| splice(from, Some(&mut at), &self.into, None, want, SpliceFFlags::empty()))?;
            if held == 0 {
                return Err(Errno::ENODATA);
            }
            left -= held as u64;
            while held > 0 {
                held -= again(|| splice(&self.out, None, to, Some(&mut to_at), held, SpliceFFlags::empty()))?;
            }
        }
        Ok(())
    }
}

fn again(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
