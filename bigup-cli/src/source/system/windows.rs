//! Files of Windows.
//!
//! A file is opened so that nobody can write to it meanwhile, and not at all while somebody has it open or mapped for
//! writing: NTFS moves the times of such a file late. So within a push no change goes unseen. Between two pushes a
//! program can change a file and set its times back, and file systems like FAT count two seconds: there only its
//! content tells.

use crate::source::fingerprint::Fingerprint;
use crate::source::system::{SettledFingerprint, Writers};
use bigup_core::protocol::kept::FileMode;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf, Prefix};
use winapi_util::file;

/// Rights of others to a file that we have open (CreateFileW, `dwShareMode`): to read, rename and delete it.
const SHARE_READ_DELETE: u32 = 0x1 | 0x4;

/// The same right to write.
const SHARE_WRITE: u32 = 0x2;

/// An open file with which only its attributes are asked for (CreateFileW, `dwDesiredAccess`). It is in nobody's way.
const ATTRIBUTES_ONLY: u32 = 0;

/// ERROR_SHARING_VIOLATION: another program has the file open in a way that excludes ours.
const SHARING_VIOLATION: i32 = 32;

/// ERROR_LOCK_VIOLATION: another program has locked a part of the file.
const LOCK_VIOLATION: i32 = 33;

/// Time from the beginning of FILETIME, 1601, to 1970, in its unit of 100 ns.
const FROM_1601_TO_1970: i128 = 116_444_736_000_000_000;

/// A program can set all times of a file.
pub const MAY_CHANGE_UNSEEN: bool = true;

/// True if `path` leads to a regular file, and not to a device like `CON` or to a pipe.
///
/// # Errors
/// It cannot be looked at.
pub fn is_regular(path: &Path) -> io::Result<bool> {
    let found = std::fs::metadata(path)?;
    // A folder cannot be opened like this.
    Ok(found.is_file() && file::typ(&look_at(path)?)?.is_disk())
}

/// Opens a regular file for reading, while nobody has it open for writing; from then on nobody can open it so.
///
/// # Errors
/// As the system gives them. `ResourceBusy`: somebody has it open for writing.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).share_mode(SHARE_READ_DELETE).open(path).map_err(in_words)
}

/// The same of a file to which others may write meanwhile.
///
/// # Errors
/// As the system gives them.
pub fn open_written(path: &Path) -> io::Result<File> {
    File::options().read(true).share_mode(SHARE_READ_DELETE | SHARE_WRITE).open(path).map_err(in_words)
}

fn look_at(path: &Path) -> io::Result<File> {
    File::options().access_mode(ATTRIBUTES_ONLY).open(path)
}

/// `error` with words that tell what to do, where the system's do not.
fn in_words(error: io::Error) -> io::Error {
    let words = match error.raw_os_error() {
        Some(SHARING_VIOLATION) => "another program has it open for writing: close it there, and push it again",
        Some(LOCK_VIOLATION) => "another program has locked a part of it: close it there, and push it again",
        _ => return error,
    };
    io::Error::new(ErrorKind::ResourceBusy, words)
}

/// The path without links, `.` and `..`, in the form `\\?\C:\folder\file`.
///
/// # Errors
/// As the system gives them.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    // The system does not find the real path of all: of long ones, and on some drives.
    path.canonicalize().or_else(|_| Ok(verbatim(std::path::absolute(path)?)))
}

/// A path to the same that the system takes as it is, however long, and with names like `CON` or with dots at the end.
/// `path` itself where there is none.
pub fn unambiguous(path: &Path) -> PathBuf {
    real_path(path).unwrap_or_else(|_| path.to_owned())
}

