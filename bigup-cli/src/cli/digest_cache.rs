//! Digests of local files that were read before, so that `sync` reads only files that changed.
//!
//! A digest holds for a file with the same fingerprint: size, times of the last change of bytes and of anything, number of
//! the file. No program can set back the second time (stat(2), `st_ctim`). Files that were changed a moment ago are not
//! noted: a later change could have the same times. If the cache is lost, files are read again.

use crate::source::fingerprint::Fingerprint;
use bigup_core::protocol::digest::{Digest, of_bytes};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Age of a change from which on a later one has other times, also on file systems that keep whole seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// The digests of the files in a folder.
#[derive(Debug, Default)]
pub struct DigestCache {
    /// `None`: there is no place for it.
    path: Option<PathBuf>,
    known: HashMap<String, Entry>,
    /// Entries were noted that the file has not.
    has_news: bool,
}

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    size: u64,
    modified: i64,
    changed: i64,
    inode: u64,
    digest: Digest,
    /// It was asked for or noted, and is kept.
    is_kept: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    size: u64,
    modified: i64,
    changed: i64,
    inode: u64,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

impl DigestCache {
    /// The digests of the files in `folder`, as far as they are known. A cache that cannot be read knows none.
    pub fn of(folder: &Path) -> DigestCache {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let id = of_bytes(folder.as_os_str().as_encoded_bytes()).to_string();
        let path = place().map(|place| place.join(format!("digests-{}.jsonl", &id[..32])));
        let known = path.as_ref().and_then(|path| File::open(path).ok()).map(read).unwrap_or_default();
        DigestCache { path, known, has_news: false }
    }

    /// The digest of the file at `path`, if it has this fingerprint since it was read.
    pub fn get(&mut self, path: &Path, now: &Fingerprint) -> Option<Digest> {
        let entry = self.known.get_mut(path.to_str()?).filter(|entry| entry.fits(now))?;
        entry.is_kept = true;
        Some(entry.digest)
    }

    /// The file at `path` with this fingerprint has this digest.
    pub fn note(&mut self, path: &Path, now: &Fingerprint, digest: Digest) {
        if let (Some(path), true) = (path.to_str(), is_settled(now)) {
            self.known.insert(path.to_owned(), Entry::of(now, digest));
            self.has_news = true;
        }
    }

    /// True if the size and the time of the file at `path` may tell that it is the same: it was at rest for a while, and
    /// it is not known to have changed since it was read.
    pub fn may_be_told_by_time(&self, path: &Path, now: &Fingerprint) -> bool {
        let entry = path.to_str().and_then(|path| self.known.get(path));
        is_settled(now) && entry.is_none_or(|entry| entry.fits(now))
    }

    /// Keeps the digests of all files that were asked for or noted.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn keep(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if !self.has_news && self.known.values().all(|entry| entry.is_kept) {
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        // Under a name of its own first, so that a kill leaves the old one or the new one.
        let fresh = path.with_extension(format!("{}", std::process::id()));
        let mut file = BufWriter::new(File::create(&fresh)?);
        for (path, entry) in self.known.iter().filter(|(_, entry)| entry.is_kept) {
            serde_json::to_writer(&mut file, &entry.line(path))?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        fs::rename(&fresh, path)
    }
}

/// The entries of the file of a cache, up to the first that cannot be read.
fn read(file: File) -> HashMap<String, Entry> {
    let (mut file, mut text, mut known) = (BufReader::new(file), String::new(), HashMap::new());
    while file.read_line(&mut text).is_ok_and(|len| len > 0) {
        if let Some((path, entry)) = serde_json::from_str(&text).ok().and_then(Entry::of_line) {
            known.insert(path, entry);
        }
        text.clear();
    }
    known
}

/// True if the last change is so long ago that a later one has other times.
fn is_settled(now: &Fingerprint) -> bool {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128 - now.last_change();
    age > SETTLED.as_nanos() as i128
}

impl Entry {
    fn of(found: &Fingerprint, digest: Digest) -> Entry {
        let (modified, changed) = (found.modified as i64, found.changed as i64);
        Entry { size: found.size, modified, changed, inode: found.inode, digest, is_kept: true }
    }

    fn of_line(line: Line<'_>) -> Option<(String, Entry)> {
        let Line { path, size, modified, changed, inode, digest } = line;
        Some((
            path.into_owned(),
            Entry { size, modified, changed, inode, digest: digest.parse().ok()?, is_kept: false },
        ))
    }

    fn line<'a>(&self, path: &'a str) -> Line<'a> {
        let Entry { size, modified, changed, inode, digest, .. } = *self;
        Line { path: path.into(), size, modified, changed, inode, digest: digest.to_string().into() }
    }

    fn fits(&self, now: &Fingerprint) -> bool {
        let Entry { size, modified, changed, inode, .. } = *self;
        (size, modified, changed, inode) == (now.size, now.modified as i64, now.changed as i64, now.inode)
    }
}

/// The folder of caches: `bigup` in `XDG_CACHE_HOME` (XDG Base Directory Specification), or else in `~/.cache`; on Windows
/// in `%LOCALAPPDATA%`.
fn place() -> Option<PathBuf> {
    let base = if cfg!(windows) {
        env::var_os("LOCALAPPDATA").map(PathBuf::from)
    } else {
        let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| env::home_dir().map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("bigup"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_holds_for_a_file_that_did_not_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, digest) = (Path::new("a"), of_bytes(b"a"));
        let old = Fingerprint { size: 1, modified: 5, changed: 6, inode: 7, volume: 0 };
        let mut cache = DigestCache { path: Some(dir.path().join("x/cache")), ..DigestCache::default() };
        cache.note(path, &old, digest);
        cache.keep().unwrap();
        let known = read(File::open(dir.path().join("x/cache")).unwrap());
        let entry = &known["a"];
        assert_eq!((known.len(), entry.digest), (1, digest));
        assert!(entry.fits(&old));
        for other in [
            Fingerprint { size: 2, ..old },
            Fingerprint { modified: 6, ..old },
            Fingerprint { changed: 7, ..old },
            Fingerprint { inode: 8, ..old },
        ] {
            assert!(!entry.fits(&other), "{other:?}");
        }
    }

    #[test]
    fn time_tells_nothing_of_a_file_that_is_known_to_have_changed() {
        let (path, old) = (Path::new("a"), Fingerprint { size: 1, modified: 5, changed: 6, inode: 7, volume: 0 });
        let mut cache = DigestCache::default();
        assert!(cache.may_be_told_by_time(path, &old), "nothing is known of it");
        cache.known.insert("a".to_owned(), Entry::of(&old, of_bytes(b"a")));
        assert!(cache.may_be_told_by_time(path, &old));
        assert!(!cache.may_be_told_by_time(path, &Fingerprint { changed: 8, ..old }), "its time was set back");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        assert!(!cache.may_be_told_by_time(Path::new("b"), &Fingerprint { changed: now, ..old }));
    }

    #[test]
    fn a_file_that_was_changed_a_moment_ago_is_not_noted() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let mut cache = DigestCache::default();
        cache.note(
            Path::new("a"),
            &Fingerprint { size: 1, modified: now, changed: now, inode: 7, volume: 0 },
            of_bytes(b"a"),
        );
        assert!(cache.known.is_empty());
    }
}
