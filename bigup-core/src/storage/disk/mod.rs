//! Small, exact file operations: replacement by rename, syncing, copying, locks that outlive renames.
//!
//! It uses the system alone. Uploads, slices and digests do not come in here. Every error names the action and the path
//! ([`IoContext`]).

use crate::protocol::name::printable;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, openat, posix_fadvise, renameat};
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod attribute;
mod boot;
mod copy;
mod hole;
mod lock;
mod reflink;
mod shared;
mod splice;
mod written;

pub use attribute::attribute;
pub use boot::BootId;
pub use copy::{Copier, CopyError, CopyMethod};
pub use hole::{HOLE_TRIAL, has_holes, holes_before, is_hole, make_hole, punch};
pub use lock::{FileLock, SharedLock, is_locked, is_locked_exclusively};
pub use shared::may_be_shared;
pub use written::{begin_write_back, check_no_write_failed, notes_failed_writes};

/// Bytes read at once: enough that the calls cost little, few enough to stay in the cache.
pub const READ_LEN: usize = 256 << 10;

/// Adds the action and the path to an I/O error.
pub trait IoContext<T> {
    /// `doing` is a phrase like "syncing"; the error's kind stays as it was.
    fn at(self, doing: &str, path: &Path) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> io::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let text = format!("{doing} {}: {error}", printable(&path.to_string_lossy()));
            told(error.kind(), text, errno(&error))
        })
    }
}

/// An error with words of its own that keeps the system's number.
#[derive(Debug)]
struct Told {
    text: String,
    errno: Option<i32>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {}

/// A copy of the error, for a second receiver.
pub(crate) fn again(error: &io::Error) -> io::Error {
    told(error.kind(), error.to_string(), errno(error))
}

/// An error of this kind and number that says `text`.
fn told(kind: io::ErrorKind, text: String, errno: Option<i32>) -> io::Error {
    io::Error::new(kind, Told { text, errno })
}

/// The system's number of an error (errno(3)), also of one with added [`IoContext`]. `None` if the error is not the
/// system's.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Told>()?.errno)
}

/// True if the system was short of something that comes back by itself: descriptors of this process, descriptors of all
/// (EMFILE, ENFILE, open(2)), or memory. Nothing is wrong with the file then.
pub fn is_passing(error: &io::Error) -> bool {
    const PASSING: [i32; 3] = [Errno::EMFILE as i32, Errno::ENFILE as i32, Errno::ENOMEM as i32];
    errno(error).is_some_and(|number| PASSING.contains(&number))
}

/// 64 random bits as 16 hexadecimal digits, for names that must not meet.
pub fn random_suffix() -> String {
    let bits = getrandom::u64().expect("the kernel gives random bytes");
    format!("{bits:016x}")
}

/// Opens a regular file for reading; follows no symlink in the last component and does not block on a FIFO.
///
/// # Errors
/// Not there, no permission, or something else than a regular file ([`io::ErrorKind::InvalidInput`]).
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_if_regular(OpenOptions::new().read(true), path)
}

/// Opens or creates a regular file for reading and writing; follows no symlink in the last component and does not block
/// on a FIFO.
///
/// # Errors
/// Something else than a regular file ([`io::ErrorKind::InvalidInput`]), or as the system gives them.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    open_if_regular(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
}

fn open_if_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let irregular = || Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")).at("opening", path);
    match options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path) {
        Ok(file) if file.metadata().at("looking at", path)?.is_file() => Ok(file),
        Ok(_) => irregular(),
        // A symlink, a socket, a folder (open(2)).
        Err(e)
            if [Errno::ELOOP, Errno::ENXIO, Errno::EISDIR]
                .contains(&Errno::from_raw(e.raw_os_error().unwrap_or(0))) =>
        {
            irregular()
        }
        Err(e) => Err(e).at("opening", path),
    }
}

/// Creates a file that must not exist yet, for reading and writing.
///
/// # Errors
/// As the system gives them.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).at("creating", path)
}

/// True if a replaced file must survive a power cut from the moment the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The old or the new content survives the death of any process.
    Process,
    /// The new content also survives a power cut.
    PowerCut,
}

