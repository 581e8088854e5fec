//! A small file that comes whole in a single request needs no spool. It has no name before it is whole, checked and
//! synced, so nothing is left of it when its receiver dies.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  a file without a name, in which disk space is reserved (O_TMPFILE, open(2)); its bytes go there
//!                                                nothing: the file system frees it, after a power cut when it is mounted
//! 2  stamped, time, group and mode set, synced   the same
//! 3  linked into files/, where nothing has that name    the finished file; a power cut leaves it or nothing
//! 4  its folder synced, and all above it         the finished file
//!    sealed                                      the same; without the seal it is read when somebody asks for its digest
//! ```
//! Only after step 4 is the client told. A process that finds the file before that syncs its folders, too, before it
//! reports the file. A link replaces nothing, so of two such files with one name the first wins.
//!
//! Several files take each step together ([`publish_all`]). All are on their way to the disk before the first is synced:
//! what its sync has the journal commit is then mostly what the others need, too. Each is a file of its own all the same,
//! and is refused or kept by itself.

use crate::protocol::kept::Kept;
use crate::protocol::name::FileName;
use crate::storage::data_dir::{self, DataDir};
use crate::storage::disk::{IoContext, again, begin_write_back};
use crate::storage::space::{self, DiskSpace, SpaceError};
use crate::storage::store::{self, Store, StoreError, StoredDigest};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A file without a name. It is gone once this is dropped, unless it was published.
pub struct UnnamedFile {
    file: File,
    /// A folder on the same file system, for messages.
    tmp: PathBuf,
}

impl UnnamedFile {
    /// A file of `len` bytes that are about to come, with disk space for all of them. `None` if the file system has no
    /// such files.
    ///
    /// # Errors
    /// Not enough disk space, or as the system gives them.
    pub fn new(data: &DataDir, len: u64, space: &DiskSpace) -> Result<Option<UnnamedFile>, SpaceError> {
        if !can_be_linked() {
            return Ok(None);
        }
        let tmp = data.tmp();
        data_dir::check_folder(&tmp)?;
        let taking = space.lock()?;
        taking.check(len, 0)?;
        let Some(file) = create(&tmp)? else { return Ok(None) };
        space::reserve(&file, 0, len).at("reserving disk space in", &tmp)?;
        Ok(Some(UnnamedFile { file, tmp }))
    }

    /// Where its bytes go.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its stamp, and the facts that it is to have, as the file of [`publish_all`].
    fn stamp(&self, store: &Store, facts: &FileFacts<'_>) -> io::Result<()> {
        store::stamp(&self.file, &self.tmp, &facts.stored_digest, facts.kept.modified)?;
        store.give_permissions(&self.file, facts.name, facts.kept.mode)
    }
}

/// The facts of a file that is to be published.
#[derive(Debug)]
pub struct FileFacts<'a> {
    /// Its name.
    pub name: &'a FileName,
    /// Its digest, and where it came from.
    pub stored_digest: StoredDigest,
    /// The facts of the client's file that it is to have.
    pub kept: Kept,
}

/// Makes each of `files` a finished file, with these facts: whole, synced, there for good once this returns. One result
/// for each, in order.
///
/// # Errors
/// [`StoreError::Exists`]: something has that name. [`io::ErrorKind::Unsupported`]: the file system cannot do it in this
/// way. Other errors are the system's; then the file is not there, or no client was told of it.
pub fn publish_all(data: &DataDir, files: &[(UnnamedFile, FileFacts<'_>)]) -> Vec<Result<(), StoreError>> {
    let store = Store::for_several(data);
    let mut results: Vec<Result<(), StoreError>> = files
        .iter()
        .map(|(unnamed, facts)| {
            unnamed.stamp(&store, facts)?;
            if files.len() > 1 {
                begin_write_back(&unnamed.file).at("writing back what arrived in", &unnamed.tmp)?;
            }
            Ok(())
        })
        .collect();
    // A sync that failed has nothing to be tried again with: the file goes.
    go_on(&mut results, files, |unnamed, _| Ok(unnamed.file.sync_all().at("syncing what arrived in", &unnamed.tmp)?));
    // Syncs take long: folders may be others now.
    let store = Store::for_several(data);
    go_on(&mut results, files, |unnamed, facts| store.link(&unnamed.file, facts.name));
    let mut folders: HashMap<&str, io::Result<()>> = HashMap::new();
    go_on(&mut results, files, |_, facts| {
        let synced = folders
            .entry(facts.name.folder())
            .or_insert_with(|| store.sync_entry(facts.name).map_err(StoreError::into_io));
        synced.as_ref().map_or_else(|e| Err(again(e).into()), |()| Ok(()))
    });
    go_on(&mut results, files, |unnamed, facts| {
        store.seal(&unnamed.file, facts.name);
        Ok(())
    });
    results
}

/// The next step of all files that did not fail before.
fn go_on<'a>(
    results: &mut [Result<(), StoreError>],
    files: &'a [(UnnamedFile, FileFacts<'a>)],
    mut step: impl FnMut(&UnnamedFile, &'a FileFacts<'a>) -> Result<(), StoreError>,
) {
    for (result, (unnamed, facts)) in results.iter_mut().zip(files) {
        if result.is_ok() {
            *result = step(unnamed, facts);
        }
    }
}

