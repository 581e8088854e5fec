//! Writing at a place, and the last steps of a file: the calls that differ between systems.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Writes `bytes` to `file` from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// As the system gives them.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes `bytes` to `file` from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// As the system gives them.
#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if len == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (bytes, offset) = (&bytes[len..], offset + len as u64);
    }
    Ok(())
}

/// Fills `bytes` from `file`, from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
#[cfg(unix)]
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from `file`, from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, offset) = (&mut bytes[len..], offset + len as u64);
    }
    Ok(())
}

/// Gives the file `from` the name `to`, which no file may have.
///
/// # Errors
/// There is such a file (`AlreadyExists`), or as the system gives them.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems like FAT have no links.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Makes sure that the names in `folder` survive a power cut, where the system can.
///
/// # Errors
/// As the system gives them.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}
