//! Copying a range of a file into another by the fastest way that the file system has.

use super::splice::{self, Pipe};
use super::{read_range, reflink};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The way in which bytes got from a source file into a target file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyMethod {
    /// FICLONERANGE (ioctl_ficlonerange(2)): both files share the blocks.
    Reflink,
    /// splice(2): the kernel copied.
    Splice,
    /// copy_file_range(2): the kernel copied, or the file system.
    CopyFileRange,
    /// Read and written.
    ReadWrite,
}

impl fmt::Display for CopyMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CopyMethod::Reflink => "reflink",
            CopyMethod::Splice => "splice",
            CopyMethod::CopyFileRange => "copy_file_range",
            CopyMethod::ReadWrite => "read and write",
        })
    }
}

/// The reason a range was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source could not be written back (ioctl_ficlonerange(2), EIO), as before a failed sync of it. Its bytes
    /// might never reach the disk, although another attempt could succeed.
    #[error("writing it back: {0}")]
    SourceLost(io::Error),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> io::Error {
        match error {
            CopyError::SourceLost(cause) => io::Error::new(cause.kind(), CopyError::SourceLost(cause).to_string()),
            CopyError::Io(cause) => cause,
        }
    }
}

/// Copies ranges between files by the best method that works, found out at run time and remembered.
///
/// Each method that the file system does not have is tried once. A reflink that fails for its alignment alone (EINVAL)
/// is tried again with the next range.
pub struct Copier {
    reflink: bool,
    splice: bool,
    pipe: Option<Pipe>,
    copy_file_range: bool,
}

impl Default for Copier {
    fn default() -> Copier {
        Copier::new()
    }
}

impl Copier {
    /// Begins with all methods.
    pub fn new() -> Copier {
        Copier { reflink: true, splice: true, pipe: None, copy_file_range: true }
    }

    /// Copies the first `len` bytes of `from` to `offset` of `to`; says which method did it.
    ///
    /// # Errors
    /// `from` is shorter, or as the system gives them. Part of the range can be written then.
    pub fn copy(&mut self, from: &File, to: &File, offset: u64, len: u64) -> Result<CopyMethod, CopyError> {
        self.copy_range((from, 0), (to, offset), len)
    }

    /// Copies `len` bytes from an offset of one file to an offset of another; says which method did it.
    ///
    /// # Errors
    /// As for [`Copier::copy`].
    pub fn copy_range(&mut self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<CopyMethod, CopyError> {
        if self.reflink {
            match reflink::clone_range(from, to, len) {
                Ok(()) => return Ok(CopyMethod::Reflink),
                Err(Errno::EINVAL) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EXDEV | Errno::ENOSYS | Errno::EPERM) => {
                    self.reflink = false;
                }
                Err(Errno::EIO) => return Err(CopyError::SourceLost(Errno::EIO.into())),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        if self.splice {
            match self.splice(from, to, len) {
                Ok(()) => return Ok(CopyMethod::Splice),
                Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => self.splice = false,
                Err(e) => return Err(failed(e)),
            }
        }
        if self.copy_file_range {
            match copy_in_kernel(from, to, len) {
                Ok(()) => return Ok(CopyMethod::CopyFileRange),
                Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                    self.copy_file_range = false;
                }
                Err(e) => return Err(failed(e)),
            }
        }
        copy_by_hand(from, to, len)?;
        Ok(CopyMethod::ReadWrite)
    }

    /// EOPNOTSUPP where the file system has a better way.
    fn splice(&mut self, from: (&File, u64), to: (&File, u64), len: u64) -> nix::Result<()> {
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None if !splice::is_fit_for(to.0) => return Err(Errno::EOPNOTSUPP),
            None => Pipe::new()?,
        };
        pipe.copy(from, to, len)?;
        self.pipe = Some(pipe);
        Ok(())
    }
}

/// ENODATA means that the source is too short: the calls themselves never give it.
fn failed(error: Errno) -> CopyError {
    match error {
        Errno::ENODATA => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        error => io::Error::from(error).into(),
    }
}

/// copy_file_range(2) until all is there. ENODATA (which the call itself never gives) means that `from` is too short.
fn copy_in_kernel((from, from_offset): (&File, u64), (to, to_offset): (&File, u64), len: u64) -> nix::Result<()> {
    let (mut at, mut to_at, end) = (from_offset as i64, to_offset as i64, from_offset + len);
    while (at as u64) < end {
        let left = usize::try_from(end - at as u64).unwrap_or(usize::MAX);
        if copy_file_range(from, Some(&mut at), to, Some(&mut to_at), left)? == 0 {
            return Err(Errno::ENODATA);
        }
    }
    Ok(())
}

fn copy_by_hand((from, from_offset): (&File, u64), (to, to_offset): (&File, u64), len: u64) -> io::Result<()> {
    let (mut end, mut written) = (to_offset, Ok(()));
    read_range(from, from_offset, len, |bytes| {
        if written.is_ok() {
            written = to.write_all_at(bytes, end);
            end += bytes.len() as u64;
        }
    })?;
    written
}

#[cfg(test)]
mod tests {
    use super::super::{create_new, open_regular};
    use super::*;
    use std::fs;

    #[test]
    fn every_copy_method_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let source: Vec<u8> = (0..700_001_u32).map(|i| (i % 253) as u8).collect();
        let from_path = dir.path().join("from");
        fs::write(&from_path, &source).unwrap();
        for (reflink, splice, copy_file_range) in
            [(true, true, true), (false, true, true), (false, false, true), (false, false, false)]
        {
            for len in [0, 1, 4096, source.len() as u64] {
                let to = create_new(&dir.path().join(format!("{reflink}{splice}{copy_file_range}{len}"))).unwrap();
                to.write_all_at(b"head", 0).unwrap();
                let mut copier = Copier { reflink, splice, copy_file_range, pipe: None };
                copier.copy(&open_regular(&from_path).unwrap(), &to, 4, len).unwrap();
                let mut got = vec![0; len as usize];
                to.read_exact_at(&mut got, 4).unwrap();
                assert!(got == source[..len as usize]);
                assert_eq!(to.metadata().unwrap().len(), 4 + len);
            }
        }
    }

    #[test]
    fn copying_more_than_there_is_fails() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("from"), "short").unwrap();
        let from = open_regular(&dir.path().join("from")).unwrap();
        for (splice, copy_file_range) in [(true, true), (false, true), (false, false)] {
            let to = create_new(&dir.path().join(format!("to{splice}{copy_file_range}"))).unwrap();
            let mut copier = Copier { reflink: false, splice, copy_file_range, pipe: None };
            let error = copier.copy(&from, &to, 0, 6).unwrap_err();
            let error = io::Error::from(error);
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
