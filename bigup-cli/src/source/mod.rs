//! Sources of known size: a regular file, or standard input that was short.
//!
//! A file is read under our hands by nobody's leave, so it is watched: after every read the open file must still have
//! the fingerprint it had when it was opened, else what was read is never sent. Where the fingerprint cannot tell
//! ([`Source::doubts`]) the file is read twice: what is the same in both was there at the moment between them.
//!
//! Only what is read lives here. It uses files, processes and digests. No connection and no protocol comes in.

use crate::buffer::Buffer;
use crate::source::error::SourceError;
use crate::source::fingerprint::Fingerprint;
use crate::source::system::SettledFingerprint;
use crate::stop::{StopSignal, is_closed};
use bigup_core::protocol::digest::{Digest, DigestKind, SliceHasher};
use bigup_core::protocol::kept::{FileTime, Kept};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub mod error;
pub mod fingerprint;
pub mod producer;
pub mod system;

/// Digits of a source token: 128 bits.
const TOKEN_LEN: usize = 32;

/// Attempts to hash a file that gets other attributes meanwhile.
const HASH_ATTEMPTS: usize = 5;

/// Bytes read at a time where a file is only hashed.
const HASH_READ_LEN: u64 = 1 << 20;

/// Bytes that can be read at any place, again and again.
pub trait Source: Sync {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// The token that stands for the bytes: equal tokens stand for equal bytes, unless [`Source::may_change_unseen`].
    fn token(&self) -> &str;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// They cannot be read, or are not what they were when the source was opened.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError>;

    /// True if all of the `len` bytes from `offset` on are known to be zeroes without reading them.
    ///
    /// # Errors
    /// The bytes are not what they were when the source was opened.
    fn is_hole(&self, _offset: u64, _len: u64) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Checks that what stands under the source's name is still what was opened.
    ///
    /// # Errors
    /// It is not.
    fn check_name(&self) -> Result<(), SourceError>;

    /// The facts beside the bytes that can be kept.
    fn kept(&self) -> Kept {
        Kept::default()
    }

    /// Number of reads after which a change of the bytes was possible. Where this number is the same before and after
    /// reading, and nothing failed, what was read is of one moment; else only reading it again tells.
    fn doubts(&self) -> u64 {
        0
    }

    /// True if the bytes may have been others at an earlier push with the same token. Then what the server holds counts
    /// for nothing before it was compared with ours.
    fn may_change_unseen(&self) -> bool {
        false
    }
}

/// A regular file.
pub struct LocalFile {
    file: File,
    path: PathBuf,
    /// As it must be found: as it was opened, but for attributes that changed since.
    known: Mutex<Fingerprint>,
    size: u64,
    /// True if its fingerprint tells of every change.
    is_certain: bool,
    doubts: AtomicU64,
    token: String,
    kept: Kept,
    /// True if parts of it may be holes.
    is_sparse: bool,
    /// True if it may grow: only what was there when it was opened counts.
    may_grow: bool,
}

/// Bytes in memory.
pub struct Memory {
    bytes: Buffer,
    token: String,
}

