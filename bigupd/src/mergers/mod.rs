//! Starting mergers and watching them.
//!
//! The locks in the spools decide which process merges. The mergers that this daemon started and that have not ended
//! yet are remembered only to spare a look at a lock for every slice. After a merger ends, its upload is always checked
//! again.
//!
//! The number of mergers at work is limited. Further uploads wait for their turn, in the order in which they came to
//! need a merger. A merger without work would hold its place until its idle time is over. While other uploads wait it
//! is told to stop instead, which it does at any time without loss; its upload queues again with its next slice. A busy
//! merger is left alone: a new one might have to read again all that it had read.
//!
//! It asks the spools whether there is work. Requests and hooks do not come in here.

use crate::descriptors;
use crate::metrics::{Failure, MergerEnd, Metrics};
use crate::systemd;
use bigup_core::merger_events::{MergerEvent, MergerExit, StoreRequest};
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::objects::ObjectSettings;
use bigup_core::storage::spool::{Spool, UploadId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Pause before a merger is started again after one that failed without getting any further, doubled with every such
/// failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A merger that left sooner although there is something to do failed, whatever it said.
const SHORTEST_LIFE: Duration = Duration::from_millis(100);

/// Longest pause. An operator who just freed disk space should not wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Time between two searches for idle mergers while uploads wait.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(200);

/// Time to wait for the last events of a merger that has ended: they are there already, but a process that it started
/// may hold the pipe open.
const EVENTS_PATIENCE: Duration = Duration::from_secs(1);

mod take;

pub use take::take_from_merger;

/// The mergers that this daemon started.
#[derive(Clone)]
pub struct Mergers {
    inner: Arc<Inner>,
}

/// Settings of mergers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Time without a slice after which a merger ends.
    pub idle: Duration,
    /// Most mergers at work at once.
    pub most: u64,
}

/// An upload that a merger is looked after for.
struct Merging {
    id: UploadId,
    /// Name of the file, by which mergers are told the upload.
    name: FileName,
}

struct Inner {
    data: DataDir,
    settings: Settings,
    metrics: Metrics,
    /// Uploads with a merger at work, or with a merger to come after a pause or in its turn.
    running: Mutex<HashSet<UploadId>>,
    ended: Arc<Notify>,
    /// A permit for each merger that can be at work; given in the order of asking.
    turns: Semaphore,
    /// The number of permits.
    most: usize,
    /// Number of uploads that wait for a permit.
    waiting: AtomicUsize,
    /// The daemon ends: no merger is started again.
    stopping: AtomicBool,
}

