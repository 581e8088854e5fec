//! Files of Linux and its relatives.

use crate::source::fingerprint::Fingerprint;
use crate::source::system::{SettledFingerprint, Writers};
use bigup_core::protocol::kept::FileMode;
use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// Number of looks at a file that changes meanwhile, before that counts as being written to.
const LOOKS: usize = 20;

/// No program can set back the time of the last change of bytes or attributes (inode(7), `st_ctime`): where all that a
/// fingerprint has is the same, the bytes are.
pub const MAY_CHANGE_UNSEEN: bool = false;

/// True if `path` leads to a regular file. This opens nothing: opening a named pipe waits for its other end.
///
/// # Errors
/// It cannot be looked at.
pub fn is_regular(path: &Path) -> io::Result<bool> {
    std::fs::metadata(path).map(|found| found.is_file())
}

/// Opens a regular file for reading.
///
/// # Errors
/// As the system gives them.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// The same of a file to which others may write meanwhile.
///
/// # Errors
/// As the system gives them.
pub fn open_written(path: &Path) -> io::Result<File> {
    open(path)
}

/// The path without links, `.` and `..`.
///
/// # Errors
/// As the system gives them.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// A path to the same that the system takes as it is. Here it takes all so.
pub fn unambiguous(path: &Path) -> PathBuf {
    path.to_owned()
}

/// True if the system takes `path` as it is, dots and spaces at its end too.
pub fn is_exact(_path: &Path) -> bool {
    true
}

/// `path` for people.
pub fn shown(path: &Path) -> Cow<'_, Path> {
    Cow::Borrowed(path)
}

/// The fingerprint of an open file.
///
/// # Errors
/// It cannot be looked at.
pub fn fingerprint_of(file: &File) -> io::Result<Fingerprint> {
    file.metadata().map(|found| in_metadata(&found))
}

/// The fingerprint of what `path` leads to.
///
/// # Errors
/// It cannot be looked at.
pub fn fingerprint_at(path: &Path) -> io::Result<Fingerprint> {
    std::fs::metadata(path).map(|found| in_metadata(&found))
}

fn in_metadata(metadata: &Metadata) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Fingerprint {
        size: metadata.len(),
        modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
        changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
        volume: 0,
    }
}

/// The permission bits of an open file.
///
/// # Errors
/// It cannot be looked at.
pub fn mode_of(file: &File) -> io::Result<Option<FileMode>> {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().map(|found| Some(FileMode::of(found.permissions().mode())))
}

/// Takes the fingerprint of `file`, open for reading only, once any change from then on gives it another one.
///
/// A page that is mapped and dirty is written to without moving any time; once it was written to the disk the next
/// change of it moves them. So where somebody may have the file mapped for writing it is synced first.
///
/// # Errors
/// It cannot be looked at, or changes again and again.
pub fn settled(file: &File) -> io::Result<SettledFingerprint> {
    let mut before = fingerprint_of(file)?;
    for _ in 0..LOOKS {
        std::thread::sleep(before.settles_in());
        let has_writers = !has_no_writers(file);
        // A file that cannot be synced is read as it is in memory, like all else.
        let is_synced = !has_writers || file.sync_data().is_ok();
        let fingerprint = fingerprint_of(file)?;
        // All of that time has passed since it was first found so, also where its own times lie ahead.
        if fingerprint == before {
            return Ok(SettledFingerprint {
                fingerprint,
                is_certain: is_synced && !(has_writers && is_in_memory(file)),
            });
        }
        before = fingerprint;
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "it is being written to; push it once it is at rest, or with --growing what is there now",
    ))
}

#[cfg(target_os = "linux")]
fn has_no_writers(file: &File) -> bool {
    super::lease::has_no_writers(file)
}

/// Nobody can be asked.
#[cfg(not(target_os = "linux"))]
fn has_no_writers(_file: &File) -> bool {
    false
}