/// Gives the file `name` in `folder` the content `bytes`, by rename: at every instant it is the old one or the new one.
///
/// # Errors
/// The old content stands; or the new one without being durable, where only the folder could not be synced. Nothing is
/// left behind but after a kill: a file `.NAME.RANDOM.tmp`.
pub fn replace_file(folder: &Path, name: &str, bytes: &[u8], durability: Durability) -> io::Result<()> {
    replace(folder, name, bytes, durability, create_new)
}

/// Like [`replace_file`], durable, with a file that only the owner of `folder` can read and write, even if another user
/// (root) writes it: a service must be able to read the files that an administrator leaves in its folder.
///
/// # Errors
/// As for [`replace_file`]; also if this process is not permitted to give a file to the folder's owner.
pub fn replace_private_file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let owner = std::fs::metadata(folder).at("looking at", folder)?;
    replace(folder, name, bytes, Durability::PowerCut, |temporary| {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(temporary).at("creating", temporary)?;
        if file.metadata().at("looking at", temporary)?.uid() != owner.uid() {
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))
                .at("giving to the owner of its folder", temporary)?;
        }
        Ok(file)
    })
}

fn replace(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    durability: Durability,
    create: impl Fn(&Path) -> io::Result<File>,
) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}.tmp", random_suffix()));
    let path = folder.join(name);
    let written = (|| {
        // A sweep leaves locked files alone, however long the disk takes.
        let lock = FileLock::on(create(&temporary)?, &temporary)?;
        let mut file = lock.file();
        file.write_all(bytes).at("writing", &temporary)?;
        if durability == Durability::PowerCut {
            file.sync_all().at("syncing", &temporary)?;
        }
        std::fs::rename(&temporary, &path).at("replacing", &path)
    })();
    if written.is_err() {
        // The error that matters is the first one; a leftover is swept later.
        let _ = std::fs::remove_file(&temporary);
        return written;
    }
    if durability == Durability::PowerCut {
        sync_dir(folder)?;
    }
    Ok(())
}

/// Makes the entries of `folder` durable (fsync(2): syncing a file does not sync its directory entry).
///
/// # Errors
/// As the system gives them.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|dir| dir.sync_all()).at("syncing the folder", folder)
}

/// Removes a folder with its content. A symlink is removed itself, even if it replaces a folder meanwhile.
///
/// Folders in it are first moved beside it, under names that begin like its own, so that neither the stack nor the number
/// of descriptors grows with their depth, which [`std::fs::remove_dir_all`] does not survive.
///
/// # Errors
/// As the system gives them; part of it can be gone.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let first = path.file_name().unwrap_or_default().to_owned();
    let remove = || -> io::Result<()> {
        let parent = File::open(path.parent().unwrap_or(Path::new(".")))?;
        let mut left = vec![first.clone()];
        while let Some(name) = left.pop() {
            let folder = openat(&parent, name.as_os_str(), flags, Mode::empty())?;
            for entry in Dir::openat(&folder, ".", flags, Mode::empty())?.iter() {
                let entry = entry?;
                let inner = entry.file_name();
                if inner == c"." || inner == c".." {
                    continue;
                }
                match unlinkat(&folder, inner, UnlinkatFlags::NoRemoveDir) {
                    Err(Errno::EISDIR) => {
                        let mut beside = first.clone();
                        beside.push(format!(".{}", random_suffix()));
                        renameat(&folder, inner, &parent, beside.as_os_str())?;
                        left.push(beside);
                    }
                    Err(Errno::ENOENT) => {}
                    done => done?,
                }
            }
            unlinkat(&parent, name.as_os_str(), UnlinkatFlags::RemoveDir)?;
        }
        Ok(())
    };
    remove().at("removing", path)
}

/// Reads a whole small file.
///
/// # Errors
/// Over `limit` bytes, or as the system gives them.
pub fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limit + 1).read_to_end(&mut bytes).at("reading", path)?;
    if bytes.len() as u64 > limit {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("over {limit} bytes"));
        return Err(error).at("reading", path);
    }
    Ok(bytes)
}

