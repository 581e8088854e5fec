//! `on_complete`: a hook is told of each finished file, at least once, even after a kill or a crash.
//!
//! Completion records on the disk (`bigup_core::storage::finish::completion`) say which files are to be told of, and
//! how often that failed. This module holds no more than a view of them. Several daemons can scan one folder: the
//! daemon that holds a record's lock tells of it.
//!
//! Notices are begun with in the order in which the files were finished. Of one name a later one waits until the earlier
//! one was told, or given up; different names go side by side, four at once.

use super::{HookAnswer, HookQuestion, HookRunner, HookSettings, StopDeadline};
use crate::metadata;
use crate::metrics::{self, Metrics};
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::finish::completion::{Attempts, Completion, CompletionRecord, LockedCompletionRecord};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Most hooks at work at once.
const MOST_AT_ONCE: usize = 4;

/// Most records in the view, the oldest ones: bounds its memory.
const MOST_LOOKED_AT: usize = 10_000;

/// Longest time between two scans, for records that other daemons and their mergers leave.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Pause after the first failure, doubled with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Time until a record that another process has locked is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Time until a record that the disk refuses is tried again.
const MENDED_AFTER: Duration = Duration::from_secs(5);

/// Signals a new completion record to the worker.
#[derive(Clone, Debug, Default)]
pub struct Completions(Arc<Notify>);

