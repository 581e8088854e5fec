//! The place of finished files: the folder `files/`. Whatever is in it is whole, checked and synced.
//!
//! Paths below `files/` are walked component by component and never through a symlink, so a link that somebody placed
//! inside leads nowhere. A finished file carries its digest in an extended attribute, tied to its size and time of
//! change: a file that was changed or put there by hand simply has no known digest.
//!
//! The time of the last write can be set back by whoever wrote. So another attribute, the seal, tells up to which time of
//! change of anything, which nobody can set back, the digest is certain. A file whose seal does not hold (its mode was
//! changed, a link to it made, it was restored, or power failed before the seal reached the disk) is read once when
//! somebody asks for its digest ([`Store::confirm`]), and sealed anew.

use crate::protocol::digest::{Digest, DigestKind, Leaves, SliceHasher};
use crate::protocol::name::FileName;
use crate::storage::data_dir::{DataDir, Modes};
use crate::storage::disk::{Context, Place};
use crate::storage::group_sync::JointSyncs;
use crate::storage::spool::{MAKING, hash_range};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xattr::FileExt;

/// Name of the extended attribute, in the user's namespace (xattr(7)).
const ATTRIBUTE: &str = "user.bigup";

/// The same with the digests of the file's leaves: slice size and bytes of a leaf as 8 bytes each, little-endian, then
/// 32 bytes a leaf. It is taken for true where they join to the digest of the stamp.
const LEAVES_ATTRIBUTE: &str = "user.bigup.leaves";

/// How often a file is given its name while folders there come and go.
const ATTEMPTS: usize = 100;
/// Longest part of a name that every file system has, in bytes, where its characters are usual ones: that of eCryptfs.
const USUAL_LEN: usize = 143;

/// Until when the digest of the stamp is certain: a time of change (ctime) in nanoseconds since 1970, as decimal digits.
const SEAL: &str = "user.bigup.seal";

/// How much later than it was seen the time of change may be that setting the seal gives, one attempt after the other, in
/// nanoseconds. A change in that time goes unnoticed.
const SEAL_MARGINS: [i128; 3] = [1_000_000, 20_000_000, 100_000_000];

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
    /// What is known of its content for certain. None: it was put there or changed by somebody else, that cannot be ruled
    /// out, or the file system keeps no extended attributes. [`Store::confirm`] finds out.
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

/// What a file in `files/` says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: it was put there by somebody else, or the file system keeps no extended attributes.
    Nothing,
    /// It was changed since it was published, so nothing is known of what it must be.
    Changed {
        /// What it was.
        stamp: Stamp,
        /// Bytes that it had.
        size: u64,
    },
    /// It was not changed since, and what it must be is this; its size, in bytes, too.
    Was {
        /// Its stamp.
        stamp: Stamp,
        /// Bytes that it must have.
        size: u64,
    },
}

/// What is found under a name, opened.
#[derive(Debug)]
pub enum Opened {
    /// Nothing.
    Nothing,
    /// A regular file.
    File(File),
    /// Something that no upload of this name can become or replace; says what.
    Other(String),
}

/// The form of a stamp on disk. It holds for a file of this size and time of change only.
#[derive(Serialize, Deserialize)]
struct Stored {
    digest: String,
    source: Option<String>,
    size: u64,
    modified: (i64, i64),
}

/// How folders are opened.
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How often a file is read that changes meanwhile.
const CONFIRM_ATTEMPTS: u32 = 3;

/// Most folders that are looked through for something in them.
const MAX_HOLLOW: u32 = 64;

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
    /// Where files come from.
    tmp: PathBuf,
    syncs: Arc<JointSyncs>,
    modes: Modes,
}

impl Store {
    /// The store of `data`.
    pub fn new(data: &DataDir) -> Store {
        Store { files: data.files(), tmp: data.tmp(), syncs: Arc::clone(&data.syncs), modes: data.modes() }
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
        Ok(match self.open(name)? {
            Opened::Nothing => Entry::Nothing,
            Opened::Other(what) => Entry::Other(what),
            Opened::File(file) => {
                let path = self.path_of(name);
                let found = file.metadata().at("looking at", &path)?;
                let stamp = read_stamp(&file, &found).at("reading the digest of", &path)?;
                Entry::File(Finished { size: found.len(), stamp })
            }
        })
    }

