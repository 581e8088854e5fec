//! The place of finished files: the folder `files/`. Whatever is in it is whole, checked and synced.
//!
//! Paths below `files/` are walked component by component and never through a symlink, so a link that somebody placed
//! inside leads nowhere. A finished file carries its digest in an extended attribute, tied to its size and time of
//! change: a file that was changed or put there by hand simply has no known digest.

use crate::data_dir::DataDir;
use crate::digest::Digest;
use crate::disk::Context;
use crate::name::FileName;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use xattr::FileExt;

/// Name of the extended attribute, in the user's namespace (xattr(7)).
const ATTRIBUTE: &str = "user.bigup";

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Nothing,
    /// A finished file.
    File(Finished),
    /// Something that no upload of this name can become or replace; says what.
    Other(String),
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its size, in bytes.
    pub size: u64,
    /// What is known of its content. None: it was put there or changed by somebody else, or the file system keeps no
    /// extended attributes.
    pub stamp: Option<Stamp>,
}

/// What is known of a finished file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// The client's source that it came from, where it named one.
    pub source: Option<String>,
}

/// The form of a stamp on disk. It holds for a file of this size and time of change only.
#[derive(Serialize, Deserialize)]
struct Stored {
    digest: String,
    source: Option<String>,
    size: u64,
    modified: (i64, i64),
}

/// Why a file was not published.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of this name exists and is not to be replaced.
    #[error("a finished file of this name exists")]
    Exists,
    /// Something is in the way; says what.
    #[error("{0}")]
    InTheWay(String),
    /// I/O.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The folder of finished files.
pub struct Store {
    files: PathBuf,
}

impl Store {
    /// The store of `data`.
    pub fn new(data: &DataDir) -> Store {
        Store { files: data.files() }
    }

    /// Where a finished file of this name is; for messages.
    pub fn path_of(&self, name: &FileName) -> PathBuf {
        self.files.join(name.as_str())
    }

    /// What stands under `name`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn lookup(&self, name: &FileName) -> io::Result<Entry> {
        let path = self.path_of(name);
        let folder = match self.folder_of(name, false) {
            Ok(folder) => folder,
            Err(StoreError::InTheWay(what)) => return Ok(Entry::Other(what)),
            Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(Entry::Nothing),
            Err(StoreError::Io(e)) => return Err(e),
            Err(StoreError::Exists) => unreachable!("looking for a folder finds no file"),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&folder, last_component(name), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(Entry::Nothing),
            Err(Errno::ELOOP) => return Ok(Entry::Other(format!("{name} is a symbolic link, not a regular file"))),
            Err(Errno::ENXIO) => return Ok(Entry::Other(format!("{name} is no regular file"))),
            Err(e) => return Err(e).at("opening", &path),
        };
        let found = file.metadata().at("looking at", &path)?;
        if found.is_dir() {
            return Ok(Entry::Other(format!("{name} is a folder with finished files")));
        }
        if !found.is_file() {
            return Ok(Entry::Other(format!("{name} is no regular file")));
        }
        Ok(Entry::File(Finished { size: found.len(), stamp: read_stamp(&file, &found) }))
    }

    /// Moves `from`, which is synced and on the same file system, under `name`, atomically and for good: it survives a
    /// power cut once this returns.
    ///
    /// # Errors
    /// [`StoreError::Exists`] unless `replace`; then the old file was readable until the new one took its place.
    pub fn publish(&self, from: &Path, name: &FileName, replace: bool) -> Result<(), StoreError> {
        let folder = self.folder_of(name, true)?;
        let to = last_component(name);
        let here = File::open(from.parent().unwrap_or(Path::new("."))).at("opening the folder of", from)?;
        let from_name = from.file_name().unwrap_or_default();
        let moved = if replace {
            renameat(&here, from_name, &folder, to)
        } else {
            match renameat2(&here, from_name, &folder, to, RenameFlags::RENAME_NOREPLACE) {
                // The file system has no such rename: a link does not replace either.
                Err(Errno::EINVAL | Errno::ENOSYS) => link_and_unlink(&here, from_name, &folder, to),
                done => done,
            }
        };
        match moved {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(StoreError::Exists),
            Err(Errno::EISDIR | Errno::ENOTEMPTY) => {
                return Err(StoreError::InTheWay(format!("{name} is a folder with finished files")));
            }
            Err(e) => return Err(e).at("publishing", &self.path_of(name)).map_err(StoreError::Io),
        }
        folder.sync_all().at("syncing the folder of", &self.path_of(name))?;
        Ok(())
    }

    /// Makes the entry of a file that was just moved under `name` durable, after a kill between the two.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_entry(&self, name: &FileName) -> Result<(), StoreError> {
        self.folder_of(name, false)?.sync_all().at("syncing the folder of", &self.path_of(name))?;
        Ok(())
    }

    /// Opens the folder that `name` is in, creating what is missing if told to; those entries are durable then.
    fn folder_of(&self, name: &FileName, create: bool) -> Result<File, StoreError> {
        let mut folder = File::open(&self.files).at("opening", &self.files)?;
        let mut components: Vec<&str> = name.components().collect();
        components.pop();
        for component in components {
            if create {
                match mkdirat(&folder, component, Mode::from_bits_truncate(0o777)) {
                    Ok(()) => folder.sync_all().at("syncing a folder of", &self.path_of(name))?,
                    Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e).at("creating the folder of", &self.path_of(name)).map_err(StoreError::Io),
                }
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            folder = match openat(&folder, component, flags, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let what = format!("{component} of {name} is a file or a symbolic link, not a folder");
                    return Err(StoreError::InTheWay(crate::name::printable(&what)));
                }
                Err(e) => return Err(e).at("opening the folder of", &self.path_of(name)).map_err(StoreError::Io),
            };
        }
        Ok(folder)
    }
}

