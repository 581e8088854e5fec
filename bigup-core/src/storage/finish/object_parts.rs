//! The bytes of a complete merged file on their way into a store of objects: in one request, or in parts.
//!
//! Each part is read twice. The first time its slices are compared with their records, and its MD5 is computed. The
//! second time it is sent, and the store compares what arrives with the MD5. So no byte becomes part of an object that
//! differs from what its client sent, and no part has to be in memory.
//!
//! Nothing is removed from the disk before the object stands: a part that the store has lost is sent again.

use crate::protocol::digest::SliceHasher;
use crate::protocol::plan::Plan;
use crate::storage::disk;
use crate::storage::objects::{Facts, Multipart, ObjectError, Objects, PartSizes, SentPart};
use crate::storage::spool::{Records, Spool, UploadRecord};
use md5::{Digest as _, Md5};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Largest file that is stored in one request, in bytes.
pub const MOST_AT_ONCE: u64 = 16 << 20;

/// Parts that were sent before the file was complete, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct SentParts(BTreeMap<u64, KnownPart>);

/// A part, and its content.
#[derive(Clone, Debug)]
struct KnownPart {
    /// Hash of the records of its slices: the part counts while these are the same.
    records: blake3::Hash,
    sent: SentPart,
}

/// The reason why a part was not sent.
#[derive(Debug)]
enum Trouble {
    /// This slice is damaged.
    Damaged(u64),
    Error(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Error(error)
    }
}

/// The result of storing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The store has taken it, or says that another object is there, or that the upload is gone: whoever looks for the
    /// object learns which.
    Asked,
    /// This slice is not what its record says, or the disk cannot give it back.
    Damaged(u64),
}

/// The file whose bytes are stored.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its spool.
    pub spool: &'a Spool,
    /// Its upload.
    pub upload: &'a UploadRecord,
    /// Its bytes.
    pub merged: &'a File,
    /// The records of its slices.
    pub digests: &'a File,
}

/// Stores a complete merged file with these facts as the object of its name.
///
/// # Errors
/// The store does not answer, or refuses; or as the system gives them. The next call goes on from the stored parts.
pub fn store(objects: &Objects, source: Source<'_>, facts: &Facts, sent: &SentParts) -> io::Result<Stored> {
    let upload = source.upload;
    let size = upload.plan.file_size.unwrap_or(0);
    if size <= MOST_AT_ONCE {
        let md5 = match source.md5_of(0, size)? {
            Ok(md5) => md5,
            Err(slice_id) => return Ok(Stored::Damaged(slice_id)),
        };
        return asked(objects.put_file(&upload.file_name, source.merged, size, md5, facts, upload.replace));
    }
    let multipart = objects.multipart(source.spool.path(), &upload.file_name, sizes_of(upload))?;
    match source.send_all(&multipart, sent)? {
        Ok(parts) => asked(multipart.complete(&parts, size, facts, upload.replace)),
        Err(slice_id) => Ok(Stored::Damaged(slice_id)),
    }
}

fn asked(done: Result<(), ObjectError>) -> io::Result<Stored> {
    match done {
        Err(e) if !matches!(e.status(), Some(404 | 409 | 412)) || e.is_without_bucket() => Err(e.into()),
        Err(e) => {
            log::info!("{e}; the store is asked what is there");
            Ok(Stored::Asked)
        }
        Ok(()) => Ok(Stored::Asked),
    }
}

