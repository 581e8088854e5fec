//! What a request means for the upload it names. Plain synchronous work on the data folder: all state is there, none is
//! here, so that several daemons may share it and any of them may die.
//!
//! # Whose upload it is
//! An upload has one source: the file on a client's disk, as that client names it (or none, for clients that name
//! none). Only that source may send slices. A push of another source is told to come back while the first one is at
//! work, compares what is held meanwhile, and takes the upload over once it has been silent. From then on held slices
//! count for nothing until the new source has compared them and given the digest of the whole file; the file is
//! published only if it has that digest. So content is never mixed, whoever comes, goes, and comes back.

use crate::access::{Access, Peer};
use crate::arriving::{Arriving, Counted};
use crate::census::Census;
use crate::config::{Config, SliceAck};
use crate::hooks::begin::Doorkeeper;
use crate::hooks::complete::Completions;
use crate::metrics::{Failure, Limit, Metrics, Synced};
use crate::params::BeginAsk;
use crate::quota;
use crate::reply::{Refusal, against_upload};
use bigup_core::data_dir::DataDir;
use bigup_core::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::draft::Draft;
use bigup_core::name::FileName;
use bigup_core::plan::Plan;
use bigup_core::publish::{Outcome, is_moved, publish, sync_entry};
use bigup_core::room::{Room, RoomError};
use bigup_core::spool::{Arrival, Holdings, LockedSpool, Place, Spool, TOLD_FOR, Upload};
use bigup_core::store::{Entry, Finished, Stamp, Store, StoreError};
use bigup_core::units::MIB;
use bigup_core::wire::{ErrorCode, UploadStatus};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a name is looked at again when uploads of it come and go in between.
const ATTEMPTS: usize = 8;

/// Seconds after which an upload that was one too many may be begun again.
const FULL_RETRY_AFTER: u64 = 5;

/// Seconds after which the client of a paused upload may ask again: soon enough after it is resumed.
const PAUSED_RETRY_AFTER: u64 = 5;

/// What the list of uploads takes of each, in bytes, beside its name and error; a bit more than it does.
const LISTED_LEN: usize = 256;

/// How long after its last change the merging of an upload counts as under way: several times what lies between two
/// checkpoints of a merger.
const STILL_MERGING: Duration = Duration::from_secs(10);

/// Largest file that needs no spool where it comes in one request, in bytes: it has no room below which an upload that was
/// begun could go on, so what a broken connection loses is to be little.
const MAX_DRAFT: u64 = MIB;

/// The uploads of one data folder.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// The data folder.
    pub data: DataDir,
    /// Settings.
    pub config: Arc<Config>,
    /// Files that come in one request and have no spool.
    pub arriving: Arriving,
    /// What is counted of them.
    pub metrics: Metrics,
    /// Is told of files that are finished here.
    pub completions: Completions,
    doorkeeper: Option<Doorkeeper>,
    census: Arc<Census>,
    /// The file system turned out not to give names to files without one.
    without_drafts: Arc<AtomicBool>,
}

/// How a name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The file is finished.
    Finished {
        /// Its size, in bytes.
        file_size: u64,
        /// Its digest, where known.
        digest: Option<Digest>,
        /// It came from the source that the asker named.
        same_source: bool,
    },
    /// It is being uploaded.
    Unfinished(Box<Unfinished>),
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What it is.
    pub upload: Upload,
    /// What it holds.
    pub holdings: Holdings,
}

impl Unfinished {
    /// Whether a merger would find something to do.
    pub fn is_merger_due(&self) -> bool {
        self.holdings.need_merger(&self.upload)
    }

    /// Whether some slices are held and others not.
    fn is_part_held(&self) -> bool {
        !self.is_all_held() && (self.holdings.frontier > 0 || !self.holdings.waiting.is_empty())
    }

    /// Whether all slices are held, so that the file will be finished without more of them.
    pub fn is_all_held(&self) -> bool {
        self.upload.plan.slice_num.is_some_and(|num| self.holdings.ranges().count() >= num)
    }
}

/// A slice about to arrive.
#[derive(Clone, Debug)]
pub struct SliceAsk {
    /// Who sends it. They may push this name.
    pub by: Access,
    /// Where it comes from; for the log.
    pub peer: Option<Peer>,
    /// Name of the file.
    pub name: FileName,
    /// Which slice.
    pub slice_id: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// Its digest, where the client said.
    pub digest: Option<SliceDigest>,
    /// Where it begins in the file, in bytes, where the client said.
    pub offset: Option<u64>,
    /// What the client's source is.
    pub source: Option<String>,
    /// The request begins the upload too, where there is none.
    pub begin: Option<BeginAsk>,
}

/// What to do with the body of a slice.
pub enum Admission {
    /// Take it.
    Take {
        /// Where it goes.
        target: Target,
        /// Kinds of digest to compute, the one to record first.
        kinds: Vec<DigestKind>,
        /// Offset of the slice in the file, in bytes; 0 where not known, and then no chaining value is asked for.
        offset: u64,
    },
    /// It is held already; in a finished file where `Some`.
    Held(Option<Digest>),
}