    /// Why no file can be moved from `tmp/` to `name`: a folder on the way is on another mount. None: it can, as far as may
    /// be seen beforehand.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn out_of_reach(&self, name: &FileName) -> io::Result<Option<String>> {
        let here = Place::of_folder(&self.tmp)?;
        let (passed, found) = (Cell::new(0), Cell::new(None));
        let walked = self.walk(name, |folder, _| {
            if Place::of(folder).at("looking at the file system of", &self.path_of(name))? != here {
                found.set(Some(passed.get()));
                return Err(StoreError::Exists);
            }
            passed.set(passed.get() + 1);
            Ok(())
        });
        match (found.get(), walked) {
            (Some(depth), _) => Ok(Some(elsewhere(name, depth))),
            // What is missing is made where the last folder is that is there; what else is in the way is found later.
            (None, Err(StoreError::Io(e))) if e.kind() != io::ErrorKind::NotFound => Err(e),
            (None, _) => Ok(None),
        }
    }

    /// A file could not be moved to `name` since that is somewhere else.
    fn moved_nowhere(&self, name: &FileName) -> StoreError {
        // Folders of another project quota cannot be told beforehand (xfs_quota(8)).
        let seen = self.out_of_reach(name).ok().flatten();
        StoreError::InTheWay(seen.unwrap_or_else(|| elsewhere(name, name.components().count() - 1)))
    }

    /// What stands under `name`, whose content is read where it is not known for certain; what it is is written down then,
    /// where that is possible. Takes as long as reading the file does.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn confirm(&self, name: &FileName) -> io::Result<Entry> {
        for _ in 1..CONFIRM_ATTEMPTS {
            match self.confirm_once(name)? {
                // Mostly whoever published it was about to seal it.
                Entry::File(Finished { stamp: None, .. }) => {}
                known => return Ok(known),
            }
        }
        self.confirm_once(name)
    }

    fn confirm_once(&self, name: &FileName) -> io::Result<Entry> {
        let (entry, path) = (self.lookup(name)?, self.path_of(name));
        let Entry::File(Finished { stamp: None, .. }) = &entry else { return Ok(entry) };
        let Opened::File(file) = self.open(name)? else { return Ok(entry) };
        let before = file.metadata().at("looking at", &path)?;
        let digest = hash_range(&file, 0, before.len(), SliceHasher::new(DigestKind::Hash, 0)).at("reading", &path)?;
        let after = file.metadata().at("looking at", &path)?;
        if (before.len(), changed(&before)) != (after.len(), changed(&after)) {
            return Ok(Entry::File(Finished { size: after.len(), stamp: None }));
        }
        let digest = digest.digest;
        let (known, is_written) = match claim(&file, &after).at("reading the digest of", &path)? {
            // To write it again would only move the time of change, for others who do the same.
            Claim::Was { stamp, size } if stamp.digest == digest => (stamp, size == after.len()),
            _ => (Stamp { digest, source: None }, false),
        };
        // It may be another user's, or lie on a file system that is only to be read.
        match if is_written { Ok(()) } else { stamp_as(&file, &path, &known, &after) } {
            Ok(()) => seal(&file, &path),
            Err(e) => log::debug!("what it was found to be is not written down: {e}"),
        }
        Ok(Entry::File(Finished { size: after.len(), stamp: Some(known) }))
    }

    /// Gives `file`, which is about to become `name`, to the group of the folder that it goes to, where that folder says so
    /// (setgid, inode(7)): files made there would belong to it. Where this process may not do that, the file keeps its
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

    /// Gives `file`, which is about to become `name`, the group and the mode that finished files have there. The mode comes last,
    /// since another group takes set-id bits away (chown(2)).
    ///
    /// # Errors
    /// The mode cannot be set.
    pub(crate) fn give_permissions(&self, file: &File, name: &FileName) -> io::Result<()> {
        self.give_to_group(file, name);
        let Some(mode) = self.modes.file else { return Ok(()) };
        file.set_permissions(Permissions::from_mode(mode)).at("setting the mode of", &self.path_of(name))
    }

    /// The innermost folder on the way to `name` that is there. Those made below it get its group, if it is setgid.
    fn deepest_folder_of(&self, name: &FileName) -> io::Result<Metadata> {
        let deepest = RefCell::new(std::fs::metadata(&self.files)?);
        // Where the walk ends early is the deepest one.
        let _ = self.walk(name, |folder, _| {
            *deepest.borrow_mut() = folder.metadata()?;
            Ok(())
        });
        Ok(deepest.into_inner())
    }

    /// Opens what stands under `name`, for reading.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn open(&self, name: &FileName) -> io::Result<Opened> {
        let path = self.path_of(name);
        let folder = match self.folder_of(name) {
            Ok(folder) => folder,
            Err(StoreError::InTheWay(what)) => return Ok(Opened::Other(what)),
            Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(Opened::Nothing),
            Err(StoreError::Io(e)) => return Err(e),
            Err(StoreError::Exists) => unreachable!("looking for a folder finds no file"),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&folder, last_component(name), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(Opened::Nothing),
            Err(Errno::ELOOP) => return Ok(Opened::Other(format!("{name} is a symbolic link, not a regular file"))),
            Err(Errno::ENXIO) => return Ok(Opened::Other(format!("{name} is no regular file"))),
            Err(e) => return Err(e).at("opening", &path),
        };
        let found = file.metadata().at("looking at", &path)?;
        if found.is_dir() {
            // A place where something is mounted stays.
            let is_here = Place::of(&file).at("looking at", &path)? == Place::of(&folder).at("looking at", &path)?;
            if is_here && is_hollow(&file, &mut { MAX_HOLLOW }).unwrap_or(false) {
                return Ok(Opened::Nothing);
            }
            return Ok(Opened::Other(format!("{name} is a folder with finished files")));
        }
        if !found.is_file() {
            return Ok(Opened::Other(format!("{name} is no regular file")));
        }
        Ok(Opened::File(file))
    }

    /// Moves the file under `name` to the same name in `aside`, a store on the same file system, if it is still the opened
    /// `file`. False: something else has its place.
    ///
    /// # Errors
    /// As the system gives them; it is where it was.
    pub fn set_aside(&self, name: &FileName, file: &File, aside: &Store) -> Result<bool, StoreError> {
        if !self.has(name, file)? {
            return Ok(false);
        }
        let last = OsStr::new(last_component(name));
        aside.take(&self.folder_of(name)?, last, name, false)?;
        let is_moved = aside.has(name, file)?;
        if !is_moved {
            // A push took its place in that instant, and what was moved is whole.
            self.take(&aside.folder_of(name)?, last, name, false)?;
        }
        Ok(is_moved)
    }

    /// Whether the opened `file` is what stands under `name`.
    fn has(&self, name: &FileName, file: &File) -> io::Result<bool> {
        let inode = |file: &File| file.metadata().map(|found| found.ino()).at("looking at", &self.path_of(name));
        match self.open(name)? {
            Opened::File(found) => Ok(inode(&found)? == inode(file)?),
            Opened::Nothing | Opened::Other(_) => Ok(false),
        }
    }

    /// Moves `from`, which is synced and on the same file system, under `name`, atomically and for good: it survives a
    /// power cut once this returns. Folders in its place go, where there is nothing in them.
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

    /// Moves `from_name` of the folder `here` under `name`, as [`Store::publish`] does.
    fn take(&self, here: &File, from_name: &OsStr, name: &FileName, replace: bool) -> Result<(), StoreError> {
        let to = last_component(name);
        let moved = self.settle(name, |folder| {
            if replace {
                return renameat(here, from_name, folder, to);
            }
            match renameat2(here, from_name, folder, to, RenameFlags::RENAME_NOREPLACE) {
                // The file system has no such rename.
                Err(Errno::EINVAL | Errno::ENOSYS) => move_if_free(here, from_name, folder, to),
                done => done,
            }
        })?;
        match moved {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(StoreError::Exists),
            Err(Errno::EISDIR | Errno::ENOTEMPTY) => {
                return Err(StoreError::InTheWay(format!("{name} is a folder with finished files")));
            }
            Err(Errno::EXDEV) => return Err(self.moved_nowhere(name)),
            Err(e) => return Err(e).at("publishing", &self.path_of(name)).map_err(StoreError::Io),
        }
        self.sync_entry(name)
    }

    /// Has `put` give a file the name `name` in its folder, and creates what is missing of that. Where folders with nothing
    /// in them have that name they go, and `put` is tried again; so it is where its folder went as one of those. If it fails
    /// the folders that were made for it go again, unless somebody else uses them by then.
    fn settle(&self, name: &FileName, put: impl Fn(&File) -> nix::Result<()>) -> Result<nix::Result<()>, StoreError> {
        let mut attempts = 1..ATTEMPTS;
        loop {
            let made = RefCell::default();
            let (done, may_pass) = match self.make_folder_of(name, &made) {
                Ok(folder) => {
                    let done = put(&folder);
                    let may_pass = match done {
                        Err(Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY) => {
                            remove_hollow(&folder, last_component(name))
                        }
                        // Else what is to get the name is gone, and stays so.
                        Err(Errno::ENOENT) => folder.metadata().is_ok_and(|found| found.nlink() == 0),
                        _ => false,
                    };
                    (Ok(done), may_pass)
                }
                // A folder on the way went in the instant after it was made or found.
                Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound => (Err(StoreError::Io(e)), true),
                Err(e) => (Err(e), false),
            };
            if !matches!(done, Ok(Ok(()))) {
                self.remove_folders(name, &made.into_inner());
            }
            if !may_pass || attempts.next().is_none() {
                return done;
            }
        }
    }

    /// Gives `file`, which is synced and has no name, the name `name`; for good once this returns.
    ///
    /// # Errors
    /// [`StoreError::Exists`]: something has that name, and keeps it. [`io::ErrorKind::Unsupported`]: the file system
    /// cannot. Where only a sync failed the file has its name: whoever finds it there [syncs](Store::sync_entry) again.
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
        self.sync_entry(name)?;
        seal(file, &path);
        Ok(())
    }

    /// Makes the entry of a file that stands under `name` durable, and those of its folders up to `files/`: whoever put it
    /// there, or made a folder, may not have lived to do it, or be about to.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_entry(&self, name: &FileName) -> Result<(), StoreError> {
        let folders = name.as_str().rsplit_once('/').map_or("", |(folders, _)| folders);
        let sync_all = || {
            self.walk(name, |folder, _| Ok(folder.sync_all().at("syncing the folder of", &self.path_of(name))?))
                .map(drop)
        };
        self.syncs.sync(folders, || {
            sync_all().map_err(|error| match error {
                StoreError::Io(e) => e,
                in_the_way => io::Error::new(io::ErrorKind::NotADirectory, in_the_way.to_string()),
            })
        })?;
        Ok(())
    }

    /// Opens the folder that `name` is in.
    fn folder_of(&self, name: &FileName) -> Result<File, StoreError> {
        self.walk(name, |_, _| Ok(()))
    }

    /// Removes those folders on the way to `name` that have these depths, the innermost first, as long as they are empty.
    fn remove_folders(&self, name: &FileName, depths: &[usize]) {
        for depth in depths.iter().rev() {
            let folder: Vec<&str> = name.components().take(depth + 1).collect();
            let Ok(folder) = FileName::new(&folder.join("/")) else { return };
            let removed = self
                .folder_of(&folder)
                .map(|parent| unlinkat(&parent, last_component(&folder), UnlinkatFlags::RemoveDir));
            // Those above have this one in them.
            let Ok(Ok(())) = removed else { return };
        }
    }

    /// Opens the folder that `name` is in, and creates what is missing; `made` learns which depths that were.
    fn make_folder_of(&self, name: &FileName, made: &RefCell<Vec<usize>>) -> Result<File, StoreError> {
        let depth = RefCell::new(0..);
        self.walk(name, |folder, next| {
            let (Some(component), Some(depth)) = (next, depth.borrow_mut().next()) else { return Ok(()) };
            match mkdirat(folder, component, Mode::from_bits_truncate(0o777)) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Ok(()),
                Err(e) => return Err(e).at("creating the folder of", &self.path_of(name)).map_err(StoreError::Io),
            }
            if let Some(mode) = self.modes.dir {
                let made = fchmodat(folder, component, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink);
                made.at("setting the mode of the folder of", &self.path_of(name))?;
            }
            if let Err(e) = folder.sync_all() {
                // Whoever comes next would find it there and take it for durable.
                let _ = unlinkat(folder, component, UnlinkatFlags::RemoveDir);
                return Err(e).at("syncing a folder of", &self.path_of(name)).map_err(StoreError::Io);
            }
            made.borrow_mut().push(depth);
            Ok(())
        })
    }

    /// Opens the folders that lead to `name` one after the other, beginning with `files/`. Each is shown to `visit`, with
    /// the name of the next one in it. Gives the last one.
    fn walk(
        &self,
        name: &FileName,
        visit: impl Fn(&File, Option<&str>) -> Result<(), StoreError>,
    ) -> Result<File, StoreError> {
        let mut folder =
            nix::fcntl::open(&self.files, FOLDER, Mode::empty()).map(File::from).at("opening", &self.files)?;
        let mut components: Vec<&str> = name.components().collect();
        components.pop();
        for component in components {
            visit(&folder, Some(component))?;
            folder = match openat(&folder, component, FOLDER, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let what = format!("{component} of {name} is a file or a symbolic link, not a folder");
                    return Err(StoreError::InTheWay(crate::protocol::name::printable(&what)));
                }
                Err(e) => return Err(e).at("opening the folder of", &self.path_of(name)).map_err(StoreError::Io),
            };
        }
        visit(&folder, None)?;
        Ok(folder)
    }
}

