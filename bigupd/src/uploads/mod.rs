//! The meaning of a request for the upload it names. Plain synchronous work on the data folder: all state is there,
//! none is here, so that several daemons may share it and any of them may die.
//!
//! # The source of an upload
//! An upload has one source: the file on a client's disk, as that client names it (or none, for clients that name
//! none). Only that source may send slices. A push of another source is told to come back while the first one is at
//! work, compares what is held meanwhile, and takes the upload over once it has been silent. From then on held slices
//! count for nothing until the new source has compared them and given the digest of the whole file; the file is
//! published only if it has that digest. So content is never mixed, whoever comes, goes, and comes back.
//!
//! - `begin` - beginning, going on, taking over; `slice` - a slice; `append` - bytes in order; `create` - uploads by
//!   address; `single_request` - a small file in one request; `bundle` - several of these in one request.
//! - `finished` - finished files: read, listed, removed. `show` - requests that only look; `limits` - the limits; `refusals` - the reasons of refusals.
//!
//! It uses the data folder, hooks and admission. HTTP and its words do not come in here.

use crate::admission::access::Access;
use crate::admission::grants::{Grant, Grants};
use crate::admission::spool_limit::SpoolLimit;
use crate::hooks::HookSettings;
use crate::hooks::begin::BeginHook;
use crate::hooks::complete::Completions;
use crate::metrics::{Failure, Metrics};
use crate::net::peer::Peer;
use crate::refusal::{Advice, Refusal};
use crate::uploads::append::TailTarget;
use crate::uploads::appenders::Appenders;
pub use crate::uploads::begin::check_not_paused;
use crate::uploads::finished_digests::FinishedDigests;
use crate::uploads::recent_slices::RecentSlices;
use crate::uploads::request::BeginRequest;
use crate::uploads::settings::Settings;
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::finish::publish::{Hashed, Outcome, publish, sync_entry};
use bigup_core::storage::finish::single_request::UnnamedFile;
use bigup_core::storage::space::{DiskSpace, SpaceError};
use bigup_core::storage::spool::{Arrival, Holdings, LockedSpool, OtherVersion, Spool, UploadId, UploadRecord};
use bigup_core::storage::store::{Entry, FinishedFile, Store};
use refusals::cannot_be_finished;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

pub mod append;
pub mod appenders;
mod begin;
pub mod bundle;
mod cancel;
pub mod concat;
pub mod create;
mod empty_folder;
pub mod finished;
pub mod finished_digests;
mod limits;
pub mod recent_slices;
pub mod refusals;
pub mod request;
pub mod settings;
mod show;
mod single_request;
mod slice;
#[cfg(test)]
mod tests;

/// Number of times a name is looked at again when uploads of it come and go in between.
const ATTEMPTS: usize = 8;

/// Seconds after which a client that waits for a finished file to be read may ask again.
const READ_RETRY_AFTER: u64 = 2;

/// The uploads of one data folder.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// The data folder.
    pub data: DataDir,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Slices that just came.
    pub recent: RecentSlices,
    /// Counts about uploads.
    pub metrics: Metrics,
    /// Is told of files that are finished here.
    pub completions: Completions,
    /// Requests at work that append.
    pub appenders: Appenders,
    finished_digests: FinishedDigests,
    begin_hook: Option<BeginHook>,
    grants: Grants,
    spool_limit: SpoolLimit,
    /// The file system turned out not to give names to files without one.
    without_unnamed_files: Arc<AtomicBool>,
}

/// State of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameState {
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
    /// Its record.
    pub upload: UploadRecord,
    /// Its held slices.
    pub holdings: Holdings,
}

impl Unfinished {
    /// True if a merger would find something to do.
    pub fn is_merger_due(&self) -> bool {
        self.holdings.need_merger(&self.upload)
    }

    /// True if some slices are held and others not.
    fn is_part_held(&self) -> bool {
        !self.is_all_held() && (self.holdings.frontier > 0 || !self.holdings.waiting.is_empty())
    }

    /// True if all slices are held, so that the file will be finished without more of them.
    pub fn is_all_held(&self) -> bool {
        self.upload.plan.slice_num.is_some_and(|num| self.holdings.ranges().count() >= num)
    }
}