/// Where a slice goes.
pub enum Target {
    /// Into the spool.
    Spool(Arrival),
    /// Into a file without a name, which it is the whole of. It counts as an upload until then.
    Draft(Draft, Counted),
    /// Nowhere: it would be the whole of a file that is finished, with this digest, and only its content can tell whether
    /// it is the same.
    Compare(Digest),
}

impl Target {
    /// Whether the upload that it is for was cancelled. A file that comes in one request has none.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Target::Spool(arrival) if arrival.is_cancelled())
    }

    /// The file to write to; None where the slice is only compared.
    pub fn file(&self) -> Option<&File> {
        match self {
            Target::Spool(arrival) => Some(arrival.file()),
            Target::Draft(draft, _) => Some(draft.file()),
            Target::Compare(_) => None,
        }
    }
}

/// A slice was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// With it the file was finished.
    Finished(Digest),
    /// It was held already.
    Held,
    /// A merger would find something to do.
    MergerDue,
    /// It waits for slices before it.
    Waits,
}

impl Uploads {
    /// The uploads of `data`.
    pub fn new(data: DataDir, config: Arc<Config>) -> Uploads {
        let (arriving, completions, census, without_drafts) = Default::default();
        let metrics = Metrics::new();
        let doorkeeper = Doorkeeper::new(&config.hooks, data.root(), metrics.clone());
        Uploads { data, config, arriving, metrics, completions, doorkeeper, census, without_drafts }
    }

