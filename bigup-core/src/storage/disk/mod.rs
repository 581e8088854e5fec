//! Small, exact file operations: replacement by rename, syncing, copying, locks that outlive renames.
//!
//! Every error says what was being done and to which path ([`Context`]).

use crate::protocol::name::printable;
use fs2::FileExt;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, copy_file_range, openat, posix_fadvise, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use splice::Pipe;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod reflink;
mod splice;
mod written;

pub use written::{check_no_write_failed, notes_failed_writes};

/// Bytes read at once: enough that the calls cost little, few enough to stay in the cache.
pub const READ_LEN: usize = 256 << 10;

/// Adds what was being done, and to which path, to an I/O error.
pub trait Context<T> {
    /// `doing` is a phrase like "syncing"; the error's kind stays as it was.
    fn at(self, doing: &str, path: &Path) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
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

/// The same error once more, for somebody else.
pub(crate) fn again(error: &io::Error) -> io::Error {
    told(error.kind(), error.to_string(), errno(error))
}

/// An error of this kind and number that says `text`.
fn told(kind: io::ErrorKind, text: String, errno: Option<i32>) -> io::Error {
    io::Error::new(kind, Told { text, errno })
}

/// The system's number of an error (errno(3)), also of one with added [`Context`]. None: it is none of the system's.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Told>()?.errno)
}

/// Whether the system was short of something that comes back by itself: descriptors of this process, descriptors of all
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

/// Whether a replaced file must survive a power cut from the moment the call returns.
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

/// The same, for good, with a file that only the owner of `folder` may read and write, whoever puts it there: what an
/// administrator leaves in the folder of a service must be readable to it.
///
/// # Errors
/// As for [`replace_file`]; also if this process may not give a file to the folder's owner.
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
        // A sweep leaves alone what somebody has locked, however long the disk takes.
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

/// Removes a folder with all that is in it; a symlink is removed itself, whoever puts one in place of a folder meanwhile.
///
/// Folders in it are first moved beside it, under names that begin like its own, so that neither the stack nor the number
/// of descriptors grows with their depth, which [`std::fs::remove_dir_all`] does not survive.
///
/// # Errors
/// As the system gives them; part of it may be gone.
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

/// Whether a read failed since the disk cannot give back what was written: it has less, or the device fails (EIO, read(2)).
pub fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::EIO as i32)
}

/// Lets the kernel forget the `len` bytes at `offset` of `file` that it keeps in memory (posix_fadvise(2)): for whoever
/// reads much more than anybody will read again soon.
pub fn forget_cached(file: &File, offset: u64, len: u64) {
    // A hint: where it is not taken, memory is used as by any other reader.
    let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// The file system, and the mount of it, that something is on. Nothing can be renamed or linked from one to another, not
/// even between two mounts of one file system (rename(2), EXDEV), nor between subvolumes of Btrfs, which are devices too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    device: u64,
    /// 0: the kernel does not tell (statx(2), before Linux 5.8).
    mount: u64,
}

impl Place {
    /// Where an open file or folder is.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of(file: &File) -> io::Result<Place> {
        let wanted = rustix::fs::StatxFlags::MNT_ID;
        let told = match rustix::fs::statx(file, "", rustix::fs::AtFlags::EMPTY_PATH, wanted) {
            // An old kernel, or a sandbox that does not let it through: devices must do.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => None,
            told => Some(told?).filter(|told| told.stx_mask & wanted.bits() != 0),
        };
        Ok(Place { device: file.metadata()?.dev(), mount: told.map_or(0, |told| told.stx_mnt_id) })
    }

    /// Where the folder at `path` is.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of_folder(path: &Path) -> io::Result<Place> {
        File::open(path).and_then(|folder| Place::of(&folder)).at("looking at the file system of", path)
    }
}

