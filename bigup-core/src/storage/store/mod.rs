//! The place of finished files: the folder `files/`. Each file in it is whole, checked and synced.
//!
//! It uses `disk`, `group_sync` and the spool's function for hashing. Uploads and their records do not come in here.
//!
//! Paths below `files/` are walked component by component and never through a symlink, so a link that somebody placed
//! inside leads nowhere. A finished file carries its digest in an extended attribute, tied to its size and time of
//! change: a file that was changed or put there by hand simply has no known digest.
//!
//! The writer of a file can set back the time of its last write. Nobody can set back the time of change of anything
//! (ctime). So another attribute, the seal, tells up to which such time the digest is certain. A file whose seal does
//! not hold (its mode was changed, a link to it made, it was restored, or power failed before the seal reached the
//! disk) is read once when somebody asks for its digest ([`Store::confirm`]), and sealed anew.
//!
//! Where a store of objects is set (`storage/objects`), finished files are objects of it, and `files/` stays empty. Each
//! function of the contract asks `in_objects` first. Functions for files that are open in `files/` are not called then.
//!
//! # Contract
//! Publishing, requests and `bigupd check` reach a finished file by these functions only; the rest is private to this
//! folder. `bigupd check` and quotas (`admission/quota.rs` of bigupd) walk through `files/` themselves.
//!
//! | function | contract |
//! | --- | --- |
//! | [`is_possible`] | a name that no file could have here is refused before anything is sent |
//! | [`Store::out_of_reach`] | says why a file could never be moved to a name, before anything is sent |
//! | [`Store::lookup`] | tells what is under a name, at once; a digest that it tells is certain |
//! | [`Store::confirm`] | the same; content whose digest is not certain is read, however long that takes |
//! | [`Store::open`], [`Store::open_file`] | open a finished file to read it; a later one of its name changes no byte of it |
//! | [`Store::version`] | tells a value that differs after every change or replacement of what is under a name |
//! | [`Store::path_of`] | names the file's place, for messages |
//! | [`stamp`], [`keep_leaves`] | write digests on a file that is not finished yet; they get visible with it |
//! | [`digest_state`], [`read_leaves`] | read them again from an open file |
//! | `give_permissions` | gives a file that is not finished yet the group and mode that it is to have |
//! | [`Store::publish`] | gives a complete, synced file its name, in one step and for good; replaces only if asked to |
//! | `link` | the same for a file without a name; it replaces nothing |
//! | [`Store::sync_entry`] | makes sure that a name which was found survives a power cut |
//! | [`Store::list`] | shows finished files in the order of their names, each once, in bounded memory |
//! | [`Store::remove`] | removes the finished file that its caller looked at and no later one, for good |
//! | [`Store::set_aside`] | moves a file away, if it is still the one that was seen |

use crate::protocol::digest::{DigestKind, SliceHasher};
use crate::protocol::kept::{FileMode, FileTime};
use crate::protocol::name::FileName;
use crate::storage::data_dir::{DataDir, FileModes};
use crate::storage::disk::{FileVersion, IoContext, MountedFs};
use crate::storage::group_sync::GroupSync;
use crate::storage::list_memory::ListMemory;
use crate::storage::objects::{ObjectReader, Objects};
use crate::storage::spool::hash_range;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, fstatfs};
use nix::unistd::linkat;
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod digest_attribute;
mod folder;
mod in_objects;
mod kept_time;
mod listing;
mod possible_names;
mod remembered;
mod removal;

pub use digest_attribute::{DigestState, StoredDigest, digest_state, keep_leaves, read_leaves, stamp};
use digest_attribute::{certain_stamp_of, changed, seal, stamp_as, stamp_of};
use folder::{MAX_HOLLOW, is_hollow, last_component};
pub(crate) use in_objects::entry_of;
pub use listing::{FolderEntry, ListedFile};
pub use possible_names::is_possible;
use remembered::RememberedFolder;
pub use removal::Removal;

/// The thing that stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Nothing,
    /// A finished file.
    File(FinishedFile),
    /// A thing that no upload of this name can become or replace, with its description.
    Other(String),
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    /// Size of the file, in bytes.
    pub size: u64,
    /// The digest of its content, if that is certain. `None` if somebody else put it there or changed it, if that
    /// cannot be ruled out, or if the file system keeps no extended attributes. [`Store::confirm`] finds out.
    pub stored_digest: Option<StoredDigest>,
}

