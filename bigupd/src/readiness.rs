//! Readiness: tells load balancers and monitoring programs if the daemon can take uploads.
//!
//! The checks touch the disk, which can be slow or hang. So they run on a thread of their own, one run at a time for
//! all requests, and a response is given in time without them; a result is reused for a moment. Strangers can ask: the
//! text names no file and no path.

use crate::uploads::Uploads;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{self, FileLock, IoContext};
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::MAKING;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, oneshot, watch};

/// Time for which a result is reused: a flood of requests costs as much as one request a second.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Longest time for the checks: common probes wait longer, and a disk that takes longer is not one to send clients to.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Longest time for which other processes can hold the lock on info.ini, which they need for an instant; and the time
/// between two tries.
const LOCK_PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(10));

/// Text of a check that found nothing wrong.
const OK: &str = "ok";

/// The results: for each check "ok", or the fault and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// Files can be made and removed in the data folder.
    pub data_folder: String,
    /// Disk space beside the reserve.
    pub disk_space: String,
    /// The lock on info.ini can be had.
    pub lock: String,
    /// The daemon was not told to stop.
    pub running: String,
}

impl Checks {
    fn all(said: &str) -> Checks {
        let said = || said.to_owned();
        Checks { data_folder: said(), disk_space: said(), lock: said(), running: OK.to_owned() }
    }

    fn wrong(&self) -> Vec<&str> {
        let all = [&self.data_folder, &self.disk_space, &self.lock, &self.running];
        all.into_iter().map(String::as_str).filter(|said| *said != OK).collect()
    }

    fn are_good(&self) -> bool {
        self.wrong().is_empty()
    }
}

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// HTTP status: 200 where all is well, else 503.
    pub status: u16,
    /// True if all is well.
    pub ready: bool,
    /// The results of the checks.
    pub checks: Checks,
}

type Check = Arc<dyn Fn() -> Checks + Send + Sync>;

/// The last results, and the check under way.
#[derive(Default)]
struct State {
    at_work: Option<oneshot::Receiver<(Instant, Checks)>>,
    known: Option<(Instant, Checks)>,
}

impl State {
    /// Takes the result of a check that ended while no request waited for it.
    fn hear(&mut self) {
        let ended = self.at_work.as_mut().map(oneshot::Receiver::try_recv);
        if matches!(ended, None | Some(Err(TryRecvError::Empty))) {
            return;
        }
        self.at_work = None;
        if let Some(Ok((when, checks))) = ended {
            self.know(when, checks);
        }
    }

    fn know(&mut self, when: Instant, checks: Checks) {
        log_change(self.known.as_ref().map(|(_, before)| before), &checks);
        self.known = Some((when, checks));
    }
}

/// Tells whether the daemon is ready.
pub struct Readiness {
    check: Check,
    time_limit: Duration,
    draining: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    state: Mutex<State>,
}

impl Readiness {
    /// Of the daemon that has these uploads. Once `draining` or `stopping` is true it is not ready.
    pub fn new(uploads: &Uploads, draining: watch::Receiver<bool>, stopping: watch::Receiver<bool>) -> Readiness {
        let (data, space) = (uploads.data.clone(), DiskSpace::new(&uploads.data, uploads.settings.reserve));
        Readiness { draining, ..Readiness::by(Arc::new(move || check(&data, &space)), TIME_LIMIT, stopping) }
    }

    fn by(check: Check, time_limit: Duration, stopping: watch::Receiver<bool>) -> Readiness {
        Readiness { check, time_limit, draining: watch::channel(false).1, stopping, state: Mutex::default() }
    }

    /// The state, as found within the last second.
    pub async fn now(&self) -> ReadinessReport {
        let mut checks = self.checks().await;
        if *self.draining.borrow() {
            checks.running = "the daemon is draining: send new requests to another one".to_owned();
        }
        if *self.stopping.borrow() {
            checks.running = "the daemon is stopping: ask again once it was started".to_owned();
        }
        let ready = checks.are_good();
        ReadinessReport { status: if ready { 200 } else { 503 }, ready, checks }
    }