/// Gives the `len` bytes at `offset` of `file` to `each`, in pieces of [`READ_LEN`] at most.
///
/// # Errors
/// `file` is shorter ([`io::ErrorKind::UnexpectedEof`]), or as the system gives them.
pub fn read_range(file: &File, offset: u64, len: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_LEN.min(usize::try_from(len).unwrap_or(READ_LEN))];
    let mut done = 0;
    while done < len {
        let want = buffer.len().min(usize::try_from(len - done).unwrap_or(buffer.len()));
        file.read_exact_at(&mut buffer[..want], offset + done)?;
        each(&buffer[..want]);
        done += want as u64;
    }
    Ok(())
}

/// True if a read failed since the disk cannot give back the written bytes: the file is shorter, or the device fails
/// (EIO, read(2)).
pub fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::EIO as i32)
}

/// Lets the kernel forget the `len` bytes at `offset` of `file` that it keeps in memory (posix_fadvise(2)): for readers
/// of much data that will not be read again soon.
pub fn forget_cached(file: &File, offset: u64, len: u64) {
    // A hint: where it is not taken, memory is used as by any other reader.
    let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// The file system, and the mount of it, that something is on. Nothing can be renamed or linked from one to another, not
/// even between two mounts of one file system (rename(2), EXDEV), nor between subvolumes of Btrfs, which are devices too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MountedFs {
    device: u64,
    /// 0: the kernel does not tell (statx(2), before Linux 5.8).
    mount: u64,
}

impl MountedFs {
    /// Where an open file or folder is.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of(file: &File) -> io::Result<MountedFs> {
        let wanted = rustix::fs::StatxFlags::MNT_ID;
        let told = match rustix::fs::statx(file, "", rustix::fs::AtFlags::EMPTY_PATH, wanted) {
            // An old kernel, or a sandbox that does not let it through: devices must do.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                return Ok(MountedFs { device: file.metadata()?.dev(), mount: 0 });
            }
            told => told?,
        };
        let mount = if told.stx_mask & wanted.bits() == 0 { 0 } else { told.stx_mnt_id };
        Ok(MountedFs { device: rustix::fs::makedev(told.stx_dev_major, told.stx_dev_minor), mount })
    }

    /// Where the folder at `path` is.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of_folder(path: &Path) -> io::Result<MountedFs> {
        File::open(path).and_then(|folder| MountedFs::of(&folder)).at("looking at the file system of", path)
    }
}

