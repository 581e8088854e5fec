//! The bytes of a complete merged file on their way into a store of objects: in one request, or in parts.
//!
//! Each part is read twice. The first time its slices are compared with their records, and its MD5 is computed. The
//! second time it is sent, and the store compares what arrives with the MD5. So no byte becomes part of an object that
//! differs from what its client sent, and no part has to be in memory.
//!
//! # Space given back, and what a kill leaves
//! Without a hole nothing is removed from the disk before the object stands: a part that the store has lost is sent again.
//! The space of a part is given back before that, where its upload permits it
//! ([`UploadRecord::gives_parts_back`]):
//! ```text
//! 1  the bytes synced in `merged`, with the records of  a part that is to be sent
//!    their slices and the frontier
//! 2  the part is stored                                 a part in the store of which nothing is known here: it is read,
//!                                                       and kept if its tag is that of its bytes
//! 3  its record written to `parts`, synced, and         the same, but it is kept unread while the records of its slices
//!    `digests` once more                                are the same
//! 4  its place in `merged` a hole, under the lock of    a part that is in the store only
//!    the spool; the next space reserved
//! 5  the object stands; the spool goes                  nothing
//! ```
//! The length of `merged` stays, so its slices stay held. A part counts as stored if the store lists it as its record says.
//! One that the store lost is read like any other: if its place is a hole, it differs from the records of its slices, and
//! is cut off with all behind it. Its slices are asked for again.

use crate::protocol::digest::{DigestKind, SliceHasher};
use crate::protocol::parts::{PartSizes, goes_in_parts};
use crate::protocol::plan::Plan;
use crate::storage::disk;
use crate::storage::objects::{Facts, Multipart, ObjectError, Objects, SentPart, StoredParts, multipart_in};
use crate::storage::spool::{PartRecord, PartRecords, Records, Spool, UploadRecord};
use md5::{Digest as _, Md5};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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

/// The parts that are to be sent. Shared by the threads that send them.
pub trait PartQueue: Sync {
    /// The number of the next part, from 1; waits for it. `None`: there is none for this thread any more.
    fn next(&self) -> Option<u64>;

    /// The store has one of them.
    fn is_stored(&self);

    /// No further part is to be sent.
    fn end(&self);
}

/// Ends a queue where a thread panics, so that the others do not wait for ever.
struct EndAtPanic<'a, Q: PartQueue>(&'a Q);

impl<Q: PartQueue> Drop for EndAtPanic<'_, Q> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

/// All parts of a complete file.
struct AllParts {
    next: AtomicU64,
    last: AtomicU64,
}

impl AllParts {
    fn new(number: u64) -> AllParts {
        AllParts { next: AtomicU64::new(1), last: AtomicU64::new(number) }
    }
}