impl Mergers {
    /// No mergers running yet.
    pub fn new(data: DataDir, settings: Settings, metrics: Metrics) -> Mergers {
        let most = usize::try_from(settings.most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (running, ended, waiting) = (Mutex::default(), Arc::default(), AtomicUsize::new(0));
        Mergers {
            inner: Arc::new(Inner {
                data,
                settings,
                metrics,
                running,
                ended,
                turns: Semaphore::new(most),
                most,
                waiting,
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// Number of mergers of this daemon at work.
    pub fn at_work(&self) -> usize {
        self.inner.most - self.inner.turns.available_permits()
    }

    /// From here on no merger is started again after its end: a stop of the daemon may stop mergers too, and the next
    /// daemon goes on. Requests that are still being answered can start a merger.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// Waits until some merger of this daemon has finished its file, or ends, from when this is called (not polled) on.
    pub fn some_end(&self) -> impl Future<Output = ()> + '_ {
        self.inner.ended.notified()
    }

    /// The same for callers that know nothing of mergers: all that wait for it are woken.
    pub fn ended(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.ended)
    }

    /// Makes sure that a merger is at work on the upload `id` of a file of `name`, where there is something to merge.
    pub fn ensure(&self, id: &UploadId, name: &FileName) {
        if self.running().contains(id) {
            return;
        }
        match Spool::of(&self.inner.data, id).merger() {
            Ok(None) => self.start(Merging { id: id.clone(), name: name.clone() }),
            Ok(Some(pid)) => log::debug!(file_name = name.as_str(); "{name}: process {pid} is merging"),
            Err(e) => log::warn!(file_name = name.as_str(); "{name}: cannot find out if a merger is at work: {e}"),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashSet<UploadId>> {
        self.inner.running.lock().expect("nothing panics while it holds this lock")
    }

    /// The frontier of an upload that needs a merger; `None` if it needs no merger. Blocks on the disk.
    fn frontier_if_due(&self, id: &UploadId) -> Option<u64> {
        let spool = Spool::of(&self.inner.data, id);
        // The client that asks for this upload gets the error.
        let upload = spool.upload().ok().flatten()?;
        let holdings = spool.holdings(&upload).ok()?;
        let waits_for_store =
            || self.inner.data.objects().is_some() && spool.for_store(&upload, &holdings).is_ok_and(|bytes| bytes > 0);
        (holdings.need_merger(&upload) || waits_for_store()).then_some(holdings.frontier)
    }

    /// The same on a thread that can block; `None` also while a merger of another process is at work.
    async fn frontier_if_left(&self, id: &UploadId) -> Option<u64> {
        let (this, id) = (self.clone(), id.clone());
        let look = move || {
            let is_free = matches!(Spool::of(&this.inner.data, &id).merger(), Ok(None));
            this.frontier_if_due(&id).filter(|_| is_free)
        };
        // A panic there was reported where it happened.
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }

    fn start(&self, upload: Merging) {
        if self.running().insert(upload.id.clone()) {
            let this = self.clone();
            tokio::spawn(async move {
                this.tend(&upload).await;
                this.running().remove(&upload.id);
                // A slice that came since the last check found the name in this set.
                if !this.is_stopping() && this.frontier_if_left(&upload.id).await.is_some() {
                    this.ensure(&upload.id, &upload.name);
                }
            });
        }
    }

    /// Runs mergers one after the other until nothing is left to do. They pause in between while no merger gets any
    /// further.
    async fn tend(&self, upload: &Merging) {
        let (mut failures, mut frontier) = (0, 0);
        loop {
            if failures > 0 {
                tokio::time::sleep(pause_after(failures)).await;
            }
            let turn = self.turn().await;
            let began = Instant::now();
            let (ended, sent_away) = self.run(upload).await;
            drop(turn);
            let failed = !sent_away && (self.has_failed(&upload.name, ended) || began.elapsed() < SHORTEST_LIFE);
            self.inner.ended.notify_waiters();
            if self.is_stopping() {
                return;
            }
            let Some(now) = self.frontier_if_left(&upload.id).await else { return };
            failures = if failed && now <= frontier { failures + 1 } else { 0 };
            frontier = now;
        }
    }

    /// Waits until one more merger can be at work.
    async fn turn(&self) -> SemaphorePermit<'_> {
        let _counted = self.metrics().merger_waits();
        self.inner.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = self.inner.turns.acquire().await.expect("the semaphore is never closed");
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Runs one merger to its end; also tells if it was stopped for other uploads.
    async fn run(&self, upload: &Merging) -> (io::Result<ExitStatus>, bool) {
        let mut merger = match self.command(&upload.name).spawn() {
            Ok(merger) => merger,
            Err(e) => {
                self.metrics().merger_ended(MergerEnd::NotStarted);
                return (Err(e), false);
            }
        };
        let _at_work = self.metrics().merger_started();
        let stdout = merger.stdout.take().expect("it was asked for");
        let told = tokio::spawn(take_events(stdout, self.metrics().clone(), self.ended()));
        let (ended, sent_away) = self.wait_for(upload, &mut merger).await;
        let how = tokio::time::timeout(EVENTS_PATIENCE, told).await.ok().and_then(Result::ok).flatten();
        if let Ok(status) = &ended {
            self.count_end(*status, how);
        }
        (ended, sent_away)
    }

    fn count_end(&self, status: ExitStatus, how: Option<MergerExit>) {
        let end = end_of(status, how);
        self.metrics().merger_ended(end);
        if end == MergerEnd::Blocked {
            self.metrics().upload_failed(Failure::Blocked);
        }
    }

    /// Waits for the end of a merger; also tells if it was stopped for other uploads.
    async fn wait_for(&self, upload: &Merging, merger: &mut Child) -> (io::Result<ExitStatus>, bool) {
        let Merging { id, name } = upload;
        loop {
            if let Ok(ended) = tokio::time::timeout(MAKE_ROOM_EVERY, merger.wait()).await {
                return (ended, false);
            }
            if self.inner.waiting.load(Ordering::Relaxed) > 0 && self.is_idle(id).await {
                log::debug!(file_name = name.as_str(); "{name}: the idle merger is stopped, other uploads wait for a merger");
                // It has an id until its end is awaited.
                if let Some(pid) = merger.id().and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
                return (merger.wait().await, true);
            }
        }
    }

    /// True if the merger of an upload has nothing to do, for now.
    async fn is_idle(&self, id: &UploadId) -> bool {
        let (this, id) = (self.clone(), id.clone());
        tokio::task::spawn_blocking(move || this.frontier_if_due(&id).is_none()).await.unwrap_or(false)
    }

    fn command(&self, name: &FileName) -> Command {
        let mut command = Command::new(&self.inner.settings.program);
        command.arg("--data-dir").arg(self.inner.data.root());
        command.arg(format!("--file-name={}", name.as_str()));
        command.arg(format!("--idle={}ms", self.inner.settings.idle.as_millis()));
        command.arg("--events");
        if self.inner.data.leaves_notices() {
            command.arg("--leave-notice");
        }
        let modes = self.inner.data.modes();
        for (flag, mode) in [("--file-mode", modes.file), ("--dir-mode", modes.dir)] {
            command.args(mode.map(|mode| format!("{flag}={mode:o}")));
        }
        if let Some(objects) = self.inner.data.objects() {
            tell_store(&mut command, objects.settings());
        }
        systemd::forget_in(&mut command);
        descriptors::as_at_start(&mut command);
        // Its log lines go to the daemon's standard error. It outlives the daemon: its work needs no daemon, and no
        // reader of its events.
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn has_failed(&self, name: &FileName, ended: io::Result<ExitStatus>) -> bool {
        match ended {
            // 3: another one is at work; 4: no such upload any more; 5: blocked, which the spool says.
            Ok(status) if matches!(status.code(), Some(0 | 3 | 4 | 5)) => {
                log::debug!(file_name = name.as_str(); "{name}: the merger ended with {status}");
                return false;
            }
            Ok(status) => log::warn!(file_name = name.as_str(); "{name}: the merger ended with {status}"),
            Err(e) => {
                log::error!(file_name = name.as_str(); "{name}: cannot start the merger {}: {e}", self.inner.settings.program.display())
            }
        }
        true
    }
}

/// Tells a merger the store of objects. The credentials are in its environment, as in ours, or in the file.
fn tell_store(command: &mut Command, store: &ObjectSettings) {
    command.arg(format!("--store={}", store.url)).arg(format!("--s3-endpoint={}", store.endpoint()));
    command.arg(format!("--s3-region={}", store.region));
    command.arg(format!("--s3-parts-at-once={}", store.parts_at_once));
    if !store.path_style {
        command.arg("--s3-host-style");
    }
    if let Some(file) = &store.credentials_file {
        command.arg("--s3-credentials-file").arg(file);
    }
}

/// Counts a merger's events, up to the last. Returns the end that it reported; `None` if it reported no end.
///
/// A file that is published wakes those who wait for `ended`: the process itself ends some milliseconds later.
async fn take_events(stdout: impl AsyncRead + Unpin, metrics: Metrics, ended: Arc<Notify>) -> Option<MergerExit> {
    let (mut lines, mut how, mut in_flight) = (BufReader::new(stdout).lines(), None, 0_i64);
    // Merging does not depend on the events: unreadable ones are left out.
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(event) = MergerEvent::parse(&line) else { continue };
        metrics.merger_told(&event);
        match event {
            MergerEvent::Ended { how: told } => how = Some(told),
            MergerEvent::Published { .. } => ended.notify_waiters(),
            MergerEvent::PartBegins => in_flight += 1,
            MergerEvent::StoreAnswered { request: StoreRequest::Part, .. } => in_flight -= 1,
            _ => {}
        }
    }
    metrics.parts_given_up(in_flight);
    how
}

/// The end of a merger, by its exit code (bigup-merger's help) and by its last event.
fn end_of(status: ExitStatus, how: Option<MergerExit>) -> MergerEnd {
    match (status.code(), how) {
        (Some(0), Some(MergerExit::Published)) => MergerEnd::Published,
        (Some(0), Some(MergerExit::Idle)) => MergerEnd::Idle,
        (Some(0), Some(MergerExit::Stopped)) => MergerEnd::Stopped,
        (Some(0), None) => MergerEnd::Done,
        (Some(3), _) => MergerEnd::AlreadyRunning,
        (Some(4), _) => MergerEnd::NoUpload,
        (Some(5), _) => MergerEnd::Blocked,
        (None, _) if status.signal().is_some() => MergerEnd::Killed,
        _ => MergerEnd::Failed,
    }
}

/// Pause before the next try after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn ends_are_told_apart() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(end_of(exit(0), Some(MergerExit::Idle)), MergerEnd::Idle);
        assert_eq!(end_of(exit(0), None), MergerEnd::Done);
        assert_eq!(end_of(exit(5), None), MergerEnd::Blocked);
        assert_eq!(end_of(exit(2), None), MergerEnd::Failed);
        assert_eq!(end_of(exit(1), Some(MergerExit::Published)), MergerEnd::Failed);
        assert_eq!(end_of(ExitStatus::from_raw(9), None), MergerEnd::Killed);
    }

    #[tokio::test]
    async fn a_file_that_is_published_wakes_who_waits_before_its_merger_ends() {
        let (mut merger, stdout) = tokio::io::duplex(1000);
        let ended = Arc::new(Notify::new());
        let (first, second) = (ended.notified(), ended.notified());
        let told = tokio::spawn(take_events(stdout, Metrics::new(), Arc::clone(&ended)));
        merger.write_all(b"{\"event\":\"published\",\"bytes\":1,\"seconds\":0.1}\n").await.unwrap();
        let woken = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(first, second) }).await;
        assert!(woken.is_ok(), "they would wait for the end of the process");
        merger.write_all(b"{\"event\":\"ended\",\"how\":\"published\"}\n").await.unwrap();
        drop(merger);
        assert_eq!(told.await.unwrap(), Some(MergerExit::Published));
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(pause_after(1), Duration::from_millis(500));
        assert_eq!(pause_after(2), Duration::from_secs(1));
        assert_eq!(pause_after(5), Duration::from_secs(8));
        assert_eq!(pause_after(6), LONGEST_PAUSE);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
