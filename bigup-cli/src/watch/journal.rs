//! The files that were pushed, on disk: a restart pushes none of them twice, and reads none of them again.
//!
//! # On disk
//! `NAME.journal` is a text file that only grows: a line for each record, which is its check value (16 hexadecimal digits of
//! the BLAKE3 hash of the rest), a space, and a JSON object. Three kinds:
//! - `{"version":1,"folder":…,"place":…}`: the first line, for people.
//! - `{"path":…,"size":…,"modified":…,"changed":…,"inode":…,"digest":…,"times":…}`: this file, with this fingerprint, is
//!   stored on the server, verified and synced there. `times` counts the contents that were pushed under this path.
//! - `{"path":…,"gone":true}`: nothing is known of this path any more.
//!
//! Of several records of a path the last one counts. `NAME.lock` is empty, and locked for as long as a program has the
//! journal open. `NAME.fresh` is a journal that is being rewritten.
//!
//! # A kill or a power cut at any line
//! A record is written after the server said that the file is stored, and before anything is done to the local file. So:
//!
//! | ended | on disk | the next start |
//! | --- | --- | --- |
//! | before the server has the whole file | no record | pushes it; the server tells which slices it holds |
//! | after that, before the record | no record | reads it once more; the server says that it has it, nothing is sent |
//! | in the middle of the record | a line that is cut short | cuts it off, then as above |
//! | after the record, power cut before a sync | any part of what was not synced | as above; a whole line stands for itself |
//! | before the local file is moved or removed | the record | moves or removes it if its fingerprint is still the same |
//! | after that, before its record `gone` | the record, and no file | forgets it after two scans |
//! | while the journal is rewritten | the old one, and a part of the fresh one | the old one counts; the fresh one is written anew |
//! | after the rename | the fresh one | the fresh one counts; both say the same |
//!
//! A line whose check value is wrong counts for nothing: at worst a file is read once more. No damage makes a file count as
//! stored.
//!
//! # In memory
//! A hash of each path and of its fingerprint: 33 bytes for each file, and the rest of the table.

use crate::download::place::sync_folder;
use crate::source::fingerprint::Fingerprint;
use bigup_core::protocol::digest::{Digest, of_bytes};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Digits of a check value.
const CHECK_LEN: usize = 16;

/// Lines that count for nothing before the journal is rewritten at a start, besides as many as there are files.
const IDLE_LINES: usize = 1000;

/// Complete scans that do not find a file before it is forgotten.
const SCANS: u8 = 2;

/// The version of the format.
const VERSION: u32 = 1;

/// Longest time in which a watch that was killed still has its journal locked.
const ENDING: Duration = Duration::from_secs(2);

/// The journal of a folder, open and locked.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Keeps others away.
    _lock: File,
    /// Bytes of whole lines in the file.
    len: u64,
    /// A write failed: behind `len` may be a part of a line.
    is_torn: bool,
    index: HashMap<u128, Known>,
    scan: u8,
}

/// A file that was pushed.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// A hash of its fingerprint.
    fingerprint: u64,
    /// Number of contents that were pushed.
    times: u16,
    /// The last scan that found it.
    scan: u8,
}

/// The state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not pushed so far.
    New,
    /// It was pushed with other content, so many times.
    Changed(u16),
    /// It was pushed as it is.
    Stored,
}

/// A reason why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another program has it open.
    #[error("another watch of this folder to this place is at work: it has {0} locked")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot {action} {path}: {cause}")]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// A later version wrote it.
    #[error("{path} has the format {version}, this program knows {VERSION}: use the program that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Record {
    Head { version: u32, folder: String, place: String },
    Gone { path: String, gone: bool },
    Stored(Stored),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    path: String,
    size: u64,
    modified: i64,
    changed: i64,
    inode: u64,
    digest: Option<String>,
    times: u16,
}