impl PartQueue for AllParts {
    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number <= self.last.load(Ordering::Relaxed)).then_some(number)
    }

    fn is_stored(&self) {}

    fn end(&self) {
        self.last.store(0, Ordering::Relaxed);
    }
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
pub fn store(objects: &Objects, source: Source<'_>, facts: &Facts) -> io::Result<Stored> {
    let upload = source.upload;
    let size = upload.plan.file_size.unwrap_or(0);
    if !goes_in_parts(size, upload.plan.slice_num) {
        let md5 = match source.md5_of(0, size)? {
            Ok(md5) => md5,
            Err(slice_id) => return Ok(Stored::Damaged(slice_id)),
        };
        return asked(objects.put_file(&upload.file_name, source.merged, size, md5, facts, upload.replace));
    }
    let multipart = multipart(objects, source)?;
    match source.send_all(&multipart)? {
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
            if record.is_none() && self.upload.gives_back {
                // Its place may be a hole, and nothing tells what was there.
                return Ok(Err(slice_id));
            }
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
    fn records_of(&self, offset: u64, len: u64) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        for slice_id in slices_of(&self.upload.plan, offset, offset + len) {
            if let Some(record) = Records(self.digests).get(slice_id)? {
                hasher.update(&record.digest.digest.0);
            }
            hasher.update(b";");
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// True if the digest of the file follows from the records of the slices in a part.
    fn is_joined(&self, offset: u64, len: u64) -> io::Result<bool> {
        for slice_id in slices_of(&self.upload.plan, offset, offset + len) {
            let record = Records(self.digests).get(slice_id)?;
            if record.is_none_or(|record| record.digest.kind != DigestKind::ChainingValue) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The part of this number: the one that the store has, or sent now.
    fn part(&self, multipart: &Multipart<'_>, parts: &PartRecords, number: u64) -> Result<SentPart, Trouble> {
        let (offset, len) = multipart.sizes().extent(number, self.size());
        // Records that change after this make it a part of other slices.
        let slices = self.records_of(offset, len)?;
        let stored = multipart.stored.get(&number).filter(|stored| stored.size == len);
        let recorded = |part: &SentPart| PartRecord { slices, answer: part.answer() };
        if let Some(stored) = stored
            && parts.get(number)? == Some(recorded(stored))
        {
            self.give_back(parts, offset, len)?;
            return Ok(stored.clone());
        }
        let md5 = self.md5_of(offset, len)?.map_err(Trouble::Damaged)?;
        let sent = match stored.filter(|stored| stored.is_of(md5)) {
            Some(stored) => stored.clone(),
            None => multipart.send(number, self.merged, offset, len, md5).map_err(io::Error::from)?,
        };
        parts.put(number, &recorded(&sent)).map_err(Trouble::Error)?;
        self.give_back(parts, offset, len)?;
        Ok(sent)
    }

    /// Gives back the space of a part that the store has, if the upload permits it.
    fn give_back(&self, parts: &PartRecords, offset: u64, len: u64) -> io::Result<()> {
        let may_go = self.upload.gives_parts_back() && self.is_joined(offset, len)?;
        if !may_go || disk::is_hole(self.merged, offset, len)? {
            return Ok(());
        }
        parts.sync()?;
        // The frontier too: after a power cut nobody looks for slices below it in the hole.
        self.digests.sync_data()?;
        self.spool.give_back(self.merged, offset, len).map(drop)
    }

    /// Sends the parts of `queue`, several at once. Those that the store has then come back with the first trouble: an
    /// error, or a slice that is damaged.
    fn send(
        &self,
        multipart: &Multipart<'_>,
        threads: u64,
        queue: &impl PartQueue,
    ) -> (BTreeMap<u64, SentPart>, Option<Trouble>) {
        let parts = match self.spool.part_records(multipart.id(), multipart.sizes().part) {
            Ok(parts) => parts,
            Err(e) => return (BTreeMap::new(), Some(Trouble::Error(e))),
        };
        let (sent, trouble) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
        let work = || {
            let _others = EndAtPanic(queue);
            while let Some(number) = queue.next() {
                match self.part(multipart, &parts, number) {
                    Ok(part) => {
                        sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, part);
                        queue.is_stored();
                    }
                    Err(why) => {
                        let mut first = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                        // Parts before this one may be on their way.
                        *first = Some(match (first.take(), why) {
                            (Some(Trouble::Damaged(one)), Trouble::Damaged(other)) => Trouble::Damaged(one.min(other)),
                            (first, why) => first.unwrap_or(why),
                        });
                        queue.end();
                    }
                }
            }
        };
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
    fn send_all(&self, multipart: &Multipart<'_>) -> io::Result<Result<Vec<SentPart>, u64>> {
        let number = multipart.sizes().parts_of(self.size());
        let (parts, trouble) = self.send(multipart, multipart.at_once().min(number), &AllParts::new(number));
        match trouble {
            Some(Trouble::Damaged(slice_id)) => Ok(Err(slice_id)),
            Some(Trouble::Error(e)) => Err(e),
            None => Ok(Ok(parts.into_values().collect())),
        }
    }

    /// The first `frontier` slices that lie in parts of this multipart upload with a record of these slices that
    /// `counts`.
    fn slices_in_parts(
        &self,
        id: &str,
        sizes: PartSizes,
        frontier: u64,
        counts: impl Fn(u64, &PartRecord) -> bool,
    ) -> io::Result<BTreeSet<u64>> {
        let plan = &self.upload.plan;
        let end = if plan.slice_num == Some(frontier) { self.size() } else { plan.offset_of(frontier).unwrap_or(0) };
        let (parts, mut slices) = (self.spool.part_records(id, sizes.part)?, BTreeSet::new());
        for number in 1..=sizes.parts_of(self.size().min(end)) {
            let (offset, len) = sizes.extent(number, self.size());
            if let Some(record) = parts.get(number)?
                && record.slices == self.records_of(offset, len)?
                && counts(number, &record)
            {
                slices.extend(slices_of(plan, offset, offset + len).filter(|slice_id| *slice_id < frontier));
            }
        }
        Ok(slices)
    }

    fn size(&self) -> u64 {
        self.upload.plan.file_size.unwrap_or(0)
    }
}

/// Sends the parts that `queue` gives, until it ends. Returns the slice that is damaged, if one is: it must be looked at
/// under the lock.
///
/// # Errors
/// The store does not answer, or refuses.
pub fn send_early(multipart: &Multipart<'_>, source: Source<'_>, queue: &impl PartQueue) -> io::Result<Option<u64>> {
    match source.send(multipart, multipart.at_once(), queue).1 {
        Some(Trouble::Error(e)) => Err(e),
        Some(Trouble::Damaged(slice_id)) => Ok(Some(slice_id)),
        None => Ok(None),
    }
}

/// The first `frontier` slices of `source`, by their ids, of which the records say that the store has them. The store is
/// not asked.
///
/// # Errors
/// As the system gives them.
pub fn recorded_slices(source: Source<'_>, frontier: u64) -> io::Result<BTreeSet<u64>> {
    if !source.upload.gives_parts_back() || !source.spool.has_part_records() {
        return Ok(BTreeSet::new());
    }
    let Some((id, sizes)) = multipart_in(source.spool.path()) else { return Ok(BTreeSet::new()) };
    source.slices_in_parts(&id, sizes, frontier, |_, _| true)
}

/// The same, if the store lists them as their records say.
///
/// # Errors
/// The store does not answer, or refuses; or as the system gives them.
pub fn stored_slices(objects: &Objects, source: Source<'_>, frontier: u64) -> io::Result<BTreeSet<u64>> {
    if !source.upload.gives_parts_back() || !source.spool.has_part_records() {
        return Ok(BTreeSet::new());
    }
    let Some(StoredParts { id, sizes, parts }) =
        objects.look_at_multipart(source.spool.path(), &source.upload.file_name)?
    else {
        return Ok(BTreeSet::new());
    };
    source.slices_in_parts(&id, sizes, frontier, |number, record| {
        parts.get(&number).is_some_and(|part| part.answer() == record.answer)
    })
}

/// The multipart upload of `source`: the one that is under way, or a new one.
///
/// # Errors
/// The store does not answer, or refuses; or as the system gives them.
pub fn multipart<'a>(objects: &'a Objects, source: Source<'_>) -> io::Result<Multipart<'a>> {
    let (spool, upload) = (source.spool, source.upload);
    objects.multipart(spool.path(), &upload.file_name, sizes_of(upload), !spool.has_part_records())
}

/// True if parts of an upload can be sent before all of it is there: its size is known, and no source but one has sent
/// slices of it.
pub fn may_be_sent_early(upload: &UploadRecord) -> bool {
    upload.goes_in_parts() && !upload.is_taken_over() && !upload.is_partial()
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