    /// Begins an upload or goes on with it, or says that the file is finished.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn begin(&self, ask: &BeginAsk) -> Result<Standing, Refusal> {
        let standing = self.begin_or_go_on(ask)?;
        if let Standing::Unfinished(unfinished) = &standing
            && unfinished.is_part_held()
        {
            self.metrics.upload_resumed();
        }
        Ok(standing)
    }

    fn begin_or_go_on(&self, ask: &BeginAsk) -> Result<Standing, Refusal> {
        self.check_plan(&ask.plan)?;
        let spool = Spool::of(&self.data, &ask.name);
        let mut doorkeeper = self.doorkeeper.as_ref();
        for _ in 0..ATTEMPTS {
            if let Some(locked) = self.lock(&spool)? {
                if is_moved(&self.data, &spool, &locked)? {
                    drop(locked);
                    self.publish_now(&spool, &ask.name)?;
                    continue;
                }
                check_not_paused(locked.upload())?;
                let is_takeover = locked.upload().source != ask.source;
                if let Some(asking) = doorkeeper
                    && is_takeover
                    && spool.idle()? >= self.config.takeover_after
                {
                    drop(locked);
                    asking.admit(ask)?;
                    doorkeeper = None;
                    continue;
                }
                let unfinished = self.go_on(&spool, locked, ask)?;
                if unfinished.upload.plan.slice_num != Some(0) {
                    return Ok(Standing::Unfinished(Box::new(unfinished)));
                }
                // Nothing is to be sent of an empty file.
                match self.publish_now(&spool, &ask.name)? {
                    Some(Outcome::Published(digest)) => {
                        let same_source = ask.source.is_some();
                        return Ok(Standing::Finished { file_size: 0, digest: Some(digest), same_source });
                    }
                    Some(Outcome::Blocked(why)) => return Err(cannot_be_finished(&ask.name, &why)),
                    Some(Outcome::NoUpload) => continue,
                    Some(Outcome::NotYet) | None => return Ok(Standing::Unfinished(Box::new(unfinished))),
                }
            }
            if let Some(finished) = self.look_for_finished(ask)? {
                return Ok(finished);
            }
            self.check_not_cancelled(&spool, &ask.name, ask.source.as_deref())?;
            ask.by.check_uploads(&self.data, &self.arriving, self.config.limits.uploads_per_token)?;
            if let Some(asking) = doorkeeper.take() {
                asking.admit(ask)?;
                // That took its time, in which others may have come and gone.
                continue;
            }
            ask.by.take(&self.data, ask.plan.file_size.unwrap_or(0))?;
            let upload = Upload {
                token: ask.by.token().map(str::to_owned),
                replace: ask.replace,
                file_digest: ask.file_digest,
                ..Upload::begin(ask.name.clone(), ask.plan, ask.source.clone())
            };
            self.check_number_of_uploads(Census::admit)?;
            // Somebody else may create it first; the next round goes on with theirs.
            match Spool::create(&self.data, &upload, &self.room()) {
                Err(e) if spool.path().exists() => {
                    log::debug!(upload = ask.name.as_str(); "{}: begun by another request: {e}", ask.name)
                }
                created => {
                    if created.map_err(|e| no_room(e, ask.name.as_str()))? {
                        self.metrics.upload_begun();
                    }
                }
            }
        }
        Err(self.restless(&ask.name))
    }

    /// How a name stands, changing nothing. None: nothing is known of it.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn peek(&self, name: &FileName, source: Option<&str>) -> Result<Option<Standing>, Refusal> {
        let spool = Spool::of(&self.data, name);
        if let Some(upload) = spool.upload()? {
            match spool.holdings(&upload) {
                Ok(holdings) => return Ok(Some(Standing::Unfinished(Box::new(Unfinished { upload, holdings })))),
                // Finished in between.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(match self.look_up(name)? {
            Entry::File(found) => Some(finished(&found, source)),
            Entry::Nothing | Entry::Other(_) => None,
        })
    }

    /// How far merging lies behind a slice, in bytes; 0 where no merger could get on.
    ///
    /// # Errors
    /// The upload cannot be read.
    pub fn lag(&self, name: &FileName, slice_id: u64) -> Result<u64, Refusal> {
        let spool = Spool::of(&self.data, name);
        match spool.upload().and_then(|upload| upload.map_or(Ok(0), |upload| spool.lag(&upload, slice_id))) {
            // Finished in between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            lag => Ok(lag?),
        }
    }

    /// The digests of the held ones among the slices `first` to `last` (inclusive), in order.
    ///
    /// # Errors
    /// There is no such upload, or it cannot be read.
    pub fn digests(&self, name: &FileName, first: u64, last: u64) -> Result<Vec<Option<SliceDigest>>, Refusal> {
        let locked = self.lock(&Spool::of(&self.data, name))?.ok_or_else(|| no_upload(name))?;
        let held = locked.holdings()?.ranges();
        let mut digests = vec![];
        locked.records().scan(first, last, |slice_id, record| {
            digests.push(record.filter(|_| held.contains(slice_id)).map(|r| r.digest));
            Ok(())
        })?;
        Ok(digests)
    }

    /// The unfinished uploads whose names are `shown`, by name, and the bytes that an answer with them takes, or a bit
    /// more.
    ///
    /// # Errors
    /// The data folder cannot be read, or the answer would be too large.
    pub fn list(&self, shown: impl Fn(&str) -> bool) -> Result<(Vec<UploadStatus>, u64), Refusal> {
        let (mut list, mut size, most) = (vec![], 0, self.config.limits.answer_size);
        for spool in Spool::all(&self.data)? {
            match status_of(&spool) {
                Ok(Some(status)) if shown(&status.file_name) => {
                    // Names and errors have no control characters; quotes and backslashes take two bytes.
                    let text = status.file_name.len() + status.last_error.as_ref().map_or(0, String::len);
                    size += (2 * text + LISTED_LEN) as u64;
                    list.push(status);
                }
                Ok(_) => {}
                Err(e) => log::warn!("{}: {e}", spool.path().display()),
            }
            if size > most {
                let message = format!(
                    "the list of uploads takes more than {most} bytes, the most that are sent: ask for one by its name"
                );
                return Err(Refusal::over(Limit::AnswerSize, ErrorCode::TooLarge, message));
            }
        }
        list.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        Ok((list, size))
    }

    /// Decides what to do with the body of a slice before any of it is read.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn admit(&self, ask: &SliceAsk) -> Result<Admission, Refusal> {
        self.check_sizes(Some(ask.len), None, None)?;
        if let Some(begin) = &ask.begin
            && let Some(admission) = self.begin_with_slice(begin, ask)?
        {
            return Ok(admission);
        }
        let spool = Spool::of(&self.data, &ask.name);
        let Some(locked) = self.lock(&spool)? else { return self.admit_without_upload(ask) };
        check_not_paused(locked.upload())?;
        ask.by.check_go_on(locked.upload())?;
        locked.check_offset(ask.slice_id, ask.offset)?;
        let given: Vec<SliceDigest> = ask.digest.into_iter().collect();
        if locked.place(ask.slice_id, ask.len, ask.source.as_deref(), &given)? == Place::Held {
            drop(locked);
            return self.keep_promise(ask).map(|()| Admission::Held(None));
        }
        let mut kinds = locked.digest_kinds(ask.slice_id, ask.len)?;
        let plan = locked.upload().plan.learn(ask.slice_id, ask.len).map_err(against_upload)?;
        self.check_plan(&plan)?;
        let offset = plan.offset_of(ask.slice_id).unwrap_or(0);
        // The upload may not say how long it gets.
        self.check_sizes(None, Some(ask.slice_id + 1), Some(offset.saturating_add(ask.len)))?;
        if let Some(digest) = ask.digest.filter(|d| !kinds.contains(&d.kind)) {
            if digest.kind == DigestKind::ChainingValue {
                let message = "slice_digest is a chaining value, but slices of this upload are no subtrees: send hash:";
                return Err(Refusal::new(ErrorCode::BadRequest, message));
            }
            kinds.push(digest.kind);
        }
        if locked.upload().plan.file_size.is_none() {
            ask.by.take(&self.data, ask.len)?;
        }
        let arrival = locked.arrival(ask.slice_id, ask.len, &plan, &self.room());
        let arrival = arrival.map_err(|e| self.no_room_for(ask, e))?;
        Ok(Admission::Take { target: Target::Spool(arrival), kinds, offset })
    }

    /// Stores a slice that arrived whole; `digests` are of what arrived, of the kinds that were asked for.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn commit(&self, ask: &SliceAsk, target: Target, digests: &[SliceDigest]) -> Result<Stored, Refusal> {
        self.check_told(ask, digests)?;
        let mut arrival = match target {
            Target::Spool(arrival) => arrival,
            Target::Draft(draft, _counted) => return self.finish(ask, draft, digests[0].digest),
            Target::Compare(finished) => {
                let differs = digests.iter().find(|d| d.kind == DigestKind::Hash && d.digest != finished);
                return differs.map_or(Ok(Stored::Finished(finished)), |is| Err(exists_with(ask, finished, is.digest)));
            }
        };
        let spool = Spool::of(&self.data, &ask.name);
        let Some(mut locked) = self.lock(&spool)? else { return self.finished_meanwhile(ask, digests) };
        if let Ok(plan) = locked.upload().plan.learn(ask.slice_id, ask.len) {
            self.take_growth(&ask.by, &locked, &plan)?;
        }
        if locked.commit(&mut arrival, ask.len, ask.source.as_deref(), digests)? == Place::Held {
            drop(locked);
            return self.keep_promise(ask).map(|()| Stored::Held);
        }
        self.metrics.slice_received(ask.len);
        let is_only_slice = locked.upload().plan.slice_num == Some(1);
        let may_merge = ask.slice_id <= locked.frontier()?;
        drop(locked);
        if is_only_slice {
            match self.publish_now(&spool, &ask.name)? {
                Some(Outcome::Published(digest)) => return Ok(Stored::Finished(digest)),
                Some(Outcome::Blocked(why)) => return Err(cannot_be_finished(&ask.name, &why)),
                // A merger has it, or it wants a client's word first.
                Some(Outcome::NotYet | Outcome::NoUpload) | None => {}
            }
        }
        self.keep_promise(ask)?;
        Ok(if may_merge { Stored::MergerDue } else { Stored::Waits })
    }

    /// Whether a slice arrived with the digest that its client told.
    fn check_told(&self, ask: &SliceAsk, digests: &[SliceDigest]) -> Result<(), Refusal> {
        match ask.digest.and_then(|told| Some((told, digests.iter().find(|d| d.kind == told.kind && **d != told)?))) {
            None => Ok(()),
            Some((told, is)) => {
                let message = format!("slice {} arrived with the digest {is}, not {told}: send it again", ask.slice_id);
                Err(Refusal::new(ErrorCode::Damaged, message))
            }
        }
    }

    /// The upload went while the slice arrived: somebody else may have finished it with the same content.
    fn finished_meanwhile(&self, ask: &SliceAsk, digests: &[SliceDigest]) -> Result<Stored, Refusal> {
        let Entry::File(Finished { stamp: Some(stamp), .. }) = self.look_up(&ask.name)? else {
            return Err(self.no_upload_of(ask)?);
        };
        let is_only = ask.begin.as_ref().is_some_and(|begin| begin.plan.slice_num == Some(1));
        let same_content = is_only && digests.iter().any(|d| d.kind == DigestKind::Hash && d.digest == stamp.digest);
        let same_source = ask.source.is_some() && ask.source == stamp.source;
        if same_content || same_source { Ok(Stored::Finished(stamp.digest)) } else { Err(self.no_upload_of(ask)?) }
    }

    /// Why a slice finds no upload: it was cancelled, or there is none.
    fn no_upload_of(&self, ask: &SliceAsk) -> Result<Refusal, Refusal> {
        self.check_not_cancelled(&Spool::of(&self.data, &ask.name), &ask.name, ask.source.as_deref())?;
        Ok(no_upload(&ask.name))
    }

    /// Whether `source` may begin an upload, there being none of its: not a moment after that was cancelled.
    fn check_not_cancelled(&self, spool: &Spool, name: &FileName, source: Option<&str>) -> Result<(), Refusal> {
        let Some(ago) = spool.cancelled(source)? else { return Ok(()) };
        let left = TOLD_FOR.saturating_sub(ago).as_secs() + 1;
        let message = format!(
            "the upload of {name} was cancelled on the server {} s ago; push it again in {left} s",
            ago.as_secs()
        );
        Err(Refusal { retry_after: Some(left), ..Refusal::new(ErrorCode::Cancelled, message) })
    }

    /// Publishes an upload that needs no merging. None: a merger is at work on it.
    fn publish_now(&self, spool: &Spool, name: &FileName) -> Result<Option<Outcome>, Refusal> {
        let began = Instant::now();
        match spool.try_merger_lock() {
            Ok(Some(lock)) => {
                let outcome = publish(&self.data, spool, &lock, None)?;
                match &outcome {
                    Outcome::Published(_) => {
                        self.metrics.upload_finished(self.size_of(name), began.elapsed());
                        self.completions.tell();
                    }
                    Outcome::Blocked(_) => self.metrics.upload_failed(Failure::Blocked),
                    Outcome::NoUpload | Outcome::NotYet => {}
                }
                Ok(Some(outcome))
            }
            Ok(None) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(Outcome::NoUpload)),
            Err(e) => Err(e.into()),
        }
    }

    /// Size of a finished file, in bytes. 0: somebody took it away.
    fn size_of(&self, name: &FileName) -> u64 {
        match Store::new(&self.data).lookup(name) {
            Ok(Entry::File(found)) => found.size,
            _ => 0,
        }
    }

    /// Begins the upload that a slice brings with it, unless the file is finished: then what that means for the slice.
    fn begin_with_slice(&self, begin: &BeginAsk, ask: &SliceAsk) -> Result<Option<Admission>, Refusal> {
        let is_only = begin.plan.slice_num == Some(1);
        // The hash of the only slice is the digest of the file.
        let only = ask.digest.filter(|d| is_only && d.kind == DigestKind::Hash);
        let file_digest = begin.file_digest.or(only.map(|d| d.digest));
        let kinds = vec![DigestKind::Hash];
        if is_only && let Some(target) = self.draft(begin, ask)? {
            return Ok(Some(Admission::Take { target, kinds, offset: 0 }));
        }
        match self.begin_or_go_on(&BeginAsk { file_digest, ..begin.clone() })? {
            Standing::Unfinished(_) => Ok(None),
            Standing::Finished { digest, same_source, .. } if same_source || file_digest.is_some() => {
                Ok(Some(Admission::Held(digest)))
            }
            Standing::Finished { digest: Some(digest), .. } if is_only => {
                Ok(Some(Admission::Take { target: Target::Compare(digest), kinds, offset: 0 }))
            }
            Standing::Finished { .. } => {
                let message = format!("{} exists: name the digest of yours, or push with --replace", ask.name);
                Err(Refusal::new(ErrorCode::Exists, message))
            }
        }
    }

    /// A place for a small file that comes whole in this request, if there is nothing of its name yet: then it needs no spool.
    /// None: it does.
    fn draft(&self, begin: &BeginAsk, ask: &SliceAsk) -> Result<Option<Target>, Refusal> {
        // A hook is asked about an upload, and told of one by what its spool leaves.
        let has_hooks = self.doorkeeper.is_some() || self.data.leaves_notices();
        let is_plain =
            !has_hooks && ask.len <= MAX_DRAFT && ask.digest.is_none_or(|digest| digest.kind == DigestKind::Hash);
        if !is_plain || self.without_drafts.load(Ordering::Relaxed) || self.has_spool(&ask.name) {
            return Ok(None);
        }
        if Store::new(&self.data).lookup(&ask.name)? != Entry::Nothing {
            return Ok(None);
        }
        self.check_not_cancelled(&Spool::of(&self.data, &ask.name), &ask.name, ask.source.as_deref())?;
        self.check_plan(&begin.plan)?;
        ask.by.check_uploads(&self.data, &self.arriving, self.config.limits.uploads_per_token)?;
        ask.by.take(&self.data, ask.len)?;
        let counted = self.arriving.count(ask.name.as_str(), ask.len, ask.by.token());
        self.check_number_of_uploads(|census, data, most| census.has_room(data, most.saturating_add(1)))?;
        let draft = Draft::new(&self.data, ask.len, &self.room()).map_err(|e| no_room(e, ask.name.as_str()))?;
        Ok(draft.map(|draft| Target::Draft(draft, counted)))
    }

    /// Whether there is an upload of this name, or what looks like one.
    fn has_spool(&self, name: &FileName) -> bool {
        let found = Spool::of(&self.data, name).path().symlink_metadata();
        !matches!(found, Err(e) if e.kind() == io::ErrorKind::NotFound)
    }

    /// Publishes a file that arrived whole, with this digest.
    fn finish(&self, ask: &SliceAsk, draft: Draft, digest: Digest) -> Result<Stored, Refusal> {
        let begin = ask.begin.as_ref();
        if let Some(promised) = begin.and_then(|begin| begin.file_digest).filter(|promised| *promised != digest) {
            let why = format!("the whole file has the digest {digest}, not {promised} as promised; push it again");
            return Err(cannot_be_finished(&ask.name, &why));
        }
        if self.has_spool(&ask.name) {
            // Another push has begun meanwhile, and what it sent so far is not to be in vain.
            return Err(self.restless(&ask.name));
        }
        let began = Instant::now();
        match draft.publish(&self.data, &ask.name, &Stamp { digest, source: ask.source.clone() }) {
            Ok(()) => {
                self.metrics.upload_begun();
                self.metrics.slice_received(ask.len);
                self.metrics.upload_finished(ask.len, began.elapsed());
                Ok(Stored::Finished(digest))
            }
            Err(StoreError::Exists) => self.finished_before(ask, digest),
            Err(StoreError::InTheWay(what)) => Err(in_the_way(&what)),
            Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::Unsupported => {
                log::info!("files of one request take a spool from now on: {e}");
                self.without_drafts.store(true, Ordering::Relaxed);
                Err(self.restless(&ask.name))
            }
            Err(StoreError::Io(e)) => Err(e.into()),
        }
    }

    /// Another request gave the name to something while this file, with this digest, came.
    fn finished_before(&self, ask: &SliceAsk, digest: Digest) -> Result<Stored, Refusal> {
        match self.look_up(&ask.name)? {
            Entry::File(Finished { stamp: Some(stamp), .. }) if stamp.digest == digest => Ok(Stored::Finished(digest)),
            // Asked again it is one that is to be replaced.
            Entry::File(_) if ask.begin.as_ref().is_some_and(|begin| begin.replace) => Err(self.restless(&ask.name)),
            Entry::File(Finished { stamp: Some(stamp), .. }) => Err(exists_with(ask, stamp.digest, digest)),
            Entry::File(Finished { stamp: None, .. }) => {
                let message = format!("{} exists, of unknown digest; push with --replace to replace it", ask.name);
                Err(Refusal::new(ErrorCode::Exists, message))
            }
            Entry::Other(what) => Err(in_the_way(&what)),
            Entry::Nothing => Err(self.restless(&ask.name)),
        }
    }

    /// What stands under a name in `files/`. A file that is found is there for good, also where whoever put it there had not
    /// come to make sure of that.
    fn look_up(&self, name: &FileName) -> Result<Entry, Refusal> {
        let entry = Store::new(&self.data).lookup(name)?;
        if let Entry::File(_) = entry {
            sync_entry(&self.data, name)?;
        }
        Ok(entry)
    }

    /// A slice of an upload that is not there: of a finished one, sent again because the answer was lost, or of none.
    fn admit_without_upload(&self, ask: &SliceAsk) -> Result<Admission, Refusal> {
        match self.look_up(&ask.name)? {
            Entry::File(Finished { stamp: Some(stamp), .. })
                if stamp.source.is_some() && stamp.source == ask.source =>
            {
                Ok(Admission::Held(Some(stamp.digest)))
            }
            Entry::File(_) => {
                // It may be one that a cancelled upload was to replace.
                self.no_upload_of(ask)?;
                let message = format!("{} is finished; begin anew (GET) to replace it", ask.name);
                Err(Refusal::new(ErrorCode::Exists, message))
            }
            Entry::Nothing | Entry::Other(_) => Err(self.no_upload_of(ask)?),
        }
    }

    fn lock(&self, spool: &Spool) -> Result<Option<LockedSpool>, Refusal> {
        match spool.lock() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                log::error!("the upload in {} is beyond use and removed: {e}", spool.path().display());
                spool.remove_unreadable()?;
                self.metrics.upload_failed(Failure::Unreadable);
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                log::error!("{e}");
                let message = format!("something that is no folder stands at tmp/{}: remove it", spool.folder());
                Err(Refusal::new(ErrorCode::Conflict, message))
            }
            locked => Ok(locked?),
        }
    }

    /// What the finished file of this name means for a push. None: it may begin.
    fn look_for_finished(&self, ask: &BeginAsk) -> Result<Option<Standing>, Refusal> {
        let found = match self.look_up(&ask.name)? {
            Entry::Nothing => return Ok(None),
            Entry::Other(what) => return Err(in_the_way(&what)),
            Entry::File(found) => found,
        };
        let stamped = found.stamp.as_ref();
        let differs = match (ask.file_digest, ask.plan.file_size) {
            (Some(digest), _) if stamped.is_some_and(|s| s.digest == digest) => None,
            (Some(digest), _) => Some(match stamped {
                Some(stamp) => format!("its digest is {}, yours {digest}", stamp.digest),
                None => {
                    format!("its digest is not known (it was not uploaded here, or changed since), yours is {digest}")
                }
            }),
            (None, Some(size)) if size != found.size => Some(format!("it has {} bytes, yours {size}", found.size)),
            (None, _) => None,
        };
        match differs {
            Some(_) if ask.replace => Ok(None),
            Some(how) => {
                let message = format!("{} exists: {how}; push with --replace to replace it", ask.name);
                Err(Refusal::new(ErrorCode::Exists, message))
            }
            None => {
                let standing = finished(&found, ask.source.as_deref());
                let certain =
                    ask.file_digest.is_some() || matches!(standing, Standing::Finished { same_source: true, .. });
                Ok((certain || !ask.replace).then_some(standing))
            }
        }
    }

    fn go_on(&self, spool: &Spool, mut locked: LockedSpool, ask: &BeginAsk) -> Result<Unfinished, Refusal> {
        if locked.upload().source == ask.source {
            ask.by.check_go_on(locked.upload())?;
            self.resume(&mut locked, ask)?;
            // What was told only now is reserved where it can be; without, each slice that has no room is refused.
            if let Err(e) = locked.reserve(&self.room(), &locked.upload().plan) {
                log::debug!(upload = ask.name.as_str(); "{}: goes on without its room being reserved: {e}", ask.name);
            }
        } else {
            self.check_not_cancelled(spool, &ask.name, ask.source.as_deref())?;
            ask.by.check_take_over(locked.upload())?;
            self.take_over(spool, &mut locked, ask)?;
        }
        Ok(Unfinished { holdings: locked.holdings()?, upload: locked.upload().clone() })
    }

    /// The source that began an upload goes on with it.
    fn resume(&self, locked: &mut LockedSpool, ask: &BeginAsk) -> Result<(), Refusal> {
        if ask.recut {
            self.recut(locked, ask)?;
        }
        let old = locked.upload();
        // An upload that knows its slice size keeps it, whatever the client would like.
        let wish = match (old.plan.slice_size, ask.plan.slice_size) {
            (Some(has), Some(would_like)) if has != would_like => {
                Plan::new(None, Some(has), ask.plan.file_size).map_err(against_upload)?
            }
            _ => ask.plan,
        };
        let upload = Upload {
            plan: old.plan.bind(&wish).map_err(against_upload)?,
            replace: old.replace || ask.replace,
            file_digest: ask.file_digest.or(old.file_digest),
            ..old.clone()
        };
        let said_anew = (upload.replace, upload.file_digest) != (old.replace, old.file_digest);
        match &old.blocked {
            // Where what was promised turned out wrong, another comparison is the way out.
            Some(why) if !said_anew && !old.needs_comparison() => Err(cannot_be_finished(&ask.name, why)),
            _ => {
                self.take_growth(&ask.by, locked, &upload.plan)?;
                Ok(locked.save(Upload { blocked: None, ..upload })?)
            }
        }
    }

    /// Cuts an upload that holds nothing yet as the asker would like; one that holds something stays as it is.
    fn recut(&self, locked: &mut LockedSpool, ask: &BeginAsk) -> Result<(), Refusal> {
        let old = locked.upload().plan;
        // What else the asker knows is learned afterwards, as ever.
        let plan = Plan::new(None, ask.plan.slice_size, old.file_size).map_err(against_upload)?;
        // A single slice becomes the file in another way than several do, and nothing is sent of an empty one.
        let is_several = plan.slice_size.is_some() && !matches!(plan.slice_num, Some(0 | 1));
        if is_several && old.slice_size.is_some() && old.slice_num != Some(0) && plan != old {
            self.check_plan(&plan)?;
            let is_cut = locked.recut(plan, &self.room()).map_err(|e| no_room(e, ask.name.as_str()))?;
            log::debug!(upload = ask.name.as_str(); "{}: cut anew, {:?} to {:?}: {is_cut}", ask.name, old.slice_size, plan.slice_size);
        }
        Ok(())
    }

    /// Takes out of the asker's quota what an upload will count for more if `plan` becomes known of it. What it holds
    /// while its size is not known was taken slice by slice.
    fn take_growth(&self, by: &Access, locked: &LockedSpool, plan: &Plan) -> Result<(), Refusal> {
        let known = locked.upload().plan;
        if !by.has_quota() || plan.file_size == known.file_size {
            return Ok(());
        }
        let holdings = locked.holdings()?;
        let more = quota::size_of(plan, &holdings).saturating_sub(quota::size_of(&known, &holdings));
        by.take(&self.data, more)
    }

    /// Another source goes on with an upload that fell silent.
    fn take_over(&self, spool: &Spool, locked: &mut LockedSpool, ask: &BeginAsk) -> Result<(), Refusal> {
        let old = locked.upload().clone();
        let idle = spool.idle()?;
        let name = &ask.name;
        if ask.source.is_none() {
            let message =
                format!("another client's push of {name} is unfinished; finish it there, or use another name");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        if idle < self.config.takeover_after {
            return Err(still_at_work(&old, ask, idle, self.config.takeover_after));
        }
        let busy = || {
            let message = format!("{name} is being merged; ask again in a moment");
            Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, message) }
        };
        let slice_size = old.plan.slice_size.or(ask.plan.slice_size);
        // The number of slices counts where nothing else is said; else it follows.
        let by_number = ask.plan.slice_num.filter(|_| ask.plan.file_size.is_none() && ask.plan.slice_size.is_none());
        let shared = Plan::new(by_number, slice_size, ask.plan.file_size).map_err(against_upload)?;
        let keep = old.plan.common_slices(&shared);
        let plan = if keep > 0 { shared } else { ask.plan };
        if old.token.as_deref() != ask.by.token() {
            ask.by.check_uploads(&self.data, &self.arriving, self.config.limits.uploads_per_token)?;
        }
        self.take_growth(&ask.by, locked, &plan)?;
        // The lock of the merger comes before that of the spool; it is only tried, so nobody waits in a circle.
        let merger = spool.try_merger_lock()?;
        locked.reserve(&self.room(), &plan).map_err(|e| no_room(e, name.as_str()))?;
        match locked.keep_first(keep, &plan, merger.as_ref()) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(busy()),
            kept => kept?,
        }
        let holdings = locked.holdings()?;
        log::info!(
            upload = name.as_str();
            "{name}: another source goes on after {} s of silence; {} slices are to be compared",
            idle.as_secs(),
            holdings.ranges().count()
        );
        let taken_over = holdings.ranges().count() > 0;
        let upload = Upload {
            token: ask.by.token().map(str::to_owned),
            replace: ask.replace,
            taken_over,
            file_digest: if taken_over { None } else { ask.file_digest },
            ..Upload::begin(ask.name.clone(), plan, ask.source.clone())
        };
        // Before any slice of the new source: after a power cut nobody must take the mixture for the old source's.
        locked.save(upload)?;
        Ok(())
    }

    /// There is no room for a slice; there may be in a moment, where others are being merged.
    fn no_room_for(&self, ask: &SliceAsk, error: RoomError) -> Refusal {
        let may_pass = matches!(error, RoomError::Full { .. }) && self.is_room_coming_back();
        let refusal = no_room(error, &format!("slice {} of {}", ask.slice_id, ask.name));
        Refusal { retry_after: may_pass.then_some(1), ..refusal }
    }

    /// Whether slices are being merged, whose room comes back then.
    fn is_room_coming_back(&self) -> bool {
        Spool::all(&self.data).is_ok_and(|spools| spools.iter().any(|spool| spool.moved_within(STILL_MERGING)))
    }

    fn room(&self) -> Room {
        Room::new(&self.data, self.config.reserve)
    }

    /// Keeps the promise of a 200 for a slice that is held, whoever wrote it, and whatever was promised then.
    fn keep_promise(&self, ask: &SliceAsk) -> Result<(), Refusal> {
        if self.config.slice_ack == SliceAck::Written {
            return Ok(());
        }
        let began = Instant::now();
        let synced = Spool::of(&self.data, &ask.name).sync_slice(ask.slice_id)?;
        self.metrics.synced(Synced::Slice, began.elapsed());
        if !synced {
            let message = format!("slice {} did not survive a restart of the machine: send it again", ask.slice_id);
            return Err(Refusal::new(ErrorCode::Damaged, message));
        }
        Ok(())
    }

    /// Whether what is known of an upload is within the limits.
    fn check_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        self.check_sizes(plan.slice_size, plan.slice_num, plan.file_size)
    }

    /// The same of single numbers: bytes of a slice, number of slices, bytes of the file.
    fn check_sizes(&self, slice: Option<u64>, slices: Option<u64>, file: Option<u64>) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let over = |is: Option<u64>, most: u64| is.filter(|is| *is > most);
        let (limit, message) = if let Some(slice) = over(slice, limits.slice_size) {
            let most = limits.slice_size;
            (Limit::SliceSize, format!("a slice of {slice} bytes is too large: at most {most}; use smaller slices"))
        } else if let Some(file) = over(file, limits.file_size) {
            (Limit::FileSize, format!("a file of {file} bytes is too large: at most {}", limits.file_size))
        } else if let Some(slices) = over(slices, limits.slices) {
            let most = limits.slices;
            (Limit::Slices, format!("{slices} slices are too many: at most {most}; use larger slices"))
        } else {
            return Ok(());
        };
        Err(Refusal::over(limit, ErrorCode::TooLarge, message))
    }

    /// Whether one more upload may begin.
    fn check_number_of_uploads(
        &self,
        admit: impl Fn(&Census, &DataDir, u64) -> io::Result<bool>,
    ) -> Result<(), Refusal> {
        let most = self.config.limits.uploads;
        if admit(&self.census, &self.data, most.saturating_sub(self.arriving.number()))? {
            return Ok(());
        }
        let message = format!("{most} uploads are unfinished, and no more are possible: try again later");
        Err(Refusal {
            retry_after: Some(FULL_RETRY_AFTER),
            ..Refusal::over(Limit::Uploads, ErrorCode::Overloaded, message)
        })
    }

    fn restless(&self, name: &FileName) -> Refusal {
        let message = format!("uploads of {name} come and go too fast; ask again");
        Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, message) }
    }
}