impl Journal {
    /// Opens the journal of `folder`, whose files go to `place`, in the folder `within`; makes it where there is none.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(within: &Path, folder: &Path, place: &str) -> Result<Journal, JournalError> {
        let shown = folder.display().to_string();
        let id = of_bytes(format!("{}\0{shown}\0{place}", shown.len()).as_bytes()).to_string();
        let path = within.join(format!("watch-{}.journal", &id[..24]));
        fs::create_dir_all(within).map_err(failed("make", within))?;
        let lock = lock(&path.with_extension("lock"))?;
        let mut read = read(&path)?;
        if read.lines > 2 * read.index.len() + IDLE_LINES {
            read.len = rewrite(&path, &read.index, &shown, place).map_err(failed("rewrite", &path))?;
        }
        let is_new = read.lines == 0;
        // Not for appending: Windows would not let us cut off what is torn.
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
        let Read { index, len, .. } = read;
        let mut journal = Journal { path, file, _lock: lock, len, is_torn: true, index, scan: 0 };
        if is_new {
            let head = Record::Head { version: VERSION, folder: shown, place: place.to_owned() };
            journal.append(&head).and_then(|()| journal.sync()).map_err(failed("write", &journal.path))?;
            sync_folder(within).map_err(failed("sync", within))?;
        }
        Ok(journal)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of files that it knows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True if it knows no file.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The state of the file at `path` below the folder, which has this fingerprint. The present scan found it.
    pub fn state(&mut self, path: &str, now: &Fingerprint) -> State {
        let Some(known) = self.index.get_mut(&key(path)) else { return State::New };
        known.scan = self.scan;
        if known.fingerprint == hash(now) { State::Stored } else { State::Changed(known.times) }
    }

    /// Notes that the file at `path` is stored on the server as it was with this fingerprint; `times` counts the contents
    /// that were pushed. The record survives a kill, and a power cut after [`Journal::sync`].
    ///
    /// # Errors
    /// The record cannot be written. This program knows of the file all the same.
    pub fn note(&mut self, path: &str, now: &Fingerprint, digest: Option<Digest>, times: u16) -> io::Result<()> {
        self.index.insert(key(path), Known { fingerprint: hash(now), times, scan: self.scan });
        self.append(&Record::Stored(Stored {
            path: path.to_owned(),
            size: now.size,
            modified: now.modified as i64,
            changed: now.changed as i64,
            inode: now.inode,
            digest: digest.map(|digest| digest.to_string()),
            times,
        }))
    }

    /// Notes that the file at `path` was moved away or removed.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn forget(&mut self, path: &str) -> io::Result<()> {
        match self.index.remove(&key(path)) {
            Some(_) => self.append(&Record::Gone { path: path.to_owned(), gone: true }),
            None => Ok(()),
        }
    }

    /// Makes all records survive a power cut.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A scan of the whole folder begins.
    pub fn begin_scan(&mut self) {
        self.scan = self.scan.wrapping_add(1);
    }

    /// The scan saw everything: what the last scans did not find is forgotten. On disk it stays until the journal is
    /// rewritten.
    pub fn end_scan(&mut self) {
        let scan = self.scan;
        self.index.retain(|_, known| scan.wrapping_sub(known.scan) < SCANS);
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            self.is_torn = false;
        }
        let line = line(record)?;
        // In one write: a kill leaves all of it, mostly.
        if let Err(error) = self.file.write_all(&line) {
            self.is_torn = true;
            return Err(error);
        }
        self.len += line.len() as u64;
        Ok(())
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> JournalError + 'a {
    move |cause| JournalError::Io { action, path: path.to_owned(), cause }
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let file = File::options().create(true).append(true).open(path).map_err(failed("open", path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The system ends a killed watch piece by piece, and its lock is gone a moment after it.
            Err(TryLockError::WouldBlock) if start.elapsed() < ENDING => std::thread::sleep(ENDING / 40),
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(failed("lock", path)(cause)),
        }
    }
}

/// A journal, as it was read.
#[derive(Default)]
struct Read {
    index: HashMap<u128, Known>,
    lines: usize,
    /// Bytes up to the end of the last line.
    len: u64,
}