/// Shows whether a file, or the entries of a folder, changed since an earlier call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileVersion {
    inode: u64,
    len: u64,
    /// Time at which the kernel last noted a change (inode(7), ctime), in seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileVersion {
    /// The version of `path` now. For a link it is the link's own, not its target's. `None` if there is nothing.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of(path: &Path) -> io::Result<Option<FileVersion>> {
        match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(FileVersion::of_metadata(&found))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", path),
        }
    }

    /// The version that has these metadata.
    pub fn of_metadata(found: &Metadata) -> FileVersion {
        FileVersion { inode: found.ino(), len: found.len(), changed: (found.ctime(), found.ctime_nsec()) }
    }

    /// The same of the metadata that other calls give.
    pub fn of_stat(found: &FileStat) -> FileVersion {
        let len = u64::try_from(found.st_size).unwrap_or(0);
        FileVersion { inode: found.st_ino, len, changed: (found.st_ctime, found.st_ctime_nsec) }
    }

    /// The version of an object in a store, which has this tag, length and time.
    pub fn of_object(etag: &str, len: u64, modified: SystemTime) -> FileVersion {
        let hash = blake3::hash(etag.as_bytes());
        let inode = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        let changed = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        FileVersion { inode, len, changed: (i64::try_from(changed.as_secs()).unwrap_or(i64::MAX), 0) }
    }

    /// The same bytes for the same version, and others for another one.
    pub fn to_bytes(&self) -> [u8; 32] {
        let (seconds, nanoseconds) = self.changed;
        let numbers =
            [self.inode.to_le_bytes(), self.len.to_le_bytes(), seconds.to_le_bytes(), nanoseconds.to_le_bytes()];
        std::array::from_fn(|i| numbers[i / 8][i % 8])
    }

    /// True if the last change was at least `time` ago. Clocks of file systems tick in steps of milliseconds: a second
    /// change just after the first cannot be told from it. False if clocks disagree.
    pub fn is_older(&self, time: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        now.checked_sub(changed).is_some_and(|age| age >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn errors_say_what_was_done_to_which_path() {
        let error = open_regular(Path::new("/nowhere/x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with("opening /nowhere/x: "), "{error}");
    }

    #[test]
    fn what_the_system_is_short_of_is_told_from_what_is_wrong() {
        let failed = |errno: Errno| Err::<(), _>(errno).at("opening", Path::new("x")).unwrap_err();
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            let twice = Err::<(), _>(again(&failed(errno))).at("saving", Path::new("y")).unwrap_err();
            assert!(is_passing(&failed(errno)) && is_passing(&twice), "{twice}");
        }
        assert!(!is_passing(&failed(Errno::EIO)) && !is_passing(&io::Error::other("x")));
        assert_eq!(errno(&failed(Errno::EIO)), Some(Errno::EIO as i32));
    }

    #[test]
    fn opens_regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, fifo) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_regular(&file).is_ok());
        assert!(open_regular(&link).is_err());
        assert!(open_regular(&fifo).is_err());
        assert!(open_regular(dir.path()).is_err());
    }

    #[test]
    fn a_folder_goes_however_deep_it_is_and_links_are_not_followed() {
        /// More folders in each other than a path can name (PATH_MAX, 4096 bytes).
        const DEPTH: usize = 2500;
        let dir = tempfile::tempdir().unwrap();
        let (doomed, outside) = (dir.path().join("doomed"), dir.path().join("outside"));
        fs::create_dir_all(doomed.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "c").unwrap();
        fs::write(doomed.join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, doomed.join("a/b/link")).unwrap();
        nix::unistd::mkfifo(&doomed.join("fifo"), Mode::S_IRWXU).unwrap();
        let mut at = std::os::fd::OwnedFd::from(File::open(&doomed).unwrap());
        for _ in 0..DEPTH {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        // A step for each folder that kept something on the stack would not get far in this one.
        std::thread::scope(|scope| {
            let removing = std::thread::Builder::new().stack_size(DEPTH * 64);
            removing.spawn_scoped(scope, || remove_folder(&doomed).unwrap()).unwrap();
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(outside.join("canary").exists());
        std::os::unix::fs::symlink(&outside, &doomed).unwrap();
        remove_folder(&doomed).unwrap_err();
        assert!(outside.join("canary").exists());
    }

    #[test]
    fn a_replaced_file_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        for (text, durability) in [("one", Durability::Process), ("two", Durability::PowerCut)] {
            replace_file(dir.path(), "f", text.as_bytes(), durability).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), text);
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        replace_file(dir.path(), "d", b"x", Durability::Process).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_private_file_belongs_to_the_owner_of_its_folder_and_to_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(4711), Some(4712)).unwrap();
        }
        replace_private_file(dir.path(), "f", b"secret").unwrap();
        let (file, folder) = (fs::metadata(dir.path().join("f")).unwrap(), fs::metadata(dir.path()).unwrap());
        assert_eq!((file.uid(), file.mode() & 0o7777), (folder.uid(), 0o600));
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"secret");
    }

    #[test]
    fn what_was_seen_tells_a_change() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileVersion::of(&dir.path().join("nothing")).unwrap(), None);
        let before = FileVersion::of(dir.path()).unwrap().unwrap();
        assert!(!before.is_older(Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(FileVersion::of(dir.path()).unwrap(), Some(before));
        assert!(before.is_older(Duration::from_millis(10)));
        fs::write(dir.path().join("new"), "").unwrap();
        assert_ne!(FileVersion::of(dir.path()).unwrap(), Some(before));
    }
}
