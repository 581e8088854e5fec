//! The tail of an upload whose bytes come in order: the beginning of the slice that follows all held ones.
//!
//! Clients that send a file from its start to its end, in requests of any length, leave off within a slice. The bytes
//! that came of it are kept in a file of their own, and the next request goes on there.
//!
//! ```text
//! tail        the bytes of the slice so far, and perhaps more; locked by the request that appends to it
//! tail.json   which slice it is of, how many bytes of it count, their digest, and the upload's source
//! give-way    empty; replaced by a request that waits for the lock, to ask the one that has it to stop
//! ```
//! # Changes, and what a kill there leaves
//! ```text
//! 1  bytes appended to tail             bytes that do not count: cut off by the next request
//! 2  tail.json replaced by rename       the old number of bytes counts, or the new one
//! 3  the whole slice recorded, and      the slice is not held, and tail.json counts as before;
//!    tail renamed to its number         or it is held, and tail.json, which is of a held slice, counts for nothing
//! ```
//! With slice_ack = synced the bytes and the record are synced before the rename of step 3. Bytes of the tail may have
//! been told to be held, and a slice that differs from its record is removed.
//!
//! Bytes of a tail are read and compared with their digest before anything is appended: no byte is digested as part of a
//! slice that was not compared with what arrived. A tail that differs counts for nothing, and its slice is sent again.

use super::arrival::TAIL;
use super::{Arrival, LockedSpool, Spool, UploadRecord};
use crate::protocol::digest::{DigestKind, SliceDigest, SliceHasher};
use crate::storage::disk::{self, BootId, Durability, FileVersion, IoContext};
use crate::storage::space::{DiskSpace, SpaceError};
use fs2::FileExt;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::PathBuf;

const TAIL_JSON: &str = "tail.json";

/// Each replacement of this file asks the request at the tail to stop. A file reaches requests of every daemon, also on
/// other nodes.
const GIVE_WAY: &str = "give-way";

/// Largest `tail.json` that is read, in bytes.
const MAX_TAIL_JSON: u64 = 4096;

/// The record of a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TailRecord {
    slice_id: u64,
    len: u64,
    digest: SliceDigest,
    boot: BootId,
    source: Option<String>,
    /// True if it survives a power cut.
    synced: bool,
}

#[derive(Serialize, Deserialize)]
struct TailJson {
    slice_id: u64,
    len: u64,
    digest: String,
    boot: [u8; 8],
    source: Option<String>,
    #[serde(default)]
    synced: bool,
}

impl TailRecord {
    fn from_json(bytes: &[u8]) -> Option<TailRecord> {
        let TailJson { slice_id, len, digest, boot, source, synced } = serde_json::from_slice(bytes).ok()?;
        Some(TailRecord { slice_id, len, digest: digest.parse().ok()?, boot: BootId(boot), source, synced })
    }

    fn to_json(&self) -> Vec<u8> {
        let TailRecord { slice_id, len, digest, boot, source, synced } = self.clone();
        let stored = TailJson { slice_id, len, digest: digest.to_string(), boot: boot.0, source, synced };
        serde_json::to_vec(&stored).expect("strings and numbers always serialise")
    }
}

impl Spool {
    fn tail_path(&self) -> PathBuf {
        self.path.join(TAIL)
    }

    /// The tail of the slice `slice_id` of `upload`. `None` if there is none that counts.
    fn tail_record(&self, upload: &UploadRecord, slice_id: u64) -> io::Result<Option<TailRecord>> {
        let bytes = match disk::read_small(&self.path.join(TAIL_JSON), MAX_TAIL_JSON) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let record = TailRecord::from_json(&bytes).filter(|tail| tail.slice_id == slice_id);
        Ok(record.filter(|tail| {
            tail.source == upload.source && upload.plan.len_of(slice_id).is_none_or(|len| tail.len <= len)
        }))
    }