/// What tells whether a file, or the entries of a folder, changed since they were looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    inode: u64,
    len: u64,
    /// When the kernel last noted a change (inode(7), ctime), in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Seen {
    /// How `path` stands now; a link itself, not what it leads to. None: there is nothing.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn of(path: &Path) -> io::Result<Option<Seen>> {
        match std::fs::symlink_metadata(path) {
            Ok(m) => Ok(Some(Seen { inode: m.ino(), len: m.len(), changed: (m.ctime(), m.ctime_nsec()) })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", path),
        }
    }

    /// Whether the last change was at least `time` ago. Clocks of file systems tick in steps of milliseconds: after a
    /// change just now another one may follow that cannot be told from it. False where clocks disagree.
    pub fn is_older(&self, time: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        now.checked_sub(changed).is_some_and(|age| age >= time)
    }
}

/// An exclusive lock on the file that a path names, given back on drop.
///
/// flock(2) locks: one holder at a time among all processes and all openings, given back by the kernel when the holder
/// dies.
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits for the lock on the file that `path` names, which is created if need be.
    ///
    /// # Errors
    /// The file cannot be opened (its folder may be gone) or locked.
    pub fn wait(path: &Path) -> io::Result<FileLock> {
        loop {
            let file = open_or_create(path)?;
            file.lock_exclusive().at("locking", path)?;
            if let Some(lock) = FileLock::if_still_named(file, path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if it is free. None while somebody else has it.
    ///
    /// # Errors
    /// As for [`FileLock::wait`].
    pub fn try_now(path: &Path) -> io::Result<Option<FileLock>> {
        loop {
            let file = open_or_create(path)?;
            match file.try_lock_exclusive() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e).at("locking", path),
            }
            if let Some(lock) = FileLock::if_still_named(file, path)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Waits for the lock on the folder `path` itself, which is never replaced.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub fn of_folder(path: &Path) -> io::Result<FileLock> {
        FileLock::on(File::open(path).at("opening", path)?, path)
    }

    /// Waits for the lock on an open file or folder; `path` is for messages.
    ///
    /// # Errors
    /// It cannot be locked.
    pub fn on(file: File, path: &Path) -> io::Result<FileLock> {
        file.lock_exclusive().at("locking", path)?;
        Ok(FileLock { file })
    }

    /// Takes the lock on what stands at `path`, a file or a folder, if it is free. None while somebody else has it. A link
    /// is not followed, and nothing is created.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub fn try_on_what_is_there(path: &Path) -> io::Result<Option<FileLock>> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at("opening", path)?;
        match file.try_lock_exclusive() {
            Ok(()) => Ok(Some(FileLock { file })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e).at("locking", path),
        }
    }

    /// The lock, if `path` still names the file that was locked: it may have been replaced while we waited.
    fn if_still_named(file: File, path: &Path) -> io::Result<Option<FileLock>> {
        let lock = FileLock { file };
        let locked = lock.file.metadata().at("looking at", path)?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => Ok(Some(lock)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("looking at", path),
        }
    }

    /// The locked file, open for reading and writing; a folder for reading only.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Unlocking rather than only closing: a child just being started may hold a copy of the descriptor until it
        // executes its program, and would keep the lock that long. An error would mean that it was not locked.
        let _ = FileExt::unlock(&self.file);
    }
}

/// Whether somebody holds the lock on an open file, at this instant.
///
/// # Errors
/// As the system gives them.
pub fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_exclusive() {
        // Explicitly, as a FileLock is.
        Ok(()) => FileExt::unlock(file).map(|()| false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// Whether somebody holds an exclusive lock on an open file, at this instant. Unlike [`is_locked`] it never passes for such a
/// lock itself, for whoever asks at the same time.
///
/// # Errors
/// As the system gives them.
pub fn is_locked_exclusively(file: &File) -> io::Result<bool> {
    match FileExt::try_lock_shared(file) {
        Ok(()) => FileExt::unlock(file).map(|()| false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// A running kernel, as far as what it holds in memory goes: data written under another one may not have reached the
/// disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootId(pub [u8; 8]);

impl BootId {
    /// No kernel: what has it is never trusted.
    pub const NONE: BootId = BootId([0; 8]);

    /// The kernel that runs now: the first 8 bytes of the BLAKE3 hash of /proc/sys/kernel/random/boot_id (random(4)).
    /// Where that cannot be read it is a random one, so that nothing is trusted.
    pub fn current() -> BootId {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_else(|e| {
                log::warn!("the kernel's boot id cannot be read ({e}): everything held will be checked by digest");
                random_suffix().into_bytes()
            });
            let hash = blake3::hash(&text);
            BootId(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
        })
    }
}

/// How bytes got from one file into another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyMethod {
    /// FICLONERANGE (ioctl_ficlonerange(2)): both files share the blocks.
    Reflink,
    /// splice(2): the kernel copied.
    Splice,
    /// copy_file_range(2): the kernel copied, or the file system.
    CopyFileRange,
    /// Read and written.
    ReadWrite,
}

impl fmt::Display for CopyMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CopyMethod::Reflink => "reflink",
            CopyMethod::Splice => "splice",
            CopyMethod::CopyFileRange => "copy_file_range",
            CopyMethod::ReadWrite => "read and write",
        })
    }
}