impl Completions {
    /// Has the folder scanned soon.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// The hook, and the number of attempts.
struct CompletionWorker {
    runner: HookRunner,
    /// `files/`, absolute.
    files: PathBuf,
    time: Duration,
    attempts: u32,
}

/// The result of one attempt, and the time of the next one, in milliseconds since 1970; the record may be gone.
struct NextAttempt {
    id: String,
    again: u64,
}

/// Tells of files that are finished in `data`, as `settings` say, until `stopping` is true and hooks at work have had
/// `grace`. Returns at once if no hook is set.
pub async fn tell_forever(
    data: DataDir,
    settings: HookSettings,
    completions: Completions,
    merger_ended: Arc<Notify>,
    metrics: Metrics,
    mut stopping: watch::Receiver<bool>,
    grace: Duration,
) {
    let Some(hook) = settings.on_complete else { return };
    let files = match data.objects() {
        Some(objects) => objects.settings().url.to_string().into(),
        None => std::path::absolute(data.files()).unwrap_or_else(|_| data.files()),
    };
    let teller = Arc::new(CompletionWorker {
        runner: HookRunner::new(hook, metrics::Hook::Complete, data.root(), settings.secret_file, metrics.clone()),
        files,
        time: settings.on_complete_timeout,
        attempts: settings.on_complete_attempts,
    });
    let (mut desk, mut at_work) = (Schedule::default(), JoinSet::new());
    while !*stopping.borrow() {
        // From here on no news is missed.
        let some_end = merger_ended.notified();
        let (looking, due, next) = look(desk, data.clone(), metrics.clone()).await;
        desk = looking;
        for record in due.into_iter().take(MOST_AT_ONCE - at_work.len()) {
            desk.at_work.insert(record.id().to_owned());
            at_work.spawn(attend(Arc::clone(&teller), record, StopDeadline::after(stopping.clone(), grace)));
        }
        tokio::select! {
            () = completions.0.notified() => {}
            () = some_end => {}
            Some(Ok(looked)) = at_work.join_next(), if !at_work.is_empty() => desk.put(looked),
            () = tokio::time::sleep(next) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
    while at_work.join_next().await.is_some() {}
}

/// A view of the records; it can be dropped at any time.
#[derive(Default)]
struct Schedule {
    known: HashMap<String, ScheduledRecord>,
    /// Those that this daemon is at work on.
    at_work: HashSet<String>,
}

/// A view of a record.
struct ScheduledRecord {
    name: FileName,
    /// Not to be tried before, in milliseconds since 1970.
    again: u64,
}

impl Schedule {
    fn put(&mut self, looked: NextAttempt) {
        self.at_work.remove(&looked.id);
        if let Some(known) = self.known.get_mut(&looked.id) {
            known.again = looked.again;
        }
    }

    /// The records to be told of now, in order, and the latest time of the next scan.
    fn due(&mut self, mut records: Vec<CompletionRecord>, now: u64) -> (Vec<CompletionRecord>, Duration) {
        records.truncate(MOST_LOOKED_AT);
        let mut before = std::mem::take(&mut self.known);
        let (mut due, mut next, mut names) = (vec![], LOOK_EVERY, HashSet::new());
        for record in records {
            let Some(known) = before.remove(record.id()).or_else(|| read(&record)) else { continue };
            if names.insert(known.name.clone()) && !self.at_work.contains(record.id()) {
                match known.again.saturating_sub(now) {
                    // By a clock that was set.
                    pause if pause > 2 * LONGEST_PAUSE.as_millis() as u64 => due.push(record.clone()),
                    0 => due.push(record.clone()),
                    pause => next = next.min(Duration::from_millis(pause)),
                }
            }
            self.known.insert(record.id().to_owned(), known);
        }
        (due, next)
    }
}

async fn look(mut desk: Schedule, data: DataDir, metrics: Metrics) -> (Schedule, Vec<CompletionRecord>, Duration) {
    let looked = tokio::task::spawn_blocking(move || {
        let (due, next) = match CompletionRecord::all(&data) {
            Ok(records) => {
                metrics.completions_wait(records.len() as u64);
                desk.due(records, now())
            }
            Err(e) => {
                log::error!("on_complete: {e}");
                (vec![], LOOK_EVERY)
            }
        };
        (desk, due, next)
    });
    looked.await.unwrap_or_else(|e| {
        log::error!("on_complete: cannot list completion records: {e}");
        (Schedule::default(), vec![], LOOK_EVERY)
    })
}

/// The file that a record is about. `None` if the record is gone, cannot be read now, or is invalid and was set aside.
fn read(record: &CompletionRecord) -> Option<ScheduledRecord> {
    match record.file_name() {
        Ok(name) => name.map(|name| ScheduledRecord { name, again: record.attempts().again }),
        Err(e) if !matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::NotFound) => {
            log::error!("on_complete: {e}");
            None
        }
        Err(e) => {
            log::error!("on_complete: a finished file is not told of, its completion record is invalid: {e}");
            let set_aside = record.try_lock().and_then(|locked| locked.map_or(Ok(()), |it| it.give_up(&e.to_string())));
            if let Err(e) = set_aside {
                log::error!("on_complete: {e}");
            }
            None
        }
    }
}

/// Tells of a file if it is time, and no other process does it.
async fn attend(teller: Arc<CompletionWorker>, record: CompletionRecord, stop: StopDeadline) -> NextAttempt {
    let id = record.id().to_owned();
    let again = match attempt(&teller, record, stop).await {
        Ok(again) => again,
        Err(e) => {
            log::error!("on_complete: {e}");
            now() + MENDED_AFTER.as_millis() as u64
        }
    };
    NextAttempt { id, again }
}

/// The same; returns the time of the next scan.
async fn attempt(teller: &Arc<CompletionWorker>, record: CompletionRecord, stop: StopDeadline) -> io::Result<u64> {
    let opened = blocking(move || {
        let Some(locked) = record.try_lock()? else { return Ok(None) };
        let (so_far, completion) = (record.attempts(), locked.completion()?);
        Ok(Some((locked, so_far, completion)))
    });
    let Some((locked, so_far, completion)) = opened.await? else {
        return Ok(now() + LOOK_AGAIN.as_millis() as u64);
    };
    // Another daemon may have tried since the scan.
    let pause = so_far.again.saturating_sub(now());
    if pause > 0 && pause <= LONGEST_PAUSE.as_millis() as u64 {
        return Ok(so_far.again);
    }
    let number = so_far.failed.saturating_add(1);
    let name = completion.file_name.clone();
    let question = teller.question(locked.record().id(), &completion, number);
    let answer = teller.runner.ask(&name, &question, teller.time, stop).await;
    let (teller, settled) = (Arc::clone(teller), name.clone());
    let why = match answer {
        HookAnswer::Yes => {
            log::info!(file_name = name.as_str(); "{name}: on_complete was told (attempt {number})");
            return blocking(move || locked.remove()).await.map(|()| 0);
        }
        // It will be told again.
        HookAnswer::Stopped => {
            log::info!(file_name = name.as_str(); "{name}: on_complete was ended, and will be retried");
            return Ok(0);
        }
        HookAnswer::Failed(why) => why,
        HookAnswer::No { how, message } if message.is_empty() => how,
        HookAnswer::No { how, message } => format!("{how}: {message}"),
    };
    blocking(move || teller.settle_failure(&settled, locked, number, why)).await
}

impl CompletionWorker {
    fn question(&self, id: &str, completion: &Completion, attempt: u32) -> HookQuestion {
        let name = completion.file_name.as_str();
        let fields = vec![
            ("event", json!("complete")),
            ("file_name", json!(name)),
            ("path", json!(self.files.join(name).to_string_lossy())),
            ("file_size", json!(completion.size)),
            ("file_digest", json!(completion.digest.map(|digest| digest.to_string()))),
            ("token", json!(completion.token)),
            ("metadata", metadata::json(completion.metadata.as_deref())),
            ("attempt", json!(attempt)),
        ];
        HookQuestion::new(id.to_owned(), fields, &["file_name", "path", "file_size", "file_digest", "token"])
    }

    /// Notes that attempt `failed` failed; returns the time of the next scan.
    fn settle_failure(
        &self,
        name: &FileName,
        locked: LockedCompletionRecord,
        failed: u32,
        why: String,
    ) -> io::Result<u64> {
        if failed >= self.attempts {
            log::error!(
                upload = name.as_str();
                "{name}: on_complete failed {failed} times, and is not tried any more: {why}; to have it told again move \
                 completed/failed/{} to completed/",
                locked.record().id()
            );
            self.runner.metrics.completion_given_up();
            return locked.give_up(&why).map(|()| 0);
        }
        let pause = pause_after(failed);
        log::warn!(
            upload = name.as_str();
            "{name}: on_complete failed, attempt {failed} of {}: {why}; again in {} s",
            self.attempts,
            pause.as_secs()
        );
        let again = now() + pause.as_millis() as u64;
        locked.note(&Attempts { failed, again, why })?;
        Ok(again)
    }
}

/// Runs work that blocks on the disk on a thread that can block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Pause before the next attempt after so many failures.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::finish::publish::{Hashed, publish};
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};