/// The thing that is found under a name, opened.
#[derive(Debug)]
pub enum OpenEntry {
    /// Nothing.
    Nothing,
    /// A regular file, with its metadata as it was opened.
    File(File, Metadata),
    /// A thing that no upload of this name can become or replace, with its description.
    Other(String),
}

/// The bytes of a finished file that is open.
#[derive(Debug)]
pub enum Content {
    /// Those of a file.
    File(File),
    /// Those of an object.
    Object(ObjectReader),
}

impl Content {
    /// Fills `bytes` with those at `offset`.
    ///
    /// # Errors
    /// There are fewer, or as the system or the store gives them.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Content::File(file) => file.read_exact_at(bytes, offset),
            Content::Object(reader) => reader.read_exact_at(bytes, offset),
        }
    }
}

/// A finished file that is open. Whatever takes its name, reads of `content` give this file's bytes.
#[derive(Debug)]
pub struct OpenFile {
    /// Its bytes.
    pub content: Content,
    /// Its size, in bytes.
    pub size: u64,
    /// Time of the last write to it, or to the client's file if that is kept.
    pub modified: SystemTime,
    /// Time of the last write to the client's file, exactly, if that is kept. Then `modified` tells of no change here.
    pub source_modified: Option<FileTime>,
    /// Time of the last change of anything about it. No program can set it.
    pub changed: SystemTime,
    /// Its version, as it was opened.
    pub version: FileVersion,
    /// The digest of its content, if that is certain; see [`FinishedFile::stored_digest`].
    pub stored_digest: Option<StoredDigest>,
}

/// Most readings of a file that changes meanwhile.
const CONFIRM_ATTEMPTS: u32 = 3;

/// The reason a file was not published.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of this name exists and is not to be replaced.
    #[error("a finished file of this name exists")]
    Exists,
    /// Another thing is in the way; the text says which.
    #[error("{0}")]
    InTheWay(String),
    /// I/O.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StoreError {
    /// The same as an error of the system, for a caller that asks no more than whether it went well.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            StoreError::Io(e) => e,
            other => io::Error::new(io::ErrorKind::NotADirectory, other.to_string()),
        }
    }
}

/// The folder of finished files.
pub struct Store {
    files: PathBuf,
    /// The folder that files come from.
    tmp: PathBuf,
    syncs: Arc<GroupSync>,
    list_memory: Arc<ListMemory>,
    modes: FileModes,
    /// Where finished files are. `None`: in `files`.
    objects: Option<Arc<Objects>>,
    remembered: RememberedFolder,
}

impl Store {
    /// The store of `data`.
    pub fn new(data: &DataDir) -> Store {
        Store {
            files: data.files(),
            tmp: data.tmp(),
            syncs: Arc::clone(&data.syncs),
            list_memory: Arc::clone(&data.list_memory),
            modes: data.modes(),
            objects: data.objects().cloned(),
            remembered: RememberedFolder::none(),
        }
    }

    /// The same, for several names one after the other: the way to the folder of a name is not walked again for the next
    /// name in it. For a step of a bundle, and not for longer: a folder that somebody moves meanwhile takes along what is
    /// put into it.
    pub fn for_several(data: &DataDir) -> Store {
        Store { remembered: RememberedFolder::last(), ..Store::new(data) }
    }

    /// Path of a finished file of this name, for messages.
    pub fn path_of(&self, name: &FileName) -> PathBuf {
        self.files.join(name.as_str())
    }