/// Why a range was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source could not be written back (ioctl_ficlonerange(2), EIO), as before a failed sync of it: what it holds
    /// may never reach the disk, and another attempt could succeed all the same.
    #[error("writing it back: {0}")]
    SourceLost(io::Error),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> io::Error {
        match error {
            CopyError::SourceLost(cause) => io::Error::new(cause.kind(), CopyError::SourceLost(cause).to_string()),
            CopyError::Io(cause) => cause,
        }
    }
}

/// Copies ranges between files by the best method that works, found out at run time and remembered.
///
/// Each method that the file system does not have is tried once. A reflink that fails for its alignment alone (EINVAL)
/// is tried again with the next range.
pub struct Copier {
    reflink: bool,
    splice: bool,
    pipe: Option<Pipe>,
    copy_file_range: bool,
}

impl Default for Copier {
    fn default() -> Copier {
        Copier::new()
    }
}

impl Copier {
    /// Begins with all methods.
    pub fn new() -> Copier {
        Copier { reflink: true, splice: true, pipe: None, copy_file_range: true }
    }

    /// Copies the first `len` bytes of `from` to `offset` of `to`; says which method did it.
    ///
    /// # Errors
    /// `from` is shorter, or as the system gives them. Part of the range may be written.
    pub fn copy(&mut self, from: &File, to: &File, offset: u64, len: u64) -> Result<CopyMethod, CopyError> {
        self.copy_range((from, 0), (to, offset), len)
    }

    /// Copies `len` bytes from an offset of one file to an offset of another; says which method did it.
    ///
    /// # Errors
    /// As for [`Copier::copy`].
    pub fn copy_range(&mut self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<CopyMethod, CopyError> {
        if self.reflink {
            match reflink::clone_range(from, to, len) {
                Ok(()) => return Ok(CopyMethod::Reflink),
                Err(Errno::EINVAL) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EXDEV | Errno::ENOSYS | Errno::EPERM) => {
                    self.reflink = false;
                }
                Err(Errno::EIO) => return Err(CopyError::SourceLost(Errno::EIO.into())),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        if self.splice {
            match self.splice(from, to, len) {
                Ok(()) => return Ok(CopyMethod::Splice),
                Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => self.splice = false,
                Err(e) => return Err(failed(e)),
            }
        }
        if self.copy_file_range {
            match copy_in_kernel(from, to, len) {
                Ok(()) => return Ok(CopyMethod::CopyFileRange),
                Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                    self.copy_file_range = false;
                }
                Err(e) => return Err(failed(e)),
            }
        }
        copy_by_hand(from, to, len)?;
        Ok(CopyMethod::ReadWrite)
    }

    /// EOPNOTSUPP where the file system has a better way.
    fn splice(&mut self, from: (&File, u64), to: (&File, u64), len: u64) -> nix::Result<()> {
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None if !splice::is_fit_for(to.0) => return Err(Errno::EOPNOTSUPP),
            None => Pipe::new()?,
        };
        pipe.copy(from, to, len)?;
        self.pipe = Some(pipe);
        Ok(())
    }
}

/// ENODATA means that the source is too short, which none of these calls says so.
fn failed(error: Errno) -> CopyError {
    match error {
        Errno::ENODATA => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        error => io::Error::from(error).into(),
    }
}

