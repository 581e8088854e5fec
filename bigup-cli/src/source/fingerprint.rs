//! The system's view of a file besides its bytes, and reading at a place: the calls that differ between systems,
//! with a portable way beside each.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time after a change in which the kernel can still give the next change the same time: its clock tick, 10 ms at most.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// The same where a file system keeps whole seconds, two of them on FAT.
const WHOLE_SECONDS: Duration = Duration::from_millis(2020);

/// Number of looks at a file that changes meanwhile, before that counts as being written to.
const LOOKS: usize = 20;

/// The attributes that change when a file's bytes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the bytes, in nanoseconds since 1970.
    pub modified: i128,
    /// Time of the last change of bytes or attributes, which no program can set back; 0 where the system has none.
    pub changed: i128,
    /// Number of the file within its file system; 0 where the system has none.
    pub inode: u64,
}

impl Fingerprint {
    /// The fingerprint in `metadata`.
    #[cfg(unix)]
    pub fn of(metadata: &Metadata) -> Fingerprint {
        use std::os::unix::fs::MetadataExt;
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Fingerprint {
            size: metadata.len(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// The fingerprint in `metadata`.
    #[cfg(not(unix))]
    pub fn of(metadata: &Metadata) -> Fingerprint {
        let since_1970 = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).ok();
        let modified = metadata.modified().ok().and_then(since_1970).map_or(0, |time| time.as_nanos() as i128);
        Fingerprint { size: metadata.len(), modified, changed: 0, inode: 0 }
    }

    /// True if `later` has another time of change, and nothing else: a link to the file was made, its mode was changed,
    /// or its bytes were and the time of that was set back.
    pub fn differs_in_attributes(&self, later: &Fingerprint) -> bool {
        self.changed != later.changed && *self == Fingerprint { changed: self.changed, ..*later }
    }

    /// Time until a change from then on gives another fingerprint than this one, which was just taken. Zero: any
    /// change from now on does.
    fn settles_in(&self) -> Duration {
        // No file system with finer times gives whole seconds often; then the wait is in vain, and short.
        let is_coarse = self.changed.max(self.modified) % 1_000_000_000 == 0;
        let step = if is_coarse { WHOLE_SECONDS } else { CLOCK_TICK };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        let age = now - self.changed.max(self.modified);
        // A time that lies ahead is another machine's, or the clock was set: nobody knows how old it is.
        if age >= step.as_nanos() as i128 { Duration::ZERO } else { step }
    }

    /// The differences of `later`, in words. `None`: there is no difference.
    pub fn difference(&self, later: &Fingerprint) -> Option<String> {
        let mut differences = Vec::new();
        if self.size != later.size {
            differences.push(format!("size {} -> {} bytes", self.size, later.size));
        }
        if self.inode != later.inode {
            differences.push("replaced by another file".to_owned());
        }
        if self.modified != later.modified {
            differences.push("written to".to_owned());
        } else if self.changed != later.changed && differences.is_empty() {
            differences.push("attributes changed".to_owned());
        }
        if differences.is_empty() { None } else { Some(differences.join(", ")) }
    }
}

/// The fingerprint of a file, taken so that a change from now on gives it another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledFingerprint {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// True if it can be believed. False: somebody may write to the file through a memory map, which moves no time
    /// there.
    pub is_certain: bool,
}

/// Takes the fingerprint of `file`, open for reading only, once any change from then on gives it another one.
///
/// A page that is mapped and dirty is written to without moving any time; once it was written to the disk the next
/// change of it moves them. So where somebody may have the file mapped for writing it is synced first.
///
/// # Errors
/// It cannot be looked at, or changes again and again.
pub fn settled(file: &File) -> io::Result<SettledFingerprint> {
    let mut before = Fingerprint::of(&file.metadata()?);
    for _ in 0..LOOKS {
        std::thread::sleep(before.settles_in());
        let has_writers = !has_no_writers(file);
        // A file that cannot be synced is read as it is in memory, like all else.
        let is_synced = !has_writers || file.sync_data().is_ok();
        let fingerprint = Fingerprint::of(&file.metadata()?);
        if fingerprint == before && fingerprint.settles_in().is_zero() {
            return Ok(SettledFingerprint {
                fingerprint,
                is_certain: is_synced && !(has_writers && is_in_memory(file)),
            });
        }
        before = fingerprint;
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is being written to; push it once it is at rest"))
}

#[cfg(target_os = "linux")]
fn has_no_writers(file: &File) -> bool {
    crate::source::lease::has_no_writers(file)
}

/// Nobody can be asked.
#[cfg(not(target_os = "linux"))]
fn has_no_writers(_file: &File) -> bool {
    false
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

/// True if the file at `path`, whose size is told as 0, has content all the same, as those of /proc have.
///
/// # Errors
/// It cannot be read.
pub fn hides_content(path: &Path) -> io::Result<bool> {
    use std::io::Read;
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
#[cfg(unix)]
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from `file`, from `offset` on; moves the file's cursor, so that one thread at a time may read.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
#[cfg(not(unix))]
pub fn read_exact_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

/// The identity of this machine; empty if it has none.
pub fn machine_id() -> Vec<u8> {
    // Linux, see machine-id(5). Elsewhere paths and times have to do.
    std::fs::read("/etc/machine-id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_with_both_numbers() {
        let before = Fingerprint { size: 100, modified: 1, changed: 1, inode: 1 };
        assert_eq!(before.difference(&before), None);
        let grown = Fingerprint { size: 120, modified: 2, changed: 2, ..before };
        assert_eq!(before.difference(&grown).unwrap(), "size 100 -> 120 bytes, written to");
        let sly = Fingerprint { changed: 2, ..before };
        assert_eq!(before.difference(&sly).unwrap(), "attributes changed");
        assert!(before.differs_in_attributes(&sly) && !before.differs_in_attributes(&before));
        assert!(!before.differs_in_attributes(&grown));
        let other = Fingerprint { inode: 2, changed: 2, ..before };
        assert_eq!(before.difference(&other).unwrap(), "replaced by another file");
        assert!(!before.differs_in_attributes(&other));
    }

    #[test]
    fn a_time_is_certain_once_the_clock_that_gave_it_has_moved_on() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let at = |changed: i128| Fingerprint { size: 1, modified: changed, changed, inode: 1 }.settles_in();
        let second = now - now % 1_000_000_000;
        assert_eq!(at(second), WHOLE_SECONDS, "of a clock of whole seconds");
        assert_eq!(at(second - 2_000_000_001), Duration::ZERO);
        assert_eq!(at(second - 3_000_000_000), Duration::ZERO);
        assert_eq!(at((now | 1) + 3_600_000_000_001), CLOCK_TICK, "it lies ahead");
    }
}
