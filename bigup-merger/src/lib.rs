//! The merge worker: one plain synchronous process for each upload being merged.
//!
//! It holds the upload's `merger.lock` for its whole life, and so is the only one. It appends slices to the merged file
//! in order, syncs at times, and only then unlinks what it merged; when all is there it publishes the file. Between
//! slices it sleeps on inotify. Everything it needs to go on after a kill is in the spool.
//!
//! - [`args`] - the command line.
//! - [`merge`] - appending, syncing, unlinking.
//! - [`parts`] - sending parts to a store of objects meanwhile.
//! - [`recover`] - finding the slices to trust at the start.
//! - [`sync`] - syncing beside appending.
//! - [`wait`] - sleeping until something happens; [`leave`] - requests to leave.
//! - [`events`] - events for the process that started the merger.

pub mod args;
pub mod events;
pub mod leave;
pub mod merge;
pub mod parts;
pub mod recover;
pub mod sync;
pub mod wait;

pub use events::Events;
pub use wait::Stop;

use bigup_core::merger_events;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::{DataDir, FileModes};
use bigup_core::storage::finish::publish::{Hashed, Outcome, publish};
use bigup_core::storage::info_ini::{self, InfoIni};
use bigup_core::storage::objects::{ObjectSettings, Objects};
use bigup_core::storage::space::FULL_FILE_SYSTEM;
use bigup_core::storage::spool::{MergerLock, Spool, UploadId, UploadRecord};
use bigup_core::storage::store::{Entry, Store};
use leave::Leave;
use merge::Merge;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wait::{Wakeup, Watch};

/// Time for which to insist on the merger's lock: a process that only checks if it is free holds it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// The upload to merge, and the settings for that.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Name of the file.
    pub file_name: FileName,
    /// Time without a new slice after which the merger leaves.
    pub idle: Duration,
    /// The channel for events about progress.
    pub events: Events,
    /// True if a finished file leaves a completion record, of which a hook is told.
    pub leave_notice: bool,
    /// Permissions of finished files and their folders.
    pub modes: FileModes,
    /// The store that finished files go to. `None`: they go into the data folder.
    pub store: Option<ObjectSettings>,
}

/// The way a merger ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeEnd {
    /// The file is finished.
    Published(Digest),
    /// Nothing came for the idle time; the frontier is recorded.
    Idle,
    /// The merger was told to stop; the frontier is recorded.
    Stopped,
    /// Another merger has this upload, with this process id.
    AlreadyRunning(u32),
    /// There is no such upload, or no longer.
    NoUpload,
    /// The file cannot be published as things stand, for this reason.
    Blocked(String),
}

/// Merges one upload until it is published, idle, stopped or fails.
///
/// # Errors
/// As the system gives them. The reason is written into the spool and into info.ini; the next merger goes on from what
/// is there.
pub fn run(config: &Config, stop: &Stop) -> io::Result<MergeEnd> {
    let data = DataDir::open(&config.data_dir)?;
    let objects = config.store.clone().map(Objects::new).transpose().map_err(io::Error::other)?;
    let events = config.events.clone();
    let objects = objects.map(|objects| objects.observed_by(Arc::new(move |event| events.tell(event))));
    let data = data.with_modes(config.modes).with_objects(objects.map(Arc::new));
    let data = if config.leave_notice { data.recording_completions()? } else { data };
    let spool = Spool::of(&data, &UploadId::of_name(&config.file_name));
    loop {
        let lock = match lock_patiently(&spool)? {
            Ok(lock) => lock,
            Err(ended) => return Ok(ended),
        };
        let ended = work(config, &data, &spool, &lock, stop);
        drop(lock);
        note_error(&data, &spool, &ended);
        if matches!(ended, Ok(MergeEnd::Idle)) && has_work(&spool)? {
            // The slice came between the last look and the release of the lock, when nobody would have started another
            // merger.
            continue;
        }
        if !matches!(ended, Ok(MergeEnd::Published(_))) {
            info_ini::log_failure(&config.file_name, InfoIni::new(&data).refresh(&spool, &config.file_name, None));
        }
        return ended;
    }
}