/// Whether there is nothing in a folder, or only such folders; `left` is how many more may be looked through. False also
/// where they are too many.
fn is_hollow(folder: &File, left: &mut u32) -> nix::Result<bool> {
    let mut inner = vec![];
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            inner.push(name);
        }
        if inner.len() > *left as usize {
            return Ok(false);
        }
    }
    for name in inner {
        *left = left.saturating_sub(1);
        let is_hollow = match openat(folder, name.as_c_str(), FOLDER, Mode::empty()) {
            Ok(inner) => *left > 0 && is_hollow(&inner.into(), left)?,
            Err(Errno::ENOENT) => true,
            Err(_) => false,
        };
        if !is_hollow {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the folder `name` of `folder` if it is hollow. Nothing goes that is no empty folder at that instant: what comes
/// into one meanwhile keeps it, and all above it. Whether it went.
fn remove_hollow(folder: &File, name: &str) -> bool {
    let is_removed = || -> nix::Result<bool> {
        let found = File::from(openat(folder, name, FOLDER, Mode::empty())?);
        if !is_hollow(&found, &mut { MAX_HOLLOW })? {
            return Ok(false);
        }
        remove_inner(&found)?;
        unlinkat(folder, name, UnlinkatFlags::RemoveDir).map(|()| true)
    };
    is_removed().unwrap_or(false)
}

/// Removes the folders in `folder`, hollow ones, from the innermost on.
fn remove_inner(folder: &File) -> nix::Result<()> {
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            remove_inner(&openat(folder, name, FOLDER, Mode::empty())?.into())?;
            unlinkat(folder, name, UnlinkatFlags::RemoveDir)?;
        }
    }
    Ok(())
}

