//! The file beside the destination that keeps the pieces of a download until it is whole.
//!
//! Behind the file's bytes it has a head and the digest of each piece that is there (32 bytes, zeroes for others). A
//! digest is written after its piece: a process that is killed between the two leaves a piece that counts as missing.
//! After a restart of the machine nothing tells which writes reached the disk, so that the pieces are read again.

use crate::download::RemoteFile;
use crate::download::error::DownloadError;
use crate::download::pieces::Pieces;
use crate::download::place::{make_hole, read_exact_at, rename_new, sync_folder, write_all_at};
use crate::source::fingerprint::Fingerprint;
use crate::source::system;
use crate::stop::StopSignal;
use bigup_core::protocol::digest::{Digest, of_bytes};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The first bytes of the head.
const MAGIC: &[u8; 16] = b"bigup part 1\n\0\0\0";

/// Bytes of the head: the magic, size and piece length as 8 bytes each, the file's digest, the boot.
const HEAD_LEN: u64 = 96;

/// Bytes of a digest.
const DIGEST_LEN: u64 = 32;

/// Fewest zeroes that are made a hole, in bytes: a block of common file systems.
const LEAST_HOLE: usize = 4 << 10;

/// Longest name of a file, in bytes, on common file systems.
const MAX_NAME: usize = 255;

/// The file, locked.
pub struct PartFile {
    file: File,
    path: PathBuf,
    size: u64,
}

/// Takes the pieces as they come.
pub trait Sink: Sync {
    /// Writes bytes of the file.
    ///
    /// # Errors
    /// As the system gives them.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DownloadError>;

    /// All bytes of piece `index` are written, and this is its digest. `None`: it is wrong.
    ///
    /// # Errors
    /// As the system gives them.
    fn note(&self, index: usize, value: Option<Digest>) -> Result<(), DownloadError>;
}

impl PartFile {
    /// Opens the file for a download of `file` to the path `to`. The pieces that are there already come into `pieces`.
    ///
    /// # Errors
    /// Another download has it, or as the system gives them.
    pub fn open(
        to: &Path,
        file: &RemoteFile,
        pieces: &mut Pieces,
        stop: &StopSignal,
    ) -> Result<PartFile, DownloadError> {
        let path = path_of(to)?;
        let part = PartFile { file: locked(&path, to)?, path, size: file.size };
        let (head, boot) = (part.head(file, pieces), boot());
        let mut kept = [0; HEAD_LEN as usize];
        let is_head = read_exact_at(&part.file, &mut kept, file.size).is_ok();
        let (same, of_boot) = (kept[..64] == head[..64], kept[64..] == head[64..]);
        if is_head && same {
            part.read_values(pieces)?;
            // Without an id of the boot nothing is known of it.
            if !of_boot || boot == [0; 32] {
                for index in 0..pieces.len() {
                    let kept = pieces.value(index);
                    let is_there =
                        kept.is_some() && kept == Some(pieces.digest_in(&part.file, index, stop, &part.path)?);
                    pieces.set(index, kept.filter(|_| is_there));
                }
            }
            pieces.drop_wrong();
        } else if part.file.metadata().is_ok_and(|found| found.len() == file.size) && file.size > 0 {
            // A whole file whose digests were cut off already, or another one of that size.
            pieces.read(&part.file, stop, &part.path)?;
        } else {
            part.truncate(0)?;
        }
        part.begin(&head, pieces)?;
        Ok(part)
    }

