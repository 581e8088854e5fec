//! What the system says of a file besides its bytes, and reading at a place: the calls that differ between systems,
//! with a portable way beside each.

use std::fs::{File, Metadata};
use std::io;

/// What changes when a file's bytes do.
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

    /// How `later` differs, in words; None where it does not.
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

/// What tells this machine from others; empty where nothing does.
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
        let other = Fingerprint { inode: 2, changed: 2, ..before };
        assert_eq!(before.difference(&other).unwrap(), "replaced by another file");
    }
}