/// An absolute path in the form that the system does not change.
fn verbatim(path: PathBuf) -> PathBuf {
    let mut components = path.components();
    let Some(Component::Prefix(prefix)) = components.next() else { return path };
    let mut whole = match prefix.kind() {
        Prefix::Disk(_) => std::ffi::OsString::from(r"\\?\"),
        Prefix::UNC(..) => std::ffi::OsString::from(r"\\?\UNC"),
        _ => return path,
    };
    match prefix.kind() {
        Prefix::UNC(server, share) => [server, share].iter().for_each(|part| {
            whole.push(r"\");
            whole.push(part);
        }),
        _ => {
            whole.push(prefix.as_os_str());
            whole.push(r"\");
        }
    }
    let mut whole = PathBuf::from(whole);
    whole.extend(components.filter(|component| matches!(component, Component::Normal(_))));
    whole
}

/// True if the system takes `path` as it is, dots and spaces at its end too.
pub fn is_exact(path: &Path) -> bool {
    matches!(path.components().next(), Some(Component::Prefix(prefix)) if prefix.kind().is_verbatim())
}

/// `path` for people: without `\\?\` where it means the same.
pub fn shown(path: &Path) -> Cow<'_, Path> {
    let Some(text) = path.to_str() else { return Cow::Borrowed(path) };
    match (text.strip_prefix(r"\\?\UNC\"), text.strip_prefix(r"\\?\")) {
        (Some(rest), _) => Cow::Owned(PathBuf::from(format!(r"\\{rest}"))),
        (None, Some(rest)) if rest.as_bytes().get(1) == Some(&b':') => Cow::Owned(PathBuf::from(rest)),
        _ => Cow::Borrowed(path),
    }
}

/// The fingerprint of an open file.
///
/// # Errors
/// It cannot be looked at.
pub fn fingerprint_of(file: &File) -> io::Result<Fingerprint> {
    let found = file::information(file)?;
    let modified = i128::from(found.last_write_time().unwrap_or(0));
    Ok(Fingerprint {
        size: found.file_size(),
        modified: (modified - FROM_1601_TO_1970) * 100,
        changed: 0,
        inode: found.file_index(),
        volume: found.volume_serial_number(),
    })
}

/// The fingerprint of what `path` leads to.
///
/// # Errors
/// It cannot be looked at.
pub fn fingerprint_at(path: &Path) -> io::Result<Fingerprint> {
    fingerprint_of(&look_at(path)?)
}

/// The permission bits of an open file: files here have none.
///
/// # Errors
/// None.
pub fn mode_of(_file: &File) -> io::Result<Option<FileMode>> {
    Ok(None)
}

/// True if parts of `file` may be holes: nobody is asked here.
///
/// # Errors
/// None.
pub fn may_have_holes(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// True if these bytes are a hole.
pub fn is_hole(_file: &File, _offset: u64, _len: u64) -> bool {
    false
}

/// Takes the fingerprint of `file`, which nobody can write to as long as it is open.
///
/// # Errors
/// It cannot be looked at.
pub fn settled(file: &File) -> io::Result<SettledFingerprint> {
    Ok(SettledFingerprint { fingerprint: fingerprint_of(file)?, is_certain: true })
}

/// The programs that can be writing to the regular file at `path`: while there are any, it cannot be opened as ours are.
///
/// # Errors
/// It cannot be opened for another reason.
pub fn writers_of(path: &Path) -> io::Result<Writers> {
    match open(path) {
        Ok(_) => Ok(Writers::None),
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(Writers::Some),
        Err(error) => Err(error),
    }
}

/// True: changes below a folder are told to nobody here.
///
/// # Errors
/// None.
pub fn is_shared(_path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// False: here a size of 0 means that there is no content.
///
/// # Errors
/// None.
pub fn hides_content(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Fills `bytes` from `file`, from `offset` on.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_read(bytes, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                bytes = &mut bytes[len..];
                offset += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(in_words(error)),
        }
    }
    Ok(())
}

/// The identity of this machine, which its installation got; empty if it has none.
pub fn machine_id() -> Vec<u8> {
    let key = windows_registry::LOCAL_MACHINE.open(r"SOFTWARE\Microsoft\Cryptography");
    key.and_then(|key| key.get_string("MachineGuid")).unwrap_or_default().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn another_file_of_the_same_size_and_time_has_another_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let time = SystemTime::now() - Duration::from_secs(3600);
        let [one, two] = ["one", "two"].map(|name| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            fingerprint_at(&path).unwrap()
        });
        assert_eq!((one.size, one.modified), (two.size, two.modified));
        assert_ne!(one, two);
        assert_ne!((one.volume, one.inode), (0, 0));
    }

    #[test]
    fn times_are_exact_to_100_nanoseconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::create(&path).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_700);
        file.set_modified(time).unwrap();
        assert_eq!(fingerprint_of(&file).unwrap().modified, 1_700_000_000_123_456_700);
    }

    #[test]
    fn a_file_open_for_writing_is_refused_with_words_and_ours_cannot_be_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let writer = File::create(&path).unwrap();
        let refused = open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        assert!(refused.to_string().contains("another program has it open for writing"), "{refused}");
        drop(writer);
        let ours = open(&path).unwrap();
        assert!(File::options().write(true).open(&path).is_err());
        std::fs::rename(&path, dir.path().join("b")).unwrap();
        drop(ours);
    }

    #[test]
    fn devices_are_no_regular_files() {
        for device in ["NUL", "CON", r"\\.\NUL"] {
            assert!(!is_regular(Path::new(device)).unwrap_or(false), "{device}");
        }
    }

    #[test]
    fn a_path_keeps_its_meaning_without_and_with_its_prefix() {
        for (plain, whole) in [(r"C:\a\b", r"\\?\C:\a\b"), (r"\\server\share\a", r"\\?\UNC\server\share\a")] {
            assert_eq!(verbatim(PathBuf::from(plain)), Path::new(whole));
            assert_eq!(shown(Path::new(whole)), Path::new(plain));
            assert_eq!(shown(Path::new(plain)), Path::new(plain));
        }
        assert_eq!(verbatim(PathBuf::from(r"\\?\C:\a")), Path::new(r"\\?\C:\a"));
        let pipe = Path::new(r"\\?\pipe\x");
        assert_eq!(shown(pipe), pipe);
    }

    #[test]
    fn the_machine_has_an_identity() {
        assert!(!machine_id().is_empty());
    }
}