/// A slice about to arrive.
#[derive(Clone, Debug)]
pub struct SliceRequest {
    /// The sender. It may push this name.
    pub by: Access,
    /// The address it comes from; for the log.
    pub peer: Option<Peer>,
    /// The upload that it is of.
    pub id: UploadId,
    /// Name of the file.
    pub name: FileName,
    /// Number of the slice.
    pub slice_id: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// Its digest, if the client told it.
    pub digest: Option<SliceDigest>,
    /// Offset in the file, in bytes, if the client told it.
    pub offset: Option<u64>,
    /// The client's source.
    pub source: Option<String>,
    /// The request begins the upload too, where there is none.
    pub begin: Option<BeginRequest>,
}

/// The treatment of the body of a slice.
pub enum Admission {
    /// Take it.
    Take {
        /// Its place.
        target: SliceTarget,
        /// Kinds of digest to compute, the one to record first.
        kinds: Vec<DigestKind>,
        /// Offset of the slice in the file, in bytes; 0 where not known, and then no chaining value is asked for.
        offset: u64,
    },
    /// It is held already; in a finished file where `Some`.
    Held(Option<Digest>),
}

/// The place of a slice.
pub enum SliceTarget {
    /// Into the spool. It counts beside the held slices if the upload counts by the bytes that it holds.
    Spool(Arrival, Option<Grant>),
    /// Into a file without a name, of which it is the whole content. It counts as an upload until then.
    UnnamedFile(UnnamedFile, Grant),
    /// Behind the bytes of it that came before.
    Tail(TailTarget),
    /// Nowhere: it would be the whole of a file that is finished, with this digest, and only its content can tell if it
    /// is the same.
    Compare(Digest),
}

impl SliceTarget {
    /// True if the upload that it is for was cancelled. A file that comes in one request has no upload.
    pub fn is_cancelled(&self) -> bool {
        match self {
            SliceTarget::Spool(arrival, _) => arrival.is_cancelled(),
            SliceTarget::Tail(tail) => tail.arrival().is_cancelled(),
            SliceTarget::UnnamedFile(..) | SliceTarget::Compare(_) => false,
        }
    }

    /// The file to write to; `None` if the slice is only compared.
    pub fn file(&self) -> Option<&File> {
        match self {
            SliceTarget::Spool(arrival, _) => Some(arrival.file()),
            SliceTarget::Tail(tail) => Some(tail.arrival().file()),
            SliceTarget::UnnamedFile(unnamed, _) => Some(unnamed.file()),
            SliceTarget::Compare(_) => None,
        }
    }
}

/// A slice was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceStored {
    /// With it the file was finished.
    Finished(Digest),
    /// It was held already.
    Held,
    /// A merger of the upload of this name, which has it, would find something to do.
    MergerDue(FileName),
    /// It waits for slices before it.
    Waits,
}

impl Uploads {
    /// The uploads of `data`. A hook of `hooks` is asked before they begin.
    pub fn new(data: DataDir, settings: Settings, hooks: &HookSettings) -> Uploads {
        let (recent, completions, appenders, finished_digests, without_unnamed_files) = Default::default();
        let (grants, spool_limit) = (Grants::new(data.clone()), SpoolLimit::new(data.clone(), settings.spool_limit));
        let metrics = Metrics::new();
        let begin_hook = BeginHook::new(hooks, data.root(), metrics.clone());
        let settings = Arc::new(settings);
        Uploads {
            data,
            settings,
            recent,
            metrics,
            completions,
            appenders,
            finished_digests,
            begin_hook,
            grants,
            spool_limit,
            without_unnamed_files,
        }
    }