impl LocalFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// It is no regular file, or cannot be opened.
    pub fn open(path: &Path) -> Result<LocalFile, SourceError> {
        LocalFile::open_as(path, false)
    }

    /// Opens `path`, a file that may grow, or get another name, while it is pushed: the source is what is there now. It is
    /// read twice. If a byte of it differs then, nothing is stored.
    ///
    /// # Errors
    /// It is no regular file, or cannot be opened.
    pub fn open_growing(path: &Path) -> Result<LocalFile, SourceError> {
        LocalFile::open_as(path, true)
    }

    fn open_as(path: &Path, may_grow: bool) -> Result<LocalFile, SourceError> {
        let shown = system::shown(path);
        let failed = |action| {
            let path = shown.to_path_buf();
            move |cause| SourceError::Io { action, path, cause }
        };
        // Before opening: that would wait forever for the other end of a named pipe.
        if !system::is_regular(path).map_err(failed("look at"))? {
            return Err(SourceError::NotAFile(shown.into_owned()));
        }
        if system::hides_content(path).map_err(failed("read"))? {
            return Err(SourceError::HiddenContent(path.to_owned()));
        }
        let open = if may_grow { system::open_written } else { system::open };
        let file = open(path).map_err(failed("open"))?;
        let real_path = system::real_path(path).map_err(failed("find"))?;
        let settled = if may_grow {
            let now = system::fingerprint_of(&file);
            now.map(|fingerprint| SettledFingerprint { fingerprint, is_certain: false })
        } else {
            system::settled(&file)
        };
        let SettledFingerprint { fingerprint, is_certain } = settled.map_err(failed("look at"))?;
        let token = match (may_grow, is_certain) {
            // As long as it is, it may be the same; what the server holds is compared.
            (true, _) => token(&real_path, &Fingerprint { modified: 0, changed: 0, ..fingerprint }),
            (false, true) => token(&real_path, &fingerprint),
            (false, false) => random_token(),
        };
        let mode = system::mode_of(&file).map_err(failed("look at"))?;
        let kept = Kept { modified: FileTime::new(fingerprint.modified), mode };
        let (known, doubts) = (Mutex::new(fingerprint), AtomicU64::new(0));
        let is_sparse = system::may_have_holes(&file).map_err(failed("look at"))?;
        let (path, size) = (path.to_owned(), fingerprint.size);
        Ok(LocalFile { file, path, known, size, is_certain, doubts, token, kept, is_sparse, may_grow })
    }

    /// Its fingerprint as it was opened, or with attributes that changed since. Other bytes than those of this fingerprint
    /// are never read.
    pub fn fingerprint(&self) -> Fingerprint {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, now: io::Result<Fingerprint>) -> Result<(), SourceError> {
        let now = now.map_err(|cause| SourceError::Io { action: "look at", path: self.shown(), cause })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.differs_in_attributes(&now) || !self.is_certain {
            self.doubts.fetch_add(1, Ordering::Relaxed);
        }
        let is_same_file = (known.volume, known.inode) == (now.volume, now.inode);
        if self.may_grow && is_same_file && now.size >= self.size {
            return Ok(());
        }
        if known.differs_in_attributes(&now) {
            log::debug!("{}: attributes changed; it will be read again", self.path.display());
            *known = now;
            return Ok(());
        }
        match known.difference(&now) {
            Some(difference) => Err(SourceError::Changed(difference)),
            None => Ok(()),
        }
    }

    /// The path for messages.
    fn shown(&self) -> PathBuf {
        system::shown(&self.path).into_owned()
    }
}

impl Source for LocalFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        let read = system::read_exact_at(&self.file, bytes, offset);
        // Before the outcome of the read: a file that was cut short is told as changed.
        self.check(system::fingerprint_of(&self.file))?;
        read.map_err(|cause| SourceError::Read { path: self.shown(), offset, len: bytes.len(), cause })
    }

    fn is_hole(&self, offset: u64, len: u64) -> Result<bool, SourceError> {
        if !self.is_sparse || !system::is_hole(&self.file, offset, len) {
            return Ok(false);
        }
        // As after a read: it was a hole before any change.
        self.check(system::fingerprint_of(&self.file)).map(|()| true)
    }

    fn check_name(&self) -> Result<(), SourceError> {
        // A log that grows may be renamed, and another one takes its name.
        let now = if self.may_grow { system::fingerprint_of(&self.file) } else { system::fingerprint_at(&self.path) };
        self.check(now)
    }

    fn kept(&self) -> Kept {
        self.kept
    }

    fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    fn may_change_unseen(&self) -> bool {
        system::MAY_CHANGE_UNSEEN || self.may_grow
    }
}

impl Memory {
    /// Takes `bytes`, which no other push has.
    pub fn new(bytes: Buffer) -> Memory {
        Memory { bytes, token: random_token() }
    }
}