fn no_room(error: RoomError, what: &str) -> Refusal {
    match error {
        RoomError::Io(e) => e.into(),
        no_room => {
            let message = format!("there is no room for {what}: {no_room}, and push again");
            Refusal::over(Limit::Room, ErrorCode::NoSpace, message)
        }
    }
}

fn cannot_be_finished(name: &FileName, why: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{name} cannot be finished: {why}"))
}

/// While an upload is paused nothing of it is taken. What arrives already may end.
fn check_not_paused(upload: &Upload) -> Result<(), Refusal> {
    if !upload.paused {
        return Ok(());
    }
    let message =
        format!("the upload of {} is paused on the server; it goes on once it is resumed there", upload.file_name);
    Err(Refusal { retry_after: Some(PAUSED_RETRY_AFTER), ..Refusal::new(ErrorCode::Paused, message) })
}

fn in_the_way(what: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{what}; use another name"))
}

fn exists_with(ask: &SliceAsk, digest: Digest, yours: Digest) -> Refusal {
    let name = &ask.name;
    let message = format!("{name} exists: its digest is {digest}, yours {yours}; push with --replace to replace it");
    Refusal::new(ErrorCode::Exists, message)
}

fn no_upload(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::NoUpload, format!("there is no upload of {name}: begin it by a GET"))
}

