//! The course of a slice: before its body is read, and once it came whole.

use super::begin::{check_not_paused, is_sender, note_refused, show_life};
use super::limits::Stop;
use super::refusals::{blocked, exists_with, no_disk_space, no_upload};
use super::{Admission, NameState, SliceRequest, SliceStored, SliceTarget, Uploads};
use crate::admission::grants::{Grant, Growing};
use crate::metrics::Synced;
use crate::net::peer::Peer;
use crate::refusal::{Advice, Refusal, against_upload};
use crate::uploads::append::TailTarget;
use crate::uploads::request::BeginRequest;
use crate::uploads::settings::SliceAck;
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::BootId;
use bigup_core::storage::finish::publish::Outcome;
use bigup_core::storage::space::SpaceError;
use bigup_core::storage::spool::{Arrival, LockedSpool, Place, Record, SliceError, Spool, UploadRecord};
use bigup_core::storage::store::{Entry, FinishedFile, Store};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Time after its last change for which the merging of an upload counts as under way: several times the time between
/// two checkpoints of a merger.
const STILL_MERGING: Duration = Duration::from_secs(10);

impl Uploads {
    /// Decides about the body of a slice before any of it is read.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn admit(&self, ask: &SliceRequest) -> Result<Admission, Refusal> {
        self.check_sizes(Some(ask.len), None, None)?;
        if let Some(begin) = &ask.begin
            && let Some(admission) =
                self.begin_with_slice(begin, ask).inspect_err(|refusal| note_refused(begin, refusal))?
        {
            return Ok(admission);
        }
        self.counting(&ask.name, |asked| self.admit_to_upload(ask, asked))
    }

    /// The same of a slice of an upload that has begun.
    fn admit_to_upload(&self, ask: &SliceRequest, asked: Instant) -> Result<Admission, Stop> {
        let spool = Spool::of(&self.data, &ask.id);
        let _let_in = self.check_spool_limit(&spool, ask.slice_id, ask.len)?;
        let Some(locked) = self.lock(&spool)? else { return Ok(self.admit_without_upload(ask)?) };
        check_not_paused(locked.upload())?;
        ask.by.check_go_on(locked.upload())?;
        check_sender(locked.upload(), ask)?;
        locked.check_offset(ask.slice_id, ask.offset)?;
        let given: Vec<SliceDigest> = ask.digest.into_iter().collect();
        if locked.place(ask.slice_id, ask.len, ask.source.as_deref(), &given)? == Place::Held {
            drop(locked);
            show_life(&spool);
            self.keep_promise(ask)?;
            return Ok(Admission::Held(None));
        }
        if locked.upload().asks_again {
            // Clients that know slices to be held would never send them again.
            let message =
                format!("slices of {} that were held are lost: begin anew, and send those that are missing", ask.name);
            return Err(Refusal::new(ErrorCode::NoUpload, message).into());
        }
        let mut kinds = locked.digest_kinds(ask.slice_id, ask.len)?;
        let plan = locked.upload().plan.learn(ask.slice_id, ask.len).map_err(against_upload)?;
        self.check_plan(&plan)?;
        let offset = plan.offset_of(ask.slice_id).unwrap_or(0);
        // The upload may not say how long it gets.
        self.check_sizes(None, Some(ask.slice_id + 1), Some(offset.saturating_add(ask.len)))?;
        if let Some(digest) = ask.digest.filter(|d| !kinds.contains(&d.kind)) {
            if digest.kind == DigestKind::ChainingValue {
                let facts = "slice_digest is a chaining value, but slices of this upload are no subtrees";
                return Err(Refusal::new(ErrorCode::BadRequest, facts).advising(Advice::SendHash).into());
            }
            kinds.push(digest.kind);
        }
        let counts_by_slices = locked.upload().plan.file_size.is_none();
        let slice = counts_by_slices.then_some(Growing::Slice(ask.len));
        let granted = slice.map(|slice| self.take_locked(&ask.by, &ask.name, slice, asked)).transpose()?;
        let arrival = self.with_disk_space(|space| locked.arrival(ask.slice_id, ask.len, &plan, space));
        let mut arrival = arrival.map_err(|e| self.no_disk_space_for(ask.slice_id, &ask.name, e))?;
        if plan.slice_num == Some(1) && !locked.upload().is_partial() && self.data.objects().is_none() {
            arrival.write_back_early();
        }
        Ok(Admission::Take { target: SliceTarget::Spool(arrival, granted), kinds, offset })
    }

    /// Stores a slice that arrived whole; `digests` are of the bytes that arrived, of the kinds that were asked for.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn commit(
        &self,
        ask: &SliceRequest,
        target: SliceTarget,
        digests: &[SliceDigest],
    ) -> Result<SliceStored, Refusal> {
        self.check_told(ask, digests)?;
        let (mut arrival, granted) = match target {
            SliceTarget::Spool(arrival, granted) | SliceTarget::Tail(TailTarget { arrival, granted, .. }) => {
                (arrival, granted)
            }
            SliceTarget::UnnamedFile(unnamed, granted) => return self.finish(ask, unnamed, granted, digests[0].digest),
            SliceTarget::Compare(finished) => {
                let differs = digests.iter().find(|d| d.kind == DigestKind::Hash && d.digest != finished);
                return differs
                    .map_or(Ok(SliceStored::Finished(finished)), |is| Err(exists_with(ask, finished, is.digest)));
            }
        };
        if self.data.is_shared() {
            arrival.show_to_other_machines()?;
        }
        let spool = Spool::of(&self.data, &ask.id);
        if arrival.is_tail() && self.settings.slice_ack == SliceAck::Synced {
            self.sync_ahead(&spool, ask, &arrival, digests)?;
        }
        let locked = self.counting(&ask.name, |asked| self.lock_to_commit(&spool, ask, asked))?;
        let Some((mut locked, growth)) = locked else { return self.finished_meanwhile(ask, digests) };
        if locked.commit(&mut arrival, ask.len, ask.source.as_deref(), digests)? == Place::Held {
            drop(locked);
            return self.keep_promise(ask).map(|()| SliceStored::Held);
        }
        // In this order: with its size known the upload counts no more by its slices.
        [growth, granted].into_iter().flatten().for_each(Grant::landed);
        self.metrics.slice_received(ask.len);
        let is_only_slice = locked.upload().plan.slice_num == Some(1) && !locked.upload().is_partial();
        let place = locked.upload().placement().cloned();
        let may_merge = !locked.upload().is_partial() && ask.slice_id <= locked.frontier()?;
        drop(locked);
        if is_only_slice {
            match self.publish_now(&spool, &ask.name)? {
                Some(Outcome::Published(digest)) => return Ok(SliceStored::Finished(digest)),
                Some(Outcome::Blocked { why, remedy }) => return Err(blocked(&ask.name, &why, remedy)),
                // A merger has it, or it wants a client's word first.
                Some(Outcome::NotYet | Outcome::NoUpload) | None => {}
            }
        }
        self.keep_promise(ask)?;
        self.recent.keep(arrival);
        if let Some(place) = place {
            return self.give_slices(&spool, ask.source.as_deref().unwrap_or_default(), place);
        }
        Ok(if may_merge { SliceStored::MergerDue(ask.name.clone()) } else { SliceStored::Waits })
    }

    /// Makes a slice and its record survive a power cut before the slice gets its name. Bytes of it may have been told
    /// to be held while it was the tail, and a slice that is not as its record says is removed.
    fn sync_ahead(
        &self,
        spool: &Spool,
        ask: &SliceRequest,
        arrival: &Arrival,
        digests: &[SliceDigest],
    ) -> Result<(), Refusal> {
        arrival.file().sync_data()?;
        let Some(locked) = self.lock(spool)? else { return Ok(()) };
        check_sender(locked.upload(), ask)?;
        if !locked.is_held(ask.slice_id)? {
            // A record without its slice means nothing.
            let record = Record { digest: digests[0], len: ask.len, boot: BootId::current() };
            locked.records().put(ask.slice_id, &record)?;
        }
        drop(locked);
        Ok(spool.open_digests()?.sync_data()?)
    }

    /// Locks the spool for a slice that arrived whole. Returns it with the grant of the bytes that the upload counts
    /// for more by it; `None` if there is no upload.
    fn lock_to_commit(
        &self,
        spool: &Spool,
        ask: &SliceRequest,
        asked: Instant,
    ) -> Result<Option<(LockedSpool, Option<Grant>)>, Stop> {
        let Some(locked) = self.lock(spool)? else { return Ok(None) };
        check_sender(locked.upload(), ask)?;
        let plan = locked.upload().plan.learn(ask.slice_id, ask.len).ok();
        let growth = plan.map(|plan| self.take_growth(&ask.by, &locked, &plan, asked)).transpose()?.flatten();
        Ok(Some((locked, growth)))
    }

    /// Refuses a slice that arrived with another digest than its client told.
    pub(super) fn check_told(&self, ask: &SliceRequest, digests: &[SliceDigest]) -> Result<(), Refusal> {
        match ask.digest.and_then(|told| Some((told, digests.iter().find(|d| d.kind == told.kind && **d != told)?))) {
            None => Ok(()),
            Some((told, is)) => {
                let message = format!("slice {} arrived with the digest {is}, not {told}: send it again", ask.slice_id);
                Err(Refusal::new(ErrorCode::Damaged, message))
            }
        }
    }

    /// The upload went while the slice arrived: somebody else may have finished it with the same content.
    fn finished_meanwhile(&self, ask: &SliceRequest, digests: &[SliceDigest]) -> Result<SliceStored, Refusal> {
        let Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }) = self.lookup(&ask.name)? else {
            return match self.moved(ask)? {
                Some(digest) => Ok(SliceStored::Finished(digest)),
                None => Err(self.no_upload_of(ask)?),
            };
        };
        let is_only = ask.begin.as_ref().is_some_and(|begin| begin.plan.slice_num == Some(1));
        let same_content =
            is_only && digests.iter().any(|d| d.kind == DigestKind::Hash && d.digest == stored_digest.digest);
        let same_source = ask.source.is_some() && ask.source == stored_digest.source;
        if same_content || same_source {
            Ok(SliceStored::Finished(stored_digest.digest))
        } else {
            Err(self.no_upload_of(ask)?)
        }
    }

    /// Why a slice finds no upload: it was cancelled, or there is none.
    fn no_upload_of(&self, ask: &SliceRequest) -> Result<Refusal, Refusal> {
        self.check_not_cancelled(&Spool::of(&self.data, &ask.id), &ask.name, ask.source.as_deref())?;
        Ok(no_upload(&ask.name))
    }

    /// Begins the upload that a slice brings with it, unless the file is finished: then what that means for the slice.
    fn begin_with_slice(&self, begin: &BeginRequest, ask: &SliceRequest) -> Result<Option<Admission>, Refusal> {
        let is_only = begin.plan.slice_num == Some(1);
        // The hash of the only slice is the digest of the file.
        let only = ask.digest.filter(|d| is_only && d.kind == DigestKind::Hash);
        let file_digest = begin.file_digest.or(only.map(|d| d.digest));
        let kinds = vec![DigestKind::Hash];
        if is_only && let Some(target) = self.unnamed(&Store::new(&self.data), begin, ask)? {
            return Ok(Some(Admission::Take { target, kinds, offset: 0 }));
        }
        match self.begin_or_go_on(&BeginRequest { file_digest, ..begin.clone() }, false)? {
            NameState::Unfinished(_) => Ok(None),
            NameState::Finished { digest, same_source, .. } if same_source || file_digest.is_some() => {
                Ok(Some(Admission::Held(digest)))
            }
            NameState::Finished { digest: Some(digest), .. } if is_only => {
                Ok(Some(Admission::Take { target: SliceTarget::Compare(digest), kinds, offset: 0 }))
            }
            // If the digest is not certain, only reading the file tells.
            NameState::Finished { digest: None, .. } if is_only => match self.look_into(&ask.name)? {
                Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }) => {
                    Ok(Some(Admission::Take { target: SliceTarget::Compare(stored_digest.digest), kinds, offset: 0 }))
                }
                _ => Err(self.restless(&ask.name)),
            },
            NameState::Finished { .. } => {
                let facts = format!("{} exists", ask.name);
                Err(Refusal::new(ErrorCode::Exists, facts).advising(Advice::NameDigestOrReplace))
            }
        }
    }

    /// A slice of an upload that is not there: of a finished one, sent again because the response was lost, or of no
    /// upload.
    fn admit_without_upload(&self, ask: &SliceRequest) -> Result<Admission, Refusal> {
        match self.lookup(&ask.name)? {
            Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. })
                if stored_digest.source.is_some() && stored_digest.source == ask.source =>
            {
                Ok(Admission::Held(Some(stored_digest.digest)))
            }
            // Somebody may have touched it, so that its content is not certain; the end of the upload is.
            Entry::File(FinishedFile { stored_digest: None, .. }) if let Some(digest) = self.moved(ask)? => {
                Ok(Admission::Held(Some(digest)))
            }
            Entry::File(_) => {
                // It may be one that a cancelled upload was to replace.
                self.no_upload_of(ask)?;
                let facts = format!("{} is finished", ask.name);
                Err(Refusal::new(ErrorCode::Exists, facts).advising(Advice::BeginToReplace))
            }
            Entry::Nothing | Entry::Other(_) => match self.moved(ask)? {
                Some(digest) => Ok(Admission::Held(Some(digest))),
                None => Err(self.no_upload_of(ask)?),
            },
        }
    }

    /// The digest of the file that the sender's upload became a while ago, which somebody has moved away since.
    fn moved(&self, ask: &SliceRequest) -> Result<Option<Digest>, Refusal> {
        let Some(source) = &ask.source else { return Ok(None) };
        Ok(Spool::of(&self.data, &ask.id).finished(source)?.map(|(digest, _)| digest))
    }

    /// Keeps the promise of a 200 for a slice that is held, whatever its writer, and whatever was promised then.
    fn keep_promise(&self, ask: &SliceRequest) -> Result<(), Refusal> {
        if self.settings.slice_ack == SliceAck::Written {
            return Ok(());
        }
        let began = Instant::now();
        let synced = Spool::of(&self.data, &ask.id).sync_slice(ask.slice_id)?;
        self.metrics.synced(Synced::Slice, began.elapsed());
        if !synced {
            let message = format!("slice {} did not survive a restart of the machine: send it again", ask.slice_id);
            return Err(Refusal::new(ErrorCode::Damaged, message));
        }
        Ok(())
    }

    /// There is no disk space for a slice; there may be some in a moment, if others are being merged.
    pub(super) fn no_disk_space_for(&self, slice_id: u64, name: &FileName, error: SpaceError) -> Refusal {
        let is_full = match &error {
            SpaceError::Full { .. } => true,
            // The file system has less than it told.
            SpaceError::Io(e) => matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            SpaceError::NoInodes { .. } => false,
        };
        let may_pass = is_full && self.is_disk_space_coming_back();
        let refusal = no_disk_space(error, &format!("slice {slice_id} of {name}"));
        Refusal { retry_after: may_pass.then_some(1), ..refusal }
    }

    /// True if slices are being merged, or if parts wait for the store: their disk space comes back then.
    fn is_disk_space_coming_back(&self) -> bool {
        let waits_for_store = |spool: &Spool| {
            let Ok(Some(upload)) = spool.upload() else { return false };
            upload.gives_parts_back() && spool.unsent().is_ok_and(|bytes| bytes >= upload.part_size())
        };
        let has_store = self.data.objects().is_some();
        let comes_back = |spool: &Spool| spool.moved_within(STILL_MERGING) || has_store && waits_for_store(spool);
        Spool::all(&self.data).is_ok_and(|spools| spools.iter().any(comes_back))
    }
}

/// Refuses a slice that does not come from the sender of this upload. Of clients that name a source its place tells.
fn check_sender(upload: &UploadRecord, ask: &SliceRequest) -> Result<(), Refusal> {
    let client = ask.by.client(ask.peer.and_then(Peer::ip));
    let is_other = ask.source.is_none() && !is_sender(upload, None, client.as_deref());
    if is_other { Err(SliceError::OtherSource.into()) } else { Ok(()) }
}