    /// True if a request appends to the tail.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn is_tail_locked(&self) -> io::Result<bool> {
        match disk::open_regular(&self.tail_path()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            file => disk::is_locked(&file?).at("looking at the lock of", &self.tail_path()),
        }
    }

    /// Asks the request that appends to the tail to stop, whichever daemon serves it. That request compares
    /// [`Spool::asked_to_stop`] from time to time.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn ask_to_stop(&self) -> io::Result<()> {
        disk::replace_file(&self.path, GIVE_WAY, b"", Durability::Process)
    }

    /// The last call of [`Spool::ask_to_stop`], as a value that each call changes. `None` if there was none.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn asked_to_stop(&self) -> io::Result<Option<FileVersion>> {
        FileVersion::of(&self.path.join(GIVE_WAY))
    }

    /// True if bytes of a slice that is not whole are held.
    pub(super) fn has_tail(&self) -> bool {
        std::fs::symlink_metadata(self.path.join(TAIL_JSON)).is_ok_and(|found| found.is_file())
    }
}

/// A tail that bytes are appended to, by the one request that has it locked.
pub struct Tail {
    /// The slice that arrives in it.
    pub arrival: Arrival,
    /// Hashers of the slice's digests, which took the bytes that count.
    pub hashers: Vec<SliceHasher>,
    /// Bytes that count.
    pub len: u64,
}

/// The bytes of an upload that are held without a gap from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    /// The first slice that is not held.
    pub slice_id: u64,
    /// Bytes of all slices before it, and of its own bytes held.
    pub offset: u64,
}