fn finished(found: &Finished, source: Option<&str>) -> Standing {
    let stamp = found.stamp.as_ref();
    Standing::Finished {
        file_size: found.size,
        digest: stamp.map(|s| s.digest),
        same_source: source.is_some() && stamp.and_then(|s| s.source.as_deref()) == source,
    }
}

/// Whether the other push differs is for the asker to find out: it may be its own, interrupted a moment ago.
fn still_at_work(old: &Upload, ask: &BeginAsk, idle: Duration, takeover_after: Duration) -> Refusal {
    let sizes = match (old.plan.file_size, ask.plan.file_size) {
        (Some(theirs), Some(yours)) if theirs != yours => format!(", of {theirs} bytes and not {yours} like yours"),
        _ => String::new(),
    };
    let left = takeover_after.saturating_sub(idle).as_secs().saturating_add(1);
    let message = format!(
        "another push of {} was at work {} s ago{sizes}; you may go on with it in {left} s if it stays silent",
        ask.name,
        idle.as_secs()
    );
    Refusal { retry_after: Some(left.min(3)), ..Refusal::new(ErrorCode::Busy, message) }
}

fn status_of(spool: &Spool) -> io::Result<Option<UploadStatus>> {
    let Some(upload) = spool.upload()? else { return Ok(None) };
    let holdings = spool.holdings(&upload)?;
    Ok(Some(UploadStatus {
        file_name: upload.file_name.as_str().to_owned(),
        slice_num: upload.plan.slice_num,
        slice_size: upload.plan.slice_size,
        file_size: upload.plan.file_size,
        slices_held: holdings.ranges().count(),
        curr_merge_slice_id: holdings.frontier,
        merge_slice_process_exist: u8::from(spool.merger()?.is_some()),
        idle_seconds: spool.idle()?.as_secs(),
        last_error: upload.blocked.or(upload.last_error),
        paused: upload.paused,
    }))
}