fn last_component(name: &FileName) -> &str {
    name.components().last().expect("a name has at least one component")
}

fn link_and_unlink(here: &File, from: &OsStr, folder: &File, to: &str) -> nix::Result<()> {
    nix::unistd::linkat(here, from, folder, to, nix::fcntl::AtFlags::empty())?;
    nix::unistd::unlinkat(here, from, nix::unistd::UnlinkatFlags::NoRemoveDir)
}

/// Writes down what `file` holds, on the file itself. The caller syncs it, and changes its content no more.
///
/// Where the file system keeps no such attributes the digest will not be known later; that is logged and no error.
///
/// # Errors
/// As the system gives them.
pub fn stamp(file: &File, path: &Path, stamp: &Stamp) -> io::Result<()> {
    let found = file.metadata().at("looking at", path)?;
    let stored = Stored {
        digest: stamp.digest.to_string(),
        source: stamp.source.clone(),
        size: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
    };
    let value = serde_json::to_vec(&stored).expect("strings and numbers always serialise");
    match file.set_xattr(ATTRIBUTE, &value) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            log::warn!("{}: no extended attributes here ({e}), so the digest is not kept", path.display());
            Ok(())
        }
        done => done.at("writing down the digest of", path),
    }
}

/// The stamp of a file, if it has one that holds.
fn read_stamp(file: &File, found: &Metadata) -> Option<Stamp> {
    let value = file.get_xattr(ATTRIBUTE).ok()??;
    let stored: Stored = serde_json::from_slice(&value).ok()?;
    let holds = stored.size == found.len() && stored.modified == (found.mtime(), found.mtime_nsec());
    holds.then(|| Some(Stamp { digest: stored.digest.parse().ok()?, source: stored.source }))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Fixture {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(dir.path()).unwrap();
            Fixture { dir, store: Store::new(&data) }
        }

        fn source(&self, text: &str) -> PathBuf {
            let path = self.dir.path().join("tmp/source");
            fs::write(&path, text).unwrap();
            path
        }

        fn files(&self) -> PathBuf {
            self.dir.path().join("files")
        }
    }

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn publishes_into_new_folders_and_finds_it_there() {
        let f = Fixture::new();
        assert_eq!(f.store.lookup(&name("a/b/c")).unwrap(), Entry::Nothing);
        let from = f.source("text");
        let digest = crate::digest::of_bytes(b"text");
        let known = Stamp { digest, source: Some("s".to_owned()) };
        stamp(&crate::disk::open_regular(&from).unwrap(), &from, &known).unwrap();
        f.store.publish(&from, &name("a/b/c"), false).unwrap();
        assert_eq!(fs::read_to_string(f.files().join("a/b/c")).unwrap(), "text");
        let Entry::File(found) = f.store.lookup(&name("a/b/c")).unwrap() else { panic!("no file") };
        assert_eq!((found.size, found.stamp), (4, Some(known)));
    }

    #[test]
    fn a_changed_file_has_no_known_digest() {
        let f = Fixture::new();
        let from = f.source("text");
        let known = Stamp { digest: crate::digest::of_bytes(b"text"), source: None };
        stamp(&crate::disk::open_regular(&from).unwrap(), &from, &known).unwrap();
        f.store.publish(&from, &name("x"), false).unwrap();
        let file = fs::OpenOptions::new().write(true).open(f.files().join("x")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let Entry::File(found) = f.store.lookup(&name("x")).unwrap() else { panic!("no file") };
        assert_eq!(found.stamp, None);
    }

    #[test]
    fn replaces_only_when_told_to() {
        let f = Fixture::new();
        f.store.publish(&f.source("one"), &name("x"), false).unwrap();
        let refused = f.store.publish(&f.source("two"), &name("x"), false);
        assert!(matches!(refused, Err(StoreError::Exists)));
        assert_eq!(fs::read_to_string(f.files().join("x")).unwrap(), "one");
        f.store.publish(&f.source("two"), &name("x"), true).unwrap();
        assert_eq!(fs::read_to_string(f.files().join("x")).unwrap(), "two");
    }

    #[test]
    fn symlinks_inside_lead_nowhere() {
        let f = Fixture::new();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        symlink(outside.path(), f.files().join("out")).unwrap();
        symlink(outside.path().join("secret"), f.files().join("link")).unwrap();
        for inner in ["out/new", "link", "out/secret", "link/x"] {
            assert!(matches!(f.store.lookup(&name(inner)).unwrap(), Entry::Other(_)), "{inner}");
            assert!(f.store.publish(&f.source("x"), &name(inner), false).is_err(), "{inner}");
        }
        // The link itself may be replaced; what it points to stays.
        f.store.publish(&f.source("x"), &name("link"), true).unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "s");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_and_files_do_not_take_each_others_place() {
        let f = Fixture::new();
        f.store.publish(&f.source("x"), &name("a/b"), false).unwrap();
        for (inner, replace) in [("a", false), ("a", true), ("a/b/c", false), ("a/b/c", true)] {
            assert!(matches!(f.store.lookup(&name(inner)).unwrap(), Entry::Other(_)), "{inner}");
            assert!(f.store.publish(&f.source("y"), &name(inner), replace).is_err(), "{inner}");
        }
        assert_eq!(fs::read_to_string(f.files().join("a/b")).unwrap(), "x");
    }

    #[test]
    fn fifos_are_no_files_and_do_not_block() {
        let f = Fixture::new();
        nix::unistd::mkfifo(&f.files().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(matches!(f.store.lookup(&name("fifo")).unwrap(), Entry::Other(_)));
    }
}
