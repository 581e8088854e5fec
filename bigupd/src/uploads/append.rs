//! Uploads whose bytes come in order, in requests of any length: what arrives is cut into slices, and a request may end
//! within one ([`bigup_core::storage::spool::Tail`]).
//!
//! One request at a time appends to an upload. A newer one is from a client that lost its connection, which the server
//! need not have noticed: it tells the older one to stop, and goes on where that left off.

use super::begin::{check_not_paused, show_life};
use super::limits::Stop;
use super::refusals::no_such_upload;
use super::{SliceRequest, SliceTarget, Uploads};
use crate::admission::access::Access;
use crate::admission::grants::{Grant, Growing};
use crate::mergers::take_from_merger;
use crate::net::peer::Peer;
use crate::refusal::{Refusal, within_request};
use crate::uploads::settings::SliceAck;
use bigup_core::protocol::digest::{Digest, SliceDigest, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::disk::Durability;
use bigup_core::storage::finish::cancel::{Ended, end};
use bigup_core::storage::space::SpaceError;
use bigup_core::storage::spool::{
    Arrival, Concat, FinalState, HeldRun, LockedSpool, Spool, Tail, UploadId, UploadRecord,
};
use bigup_core::storage::store::{Entry, FinishedFile};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// Longest time between two notes of how much of a slice came, so that a kill costs no more than that.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Time that a merger may take to leave an upload that ends.
const MERGER_LEAVES: Duration = Duration::from_secs(10);

/// Bytes to be appended to an upload.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// The sender. It may push this name.
    pub by: Access,
    /// The address it comes from; for the log.
    pub peer: Option<Peer>,
    /// The upload.
    pub id: UploadId,
    /// Name of the file.
    pub name: FileName,
    /// The upload's source.
    pub source: String,
    /// Offset in the file of the first byte to append, as the client takes it to be.
    pub offset: u64,
    /// Bytes of the whole file, if the client tells that now. `None` if it does not.
    pub file_size: Option<u64>,
    /// Bytes to append. `None` if that is not told before their end.
    pub len: Option<u64>,
    /// The client says when the file is whole, by [`Uploads::complete`]. An upload is appended to as it was begun.
    pub awaits_end: bool,
}

/// The state of an upload whose bytes come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appendable {
    /// Its record.
    pub upload: UploadRecord,
    /// Bytes that are held from the start of the file, without a gap.
    pub offset: u64,
    /// True if all bytes are held, but the last slice is not stored as one yet: its request was killed just then.
    pub ends_in_tail: bool,
}

impl Appendable {
    /// True if all bytes are held, and the file is being finished.
    pub fn is_whole(&self) -> bool {
        self.upload.plan.file_size == Some(self.offset) && !self.upload.awaits_end && !self.upload.is_partial()
    }

    /// True of a final upload, which is joined from partial ones.
    pub fn is_final(&self) -> bool {
        self.upload.concat.as_ref().is_some_and(Concat::is_final)
    }
}

/// The place of the next bytes of an upload.
pub struct AppendTarget {
    /// The slice that they are of.
    pub slice: SliceTarget,
    /// Hashers of its digests, which took the bytes of it that are held.
    pub hashers: Vec<SliceHasher>,
    /// Bytes until the slice is whole.
    pub wanted: u64,
    /// True if it is the last slice of the file.
    pub is_last: bool,
    /// The slice, if it becomes whole.
    pub ask: SliceRequest,
}

impl AppendTarget {
    /// The same, without notes on the disk of how much came: none of it counts before its end.
    pub fn unnoted(mut self) -> AppendTarget {
        if let SliceTarget::Tail(tail) = &mut self.slice {
            tail.is_noted = false;
        }
        self
    }

    /// Bytes of the slice that are held already.
    pub fn held(&self) -> u64 {
        self.ask.len - self.wanted
    }
}

/// The tail of an upload that bytes arrive in.
pub struct TailTarget {
    pub(super) arrival: Arrival,
    pub(super) granted: Option<Grant>,
    spool: Spool,
    source: String,
    /// Bytes of the slice.
    len: u64,
    kept: Instant,
    is_noted: bool,
}