impl LockedSpool {
    /// The bytes that are held without a gap from the start of the file. A tail of another boot is read.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn held_run(&self) -> io::Result<HeldRun> {
        let (upload, slice_id) = (&self.upload, self.holdings()?.ranges().first_gap());
        let is_all = upload.plan.slice_num == Some(slice_id);
        let start = if is_all { upload.plan.file_size } else { upload.plan.offset_of(slice_id) };
        let tail = if is_all { None } else { self.spool.tail_record(upload, slice_id)? };
        let tail = match tail {
            Some(tail) if tail.boot != BootId::current() && !self.is_right(&tail)? => None,
            tail => tail,
        };
        Ok(HeldRun { slice_id, offset: start.unwrap_or(0) + tail.map_or(0, |tail| tail.len) })
    }

    fn is_right(&self, tail: &TailRecord) -> io::Result<bool> {
        let file = match disk::open_regular(&self.spool.tail_path()) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        self.compare(tail, &file, &mut [])
    }

    /// Reads the bytes of a tail, also into `hashers`. True if they have the recorded digest.
    fn compare(&self, tail: &TailRecord, file: &File, hashers: &mut [SliceHasher]) -> io::Result<bool> {
        let offset = self.upload.plan.offset_of(tail.slice_id).unwrap_or(0);
        let mut hasher = SliceHasher::new(tail.digest.kind, offset);
        let read = disk::read_range(file, 0, tail.len, |piece| {
            hasher.update(piece);
            hashers.iter_mut().for_each(|hasher| hasher.update(piece));
        });
        match read {
            Ok(()) => Ok(hasher.finish() == tail.digest),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof || disk::is_lost(&e) => Ok(false),
            Err(e) => Err(e).at("reading", &self.spool.tail_path()),
        }
    }

    /// Opens the tail at `run`, to append to it, with disk space in `space` for the whole slice, whose digests are of
    /// these `kinds`. `None` while another request has it. If the slice is not committed, its file stays.
    ///
    /// # Errors
    /// Not enough disk space; its bytes are damaged ([`ErrorKind::InvalidData`]) and count no more; or as the system
    /// gives them.
    pub fn open_tail(&self, run: HeldRun, kinds: &[DigestKind], space: &DiskSpace) -> Result<Option<Tail>, SpaceError> {
        let path = self.spool.tail_path();
        // No other request renames it, since that takes the lock of the spool.
        let mut file = disk::open_or_create(&path)?;
        match FileExt::try_lock_exclusive(&file) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            locked => locked.at("locking", &path)?,
        }
        let plan = &self.upload.plan;
        let offset = plan.offset_of(run.slice_id).unwrap_or(0);
        let mut hashers: Vec<_> = kinds.iter().map(|kind| SliceHasher::new(*kind, offset)).collect();
        let len = run.offset - offset;
        if len > 0 && !self.is_tail_of(run.slice_id, len, &file, &mut hashers)? {
            self.drop_tail()?;
            return Err(io::Error::new(ErrorKind::InvalidData, "its bytes are damaged")).at("reading", &path)?;
        }
        file.set_len(len).and_then(|()| file.seek(SeekFrom::Start(len))).at("cutting", &path)?;
        let slice_id = run.slice_id;
        let arrival = Arrival { file, path, slice_id, offset: None, mark: None, kept: true, is_early: false };
        let whole = plan.len_of(slice_id).unwrap_or(len);
        let arrival = self.with_space(slice_id, whole, plan, space, || Ok(arrival))?;
        Ok(Some(Tail { arrival, hashers, len }))
    }

    /// True if the tail of slice `slice_id` in `file` has `len` bytes that count, which `hashers` take, too.
    fn is_tail_of(&self, slice_id: u64, len: u64, file: &File, hashers: &mut [SliceHasher]) -> io::Result<bool> {
        let record = self.spool.tail_record(&self.upload, slice_id)?.filter(|tail| tail.len == len);
        record.map_or(Ok(false), |record| self.compare(&record, file, hashers))
    }

    /// Makes the bytes of the tail at `run` survive a power cut, of which a request that was killed took note without
    /// that. `false` if they had not reached the disk, and count no more.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_tail(&self, run: HeldRun) -> io::Result<bool> {
        let tail = self.spool.tail_record(&self.upload, run.slice_id)?.filter(|tail| !tail.synced);
        let Some(tail) = tail else { return Ok(true) };
        let path = self.spool.tail_path();
        let file = disk::open_regular(&path)?;
        file.sync_data().at("syncing", &path)?;
        // They are read from the disk: after a sync that failed, memory may still hold bytes that never got there.
        disk::forget_cached(&file, 0, 0);
        if !self.compare(&tail, &file, &mut [])? {
            return self.drop_tail().map(|()| false);
        }
        let record = TailRecord { boot: BootId::current(), synced: true, ..tail };
        disk::replace_file(&self.spool.path, TAIL_JSON, &record.to_json(), Durability::PowerCut).map(|()| true)
    }

    /// The tail counts for nothing from here on.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn drop_tail(&self) -> io::Result<()> {
        let path = self.spool.path.join(TAIL_JSON);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.at("removing", &path),
        }
    }

    /// Counts the first `len` bytes of the slice in `arrival`, which becomes the tail if it is not; `digest` is theirs.
    /// With [`Durability::PowerCut`] they survive a power cut once this returns, if the file's content was synced.
    ///
    /// # Errors
    /// As the system gives them; bytes that counted before count, or these do.
    pub fn keep_tail(
        &self,
        arrival: &mut Arrival,
        len: u64,
        digest: SliceDigest,
        durability: Durability,
    ) -> io::Result<()> {
        let (slice_id, source, path) = (arrival.slice_id, self.upload.source.clone(), self.spool.tail_path());
        if arrival.path != path {
            // The record of the tail that was there is of a held slice by now. Another request may have begun a new one.
            if self.spool.is_tail_locked()? {
                return Err(io::Error::from(ErrorKind::ResourceBusy)).at("keeping", &path);
            }
            std::fs::rename(&arrival.path, &path).at("keeping", &path)?;
            (arrival.path, arrival.kept) = (path, true);
        }
        let synced = durability == Durability::PowerCut;
        let record = TailRecord { slice_id, len, digest, boot: BootId::current(), source, synced };
        disk::replace_file(&self.spool.path, TAIL_JSON, &record.to_json(), durability)
    }
}