impl Source for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        let from = usize::try_from(offset).map_err(|_| SourceError::BeyondTheEnd)?;
        let to = from.checked_add(bytes.len()).ok_or(SourceError::BeyondTheEnd)?;
        bytes.copy_from_slice(self.bytes.get(from..to).ok_or(SourceError::BeyondTheEnd)?);
        Ok(())
    }

    fn check_name(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The plain BLAKE3 hash of all of `source` as it was at one moment, what `b3sum` prints.
///
/// # Errors
/// It cannot be read, or changed, or `stop` ended the reading.
pub fn hash_all(source: &dyn Source, stop: &StopSignal) -> Result<Digest, SourceError> {
    let mut before = None;
    for _ in 0..HASH_ATTEMPTS {
        let doubts = source.doubts();
        let digest = hash_once(source, stop)?;
        source.check_name()?;
        if source.doubts() == doubts || before == Some(digest) {
            return Ok(digest);
        }
        before = Some(digest);
    }
    Err(SourceError::ReadsDifferently)
}

fn hash_once(source: &dyn Source, stop: &StopSignal) -> Result<Digest, SourceError> {
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    read_pieces(source, 0, source.size(), stop, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish().digest)
}

/// Shows the `len` bytes of `source` from `offset` on to `show`, piece by piece.
///
/// # Errors
/// They cannot be read, or changed, or `stop` ended the reading.
pub fn read_pieces(
    source: &dyn Source,
    offset: u64,
    len: u64,
    stop: &StopSignal,
    mut show: impl FnMut(&[u8]),
) -> Result<(), SourceError> {
    let mut bytes = vec![0; HASH_READ_LEN.min(len) as usize];
    let mut done = 0;
    while done < len {
        if is_closed(stop) {
            return Err(SourceError::Stopped);
        }
        let part = &mut bytes[..HASH_READ_LEN.min(len - done) as usize];
        source.read_at(offset + done, part)?;
        show(part);
        done += part.len() as u64;
    }
    Ok(())
}

/// A token that stands for bytes that nobody else has.
pub fn random_token() -> String {
    let mut bytes = [0; TOKEN_LEN / 2];
    if getrandom::fill(&mut bytes).is_err() {
        // Unlike enough: the server compares what it holds in any case where tokens differ.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = (now ^ u128::from(std::process::id()) << 96).to_ne_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The token of a file: opaque, and another one once anything about the file is.
fn token(real_path: &Path, fingerprint: &Fingerprint) -> String {
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    let Fingerprint { size, modified, changed, inode, volume } = fingerprint;
    // Where there is none, the token is that of earlier versions.
    let volume = if *volume == 0 { String::new() } else { format!("{volume} ") };
    let attributes = format!("{volume}{inode} {size} {modified} {changed}");
    let path = real_path.as_os_str().as_encoded_bytes();
    for field in [&system::machine_id()[..], path, attributes.as_bytes()] {
        // The length goes first, so that no two lists of fields look alike.
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    let mut digits = hasher.finish().digest.to_string();
    digits.truncate(TOKEN_LEN);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::never;

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_token_stays_while_the_file_does_and_changes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one");
        let token = |path: &Path| LocalFile::open(path).unwrap().token;
        let first = token(&path);
        assert_eq!((first.len(), &first), (32, &token(&path)));
        write(&path, b"two");
        assert_ne!(first, token(&path), "same size, other bytes");
        assert_ne!(random_token(), random_token());
    }

    // Windows lets nobody do that while it is open.
    #[cfg(unix)]
    #[test]
    fn a_file_that_grew_is_told_with_both_sizes() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[1; 100]);
        let source = LocalFile::open(&path).unwrap();
        let mut bytes = [0; 50];
        source.read_at(0, &mut bytes).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(&[2; 20]).unwrap();
        let message = source.read_at(50, &mut bytes).unwrap_err().to_string();
        assert!(message.contains("size 100 -> 120 bytes") && message.contains("nothing mixed"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn of_a_growing_file_counts_what_was_there_when_it_was_opened() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[1; 100]);
        let mut writer = File::options().append(true).open(&path).unwrap();
        let source = LocalFile::open_growing(&path).unwrap();
        let mut bytes = [0; 50];
        source.read_at(0, &mut bytes).unwrap();
        writer.write_all(&[2; 20]).unwrap();
        source.read_at(50, &mut bytes).unwrap();
        std::fs::rename(&path, dir.path().join("a.1")).unwrap();
        source.check_name().unwrap();
        assert_eq!((source.size(), bytes), (100, [1; 50]));
        assert!(source.doubts() > 0 && source.may_change_unseen(), "it is read again");
        assert_eq!(hash_all(&source, &never()).unwrap(), bigup_core::protocol::digest::of_bytes(&[1; 100]));
        writer.set_len(99).unwrap();
        let message = source.read_at(0, &mut bytes).unwrap_err().to_string();
        assert!(message.contains("size 100 -> 99 bytes"), "{message}");
    }

    // Windows lets nobody do that while it is open.
    #[cfg(unix)]
    #[test]
    fn a_file_that_was_cut_short_is_told_as_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[1; 100]);
        let source = LocalFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        let message = source.read_at(50, &mut [0; 50]).unwrap_err().to_string();
        assert!(message.contains("size 100 -> 10 bytes"), "{message}");
    }

    // Windows lets nobody do that while it is open.
    #[cfg(unix)]
    #[test]
    fn a_file_replaced_under_its_name_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        write(&path, b"one");
        let source = LocalFile::open(&path).unwrap();
        write(&other, b"two");
        source.check_name().unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(source.check_name().unwrap_err().to_string().contains("replaced"));
    }

    #[cfg(unix)]
    #[test]
    fn other_attributes_are_a_doubt_that_reading_again_settles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one");
        let source = LocalFile::open(&path).unwrap();
        assert_eq!((source.check_name().unwrap(), source.doubts()), ((), 0));
        std::fs::hard_link(&path, dir.path().join("b")).unwrap();
        source.check_name().unwrap();
        assert_eq!(source.doubts(), 1);
        assert_eq!(hash_all(&source, &never()).unwrap(), bigup_core::protocol::digest::of_bytes(b"one"));
        assert_eq!(source.doubts(), 1);
    }

    /// Another byte with every reading.
    struct Restless(AtomicU64);

    impl Source for Restless {
        fn size(&self) -> u64 {
            1
        }

        fn token(&self) -> &str {
            ""
        }

        fn read_at(&self, _offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
            bytes[0] = self.0.fetch_add(1, Ordering::Relaxed) as u8;
            Ok(())
        }

        fn check_name(&self) -> Result<(), SourceError> {
            Ok(())
        }

        fn doubts(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn what_is_doubted_and_reads_differently_has_no_hash() {
        let message = hash_all(&Restless(AtomicU64::new(0)), &never()).unwrap_err().to_string();
        assert!(message.contains("reads differently"), "{message}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_of_proc_is_refused() {
        let message = LocalFile::open(Path::new("/proc/version")).err().unwrap().to_string();
        assert!(message.contains("/proc/version") && message.contains("has content"), "{message}");
    }

    #[test]
    fn folders_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(LocalFile::open(dir.path()).err().unwrap().to_string().contains("not a regular file"));
    }

    fn memory(bytes: &[u8]) -> Memory {
        let mut buffer = Buffer::new(bytes.len()).unwrap();
        buffer.copy_from_slice(bytes);
        Memory::new(buffer)
    }

    #[test]
    fn the_hash_is_the_plain_one() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let source = memory(&bytes);
        assert_eq!(hash_all(&source, &never()).unwrap(), bigup_core::protocol::digest::of_bytes(&bytes));
        assert_eq!(hash_all(&memory(b""), &never()).unwrap(), bigup_core::protocol::digest::of_bytes(b""));
    }
}