    /// The version of what stands under `name`, to see whether it changed since. `None` if nothing stands there.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn version(&self, name: &FileName) -> io::Result<Option<FileVersion>> {
        match &self.objects {
            Some(objects) => in_objects::version(objects, name),
            None => FileVersion::of(&self.path_of(name)),
        }
    }

    /// The thing that stands under `name`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn lookup(&self, name: &FileName) -> io::Result<Entry> {
        if let Some(objects) = &self.objects {
            return in_objects::lookup(objects, name);
        }
        Ok(match self.open(name)? {
            OpenEntry::Nothing => Entry::Nothing,
            OpenEntry::Other(what) => Entry::Other(what),
            OpenEntry::File(file, found) => {
                let OpenFile { size, stored_digest, .. } = self.look_at(name, file, &found)?;
                Entry::File(FinishedFile { size, stored_digest })
            }
        })
    }

    /// The finished file under `name`, opened to be read. `None` if something else is there, or nothing.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn open_file(&self, name: &FileName) -> io::Result<Option<OpenFile>> {
        if let Some(objects) = &self.objects {
            return in_objects::open_file(objects, name);
        }
        match self.open(name)? {
            OpenEntry::File(file, found) => self.look_at(name, file, &found).map(Some),
            OpenEntry::Nothing | OpenEntry::Other(_) => Ok(None),
        }
    }

    fn look_at(&self, name: &FileName, file: File, found: &Metadata) -> io::Result<OpenFile> {
        let stamp = certain_stamp_of(&file, found);
        let (stored_digest, source_modified) = stamp.at("reading the digest of", &self.path_of(name))?;
        let (size, version) = (found.len(), FileVersion::of_metadata(found));
        // Before 1970 there were no files of this kind.
        let changed = UNIX_EPOCH + Duration::from_nanos(u64::try_from(changed(found)).unwrap_or(0));
        let modified = found.modified()?;
        Ok(OpenFile { content: Content::File(file), size, modified, source_modified, changed, version, stored_digest })
    }

    /// The thing that stands under `name`. Its content is read if it is not known for certain; the digest is written
    /// down then, if that is possible. This takes as long as reading the file does.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn confirm(&self, name: &FileName) -> io::Result<Entry> {
        if let Some(objects) = &self.objects {
            return in_objects::confirm(objects, name);
        }
        for _ in 1..CONFIRM_ATTEMPTS {
            match self.confirm_once(name)? {
                // Mostly the process that published it was about to seal it.
                Entry::File(FinishedFile { stored_digest: None, .. }) => {}
                known => return Ok(known),
            }
        }
        self.confirm_once(name)
    }

    fn confirm_once(&self, name: &FileName) -> io::Result<Entry> {
        let (entry, path) = (self.lookup(name)?, self.path_of(name));
        let Entry::File(FinishedFile { stored_digest: None, .. }) = &entry else { return Ok(entry) };
        let OpenEntry::File(file, before) = self.open(name)? else { return Ok(entry) };
        let digest = hash_range(&file, 0, before.len(), SliceHasher::new(DigestKind::Hash, 0)).at("reading", &path)?;
        let after = file.metadata().at("looking at", &path)?;
        if (before.len(), changed(&before)) != (after.len(), changed(&after)) {
            return Ok(Entry::File(FinishedFile { size: after.len(), stored_digest: None }));
        }
        let digest = digest.digest;
        let (state, kept) = stamp_of(&file, &after).at("reading the digest of", &path)?;
        let (known, is_written) = match state {
            // Writing it again would only move the time of change, for others who do the same.
            DigestState::Valid { stored_digest, size } if stored_digest.digest == digest => {
                (stored_digest, size == after.len())
            }
            _ => (StoredDigest { digest, source: None, sha256: None }, false),
        };
        // The file may be another user's, or lie on a file system that is only to be read.
        match if is_written { Ok(()) } else { stamp_as(&file, &path, &known, kept, &after) } {
            Ok(()) => seal(&file, &path),
            Err(e) => log::debug!("what it was found to be is not written down: {e}"),
        }
        Ok(Entry::File(FinishedFile { size: after.len(), stored_digest: Some(known) }))
    }

    /// Gives `file`, which is about to become `name`, to the group of the folder that it goes to, if that folder says
    /// so (setgid, inode(7)): files made there would belong to it. If this process may not do that, the file keeps its
    /// group; that is logged.
    fn give_to_group(&self, file: &File, name: &FileName) {
        let given = self.deepest_folder_of(name).and_then(|folder| {
            let found = file.metadata()?;
            let is_shared = folder.mode() & Mode::S_ISGID.bits() != 0 && folder.gid() != found.gid();
            if is_shared { std::os::unix::fs::fchown(file, None, Some(folder.gid())) } else { Ok(()) }
        });
        if let Err(e) = given {
            log::warn!("{name} does not get the group of its folder: {e}");
        }
    }

    /// Gives `file`, which is about to become `name`, the group and the mode that finished files have there: of the
    /// mode that its client `asked` for as much as is permitted. The mode comes last, since another group takes set-id
    /// bits away (chown(2)).
    ///
    /// # Errors
    /// The mode cannot be set.
    pub(crate) fn give_permissions(&self, file: &File, name: &FileName, asked: Option<FileMode>) -> io::Result<()> {
        self.give_to_group(file, name);
        let path = self.path_of(name);
        let mode = match (asked, self.modes.file) {
            (None, None) => return Ok(()),
            (None, Some(mode)) => mode,
            (Some(asked), most) => asked.permitted(most, file.metadata().at("looking at", &path)?.mode()),
        };
        file.set_permissions(Permissions::from_mode(mode)).at("setting the mode of", &path)
    }

    /// Opens the thing that stands under `name`, for reading.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn open(&self, name: &FileName) -> io::Result<OpenEntry> {
        match self.folder_of(name) {
            Ok(folder) => self.open_in(&folder, name),
            Err(StoreError::InTheWay(what)) => Ok(OpenEntry::Other(what)),
            Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(OpenEntry::Nothing),
            Err(StoreError::Io(e)) => Err(e),
            Err(StoreError::Exists) => unreachable!("looking for a folder finds no file"),
        }
    }

    /// The same, where `folder` is the one that `name` is in.
    fn open_in(&self, folder: &File, name: &FileName) -> io::Result<OpenEntry> {
        let path = self.path_of(name);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(folder, last_component(name), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(OpenEntry::Nothing),
            Err(Errno::ELOOP) => return Ok(OpenEntry::Other(format!("{name} is a symbolic link, not a regular file"))),
            Err(Errno::ENXIO) => return Ok(OpenEntry::Other(format!("{name} is no regular file"))),
            Err(e) => return Err(e).at("opening", &path),
        };
        let found = file.metadata().at("looking at", &path)?;
        if found.is_dir() {
            // A folder on which something is mounted stays.
            let is_here =
                MountedFs::of(&file).at("looking at", &path)? == MountedFs::of(folder).at("looking at", &path)?;
            if is_here && is_hollow(&file, &mut { MAX_HOLLOW }).unwrap_or(false) {
                return Ok(OpenEntry::Nothing);
            }
            return Ok(OpenEntry::Other(format!("{name} is a folder with finished files")));
        }
        if !found.is_file() {
            return Ok(OpenEntry::Other(format!("{name} is no regular file")));
        }
        Ok(OpenEntry::File(file, found))
    }

    /// Moves the file under `name` to the same name in `aside`, a store on the same file system, if it is still the
    /// opened `file`. `false` if something else has its place.
    ///
    /// # Errors
    /// As the system gives them; it is where it was.
    pub fn set_aside(&self, name: &FileName, file: &File, aside: &Store) -> Result<bool, StoreError> {
        if !self.has(name, file)? {
            return Ok(false);
        }
        let last = OsStr::new(last_component(name));
        aside.take(&*self.folder_of(name)?, last, name, false)?;
        let is_moved = aside.has(name, file)?;
        if !is_moved {
            // A push took its place in that instant, and the moved file is whole.
            self.take(&*aside.folder_of(name)?, last, name, false)?;
        }
        Ok(is_moved)
    }

    /// True if the opened `file` stands under `name`.
    fn has(&self, name: &FileName, file: &File) -> io::Result<bool> {
        let inode = |file: &File| file.metadata().map(|found| found.ino()).at("looking at", &self.path_of(name));
        match self.open(name)? {
            OpenEntry::File(_, found) => Ok(found.ino() == inode(file)?),
            OpenEntry::Nothing | OpenEntry::Other(_) => Ok(false),
        }
    }

    /// Moves `from`, which is synced and on the same file system, under `name`, atomically and for good: it survives a
    /// power cut once this returns. Folders in its place go, if there is nothing in them.
    ///
    /// # Errors
    /// [`StoreError::Exists`] unless `replace`; then the old file was readable until the new one took its place.
    pub fn publish(&self, from: &Path, name: &FileName, replace: bool) -> Result<(), StoreError> {
        let here = File::open(from.parent().unwrap_or(Path::new("."))).at("opening the folder of", from)?;
        let file = crate::storage::disk::open_regular(from)?;
        self.take(&here, from.file_name().unwrap_or_default(), name, replace)?;
        seal(&file, &self.path_of(name));
        Ok(())
    }

    /// Gives `file`, which is synced and has no name, the name `name`. It is there for good once its folder was synced
    /// too, by [`Store::sync_entry`].
    ///
    /// # Errors
    /// [`StoreError::Exists`]: something has that name, and keeps it. [`io::ErrorKind::Unsupported`]: the file system
    /// cannot.
    pub(crate) fn link(&self, file: &File, name: &FileName) -> Result<(), StoreError> {
        // AT_EMPTY_PATH, which needs no /proc, is for administrators on most kernels (open(2), O_TMPFILE).
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = self.path_of(name);
        let linked = self.settle(name, |folder| {
            linkat(AT_FDCWD, &from[..], folder, last_component(name), AtFlags::AT_SYMLINK_FOLLOW)
        })?;
        match linked {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(StoreError::Exists),
            Err(Errno::EXDEV) => return Err(self.moved_nowhere(name)),
            Err(e @ (Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
                let e = io::Error::new(io::ErrorKind::Unsupported, e);
                return Err(e).at("publishing", &path).map_err(StoreError::Io);
            }
            Err(e) => return Err(e).at("publishing", &path).map_err(StoreError::Io),
        }
        // Btrfs writes nothing of a file without a name into its log, and with its folder only that there is one.
        if !keeps_order(file).at("looking at the file system of", &path)? {
            file.sync_all().at("syncing", &path)?;
        }
        Ok(())
    }

    /// Says that the stored digest of `file`, which has the name `name` for good, is certain as of now.
    pub(crate) fn seal(&self, file: &File, name: &FileName) {
        seal(file, &self.path_of(name));
    }
}