fn read(path: &Path) -> Result<Read, JournalError> {
    let mut read = Read::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(read),
        Err(error) => return Err(failed("open", path)(error)),
    };
    each_line(file, |record, len| {
        read.lines += 1;
        read.len += len;
        match record {
            Some(Record::Head { version, .. }) if version != VERSION => {
                return Err(JournalError::Version { path: path.to_owned(), version });
            }
            Some(Record::Stored(stored)) => {
                read.index.insert(key(&stored.path), stored.known());
            }
            Some(Record::Gone { path, .. }) => {
                read.index.remove(&key(&path));
            }
            Some(Record::Head { .. }) | None => {}
        }
        Ok(())
    })
    .map_err(failed("read", path))??;
    Ok(read)
}

/// Shows all whole lines of a journal, each with its length in bytes. `None`: its check value is wrong.
fn each_line<E>(file: File, mut show: impl FnMut(Option<Record>, u64) -> Result<(), E>) -> io::Result<Result<(), E>> {
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 16, file), vec![]);
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(Ok(()));
        }
        if let Err(error) = show(parse(&line), line.len() as u64) {
            return Ok(Err(error));
        }
    }
}

/// Writes a journal with only the records that count in place of the one at `path`. Returns its length in bytes.
fn rewrite(path: &Path, index: &HashMap<u128, Known>, folder: &str, place: &str) -> io::Result<u64> {
    let fresh = path.with_extension("fresh");
    let mut file = BufWriter::new(File::create(&fresh)?);
    let mut len = 0;
    let mut put = |record: &Record| {
        let line = line(record)?;
        len += line.len() as u64;
        file.write_all(&line)
    };
    put(&Record::Head { version: VERSION, folder: folder.to_owned(), place: place.to_owned() })?;
    each_line(File::open(path)?, |record, _| match record {
        // An earlier record that says the same does no harm.
        Some(Record::Stored(stored))
            if index.get(&key(&stored.path)).is_some_and(|known| known.fingerprint == stored.known().fingerprint) =>
        {
            put(&Record::Stored(stored))
        }
        _ => Ok(()),
    })??;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(len)
}

impl Stored {
    fn known(&self) -> Known {
        let Stored { size, modified, changed, inode, .. } = *self;
        Known { fingerprint: hash_of(size, modified, changed, inode), times: self.times, scan: 0 }
    }
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{} {json}\n", &of_bytes(json.as_bytes()).to_string()[..CHECK_LEN]).into_bytes())
}

/// The record in a line. `None`: it is damaged.
fn parse(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (check, rest) = line.split_at_checked(CHECK_LEN)?;
    let json = rest.strip_prefix(b" ")?;
    (of_bytes(json).to_string().as_bytes()[..CHECK_LEN] == *check).then(|| serde_json::from_slice(json).ok())?
}

fn key(path: &str) -> u128 {
    u128::from_le_bytes(*of_bytes(path.as_bytes()).0.first_chunk().expect("a digest is longer"))
}

fn hash(now: &Fingerprint) -> u64 {
    hash_of(now.size, now.modified as i64, now.changed as i64, now.inode)
}