fn create(tmp: &Path) -> io::Result<Option<File>> {
    let flags = (OFlag::O_TMPFILE | OFlag::O_CLOEXEC).bits();
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(tmp) {
        Ok(file) => Ok(Some(file)),
        // Errors of a kernel that does not know the flag, and of file systems that do not (open(2)).
        Err(e)
            if [Errno::EOPNOTSUPP, Errno::EISDIR, Errno::ENOSYS]
                .map(|e| e as i32)
                .contains(&e.raw_os_error().unwrap_or(0)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).at("making a file in", tmp),
    }
}

/// True if a file without a name can be given one: that goes by /proc.
fn can_be_linked() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| Path::new("/proc/self/fd").exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::of_bytes;
    use crate::storage::store::Entry;
    use std::fs;
    use std::io::Write;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn unnamed(data: &DataDir, text: &str) -> (UnnamedFile, StoredDigest) {
        let unnamed = UnnamedFile::new(data, text.len() as u64, &DiskSpace::new(data, 0))
            .unwrap()
            .expect("tests run where it works");
        unnamed.file().write_all(text.as_bytes()).unwrap();
        (unnamed, StoredDigest { digest: of_bytes(text.as_bytes()), source: Some("s".to_owned()), sha256: None })
    }

    fn publish(data: &DataDir, of: (UnnamedFile, StoredDigest), name: &FileName) -> Result<(), StoreError> {
        let (unnamed, stored_digest) = of;
        let facts = FileFacts { name, stored_digest, kept: Kept::default() };
        publish_all(data, &[(unnamed, facts)]).remove(0)
    }

    #[test]
    fn of_files_that_come_together_each_is_kept_or_refused_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        publish(&data, unnamed(&data, "old"), &name("a/taken")).unwrap();
        let names = ["a/x", "a/taken", "b/y", "a/taken/below", "top", "a/x"].map(name);
        let texts = ["ax", "new", "by", "below", "top", "again"];
        let files: Vec<_> = names
            .iter()
            .zip(texts)
            .map(|(name, text)| {
                let (unnamed, stored_digest) = unnamed(&data, text);
                (unnamed, FileFacts { name, stored_digest, kept: Kept::default() })
            })
            .collect();
        let results = publish_all(&data, &files);
        assert!(matches!(
            results[..],
            [Ok(()), Err(StoreError::Exists), Ok(()), Err(StoreError::InTheWay(_)), Ok(()), Err(StoreError::Exists)]
        ));
        drop(files);
        for (inner, text) in [("a/x", "ax"), ("a/taken", "old"), ("b/y", "by"), ("top", "top")] {
            assert_eq!(fs::read_to_string(data.files().join(inner)).unwrap(), text);
            let Entry::File(found) = Store::new(&data).lookup(&name(inner)).unwrap() else { panic!("no file") };
            assert_eq!(found.stored_digest.unwrap().digest, of_bytes(text.as_bytes()), "{inner}");
        }
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn a_draft_becomes_a_finished_file_with_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let (unnamed, stored_digest) = unnamed(&data, "text");
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 0, "it has no name");
        publish(&data, (unnamed, stored_digest.clone()), &name("a/b/c")).unwrap();
        assert_eq!(fs::read_to_string(data.files().join("a/b/c")).unwrap(), "text");
        let Entry::File(found) = Store::new(&data).lookup(&name("a/b/c")).unwrap() else { panic!("no file") };
        assert_eq!((found.size, found.stored_digest), (4, Some(stored_digest)));
    }

    #[test]
    fn a_draft_takes_nobodys_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        publish(&data, unnamed(&data, "one"), &name("x")).unwrap();
        std::os::unix::fs::symlink("nowhere", data.files().join("link")).unwrap();
        fs::create_dir(data.files().join("folder")).unwrap();
        fs::write(data.files().join("folder/file"), "").unwrap();
        for taken in ["x", "link", "folder"] {
            let refused = publish(&data, unnamed(&data, "two"), &name(taken));
            assert!(matches!(refused, Err(StoreError::Exists)), "{taken}: {refused:?}");
        }
        for inner in ["x/y", "link/y"] {
            let refused = publish(&data, unnamed(&data, "two"), &name(inner));
            assert!(matches!(refused, Err(StoreError::InTheWay(_))), "{inner}: {refused:?}");
        }
        assert_eq!(fs::read_to_string(data.files().join("x")).unwrap(), "one");
        assert!(!data.files().join("nowhere").exists());
    }

    #[test]
    fn a_draft_needs_disk_space() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let refused = UnnamedFile::new(&data, 10, &DiskSpace::new(&data, u64::MAX / 2));
        assert!(matches!(refused, Err(SpaceError::Full { needed: 10, .. })));
    }
}