impl TailTarget {
    /// Its slice arrives in it.
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Takes note of `more` bytes that were written; `digest` tells that of all bytes of the slice. From time to time
    /// that is noted on the disk.
    ///
    /// # Errors
    /// The upload is gone, or another's by now; or as the system gives them.
    pub fn wrote(&mut self, more: u64, digest: impl FnOnce() -> SliceDigest) -> io::Result<()> {
        self.len += more;
        if !self.is_noted || self.kept.elapsed() < KEEP_EVERY {
            return Ok(());
        }
        self.keep(digest(), Durability::Process)
    }

    fn keep(&mut self, digest: SliceDigest, durability: Durability) -> io::Result<()> {
        let locked = self.spool.lock()?.filter(|locked| locked.upload().source.as_deref() == Some(&self.source));
        let locked = locked.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        self.kept = Instant::now();
        locked.keep_tail(&mut self.arrival, self.len, digest, durability)
    }
}

impl Uploads {
    /// The state of the upload of `source`. `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn appendable(&self, id: &UploadId, source: &str) -> Result<Option<Appendable>, Refusal> {
        let spool = Spool::of(&self.data, id);
        let Some(locked) = self.lock_of(&spool, source)? else { return Ok(None) };
        let Some((locked, HeldRun { slice_id, offset })) = self.told_run(&spool, locked, source)? else {
            return Ok(None);
        };
        let plan = &locked.upload().plan;
        let ends_in_tail = plan.file_size == Some(offset) && plan.slice_num != Some(slice_id);
        show_life(&spool);
        if let Some(place) = locked.upload().placement() {
            show_life(&spool.of_final(place));
        }
        Ok(Some(Appendable { upload: locked.upload().clone(), offset, ends_in_tail }))
    }

    /// The bytes of the upload of `source` that are held, to be told to its client. If a slice's 200 promises that, they
    /// survive a power cut, also those that came by a request that was killed before its response. `None` if the upload
    /// ended meanwhile.
    fn told_run(
        &self,
        spool: &Spool,
        locked: LockedSpool,
        source: &str,
    ) -> Result<Option<(LockedSpool, HeldRun)>, Refusal> {
        let (run, frontier) = (locked.held_run()?, locked.frontier()?);
        if self.settings.slice_ack == SliceAck::Written {
            return Ok(Some((locked, run)));
        }
        let place = locked.upload().placement().cloned();
        drop(locked);
        if let Some(place) = place {
            spool.sync_taken(&place, frontier)?;
        }
        for slice_id in frontier..run.slice_id {
            // One that did not survive is held no more.
            spool.sync_slice(slice_id)?;
        }
        let Some(locked) = self.lock_of(spool, source)? else { return Ok(None) };
        let run = locked.held_run()?;
        // Slices of a run that went on meanwhile are synced by their own request.
        locked.sync_tail(run)?;
        let run = locked.held_run()?;
        drop(locked);
        spool.sync_record()?;
        Ok(self.lock_of(spool, source)?.map(|locked| (locked, run)))
    }

    /// True if the upload of `source` is a partial one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_partial(&self, id: &UploadId, source: &str) -> Result<bool, Refusal> {
        let upload = Spool::of(&self.data, id).upload()?.filter(|upload| upload.source.as_deref() == Some(source));
        Ok(upload.is_some_and(|upload| upload.is_partial()))
    }

    /// Asks a request that appends to the upload of `source` to stop, whichever daemon serves it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn ask_to_stop(&self, id: &UploadId, source: &str) -> Result<(), Refusal> {
        let spool = Spool::of(&self.data, id);
        // The lock keeps the spool there meanwhile.
        let Some(_locked) = self.lock_of(&spool, source)? else { return Ok(()) };
        Ok(spool.ask_to_stop()?)
    }

    /// True if a request appends to the upload of `source`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn is_appended_to(&self, id: &UploadId, source: &str) -> Result<bool, Refusal> {
        let spool = Spool::of(&self.data, id);
        Ok(self.lock_of(&spool, source)?.is_some() && spool.is_tail_locked()?)
    }

    /// Locks the spool of the upload of `source`. `None` if there is none; a partial upload is of no use once its final
    /// one has gone.
    pub(super) fn lock_of(&self, spool: &Spool, source: &str) -> Result<Option<LockedSpool>, Refusal> {
        let locked = self.lock(spool)?.filter(|locked| locked.upload().source.as_deref() == Some(source));
        let Some(locked) = locked else { return Ok(None) };
        let is_left = match locked.upload().placement() {
            Some(place) => spool.final_state(place)? == FinalState::Gone,
            None => false,
        };
        Ok(Some(locked).filter(|_| !is_left))
    }

    /// The place of the next bytes of an upload. `None` if there are no more, since all are held.
    ///
    /// # Errors
    /// There is no such upload, the offset is another one, another request appends, or it is refused.
    pub fn append(&self, ask: &AppendRequest) -> Result<Option<AppendTarget>, Refusal> {
        let _let_in = self.check_spool_limit_to_append(&Spool::of(&self.data, &ask.id))?;
        self.counting(&ask.name, |asked| self.append_counted(ask, asked))
    }

    fn append_counted(&self, ask: &AppendRequest, asked: Instant) -> Result<Option<AppendTarget>, Stop> {
        let spool = Spool::of(&self.data, &ask.id);
        let Some(mut locked) = self.lock_of(&spool, &ask.source)? else {
            return Err(self.no_upload_for(&ask.id, &ask.name, &ask.source)?.into());
        };
        check_not_paused(locked.upload())?;
        self.check_final(&spool, locked.upload())?;
        ask.by.check_go_on(locked.upload())?;
        if locked.upload().concat.as_ref().is_some_and(Concat::is_final) {
            return Err(is_final().into());
        }
        if locked.upload().awaits_end != ask.awaits_end {
            return Err(other_protocol().into());
        }
        // Bytes that it brought may not be noted yet.
        if spool.is_tail_locked()? {
            return Err(being_appended().into());
        }
        if locked.held_run()?.offset != ask.offset {
            return Err(match self.told_run(&spool, locked, &ask.source)? {
                Some((_, held)) => other_offset(held.offset, ask.offset).into(),
                None => self.no_upload_for(&ask.id, &ask.name, &ask.source)?.into(),
            });
        }
        self.learn_size(ask, &mut locked, asked)?;
        // A size that is told may make a slice of the bytes.
        let run = locked.held_run()?;
        let plan = locked.upload().plan.clone();
        if plan.slice_num == Some(run.slice_id) {
            return Ok(None);
        }
        let start = plan.offset_of(run.slice_id).unwrap_or(0);
        let len = plan.len_of(run.slice_id).ok_or_else(|| io::Error::other("the slice size is not known"))?;
        let kinds = locked.digest_kinds(run.slice_id, len)?;
        // The upload may not say how long it gets.
        self.check_sizes(None, Some(run.slice_id + 1), Some(run.offset.saturating_add(1)))?;
        let wanted = start + len - run.offset;
        let slice = plan.file_size.is_none().then_some(Growing::Slice(len));
        let granted = slice.map(|slice| self.take_locked(&ask.by, &ask.name, slice, asked)).transpose()?;
        let opened = self.with_disk_space(|space| locked.open_tail(run, &kinds, space));
        let tail = match opened {
            Err(SpaceError::Io(e)) if e.kind() == ErrorKind::InvalidData => {
                log::warn!("{}: {e}; they will be asked for again", ask.name);
                return Err(other_offset(start, ask.offset).into());
            }
            opened => opened.map_err(|e| self.no_disk_space_for(run.slice_id, &ask.name, e))?,
        };
        let Tail { arrival, hashers, len: held } = tail.ok_or_else(being_appended)?;
        show_life(&spool);
        let (slice_id, source) = (run.slice_id, ask.source.clone());
        let ask = SliceRequest {
            by: ask.by.clone(),
            peer: ask.peer,
            id: ask.id.clone(),
            name: ask.name.clone(),
            slice_id,
            len,
            digest: None,
            offset: Some(start),
            source: Some(source.clone()),
            begin: None,
        };
        let slice = SliceTarget::Tail(TailTarget {
            arrival,
            granted,
            spool,
            source,
            len: held,
            kept: Instant::now(),
            is_noted: true,
        });
        let is_last = plan.slice_num == Some(slice_id + 1);
        Ok(Some(AppendTarget { slice, hashers, wanted, is_last, ask }))
    }

    /// The place of the slice behind one that is whole and not stored yet, of an upload that goes on at `ask`. `None`
    /// if there is no slice behind it.
    ///
    /// # Errors
    /// It is refused.
    pub fn append_behind(&self, before: &SliceRequest) -> Result<Option<AppendTarget>, Refusal> {
        let _let_in = self.check_spool_limit_to_append(&Spool::of(&self.data, &before.id))?;
        self.counting(&before.name, |asked| self.append_behind_counted(before, asked))
    }

    fn append_behind_counted(&self, before: &SliceRequest, asked: Instant) -> Result<Option<AppendTarget>, Stop> {
        let spool = Spool::of(&self.data, &before.id);
        let source = before.source.as_deref().unwrap_or_default();
        let Some(locked) = self.lock_of(&spool, source)? else { return Err(no_such_upload().into()) };
        let (plan, slice_id) = (locked.upload().plan.clone(), before.slice_id + 1);
        if plan.slice_num == Some(slice_id) {
            return Ok(None);
        }
        let start = plan.offset_of(slice_id).unwrap_or(0);
        let len = plan.len_of(slice_id).ok_or_else(|| io::Error::other("the slice size is not known"))?;
        self.check_sizes(None, Some(slice_id + 1), Some(start.saturating_add(1)))?;
        let kinds = locked.digest_kinds(slice_id, len)?;
        let slice = plan.file_size.is_none().then_some(Growing::Slice(len));
        let granted = slice.map(|slice| self.take_locked(&before.by, &before.name, slice, asked)).transpose()?;
        let arrival = self.with_disk_space(|space| locked.arrival(slice_id, len, &plan, space));
        let arrival = arrival.map_err(|e| self.no_disk_space_for(slice_id, &before.name, e))?;
        let hashers = kinds.iter().map(|kind| SliceHasher::new(*kind, start)).collect();
        let ask = SliceRequest { slice_id, len, offset: Some(start), ..before.clone() };
        let is_last = plan.slice_num == Some(slice_id + 1);
        let slice = SliceTarget::Spool(arrival, granted);
        Ok(Some(AppendTarget { slice, hashers, wanted: len, is_last, ask }))
    }

    /// Takes the size of the file, if it is told only now. A body that is longer than the rest of the file is refused.
    fn learn_size(&self, ask: &AppendRequest, locked: &mut LockedSpool, asked: Instant) -> Result<(), Stop> {
        let known = &locked.upload().plan;
        let told = Plan::new(None, known.slice_size, ask.file_size).map_err(within_request)?;
        let plan = known.bind(&told).map_err(|e| other_size(within_request(e)))?;
        self.check_plan(&plan)?;
        if let Some(size) = plan.file_size.filter(|size| ask.offset > *size) {
            let facts = format!("{} bytes of the upload are held, and it cannot be {size} bytes long", ask.offset);
            return Err(other_size(Refusal::new(ErrorCode::BadRequest, facts)).into());
        }
        if let (Some(size), Some(len)) = (plan.file_size, ask.len)
            && ask.offset.saturating_add(len) > size
        {
            return Err(too_long(size, ask.offset, len).into());
        }
        if plan == *known {
            return Ok(());
        }
        let growth = self.take_growth(&ask.by, locked, &plan, asked)?;
        let upload = UploadRecord { plan, ..locked.upload().clone() };
        locked.save(upload)?;
        growth.into_iter().for_each(Grant::landed);
        Ok(())
    }

    /// Keeps the first `len` bytes of the slice `ask`, which is not whole; `digest` is theirs. As with a slice, they
    /// survive a power cut if that is what a slice's 200 promises.
    ///
    /// # Errors
    /// The upload is gone, or as the system gives them.
    pub fn keep_tail(
        &self,
        ask: &SliceRequest,
        target: SliceTarget,
        len: u64,
        digest: SliceDigest,
    ) -> Result<(), Refusal> {
        let mut arrival = match target {
            SliceTarget::Spool(arrival, _) => arrival,
            SliceTarget::Tail(tail) => tail.arrival,
            SliceTarget::UnnamedFile(..) | SliceTarget::Compare(_) => return Ok(()),
        };
        let durability = match self.settings.slice_ack {
            SliceAck::Written => Durability::Process,
            SliceAck::Synced => Durability::PowerCut,
        };
        if durability == Durability::PowerCut {
            arrival.file().sync_data()?;
        }
        let spool = Spool::of(&self.data, &ask.id);
        let locked = self.lock_of(&spool, ask.source.as_deref().unwrap_or_default())?.ok_or_else(no_such_upload)?;
        locked.keep_tail(&mut arrival, len, digest, durability)?;
        drop(locked);
        if durability == Durability::PowerCut {
            spool.sync_record()?;
        }
        Ok(())
    }

    /// The reason why `source` has no upload: it was cancelled a moment ago, or there is none.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn no_upload_for(&self, id: &UploadId, name: &FileName, source: &str) -> Result<Refusal, Refusal> {
        self.check_not_cancelled(&Spool::of(&self.data, id), name, Some(source))?;
        Ok(no_such_upload())
    }

    /// Ends the upload of `source`: it goes with all that is held.
    ///
    /// # Errors
    /// There is none, it is finished, or a merger does not leave it.
    pub fn end(&self, id: &UploadId, source: &str) -> Result<(), Refusal> {
        let spool = Spool::of(&self.data, id);
        let locked = self.lock_of(&spool, source)?.ok_or_else(no_such_upload)?;
        if let Some(place) = locked.upload().placement() {
            let facts = format!("the upload is a part of {}: end that one", place.file_name);
            return Err(Refusal::new(ErrorCode::Conflict, facts));
        }
        drop(locked);
        let merger = take_from_merger(&spool, MERGER_LEAVES)?;
        match end(&self.data, &spool, &merger, |upload| upload.source.as_deref() == Some(source))? {
            Ended::Cancelled(_) => Ok(()),
            Ended::Finished | Ended::NoUpload => Err(no_such_upload()),
        }
    }

    /// Takes the client's word that the upload is whole with the bytes up to the offset of `ask`. Its size is known
    /// already, and all of its slices are held: from here on the file is published, and nothing is appended.
    ///
    /// # Errors
    /// The offset is another one, or slices are missing.
    pub fn complete(&self, ask: &AppendRequest) -> Result<(), Refusal> {
        let spool = Spool::of(&self.data, &ask.id);
        let mut locked = self.lock_of(&spool, &ask.source)?.ok_or_else(no_such_upload)?;
        check_not_paused(locked.upload())?;
        let run = locked.held_run()?;
        if run.offset != ask.offset || locked.upload().plan.slice_num != Some(run.slice_id) {
            return Err(other_offset(run.offset, ask.offset));
        }
        let upload = UploadRecord { awaits_end: false, ..locked.upload().clone() };
        Ok(locked.save(upload)?)
    }

    /// Digest, and size in bytes, of the file that the upload of `source` became, as far as that is known.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn became(&self, id: &UploadId, name: &FileName, source: &str) -> Result<Option<(Digest, u64)>, Refusal> {
        if let Some(finished) = Spool::of(&self.data, id).finished(source)? {
            return Ok(Some(finished));
        }
        // After a power cut the digest may have to be found out anew.
        Ok(match self.look_into(name)? {
            Entry::File(FinishedFile { size, stored_digest: Some(stored), .. })
                if stored.source.as_deref() == Some(source) =>
            {
                Some((stored.digest, size))
            }
            _ => None,
        })
    }
}