/// Whether the file system keeps a journal in which a name that is on disk has all before it that was synced: there a sync
/// of the folder is enough for a file that was synced before it had a name.
fn keeps_order(file: &File) -> io::Result<bool> {
    /// XFS (statfs(2)).
    const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);
    Ok([EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC].contains(&fstatfs(file)?.filesystem_type()))
}

/// Says that finished files cannot get into the folder of `name` that is so many steps below `files/`.
fn elsewhere(name: &FileName, depth: usize) -> String {
    let steps: String = name.components().take(depth).flat_map(|component| ["/", component]).collect();
    let outside = if depth > 0 { format!(", or use a name outside of files{steps}") } else { String::new() };
    crate::protocol::name::printable(&format!(
        "files{steps} in the server's data folder is on another mount (or subvolume, or project quota) than tmp, and no \
         file can be moved from there: mount one disk for the whole data folder{outside}"
    ))
}

fn last_component(name: &FileName) -> &str {
    name.components().last().expect("a name has at least one component")
}

/// A link does not replace either. Where there are none, what remains is to look first: uploads of one name never get here
/// at once, since the lock of the merger is between them.
fn move_if_free(here: &File, from: &OsStr, folder: &File, to: &str) -> nix::Result<()> {
    match linkat(here, from, folder, to, AtFlags::empty()) {
        Ok(()) => unlinkat(here, from, UnlinkatFlags::NoRemoveDir),
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            match fstatat(folder, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EEXIST),
                Err(Errno::ENOENT) => renameat(here, from, folder, to),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

/// Writes down what `file` holds, on the file itself. The caller syncs it, and changes its content no more.
///
/// Where the file system keeps no such attributes the digest will not be known later; that is logged and no error.
///
/// # Errors
/// As the system gives them.
pub fn stamp(file: &File, path: &Path, stamp: &Stamp) -> io::Result<()> {
    stamp_as(file, path, stamp, &file.metadata().at("looking at", path)?)
}

/// The same where what `file` holds was read while its metadata were `found`: the stamp does not hold if it was written to
/// since.
fn stamp_as(file: &File, path: &Path, stamp: &Stamp, found: &Metadata) -> io::Result<()> {
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

/// Says that the stamp of `file` is certain as of now. It is not synced: where it is lost the file is read when somebody
/// asks. Nor is it an error where it cannot be set.
fn seal(file: &File, path: &Path) {
    let sealed: io::Result<bool> = (|| {
        if file.get_xattr(ATTRIBUTE)?.is_none() {
            return Ok(true);
        }
        for margin in SEAL_MARGINS {
            let until = changed(&file.metadata()?) + margin;
            file.set_xattr(SEAL, until.to_string().as_bytes())?;
            if changed(&file.metadata()?) <= until {
                return Ok(true);
            }
        }
        Ok(false)
    })();
    match sealed {
        Ok(true) => {}
        Ok(false) => log::debug!("{}: changes too often to be sealed", path.display()),
        Err(e) => log::debug!("{}: cannot be sealed: {e}", path.display()),
    }
}

/// Whether nothing about `file` changed since it was sealed; `found` are its metadata of now.
fn is_sealed(file: &File, found: &Metadata) -> io::Result<bool> {
    let until = file.get_xattr(SEAL)?.and_then(|value| String::from_utf8(value).ok()?.parse().ok());
    Ok(until.is_some_and(|until: i128| changed(found) <= until))
}

/// The time of the last change of anything, in nanoseconds since 1970.
fn changed(found: &Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}

/// Whether the file system of `data` can have files of this name. Says why not. Only names that are unusual are tried, in a
/// folder of their own.
///
/// # Errors
/// As the system gives them.
pub fn is_possible(data: &DataDir, name: &FileName) -> io::Result<Result<(), String>> {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_plain = |part: &str| part.len() <= USUAL_LEN && part.chars().all(is_usual) && !part.ends_with('.');
    let mut parts = name.components().filter(|part| !is_plain(part)).peekable();
    if parts.peek().is_none() {
        return Ok(Ok(()));
    }
    let trial = data.tmp().join(format!("{MAKING}{}", crate::storage::disk::random_suffix()));
    std::fs::create_dir(&trial).at("creating", &trial)?;
    let tried = parts.try_for_each(|part| {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::open(&trial.join(part), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            // One that differs by case only from another part of the name is there already.
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err((part, e)),
        }
    });
    crate::storage::disk::remove_folder(&trial)?;
    match tried {
        Ok(()) => Ok(Ok(())),
        Err((part, Errno::EINVAL | Errno::EILSEQ | Errno::ENAMETOOLONG | Errno::ENOENT)) => {
            let part = crate::protocol::name::printable(part);
            Ok(Err(format!("the server's file system has no files of the name {part}: use another, by --name")))
        }
        Err((_, e)) => Err(e).at("trying a name in", &trial),
    }
}

/// Keeps the digests of the leaves of `file`, a stamped one, on the file itself, with the size of the slices that it came
/// in. Where there is no room for them damage in it can be found and not located; that is no error.
pub fn keep_leaves(file: &File, path: &Path, slice_size: u64, leaves: &Leaves) {
    let numbers = [slice_size, leaves.leaf_len].into_iter().flat_map(u64::to_le_bytes);
    let value: Vec<u8> = numbers.chain(leaves.values.iter().flat_map(|value| value.0)).collect();
    if let Err(e) = file.set_xattr(LEAVES_ATTRIBUTE, &value) {
        log::debug!("{}: the digests of its parts are not kept: {e}", path.display());
    }
}

/// The digests of the leaves of a file with this digest and the size of the slices that it came in, in bytes, where they
/// were kept.
pub fn read_leaves(file: &File, digest: Digest) -> Option<(u64, Leaves)> {
    let value = file.get_xattr(LEAVES_ATTRIBUTE).ok()??;
    let (slice_size, rest) = value.split_first_chunk()?;
    let (leaf_len, rest) = rest.split_first_chunk()?;
    let values = rest.as_chunks().0.iter().map(|value| Digest(*value)).collect();
    let leaves = Leaves { leaf_len: u64::from_le_bytes(*leaf_len), values };
    (leaves.root() == Some(digest)).then_some((u64::from_le_bytes(*slice_size), leaves))
}

/// What a file says of itself; `found` are its metadata of now.
///
/// # Errors
/// It cannot be read, which says nothing.
pub fn claim(file: &File, found: &Metadata) -> io::Result<Claim> {
    let value = match file.get_xattr(ATTRIBUTE) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => None,
        value => value?,
    };
    let stored: Option<Stored> = value.and_then(|value| serde_json::from_slice(&value).ok());
    let known = stored.and_then(|stored| Some((stored.digest.parse().ok()?, stored)));
    Ok(match known {
        None => Claim::Nothing,
        Some((digest, Stored { source, size, modified, .. })) => {
            let stamp = Stamp { digest, source };
            let is_changed = modified != (found.mtime(), found.mtime_nsec());
            if is_changed { Claim::Changed { stamp, size } } else { Claim::Was { stamp, size } }
        }
    })
}

/// The stamp of a file, if it has one that holds.
fn read_stamp(file: &File, found: &Metadata) -> io::Result<Option<Stamp>> {
    Ok(match claim(file, found)? {
        Claim::Was { stamp, size } if size == found.len() && is_sealed(file, found)? => Some(stamp),
        _ => None,
    })
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
        let known = Stamp { digest, source: Some("s".to_owned()) };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known).unwrap();
        f.store.publish(&from, &name("a/b/c"), false).unwrap();
        assert_eq!(fs::read_to_string(f.files().join("a/b/c")).unwrap(), "text");
        let Entry::File(found) = f.store.lookup(&name("a/b/c")).unwrap() else { panic!("no file") };
        assert_eq!((found.size, found.stamp), (4, Some(known)));
    }

    #[test]
    fn a_changed_file_has_no_known_digest() {
        let f = Fixture::new();
        let from = f.source("text");
        let known = Stamp { digest: crate::protocol::digest::of_bytes(b"text"), source: None };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known).unwrap();
        f.store.publish(&from, &name("x"), false).unwrap();
        let file = fs::OpenOptions::new().write(true).open(f.files().join("x")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let Entry::File(found) = f.store.lookup(&name("x")).unwrap() else { panic!("no file") };
        assert_eq!(found.stamp, None);
    }

    #[test]
    fn a_file_changed_with_its_old_time_is_not_known_until_it_is_read() {
        let f = Fixture::new();
        let from = f.source("text");
        let known = Stamp { digest: crate::protocol::digest::of_bytes(b"text"), source: Some("s".to_owned()) };
        stamp(&crate::storage::disk::open_regular(&from).unwrap(), &from, &known).unwrap();
        f.store.publish(&from, &name("x"), false).unwrap();
        let stamp_of = |entry| match entry {
            Entry::File(found) => found.stamp,
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
        let other = Stamp { digest: crate::protocol::digest::of_bytes(b"else"), source: None };
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
        let read = Stamp { digest: crate::protocol::digest::of_bytes(b"text"), source: None };
        stamp_as(&file, &path, &read, &read_at).unwrap();
        seal(&file, &path);
        let Entry::File(found) = f.store.lookup(&name("x")).unwrap() else { panic!("no file") };
        assert_eq!(found.stamp, None);
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