    /// Publishes an upload that needs no merging. `None` if a merger is at work on it.
    fn publish_now(&self, spool: &Spool, name: &FileName) -> Result<Option<Outcome>, Refusal> {
        let began = Instant::now();
        match spool.try_merger_lock() {
            Ok(Some(lock)) => {
                let outcome = publish(&self.data, spool, &lock, Hashed::default())?;
                match &outcome {
                    Outcome::Published(_) => {
                        self.metrics.upload_finished(self.size_of(name), began.elapsed());
                        self.completions.tell();
                    }
                    Outcome::Blocked { .. } => self.metrics.upload_failed(Failure::Blocked),
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

    /// The entry under a name in `files/`. A file that is found is there for good, also where its writer had not come
    /// to make sure of that.
    fn lookup(&self, name: &FileName) -> Result<Entry, Refusal> {
        let entry = Store::new(&self.data).lookup(name)?;
        if let Entry::File(_) = entry {
            sync_entry(&self.data, name)?;
        }
        Ok(entry)
    }

    /// Refuses an upload that could never be finished: no file can be moved to its name.
    fn check_reach(&self, name: &FileName) -> Result<(), Refusal> {
        check_reach(&Store::new(&self.data), name)
    }

    /// The same where the digest matters: a file whose digest is not certain is read.
    fn look_into(&self, name: &FileName) -> Result<Entry, Refusal> {
        let found = match self.lookup(name)? {
            Entry::File(found) if found.stored_digest.is_none() => found,
            entry => return Ok(entry),
        };
        let size = found.size;
        let read = self.finished_digests.read(&Arc::new(Store::new(&self.data)), name, found)?;
        read.ok_or_else(|| {
            let message = format!("the finished {name}, {size} bytes, is read to find out its digest: ask again");
            Refusal { retry_after: Some(READ_RETRY_AFTER), ..Refusal::new(ErrorCode::Busy, message) }
        })
    }

    /// Locks the spool. `None` if there is none, or none that can be read: the next upload to begin moves that out of
    /// the way.
    fn lock(&self, spool: &Spool) -> Result<Option<LockedSpool>, Refusal> {
        match spool.lock() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                log::error!("an unfinished upload cannot be used: {e}");
                Ok(None)
            }
            locked => locked.map_err(|e| unusable(spool, e)),
        }
    }

    /// Locks the spool of an upload that is to begin, or to go on. A spool that cannot be read is moved to `damaged/`
    /// first.
    fn lock_to_begin(&self, spool: &Spool) -> Result<Option<LockedSpool>, Refusal> {
        match spool.lock() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => self.set_aside(spool, &e).map(|()| None),
            locked => locked.map_err(|e| unusable(spool, e)),
        }
    }

    fn set_aside(&self, spool: &Spool, why: &io::Error) -> Result<(), Refusal> {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let aside = self.data.aside(&now)?;
        let is_moved = match spool.set_aside_if_unreadable(&aside) {
            // Another request has moved it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            moved => moved?,
        };
        if is_moved {
            let kept = aside.tmp().join(spool.folder());
            log::error!("an unfinished upload cannot be used, and is moved to {}: {why}", kept.display());
            self.metrics.upload_failed(Failure::Unreadable);
        }
        // Else it is readable by now, or the process that works on it leaves soon: the next attempt tells.
        Ok(())
    }

    fn space(&self) -> DiskSpace {
        DiskSpace::new(&self.data, self.settings.reserve)
    }

    /// The disk space that `take` takes. If there is none it is tried once more without the slices that are merged:
    /// they have theirs until they are let go.
    fn with_disk_space<T>(&self, mut take: impl FnMut(&DiskSpace) -> Result<T, SpaceError>) -> Result<T, SpaceError> {
        let space = self.space();
        take(&space).or_else(|error| {
            let is_full = match &error {
                SpaceError::Full { .. } | SpaceError::NoInodes { .. } => true,
                SpaceError::Io(e) => matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            };
            if !is_full {
                return Err(error);
            }
            self.recent.let_go();
            take(&space)
        })
    }

    fn restless(&self, name: &FileName) -> Refusal {
        let message = format!("{name} changed during this request; ask again");
        Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, message) }
    }
}

/// Refuses an upload that could never be finished: no file can be moved to its name in `store`.
fn check_reach(store: &Store, name: &FileName) -> Result<(), Refusal> {
    store.out_of_reach(name)?.map_or(Ok(()), |why| Err(cannot_be_finished(name, &why)))
}

/// Why the spool of an upload is left alone.
fn unusable(spool: &Spool, error: io::Error) -> Refusal {
    if let Some(other) = OtherVersion::of(&error) {
        log::error!("{other}");
        return Refusal::new(ErrorCode::Conflict, other.to_string()).advising(Advice::UseOtherServer);
    }
    match error.kind() {
        io::ErrorKind::NotADirectory => {
            log::error!("{error}");
            let message = format!("something that is no folder stands at tmp/{}: remove it", spool.folder());
            Refusal::new(ErrorCode::Conflict, message)
        }
        io::ErrorKind::InvalidData => {
            log::error!("an unfinished upload cannot be used: {error}");
            let message = "the unfinished upload cannot be read; the next push moves it to damaged/ and begins anew";
            Refusal::new(ErrorCode::Conflict, message)
        }
        _ => error.into(),
    }
}

fn finished(found: &FinishedFile, source: Option<&str>) -> NameState {
    let stored_digest = found.stored_digest.as_ref();
    NameState::Finished {
        file_size: found.size,
        digest: stored_digest.map(|s| s.digest),
        same_source: source.is_some() && stored_digest.and_then(|s| s.source.as_deref()) == source,
    }
}
