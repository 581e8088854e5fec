//! Digests of local files that were read before, so that `sync` reads only files that changed.
//!
//! A digest holds for a file with the same fingerprint: size, times of the last change of bytes and of anything, number of
//! the file. No program can set back the second time (stat(2), `st_ctim`). Files that were changed a moment ago are not
//! noted: a later change could have the same times. If the cache is lost, files are read again.

use crate::source::fingerprint::Fingerprint;
use bigup_core::protocol::digest::{Digest, of_bytes};
use serde::{Deserialize, Serialize};
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
    fresh: HashMap<String, Entry>,
}

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    modified: i64,
    changed: i64,
    inode: u64,
    digest: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    #[serde(flatten)]
    entry: Entry,
}

impl DigestCache {
    /// The digests of the files in `folder`, as far as they are known. A cache that cannot be read knows none.
    pub fn of(folder: &Path) -> DigestCache {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let id = of_bytes(folder.as_os_str().as_encoded_bytes()).to_string();
        let path = place().map(|place| place.join(format!("digests-{}.jsonl", &id[..32])));
        let lines = path.as_ref().and_then(|path| File::open(path).ok()).map(|file| BufReader::new(file).lines());
        let parsed =
            lines.into_iter().flatten().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        DigestCache { path, known: parsed.map(|Line { path, entry }| (path, entry)).collect(), fresh: HashMap::new() }
    }

    /// The digest of the file at `path`, if it has this fingerprint since it was read.
    pub fn get(&mut self, path: &Path, now: &Fingerprint) -> Option<Digest> {
        let path = path.to_str()?;
        let entry = self.known.get(path).filter(|entry| entry.fits(now))?;
        let digest = entry.digest.parse().ok()?;
        self.fresh.insert(path.to_owned(), entry.clone());
        Some(digest)
    }

    /// The file at `path` with this fingerprint has this digest.
    pub fn note(&mut self, path: &Path, now: &Fingerprint, digest: Digest) {
        if let (Some(path), true) = (path.to_str(), is_settled(now)) {
            self.fresh.insert(path.to_owned(), Entry::of(now, digest));
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
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        // Under a name of its own first, so that a kill leaves the old one or the new one.
        let fresh = path.with_extension(format!("{}", std::process::id()));
        let mut file = BufWriter::new(File::create(&fresh)?);
        for (path, entry) in &self.fresh {
            serde_json::to_writer(&mut file, &Line { path: path.clone(), entry: entry.clone() })?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        fs::rename(&fresh, path)
    }
}

/// True if the last change is so long ago that a later one has other times.
fn is_settled(now: &Fingerprint) -> bool {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128 - now.last_change();
    age > SETTLED.as_nanos() as i128
}

impl Entry {
    fn of(found: &Fingerprint, digest: Digest) -> Entry {
        let (modified, changed) = (found.modified as i64, found.changed as i64);
        Entry { size: found.size, modified, changed, inode: found.inode, digest: digest.to_string() }
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
        let text = fs::read_to_string(dir.path().join("x/cache")).unwrap();
        let Line { path: kept, entry } = serde_json::from_str(&text).unwrap();
        assert_eq!((kept.as_str(), &entry), ("a", &Entry::of(&old, digest)));
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
        assert!(cache.fresh.is_empty());
    }
}