/// copy_file_range(2) until all is there. ENODATA (which the call itself never gives) means that `from` is too short.
fn copy_in_kernel((from, from_offset): (&File, u64), (to, to_offset): (&File, u64), len: u64) -> nix::Result<()> {
    let (mut at, mut to_at, end) = (from_offset as i64, to_offset as i64, from_offset + len);
    while (at as u64) < end {
        let left = usize::try_from(end - at as u64).unwrap_or(usize::MAX);
        if copy_file_range(from, Some(&mut at), to, Some(&mut to_at), left)? == 0 {
            return Err(Errno::ENODATA);
        }
    }
    Ok(())
}

fn copy_by_hand((from, from_offset): (&File, u64), (to, to_offset): (&File, u64), len: u64) -> io::Result<()> {
    let (mut end, mut written) = (to_offset, Ok(()));
    read_range(from, from_offset, len, |bytes| {
        if written.is_ok() {
            written = to.write_all_at(bytes, end);
            end += bytes.len() as u64;
        }
    })?;
    written
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
        let dir = tempfile::tempdir().unwrap();
        let (doomed, outside) = (dir.path().join("doomed"), dir.path().join("outside"));
        fs::create_dir_all(doomed.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "c").unwrap();
        fs::write(doomed.join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, doomed.join("a/b/link")).unwrap();
        nix::unistd::mkfifo(&doomed.join("fifo"), Mode::S_IRWXU).unwrap();
        let mut at = std::os::fd::OwnedFd::from(File::open(&doomed).unwrap());
        for _ in 0..15_000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        remove_folder(&doomed).unwrap();
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
        assert_eq!(Seen::of(&dir.path().join("nothing")).unwrap(), None);
        let before = Seen::of(dir.path()).unwrap().unwrap();
        assert!(!before.is_older(Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(Seen::of(dir.path()).unwrap(), Some(before));
        assert!(before.is_older(Duration::from_millis(10)));
        fs::write(dir.path().join("new"), "").unwrap();
        assert_ne!(Seen::of(dir.path()).unwrap(), Some(before));
    }

    #[test]
    fn a_lock_has_one_holder_and_follows_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_now(&path).unwrap().unwrap();
        assert!(FileLock::try_now(&path).unwrap().is_none());
        // The holder replaces the file, as info.ini is: whoever comes now locks the new one.
        replace_file(dir.path(), "lock", b"new", Durability::Process).unwrap();
        let second = FileLock::try_now(&path).unwrap().unwrap();
        drop(first);
        assert!(FileLock::try_now(&path).unwrap().is_none());
        drop(second);
        assert!(FileLock::try_now(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_is_free_again_while_a_child_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_now(&path).unwrap().unwrap();
        let copy = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(FileLock::try_now(&path).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn every_copy_method_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let source: Vec<u8> = (0..700_001_u32).map(|i| (i % 253) as u8).collect();
        let from_path = dir.path().join("from");
        fs::write(&from_path, &source).unwrap();
        for (reflink, splice, copy_file_range) in
            [(true, true, true), (false, true, true), (false, false, true), (false, false, false)]
        {
            for len in [0, 1, 4096, source.len() as u64] {
                let to = create_new(&dir.path().join(format!("{reflink}{splice}{copy_file_range}{len}"))).unwrap();
                to.write_all_at(b"head", 0).unwrap();
                let mut copier = Copier { reflink, splice, copy_file_range, pipe: None };
                copier.copy(&open_regular(&from_path).unwrap(), &to, 4, len).unwrap();
                let mut got = vec![0; len as usize];
                to.read_exact_at(&mut got, 4).unwrap();
                assert!(got == source[..len as usize]);
                assert_eq!(to.metadata().unwrap().len(), 4 + len);
            }
        }
    }

    #[test]
    fn copying_more_than_there_is_fails() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("from"), "short").unwrap();
        let from = open_regular(&dir.path().join("from")).unwrap();
        for (splice, copy_file_range) in [(true, true), (false, true), (false, false)] {
            let to = create_new(&dir.path().join(format!("to{splice}{copy_file_range}"))).unwrap();
            let mut copier = Copier { reflink: false, splice, copy_file_range, pipe: None };
            let error = copier.copy(&from, &to, 0, 6).unwrap_err();
            let error = io::Error::from(error);
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn the_boot_id_stays_the_same() {
        assert_eq!(BootId::current(), BootId::current());
    }
}