/// The programs that can be writing to the regular file at `path`: others than this one.
///
/// # Errors
/// It cannot be opened.
pub fn writers_of(path: &Path) -> io::Result<Writers> {
    let mut options = File::options();
    // It may be a named pipe by now.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NONBLOCK);
    let file = options.read(true).open(path)?;
    Ok(writers(&file))
}

#[cfg(target_os = "linux")]
fn writers(file: &File) -> Writers {
    super::lease::writers(file)
}

/// Nobody can be asked.
#[cfg(not(target_os = "linux"))]
fn writers(_file: &File) -> Writers {
    Writers::Unknown
}

/// True if other machines may change what is below the folder `path`, which is told to nobody here: network file systems,
/// and those that a program serves (FUSE).
///
/// # Errors
/// As the system gives them.
#[cfg(target_os = "linux")]
pub fn is_shared(path: &Path) -> io::Result<bool> {
    use bigup_core::shared_file_systems::TYPES;
    use nix::sys::statfs::{FsType, statfs};
    let found = statfs(path)?.filesystem_type();
    Ok(TYPES.iter().any(|known| found == FsType(*known as _)))
}

/// True: nothing is told of any folder here.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn is_shared(_path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// True if `file` lies in memory only, where nothing is ever written to a disk.
#[cfg(target_os = "linux")]
fn is_in_memory(file: &File) -> bool {
    use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
    /// ramfs (linux/magic.h).
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    fstatfs(file).is_ok_and(|found| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type()))
}

/// It is not known of others.
#[cfg(not(target_os = "linux"))]
fn is_in_memory(_file: &File) -> bool {
    false
}

/// True if the size of the file at `path` is told as 0, and it has content all the same, as those of /proc have.
///
/// # Errors
/// It cannot be read.
pub fn hides_content(path: &Path) -> io::Result<bool> {
    use std::io::Read;
    if std::fs::metadata(path)?.len() > 0 {
        return Ok(false);
    }
    let mut options = File::options();
    // Some of them wait for content.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NONBLOCK);
    match options.read(true).open(path)?.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        read => Ok(read? > 0),
    }
}

/// Fills `bytes` from `file`, from `offset` on.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// True if parts of `file` may be holes, which the system can tell from then on.
///
/// # Errors
/// It cannot be looked at.
#[cfg(target_os = "linux")]
pub fn may_have_holes(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata()?;
    // Some file systems told a hole where bytes were yet to be written to the disk (OpenZFS 2.2.0).
    Ok(found.blocks() * 512 < found.len() && file.sync_data().is_ok())
}

/// Nothing is known of others.
#[cfg(not(target_os = "linux"))]
pub fn may_have_holes(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// True if the `len` bytes of `file` from `offset` on are a hole: zeroes that are not on the disk.
#[cfg(target_os = "linux")]
pub fn is_hole(file: &File, offset: u64, len: u64) -> bool {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let (Ok(from), true) = (i64::try_from(offset), file.metadata().is_ok_and(|found| offset + len <= found.len()))
    else {
        return false;
    };
    match lseek(file, from, Whence::SeekData) {
        Ok(data) => data as u64 >= offset + len,
        // No data follows.
        Err(Errno::ENXIO) => true,
        Err(_) => false,
    }
}

/// Nothing is known of others.
#[cfg(not(target_os = "linux"))]
pub fn is_hole(_file: &File, _offset: u64, _len: u64) -> bool {
    false
}

/// The identity of this machine; empty if it has none.
pub fn machine_id() -> Vec<u8> {
    // Linux, see machine-id(5). Its relatives do with paths and times.
    std::fs::read("/etc/machine-id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_file_whose_times_lie_ahead_settles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "a").unwrap();
        let ahead = SystemTime::now() + Duration::new(3600, 1);
        File::options().write(true).open(&path).unwrap().set_modified(ahead).unwrap();
        let settled = settled(&File::open(&path).unwrap()).unwrap();
        assert_eq!(settled.fingerprint, fingerprint_at(&path).unwrap());
        assert!(settled.is_certain);
    }
}