    /// Takes the pieces from `other` that `same` has and `pieces` has not.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn copy_pieces(
        &self,
        other: &File,
        same: &Pieces,
        pieces: &mut Pieces,
        path: &Path,
    ) -> Result<(), DownloadError> {
        let missing = (0..pieces.len()).filter(|index| pieces.value(*index).is_none() && same.value(*index).is_some());
        for index in missing.collect::<Vec<_>>() {
            let mut bytes = same.bytes_of(index);
            let mut hasher = same.hasher(index);
            let mut buffer = vec![0; 256 << 10];
            while bytes.start < bytes.end {
                let len = (bytes.end - bytes.start).min(buffer.len() as u64);
                let buffer = &mut buffer[..len as usize];
                read_exact_at(other, buffer, bytes.start).map_err(|cause| DownloadError::io("read", path, cause))?;
                hasher.update(buffer);
                self.write(buffer, bytes.start)?;
                bytes.start += len;
            }
            // It may have changed since it was compared.
            let value = Some(hasher.finish().digest).filter(|value| Some(*value) == same.value(index));
            self.note(index, value)?;
            pieces.set(index, value);
        }
        pieces.drop_wrong();
        Ok(())
    }

    /// The file is whole: it takes its name, if that is as it was found.
    ///
    /// # Errors
    /// There is another file by now, or as the system gives them.
    pub fn finish(
        self,
        to: &Path,
        modified: Option<SystemTime>,
        there: Option<Fingerprint>,
        replaces: bool,
    ) -> Result<(), DownloadError> {
        self.truncate(self.size)?;
        if let Some(modified) = modified {
            // Some file systems have no place for such a time.
            self.file
                .set_modified(modified)
                .or_else(unsupported)
                .map_err(|cause| self.failed("set the time of", cause))?;
        }
        self.file.sync_all().map_err(|cause| self.failed("sync", cause))?;
        let moved = match there {
            Some(there) if replaces => {
                let now = system::fingerprint_at(to).map_err(|cause| DownloadError::io("look at", to, cause))?;
                if now != there {
                    return Err(DownloadError::Changed(to.to_owned()));
                }
                fs::rename(&self.path, to)
            }
            _ => rename_new(&self.path, to),
        };
        match moved {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(DownloadError::Changed(to.to_owned()));
            }
            moved => moved.map_err(|cause| DownloadError::io("make", to, cause))?,
        }
        let folder = folder_of(to);
        sync_folder(folder).map_err(|cause| DownloadError::io("sync", folder, cause))
    }

    fn head(&self, file: &RemoteFile, pieces: &Pieces) -> [u8; HEAD_LEN as usize] {
        let mut head = [0; HEAD_LEN as usize];
        head[..16].copy_from_slice(MAGIC);
        head[16..24].copy_from_slice(&file.size.to_le_bytes());
        head[24..32].copy_from_slice(&pieces.piece_len().to_le_bytes());
        head[32..64].copy_from_slice(&file.digest.0);
        head[64..].copy_from_slice(&boot());
        head
    }

    /// Writes the head, and the digests of all that is there.
    fn begin(&self, head: &[u8], pieces: &Pieces) -> Result<(), DownloadError> {
        let values = (0..pieces.len()).flat_map(|index| pieces.value(index).unwrap_or(Digest([0; 32])).0);
        let digests: Vec<u8> = values.collect();
        // The digests first: without a head they are nothing.
        write_all_at(&self.file, &digests, self.size + HEAD_LEN).map_err(|cause| self.failed("write", cause))?;
        write_all_at(&self.file, head, self.size).map_err(|cause| self.failed("write", cause))
    }

    fn read_values(&self, pieces: &mut Pieces) -> Result<(), DownloadError> {
        let mut digests = vec![0; pieces.len() * DIGEST_LEN as usize];
        match read_exact_at(&self.file, &mut digests, self.size + HEAD_LEN) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(|cause| self.failed("read", cause))?,
        }
        for (index, digest) in digests.as_chunks().0.iter().enumerate() {
            pieces.set(index, (*digest != [0; 32]).then_some(Digest(*digest)));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<(), DownloadError> {
        self.file.set_len(len).map_err(|cause| self.failed("truncate", cause))
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> DownloadError {
        DownloadError::io(action, &self.path, cause)
    }
}

impl Sink for PartFile {
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DownloadError> {
        let is_hole = bytes.len() >= LEAST_HOLE && bytes.iter().all(|byte| *byte == 0);
        // Other bytes may be there, of an attempt that went wrong.
        if is_hole && make_hole(&self.file, offset, bytes.len() as u64).map_err(|cause| self.failed("write", cause))? {
            return Ok(());
        }
        write_all_at(&self.file, bytes, offset).map_err(|cause| self.failed("write", cause))
    }

    fn note(&self, index: usize, value: Option<Digest>) -> Result<(), DownloadError> {
        let at = self.size + HEAD_LEN + index as u64 * DIGEST_LEN;
        let bytes = value.map_or([0; 32], |value| value.0);
        write_all_at(&self.file, &bytes, at).map_err(|cause| self.failed("write", cause))
    }
}

/// The path of the file for a download to `to`: in its folder, with a name of its own.
fn path_of(to: &Path) -> Result<PathBuf, DownloadError> {
    let name = to.file_name().ok_or_else(|| DownloadError::NotAFile(to.to_owned()))?.to_string_lossy();
    let mut hidden = format!(".{name}.bigup-part");
    if hidden.len() > MAX_NAME {
        let hash = of_bytes(name.as_bytes()).to_string();
        hidden = format!(".{}.{}.bigup-part", &name[..name.floor_char_boundary(200)], &hash[..16]);
    }
    Ok(to.with_file_name(hidden))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens and locks the file at `path`, which is made if it is not there.
fn locked(path: &Path, to: &Path) -> Result<File, DownloadError> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|cause| DownloadError::io("make", folder, cause))?;
    let failed = |cause| DownloadError::io("open", path, cause);
    loop {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DownloadError::Busy(to.to_owned())),
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) => unsupported(error).map_err(failed)?,
        }
        // Another download may have given it its name just now: that one is finished.
        let opened = file.try_clone().and_then(same_file::Handle::from_file).map_err(failed)?;
        if same_file::Handle::from_path(path).is_ok_and(|there| there == opened) {
            return Ok(file);
        }
    }
}

fn unsupported(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

/// The boot of the kernel, hashed: what was written under another one may not have reached the disk. Zeroes: not known.
fn boot() -> [u8; 32] {
    // Linux, see random(4).
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or([0; 32], |id| of_bytes(&id).0)
}