impl Source<'_> {
    /// The MD5 of `len` bytes at `offset`, whose slices are compared with their records; or the slice that differs.
    fn md5_of(&self, offset: u64, len: u64) -> io::Result<Result<[u8; 16], u64>> {
        let (plan, records, end) = (&self.upload.plan, Records(self.digests), offset + len);
        let mut md5 = Md5::new();
        for slice_id in slices_of(plan, offset, end) {
            let (from, slice_len) = extent(plan, slice_id);
            let record = records.get(slice_id)?;
            let mut hasher = record.map(|record| SliceHasher::new(record.digest.kind, from));
            let mut at = from;
            let read = disk::read_range(self.merged, from, slice_len, |bytes| {
                hasher.iter_mut().for_each(|hasher| hasher.update(bytes));
                // A part need not begin and end where slices do.
                let is_in = |place: u64| usize::try_from(place.clamp(offset, end).saturating_sub(at)).unwrap_or(0);
                let (first, last) = (is_in(at), is_in(at + bytes.len() as u64).min(bytes.len()));
                md5.update(&bytes[first.min(last)..last]);
                at += bytes.len() as u64;
            });
            match read {
                Err(e) if disk::is_lost(&e) => return Ok(Err(slice_id)),
                read => read?,
            }
            if record.zip(hasher).is_some_and(|(record, is)| is.finish() != record.digest) {
                return Ok(Err(slice_id));
            }
        }
        Ok(Ok(md5.finalize().into()))
    }

    /// The hash of the records of the slices in a part.
    fn records_of(&self, offset: u64, len: u64) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        for slice_id in slices_of(&self.upload.plan, offset, offset + len) {
            if let Some(record) = Records(self.digests).get(slice_id)? {
                hasher.update(&record.digest.digest.0);
            }
            hasher.update(b";");
        }
        Ok(hasher.finalize())
    }

    /// The part of this number: the one that the store has, or sent now.
    fn part(&self, multipart: &Multipart<'_>, number: u64) -> Result<KnownPart, Trouble> {
        let (offset, len) = multipart.sizes().extent(number, self.size());
        // Records that change after this make it a part of other slices.
        let records = self.records_of(offset, len)?;
        let md5 = self.md5_of(offset, len)?.map_err(Trouble::Damaged)?;
        let stored = multipart.stored.get(&number).filter(|stored| stored.size == len && stored.is_of(md5));
        let sent = match stored {
            Some(stored) => stored.clone(),
            None => multipart.send(number, self.merged, offset, len, md5).map_err(io::Error::from)?,
        };
        Ok(KnownPart { records, sent })
    }

    /// Sends the parts of these numbers, several at once, until `stop`. Those that are sent come back with the first
    /// trouble: an error, or a slice that is damaged.
    fn send(&self, multipart: &Multipart<'_>, numbers: &[u64], stop: &AtomicBool) -> (SentParts, Option<Trouble>) {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sent, trouble) = (Mutex::new(SentParts::default()), Mutex::new(None));
        let work = || {
            while !failed.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                match self.part(multipart, *number) {
                    Ok(known) => {
                        sent.lock().unwrap_or_else(PoisonError::into_inner).0.insert(*number, known);
                    }
                    Err(why) => {
                        failed.store(true, Ordering::Relaxed);
                        trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                    }
                }
            }
        };
        let threads = multipart.at_once().min(numbers.len() as u64);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let trouble = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
        (sent.into_inner().unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// All parts, in order; those that the store lacks are sent. Or the slice that is damaged.
    fn send_all(&self, multipart: &Multipart<'_>, sent: &SentParts) -> io::Result<Result<Vec<SentPart>, u64>> {
        let (mut parts, mut missing) = (BTreeMap::new(), vec![]);
        for number in 1..=multipart.sizes().parts_of(self.size()) {
            match sent.0.get(&number) {
                Some(known) if self.holds(multipart, number, known)? => drop(parts.insert(number, known.sent.clone())),
                _ => missing.push(number),
            }
        }
        let (more, trouble) = self.send(multipart, &missing, &AtomicBool::new(false));
        match trouble {
            Some(Trouble::Damaged(slice_id)) => return Ok(Err(slice_id)),
            Some(Trouble::Error(e)) => return Err(e),
            None => {}
        }
        parts.extend(more.0.into_iter().map(|(number, known)| (number, known.sent)));
        Ok(Ok(parts.into_values().collect()))
    }

    /// True if the store has a part that was sent, and its slices are the same as then.
    fn holds(&self, multipart: &Multipart<'_>, number: u64, known: &KnownPart) -> io::Result<bool> {
        let (offset, len) = multipart.sizes().extent(number, self.size());
        let is_stored = multipart.stored.get(&number) == Some(&known.sent);
        Ok(is_stored && self.records_of(offset, len)? == known.records)
    }

    fn size(&self) -> u64 {
        self.upload.plan.file_size.unwrap_or(0)
    }
}

/// Sends those parts that lie in the first `ready` bytes and are not among the `sent` ones, until `stop`; adds them.
///
/// # Errors
/// The store does not answer, or refuses. A slice that is damaged is no error here: the publication finds it.
pub fn send_ready(
    multipart: &Multipart<'_>,
    source: Source<'_>,
    ready: u64,
    sent: &mut SentParts,
    stop: &AtomicBool,
) -> io::Result<()> {
    let (sizes, size) = (multipart.sizes(), source.size());
    let is_ready = |number: &u64| {
        let (offset, len) = sizes.extent(*number, size);
        offset + len <= ready && !sent.0.contains_key(number)
    };
    let numbers: Vec<u64> = (1..=sizes.parts_of(size.min(ready))).filter(is_ready).collect();
    let (more, trouble) = source.send(multipart, &numbers, stop);
    sent.0.extend(more.0);
    match trouble {
        Some(Trouble::Error(e)) => Err(e),
        Some(Trouble::Damaged(slice_id)) => {
            log::debug!("{}: slice {slice_id} does not match its record now", source.spool.folder());
            Ok(())
        }
        None => Ok(()),
    }
}

/// True if parts of an upload can be sent before all of it is there: its size is known, and no source but one has sent
/// slices of it.
pub fn may_be_sent_early(upload: &UploadRecord) -> bool {
    upload.plan.file_size.is_some_and(|size| size > MOST_AT_ONCE) && !upload.is_taken_over() && !upload.is_partial()
}

/// The size of the parts of an upload whose size is known.
pub fn sizes_of(upload: &UploadRecord) -> PartSizes {
    PartSizes::of(upload.plan.file_size, upload.plan.slice_size)
}

/// The slices that have bytes from `offset` to `end`.
fn slices_of(plan: &Plan, offset: u64, end: u64) -> impl Iterator<Item = u64> {
    let first = if end > offset { plan.slice_at(offset) } else { None };
    let starts_before = move |slice_id: &u64| plan.offset_of(*slice_id).is_some_and(|from| from < end);
    let most = plan.slice_num.unwrap_or(u64::MAX);
    first.into_iter().flat_map(move |first| first..most).take_while(starts_before)
}

/// Offset and length of a slice.
fn extent(plan: &Plan, slice_id: u64) -> (u64, u64) {
    (plan.offset_of(slice_id).unwrap_or(0), plan.len_of(slice_id).unwrap_or(0))
}