/// True if the file system keeps a journal in which a name that is on disk has all before it that was synced. A sync
/// of the folder is enough there for a file that was synced before it had a name.
fn keeps_order(file: &File) -> io::Result<bool> {
    /// XFS (statfs(2)).
    const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);
    Ok([EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC].contains(&fstatfs(file)?.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::renameat;
    use std::cell::RefCell;
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
            self.source_of("source", text)
        }

        fn source_of(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join("tmp").join(name);
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
        let digest = crate::protocol::digest::of_bytes(b"text");
        let known = StoredDigest { digest, source: Some("s".to_owned()), sha256: None };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known, None).unwrap();
        f.store.publish(&from, &name("a/b/c"), false).unwrap();
        assert_eq!(fs::read_to_string(f.files().join("a/b/c")).unwrap(), "text");
        let Entry::File(found) = f.store.lookup(&name("a/b/c")).unwrap() else { panic!("no file") };
        assert_eq!((found.size, found.stored_digest), (4, Some(known)));
    }

    #[test]
    fn a_remembered_folder_that_went_is_made_again() {
        let f = Fixture::new();
        let several = Store::for_several(&DataDir::create(f.dir.path()).unwrap());
        let link = |text: &str, to: &str| several.link(&File::open(f.source(text)).unwrap(), &name(to));
        link("one", "a/b/one").unwrap();
        fs::remove_dir_all(f.files().join("a")).unwrap();
        link("two", "a/b/two").unwrap();
        assert_eq!(fs::read_to_string(f.files().join("a/b/two")).unwrap(), "two");
        assert!(matches!(link("other", "a/b/two"), Err(StoreError::Exists)));
        fs::remove_dir_all(f.files().join("a")).unwrap();
        fs::write(f.files().join("a"), "a file").unwrap();
        assert!(matches!(link("three", "a/b/three"), Err(StoreError::InTheWay(_))));
        assert_eq!(
            several.lookup(&name("a/b/two")).unwrap(),
            Entry::Other("a of a/b/two is a file or a symbolic link, not a folder".into())
        );
    }

    #[test]
    fn the_version_of_a_name_tells_another_file_from_the_same_one() {
        let f = Fixture::new();
        let version = || f.store.version(&name("a/b")).unwrap();
        assert_eq!(version(), None);
        f.store.publish(&f.source("text"), &name("a/b"), false).unwrap();
        let first = version();
        assert!(first.is_some() && first == version());
        f.store.publish(&f.source("else"), &name("a/b"), true).unwrap();
        assert!(version().is_some() && version() != first);
    }

    #[test]
    fn a_changed_file_has_no_known_digest() {
        let f = Fixture::new();
        let from = f.source("text");
        let known = StoredDigest { digest: crate::protocol::digest::of_bytes(b"text"), source: None, sha256: None };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known, None).unwrap();
        f.store.publish(&from, &name("x"), false).unwrap();
        let file = fs::OpenOptions::new().write(true).open(f.files().join("x")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let Entry::File(found) = f.store.lookup(&name("x")).unwrap() else { panic!("no file") };
        assert_eq!(found.stored_digest, None);
    }

    #[test]
    fn a_file_changed_with_its_old_time_is_not_known_until_it_is_read() {
        let f = Fixture::new();
        let from = f.source("text");
        let known = StoredDigest {
            digest: crate::protocol::digest::of_bytes(b"text"),
            source: Some("s".to_owned()),
            sha256: None,
        };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known, None).unwrap();
        f.store.publish(&from, &name("x"), false).unwrap();
        let stamp_of = |entry| match entry {
            Entry::File(found) => found.stored_digest,
            other => panic!("{other:?}"),
        };
        let path = f.files().join("x");
        let set_back = |text: &str| {
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            fs::write(&path, text).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        set_back("text");
        assert_eq!(stamp_of(f.store.lookup(&name("x")).unwrap()), None);
        assert_eq!(stamp_of(f.store.confirm(&name("x")).unwrap()), Some(known.clone()));
        assert_eq!(stamp_of(f.store.lookup(&name("x")).unwrap()), Some(known), "it was sealed anew");
        set_back("else");
        let other = StoredDigest { digest: crate::protocol::digest::of_bytes(b"else"), source: None, sha256: None };
        assert_eq!(stamp_of(f.store.confirm(&name("x")).unwrap()), Some(other));
    }

    #[test]
    fn a_file_written_to_between_its_reading_and_its_stamp_is_not_known() {
        let f = Fixture::new();
        let path = f.files().join("x");
        fs::write(&path, "text").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let read_at = file.metadata().unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let read = StoredDigest { digest: crate::protocol::digest::of_bytes(b"text"), source: None, sha256: None };
        stamp_as(&file, &path, &read, None, &read_at).unwrap();
        seal(&file, &path);
        let Entry::File(found) = f.store.lookup(&name("x")).unwrap() else { panic!("no file") };
        assert_eq!(found.stored_digest, None);
    }

    #[test]
    fn what_comes_into_a_setgid_folder_gets_its_group() {
        let f = Fixture::new();
        let group = fs::metadata(f.files()).unwrap().gid() + 1;
        if std::os::unix::fs::chown(f.files(), None, Some(group)).is_err() {
            // Only an administrator can.
            return;
        }
        fs::set_permissions(f.files(), std::os::unix::fs::PermissionsExt::from_mode(0o2775)).unwrap();
        let from = f.source("x");
        for inner in ["x", "a/b"] {
            f.store.give_to_group(&crate::storage::disk::open_regular(&from).unwrap(), &name(inner));
            assert_eq!(fs::metadata(&from).unwrap().gid(), group, "{inner}");
            std::os::unix::fs::chown(&from, None, Some(group - 1)).unwrap();
        }
    }

    #[test]
    fn names_that_the_file_system_has_are_possible_and_nothing_is_left_of_trying() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        for possible in ["a/b.c", "12:30 *?", &"x".repeat(200), "é/É/a."] {
            assert_eq!(is_possible(&data, &name(possible)).unwrap(), Ok(()), "{possible}");
        }
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 0);
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
    fn folders_made_for_what_fails_go_again_and_others_stay() {
        let f = Fixture::new();
        fs::create_dir(f.files().join("a")).unwrap();
        let nothing = f.files().join("nothing");
        for _ in 0..2 {
            assert!(f.store.publish(&nothing, &name("a/b/c/d"), false).is_err());
        }
        assert_eq!(fs::read_dir(f.files().join("a")).unwrap().count(), 0, "and a was not made for it");
        let refused = f.store.settle(&name("a/b/c/d"), |_| {
            fs::create_dir(f.files().join("a/b/others")).unwrap();
            Err(Errno::EPERM)
        });
        assert!(matches!(refused, Ok(Err(Errno::EPERM))));
        assert!(f.files().join("a/b/others").exists() && !f.files().join("a/b/c").exists());
    }

    #[test]
    fn an_empty_folder_is_made_once_and_gives_way_to_a_file() {
        let f = Fixture::new();
        assert!(f.store.make_folder(&name("a/b/c")).unwrap());
        assert!(!f.store.make_folder(&name("a/b/c")).unwrap() && !f.store.make_folder(&name("a")).unwrap());
        assert!(f.files().join("a/b/c").is_dir(), "making those that are there removes none");
        fs::write(f.files().join("a/file"), "x").unwrap();
        for in_the_way in ["a/file", "a/file/b/c"] {
            assert!(matches!(f.store.make_folder(&name(in_the_way)), Err(StoreError::InTheWay(_))), "{in_the_way}");
        }
        f.store.publish(&f.source("x"), &name("a/b"), false).unwrap();
        assert!(f.files().join("a/b").is_file());
        std::os::unix::fs::symlink("/", f.files().join("link")).unwrap();
        assert!(matches!(f.store.make_folder(&name("link/x")), Err(StoreError::InTheWay(_))));
    }

    #[test]
    fn folders_that_others_remove_meanwhile_are_made_again() {
        let f = Fixture::new();
        let removed = RefCell::new(false);
        let from = f.source("text");
        f.store
            .settle(&name("a/b"), |folder| {
                if !removed.replace(true) {
                    fs::remove_dir(f.files().join("a")).unwrap();
                }
                let here = File::open(from.parent().unwrap()).unwrap();
                renameat(&here, from.file_name().unwrap(), folder, "b")
            })
            .unwrap()
            .unwrap();
        assert_eq!(fs::read_to_string(f.files().join("a/b")).unwrap(), "text");
        std::thread::scope(|scope| {
            for i in 0..4 {
                let f = &f;
                scope.spawn(move || {
                    for k in 0..20 {
                        let file = name(&format!("n/e/w/{i}-{k}"));
                        assert!(matches!(f.store.settle(&file, |_| Err(Errno::EPERM)), Ok(Err(Errno::EPERM))));
                        f.store.publish(&f.source_of(&format!("{i}-{k}"), "x"), &file, false).unwrap();
                        fs::remove_file(f.files().join(file.as_str())).unwrap();
                        let _ = fs::remove_dir(f.files().join("n/e/w"));
                    }
                });
            }
        });
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
    fn folders_with_nothing_in_them_give_way() {
        let f = Fixture::new();
        for (inner, replace) in [("plain", false), ("replaced", true)] {
            for hollow in ["a/b", "a/c/d"] {
                fs::create_dir_all(f.files().join(inner).join(hollow)).unwrap();
            }
            assert_eq!(f.store.lookup(&name(inner)).unwrap(), Entry::Nothing);
            f.store.publish(&f.source("x"), &name(inner), replace).unwrap();
            assert_eq!(fs::read_to_string(f.files().join(inner)).unwrap(), "x");
        }
        fs::create_dir(f.files().join("linked")).unwrap();
        f.store.link(&fs::File::open(f.source("y")).unwrap(), &name("linked")).unwrap();
        assert_eq!(fs::read_to_string(f.files().join("linked")).unwrap(), "y");
        // Anything in it keeps it, and all that is in it.
        for what in ["e/f/g", "e/h"] {
            fs::create_dir_all(f.files().join(what)).unwrap();
        }
        fs::write(f.files().join("e/f/file"), "x").unwrap();
        assert!(matches!(f.store.lookup(&name("e")).unwrap(), Entry::Other(_)));
        assert!(f.store.publish(&f.source("x"), &name("e"), true).is_err());
        assert!(f.files().join("e/f/g").exists() && f.files().join("e/h").exists());
        // So does their number.
        for i in 0..100 {
            fs::create_dir_all(f.files().join(format!("many/{i}"))).unwrap();
        }
        assert!(matches!(f.store.lookup(&name("many")).unwrap(), Entry::Other(_)));
    }

    #[test]
    fn a_folder_that_goes_under_a_file_is_made_again_or_in_the_way() {
        let f = Fixture::new();
        for round in 0..100 {
            let (outer, inner) = (name(&format!("{round}")), name(&format!("{round}/x")));
            fs::create_dir(f.files().join(outer.as_str())).unwrap();
            let publish = |name: &FileName, from: &str| {
                let from = f.dir.path().join("tmp").join(from);
                fs::write(&from, "x").unwrap();
                f.store.publish(&from, name, false)
            };
            let (first, second) = std::thread::scope(|threads| {
                let first = threads.spawn(|| publish(&outer, "1"));
                let second = threads.spawn(|| publish(&inner, "2"));
                (first.join().unwrap(), second.join().unwrap())
            });
            assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1, "{first:?} {second:?}");
            for done in [first, second] {
                assert!(!matches!(done, Err(StoreError::Io(_))), "{done:?}");
            }
        }
    }

    #[test]
    fn fifos_are_no_files_and_do_not_block() {
        let f = Fixture::new();
        nix::unistd::mkfifo(&f.files().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(matches!(f.store.lookup(&name("fifo")).unwrap(), Entry::Other(_)));
    }
}