    async fn checks(&self) -> Checks {
        // Requests that come meanwhile wait here, and then find the result.
        let mut state = self.state.lock().await;
        state.hear();
        if let Some((_, checks)) = state.known.as_ref().filter(|(when, _)| when.elapsed() < GOOD_FOR) {
            return checks.clone();
        }
        // A check that hangs is waited for again, not joined by another: also if its caller is gone.
        let at_work = state.at_work.get_or_insert_with(|| {
            let check = Arc::clone(&self.check);
            on_its_own_thread(move || check())
        });
        let checks = match tokio::time::timeout(self.time_limit, at_work).await {
            Ok(ended) => {
                state.at_work = None;
                // A panic there was reported where it happened, as was that there is no thread.
                ended.map_or_else(|_| Checks::all("the check failed: see the daemon's log"), |(_, checks)| checks)
            }
            Err(_) => {
                let limit = self.time_limit.as_secs_f64();
                Checks::all(&format!("the disk did not answer within {limit} s: see whether it hangs or is overloaded"))
            }
        };
        state.know(Instant::now(), checks.clone());
        checks
    }
}

/// Runs `check` on a thread that no request can have taken, and tells when it ended. If no thread can be started the
/// result is a failure.
fn on_its_own_thread(check: impl FnOnce() -> Checks + Send + 'static) -> oneshot::Receiver<(Instant, Checks)> {
    let (tell, told) = oneshot::channel();
    // The caller may be gone.
    let run = move || {
        let checks = check();
        drop(tell.send((Instant::now(), checks)));
    };
    let started = std::thread::Builder::new().name("ready".to_owned()).spawn(run);
    if let Err(e) = started {
        log::error!("cannot start a thread to check the data folder: {e}");
    }
    told
}

fn log_change(before: Option<&Checks>, now: &Checks) {
    match (before.is_none_or(Checks::are_good), now.are_good()) {
        (true, false) => log::warn!("not ready for uploads: {}", now.wrong().join("; ")),
        (false, true) => log::info!("ready for uploads again"),
        _ => {}
    }
}

/// Looks at the data folder. Blocks on the disk.
fn check(data: &DataDir, space: &DiskSpace) -> Checks {
    let said = |what: &str, found: io::Result<Option<&str>>| match found {
        Ok(None) => OK.to_owned(),
        Ok(Some(wrong)) => wrong.to_owned(),
        // Strangers read the response; the path is for the log.
        Err(e) => {
            log::warn!("not ready: {e}");
            format!("{what}: see the daemon's log")
        }
    };
    let full = "no disk space is left beside the reserve: free some on the disk of the data folder";
    let no_inodes = "no inodes are left beside the reserve: remove files on the disk of the data folder";
    let space_left = || {
        let inodes = space.inodes_left()?.is_some_and(|left| left == 0).then_some(no_inodes);
        Ok(space.left()?.filter(|left| *left == 0).map(|_| full).or(inodes))
    };
    let held = "somebody holds the lock on info.ini and does not give it back: see which process has the file open";
    Checks {
        data_folder: said("the data folder cannot be written to", look_at_folder(data)),
        disk_space: said("how much disk space is left cannot be told", space_left()),
        lock: said("info.ini cannot be locked", lock_once(data).map(|could| (!could).then_some(held))),
        running: OK.to_owned(),
    }
}

/// Checks that the data folder can be written to, and that finished files can be moved within it.
fn look_at_folder(data: &DataDir) -> io::Result<Option<&'static str>> {
    write_and_remove(data)?;
    let apart = "no finished file can be moved from tmp to files, or to completed, since that is on another mount: mount one \
                 disk for the whole data folder";
    Ok(data.check_mounts().inspect_err(|e| log::warn!("not ready: {e}")).is_err().then_some(apart))
}

fn write_and_remove(data: &DataDir) -> io::Result<()> {
    // Of a name that is swept, in case that we are killed.
    let path = data.tmp().join(format!("{MAKING}{}", disk::random_suffix()));
    let written = disk::create_new(&path)?.write_all(b"ready?").at("writing", &path);
    std::fs::remove_file(&path).at("removing", &path).and(written)
}