fn hash_of(size: u64, modified: i64, changed: i64, inode: u64) -> u64 {
    let fields = [size.to_le_bytes(), modified.to_le_bytes(), changed.to_le_bytes(), inode.to_le_bytes()];
    u64::from_le_bytes(*of_bytes(&fields.concat()).0.first_chunk().expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "http://h/runs/";

    fn open(dir: &tempfile::TempDir) -> Journal {
        Journal::open(dir.path(), Path::new("/watched"), PLACE).unwrap()
    }

    fn at(size: u64) -> Fingerprint {
        Fingerprint { size, modified: 5, changed: 6, inode: 7, volume: 0 }
    }

    #[test]
    fn a_file_is_known_as_it_was_stored_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir);
        assert_eq!(journal.state("a", &at(1)), State::New);
        journal.note("a", &at(1), Some(of_bytes(b"a")), 1).unwrap();
        journal.note("b/c", &at(2), None, 3).unwrap();
        journal.note("gone", &at(1), None, 1).unwrap();
        journal.forget("gone").unwrap();
        drop(journal);
        let mut journal = open(&dir);
        assert_eq!((journal.len(), journal.state("a", &at(1))), (2, State::Stored));
        for other in [
            at(2),
            Fingerprint { modified: 6, ..at(1) },
            Fingerprint { changed: 7, ..at(1) },
            Fingerprint { inode: 8, ..at(1) },
        ] {
            assert_eq!(journal.state("a", &other), State::Changed(1), "{other:?}");
        }
        assert_eq!(journal.state("b/c", &at(1)), State::Changed(3));
        assert_eq!(journal.state("gone", &at(1)), State::New);
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_knows_what_is_whole_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir);
        let mut ends = vec![journal.len];
        for size in 1..=3 {
            journal.note(&format!("f{size}"), &at(size), Some(of_bytes(b"x")), 1).unwrap();
            ends.push(journal.len);
        }
        let path = journal.path().to_owned();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = open(&dir);
            let expected = ends.iter().skip(1).filter(|end| **end <= cut as u64).count();
            assert_eq!(journal.len(), expected, "cut at {cut}");
            journal.note("later", &at(9), None, 1).unwrap();
            drop(journal);
            let mut journal = open(&dir);
            assert_eq!((journal.len(), journal.state("later", &at(9))), (expected + 1, State::Stored), "cut at {cut}");
        }
    }

    #[test]
    fn no_damage_makes_a_file_count_as_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir);
        journal.note("a", &at(1), None, 1).unwrap();
        journal.note("b", &at(2), None, 1).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let mut journal = match Journal::open(dir.path(), Path::new("/watched"), PLACE) {
                Ok(journal) => journal,
                Err(error) => panic!("byte {place}: {error}"),
            };
            assert!(journal.len() <= 2, "byte {place}");
            assert_ne!(journal.state("a", &at(3)), State::Stored, "byte {place}");
            assert_ne!(journal.state("c", &at(1)), State::Stored, "byte {place}");
        }
        // Zeroes are what a power cut leaves of what was not written back.
        fs::write(&path, [&whole[..], &[0; 5000]].concat()).unwrap();
        assert_eq!(open(&dir).len(), 2);
    }

    #[test]
    fn it_is_rewritten_when_most_of_it_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir);
        for size in 0..2 * IDLE_LINES as u64 {
            journal.note("a", &at(size), None, size as u16).unwrap();
        }
        journal.note("b", &at(1), None, 1).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let last = 2 * IDLE_LINES as u64 - 1;
        for _ in 0..2 {
            let mut journal = open(&dir);
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
            assert_eq!((journal.state("a", &at(last)), journal.state("b", &at(1))), (State::Stored, State::Stored));
            assert_eq!(journal.state("a", &at(5)), State::Changed(last as u16));
        }
        assert!(!path.with_extension("fresh").exists());
    }

    #[test]
    fn one_program_has_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir);
        let second = Journal::open(dir.path(), Path::new("/watched"), PLACE);
        assert!(matches!(second, Err(JournalError::InUse(_))));
        Journal::open(dir.path(), Path::new("/watched"), "http://h/other/").unwrap();
        // One that ends just now.
        let ending = std::thread::spawn(move || {
            std::thread::sleep(ENDING / 20);
            drop(journal);
        });
        open(&dir);
        ending.join().unwrap();
    }

    #[test]
    fn a_file_that_two_scans_do_not_find_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir);
        journal.note("a", &at(1), None, 1).unwrap();
        journal.note("b", &at(1), None, 1).unwrap();
        for expected in [2, 1, 1] {
            journal.begin_scan();
            journal.state("a", &at(1));
            journal.end_scan();
            assert_eq!(journal.len(), expected);
        }
    }

    #[test]
    fn a_later_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = open(&dir).path().to_owned();
        let head = Record::Head { version: 2, folder: String::new(), place: String::new() };
        fs::write(&path, line(&head).unwrap()).unwrap();
        let error = Journal::open(dir.path(), Path::new("/watched"), PLACE).unwrap_err();
        assert!(error.to_string().contains("format 2"), "{error}");
    }
}