    #[test]
    fn pauses_double_from_1_s_to_5_min() {
        assert_eq!([1, 2, 3, 9, 10, u32::MAX].map(|n| pause_after(n).as_secs()), [1, 2, 4, 256, 300, 300]);
    }

    /// Finishes empty files of these names.
    fn finish(data: &DataDir, names: &[&str]) {
        for name in names {
            let plan = Plan::new(Some(0), None, None).unwrap();
            let upload =
                UploadRecord { replace: true, ..UploadRecord::begin(FileName::new(name).unwrap(), plan, None) };
            assert!(
                Spool::create(data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(data, 0)).unwrap()
            );
            let spool = Spool::of(data, &UploadId::of_name(&upload.file_name));
            let lock = spool.try_merger_lock().unwrap().unwrap();
            publish(data, &spool, &lock, Hashed::default()).unwrap();
        }
    }

    fn names(records: &[CompletionRecord]) -> Vec<String> {
        records.iter().map(|record| record.file_name().unwrap().unwrap().to_string()).collect()
    }

    #[test]
    fn notices_are_due_in_order_and_of_one_name_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap().recording_completions().unwrap();
        finish(&data, &["b", "a", "b", "c"]);
        let all = CompletionRecord::all(&data).unwrap();
        let mut desk = Schedule::default();
        let (due, next) = desk.due(all.clone(), now());
        assert_eq!((names(&due), next), (vec!["b".to_owned(), "a".to_owned(), "c".to_owned()], LOOK_EVERY));

        desk.at_work.insert(all[0].id().to_owned());
        assert_eq!(names(&desk.due(all.clone(), now()).0), ["a", "c"]);
        let again = now() + 500;
        desk.put(NextAttempt { id: all[0].id().to_owned(), again });
        let (due, next) = desk.due(all.clone(), again - 300);
        assert_eq!((names(&due), next), (vec!["a".to_owned(), "c".to_owned()], Duration::from_millis(300)));
        assert_eq!(names(&desk.due(all.clone(), again).0), ["b", "a", "c"]);

        // Given up, or told: then it is the next one's turn.
        all[0].try_lock().unwrap().unwrap().remove().unwrap();
        let (due, _) = desk.due(CompletionRecord::all(&data).unwrap(), again);
        assert_eq!(due.iter().map(CompletionRecord::id).collect::<Vec<_>>(), [all[1].id(), all[2].id(), all[3].id()]);
        assert_eq!(desk.known.len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_set_aside_and_keeps_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap().recording_completions().unwrap();
        finish(&data, &["a", "b"]);
        let all = CompletionRecord::all(&data).unwrap();
        std::fs::write(all[0].path().join("upload.json"), "{").unwrap();
        let (due, _) = Schedule::default().due(all.clone(), now());
        assert_eq!(names(&due), ["b"]);
        assert!(data.completed().join("failed").join(all[0].id()).join("upload.json").exists());
    }
}