/// True if the lock on info.ini could be had.
fn lock_once(data: &DataDir) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_PATIENCE.0;
    loop {
        if FileLock::try_now(&data.info_ini())?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOCK_PATIENCE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        (dir, data)
    }

    #[test]
    fn each_check_finds_its_own_fault() {
        let (_dir, data) = data();
        let space = DiskSpace::new(&data, 0);
        assert_eq!(check(&data, &space), Checks::all(OK));
        assert_eq!(std::fs::read_dir(data.tmp()).unwrap().count(), 0, "nothing is left behind");
        let found = check(&data, &DiskSpace::new(&data, u64::MAX));
        assert_eq!((&found.data_folder[..], &found.lock[..]), (OK, OK));
        assert!(found.disk_space.contains("free some"), "{found:?}");
        let held = FileLock::wait(&data.info_ini()).unwrap();
        assert!(check(&data, &space).lock.contains("holds the lock"));
        drop(held);
        std::fs::remove_dir(data.tmp()).unwrap();
        let found = check(&data, &space);
        assert!(found.data_folder.contains("cannot be written to") && found.lock == OK, "{found:?}");
        assert!(!format!("{found:?}").contains('/'), "no path is told: {found:?}");
    }

    #[tokio::test]
    async fn a_flood_of_questions_is_one_check() {
        let checks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&checks);
        let check = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Checks::all(OK)
        };
        let (_stopping, is_stopping) = watch::channel(false);
        let readiness = Arc::new(Readiness::by(Arc::new(check), TIME_LIMIT, is_stopping));
        let asked = (0..1000).map(|_| {
            let readiness = Arc::clone(&readiness);
            tokio::spawn(async move { readiness.now().await.ready })
        });
        for asked in asked.collect::<Vec<_>>() {
            assert!(asked.await.unwrap());
        }
        // A machine under load can need more than the second for which a check is reused.
        assert!(checks.load(Ordering::Relaxed) < 20, "{checks:?}");
    }

    /// A check that is counted. The first run ends once a second thread waits at the barrier.
    fn hanging_once(checks: &Arc<AtomicUsize>, barrier: &Arc<Barrier>) -> Check {
        let (counted, gate) = (Arc::clone(checks), Arc::clone(barrier));
        Arc::new(move || {
            if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                gate.wait();
            }
            Checks::all(OK)
        })
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_told_in_time_and_asked_once() {
        let (checks, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (_stopping, is_stopping) = watch::channel(false);
        let readiness = Readiness::by(hanging_once(&checks, &barrier), Duration::from_millis(20), is_stopping);
        let report = readiness.now().await;
        assert_eq!((report.status, report.ready), (503, false));
        assert!(report.checks.disk_space.contains("within 0.02 s"), "{report:?}");
        tokio::time::sleep(GOOD_FOR).await;
        assert!(!readiness.now().await.ready);
        assert_eq!(checks.load(Ordering::Relaxed), 1);
        barrier.wait();
        tokio::time::sleep(GOOD_FOR).await;
        assert!(readiness.now().await.ready);
    }

    #[tokio::test]
    async fn a_check_goes_on_for_the_next_who_asks_where_the_first_is_gone() {
        let (checks, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (_stopping, is_stopping) = watch::channel(false);
        let readiness = Readiness::by(hanging_once(&checks, &barrier), Duration::from_secs(60), is_stopping);
        for _ in 0..5 {
            assert!(tokio::time::timeout(Duration::from_millis(10), readiness.now()).await.is_err());
        }
        barrier.wait();
        assert!(readiness.now().await.ready);
        assert_eq!(checks.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_daemon_that_stops_is_not_ready_whatever_was_found_before() {
        let (stopping, is_stopping) = watch::channel(false);
        let readiness = Readiness::by(Arc::new(|| Checks::all(OK)), TIME_LIMIT, is_stopping);
        assert!(readiness.now().await.ready);
        stopping.send_replace(true);
        let report = readiness.now().await;
        assert!(!report.ready && report.checks.running.contains("stopping"), "{report:?}");
    }
}