/// The offset that a client names is not the upload's.
pub fn other_offset(held: u64, named: u64) -> Refusal {
    let facts = format!("the upload's offset is {held}, the request's is {named}: ask for the offset");
    Refusal { offset: Some(held), ..Refusal::new(ErrorCode::Conflict, facts) }
}

/// A body of `len` bytes goes beyond the end of the file.
pub fn too_long(size: u64, offset: u64, len: u64) -> Refusal {
    let facts = format!("the upload is {size} bytes long, and {len} bytes from {offset} on are more");
    Refusal::new(ErrorCode::TooLarge, facts)
}

/// The request tells another size of the file than the upload has.
fn other_size(refusal: Refusal) -> Refusal {
    Refusal { is_other_size: refusal.code == ErrorCode::BadRequest, ..refusal }
}

/// The upload was begun by a protocol in which "whole" means something else.
pub fn other_protocol() -> Refusal {
    let facts = "the upload was begun by another protocol: go on with it by that one";
    Refusal::new(ErrorCode::Conflict, facts)
}

/// The bytes of a final upload are those of its partial ones.
fn is_final() -> Refusal {
    let facts = "the upload is joined from partial ones: append to those";
    Refusal::new(ErrorCode::Forbidden, facts)
}

/// Another request appends, and does not stop at once.
fn being_appended() -> Refusal {
    let facts = "another request is at work on this upload: ask again in a moment";
    Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, facts) }
}