fn lock_patiently(spool: &Spool) -> io::Result<Result<MergerLock, MergeEnd>> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match spool.try_merger_lock() {
            Ok(Some(lock)) => return Ok(Ok(lock)),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err(MergeEnd::NoUpload)),
            Err(e) => return Err(e),
        }
        if Instant::now() > deadline
            && let Some(pid) = spool.merger()?
        {
            return Ok(Err(MergeEnd::AlreadyRunning(pid)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn work(config: &Config, data: &DataDir, spool: &Spool, lock: &MergerLock, stop: &Stop) -> io::Result<MergeEnd> {
    if spool.upload()?.is_some_and(|upload| upload.is_partial()) {
        // Its slices are merged by the merger of its final upload.
        return Ok(MergeEnd::Idle);
    }
    let leave = Leave::from_now_on(stop, spool)?;
    // Watching begins before looking, so that nothing is missed in between.
    let mut watch = Watch::new(spool.path(), stop)?;
    match publish_and_tell(config, data, spool, lock, Hashed::default())? {
        Outcome::Published(digest) => return Ok(MergeEnd::Published(digest)),
        Outcome::NoUpload => return Ok(MergeEnd::NoUpload),
        Outcome::Blocked { .. } | Outcome::NotYet => {}
    }
    let Some(mut merge) = begin(config, data, spool)? else { return Ok(MergeEnd::NoUpload) };
    let mut last_work = Instant::now();
    loop {
        if merge.end_was_told() {
            merge.checkpoint()?;
            merge.end_parts();
            let Some(anew) = begin(config, data, spool)? else { return Ok(MergeEnd::NoUpload) };
            merge = anew;
        }
        if merge.merge_what_is_there(&leave)? || merge.is_behind() {
            last_work = Instant::now();
        }
        merge.check_parts()?;
        if leave.is_asked() {
            merge.checkpoint()?;
            log::info!(slice = merge.frontier(); "{}: stopped at slice {}", config.file_name, merge.frontier());
            return Ok(MergeEnd::Stopped);
        }
        if merge.is_whole() {
            merge.checkpoint()?;
            if !merge.has_its_upload()? {
                return Ok(MergeEnd::NoUpload);
            }
            let hashed = merge.hashed()?;
            match publish_and_tell(config, data, spool, lock, hashed)? {
                Outcome::Published(digest) => return Ok(MergeEnd::Published(digest)),
                Outcome::NoUpload => return Ok(MergeEnd::NoUpload),
                Outcome::Blocked { why, .. } => return Ok(MergeEnd::Blocked(why)),
                Outcome::NotYet => {}
            }
        }
        let idle_left = config.idle.saturating_sub(last_work.elapsed());
        if idle_left.is_zero() {
            merge.checkpoint()?;
            log::info!(
                slice = merge.frontier();
                "{}: nothing new for {:?}, leaving at slice {}",
                config.file_name,
                config.idle,
                merge.frontier()
            );
            return Ok(MergeEnd::Idle);
        }
        match watch.wait(merge.checkpoint_due().map_or(idle_left, |due| due.min(idle_left)))? {
            Wakeup::Changed(names) => {
                merge.noticed(&names)?;
                if names.is_none() {
                    merge.checkpoint_if_due()?;
                }
            }
            Wakeup::TimeOver => merge.checkpoint_if_due()?,
            Wakeup::Gone => return Ok(MergeEnd::NoUpload),
        }
        if !merge.has_its_upload()? {
            return Ok(MergeEnd::NoUpload);
        }
    }
}

/// Publishes as [`publish`] does, and tells so.
fn publish_and_tell(
    config: &Config,
    data: &DataDir,
    spool: &Spool,
    lock: &MergerLock,
    hashed: Hashed,
) -> io::Result<Outcome> {
    let began = Instant::now();
    let outcome = publish(data, spool, lock, hashed)?;
    if matches!(outcome, Outcome::Published(_))
        // The event is only for counting: a file that somebody took away already counts for nothing.
        && let Ok(Entry::File(finished)) = Store::new(data).lookup(&config.file_name)
    {
        let seconds = began.elapsed().as_secs_f64();
        config.events.tell(merger_events::MergerEvent::Published { bytes: finished.size, seconds });
    }
    Ok(outcome)
}

fn begin<'a>(config: &'a Config, data: &'a DataDir, spool: &'a Spool) -> io::Result<Option<Merge<'a>>> {
    let Some(recovered) = recover::recover(spool)? else { return Ok(None) };
    log::info!(slice = recovered.frontier; "{}: merging from slice {}", config.file_name, recovered.frontier);
    Merge::begin(data, spool, &config.file_name, recovered, config.events.clone()).map(Some)
}

/// True if a merger that left would have something to do.
fn has_work(spool: &Spool) -> io::Result<bool> {
    let Some(locked) = spool.lock()? else { return Ok(false) };
    Ok(locked.holdings()?.need_merger(locked.upload()))
}

/// Writes down the reason merging failed, or that it no longer fails. Trouble with that is logged: the first error
/// matters more.
fn note_error(data: &DataDir, spool: &Spool, ended: &io::Result<MergeEnd>) {
    let last_error = ended.as_ref().err().map(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL_FILE_SYSTEM.to_owned(),
        _ => data.without_root(&error.to_string()),
    });
    let noted = spool.lock().and_then(|locked| match locked {
        Some(mut locked) => {
            let upload = UploadRecord { last_error, ..locked.upload().clone() };
            locked.save(upload)
        }
        None => Ok(()),
    });
    if let Err(e) = noted {
        log::warn!("{}: the outcome cannot be noted: {e}", spool.path().display());
    }
}
