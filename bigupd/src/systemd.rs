//! Messages to systemd, and its requests: the daemon serves, reads its certificates again, stops (sd_notify(3)), its
//! status (`systemctl status`), and its watchdog signal (`WatchdogSec=`, systemd.service(5)). Outside of systemd all of
//! this is silent.
//!
//! # What a sign of life proves
//! A task asks for the signal, so the runtime works; and a blocking thread sends it, so not all of those hang. Those
//! threads do all file operations, so a slow disk can keep every one of them busy, and a restart would not make it
//! faster. While any of our threads waits in the kernel for a disk (proc_pid_stat(5), state D) the signal is sent
//! without waiting for a free thread. A disk behind FUSE does not show in that state: `WatchdogSec=` must be longer
//! than its slowest operation.

use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::Spool;
use sd_notify::NotifyState;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Variables for this process alone. If a child said "ready", systemd would believe it.
const OWN_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Our threads (proc_pid_task(5)).
const TASKS: &str = "/proc/self/task";

/// Time between two looks at the status; it is sent if it changed.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// Watchdog signals in the time that systemd waits for one: some can be late.
const SIGNS: u32 = 4;

/// Tells that connections are accepted, by these URLs.
pub fn ready(urls: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {urls}"))]);
}

/// Tells that the daemon stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: running requests finish")]);
}

/// Tells systemd that `reload` begins and, when it is done, that the daemon serves with its result.
pub fn reloading(reload: impl FnOnce()) {
    // Without the time systemd takes it all the same (its Type=notify).
    let now = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Custom(""));
    tell(&[NotifyState::Reloading, now]);
    reload();
    tell(&[NotifyState::Ready]);
}

/// Removes systemd's variables for this process from the environment of `child`.
pub fn forget_in(child: &mut Command) {
    OWN_VARIABLES.iter().for_each(|variable| {
        child.env_remove(variable);
    });
}

/// Tells systemd the daemon's status, and that it is alive, for as long as this is polled. `mergers` returns the number
/// of mergers at work.
pub async fn report_forever(urls: String, data: DataDir, mergers: impl Fn() -> usize) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::join!(tell_status_forever(urls, data, mergers), async {
            // Where systemd asks for signs of life.
            if let Some(patience) = sd_notify::watchdog_enabled() {
                live_forever(patience / SIGNS, || tell(&[NotifyState::Watchdog]), || waits_for_disk(TASKS)).await;
            }
        });
    }
}

async fn tell_status_forever(urls: String, data: DataDir, mergers: impl Fn() -> usize) {
    let mut told = String::new();
    loop {
        let data = data.clone();
        // The reconciler reports an error of listing.
        let uploads = spawn_blocking(move || Spool::all(&data).ok().map(|all| all.len())).await.ok().flatten();
        let status = status(&urls, uploads, mergers());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        sleep(STATUS_EVERY).await;
    }
}

/// Text that `systemctl status` shows. `uploads` is `None` if their number is unknown.
fn status(urls: &str, uploads: Option<usize>, mergers: usize) -> String {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let uploads =
        uploads.map_or_else(|| "the data folder cannot be read".to_owned(), |n| counted(n, "upload") + " unfinished");
    format!("serving on {urls}, {uploads}, {} at work", counted(mergers, "merger"))
}

/// Sends a watchdog signal from a blocking thread every now and then; if no thread is free, only if a disk keeps them.
async fn live_forever(every: Duration, sign: impl Fn() + Copy + Send + 'static, is_disk_slow: impl Fn() -> bool) {
    loop {
        let mut signed = spawn_blocking(sign);
        while timeout(every, &mut signed).await.is_err() {
            if is_disk_slow() {
                log::warn!("all threads are busy, some of them waiting for the disk: it is slow, or gone");
                sign();
            }
        }
        sleep(every).await;
    }
}

/// True if any of the threads below `tasks` waits in the kernel for a disk.
fn waits_for_disk(tasks: impl AsRef<Path>) -> bool {
    let threads = std::fs::read_dir(tasks).into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    // After the name in parentheses, which can contain any character.
    stats.any(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D')))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("cannot send {states:?} to systemd: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Number of signs of life there after a while in which all blocking threads hang.
    fn signs_while_all_threads_hang(is_disk_slow: bool) -> u32 {
        static SIGNS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        let every = Duration::from_millis(10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let sign = move || {
            SIGNS[usize::from(is_disk_slow)].fetch_add(1, Ordering::Relaxed);
        };
        let signs = || SIGNS[usize::from(is_disk_slow)].load(Ordering::Relaxed);
        runtime.unwrap().block_on(async {
            let lives = async |times| timeout(times * every, live_forever(every, sign, || is_disk_slow)).await;
            lives(20).await.unwrap_err();
            assert!(signs() > 1, "signs are given while all is well");
            let (hangs, begun) = std::sync::mpsc::channel();
            spawn_blocking(move || hangs.send(()).map(|()| hang.recv()));
            begun.recv().unwrap();
            let before = signs();
            lives(50).await.unwrap_err();
            let during = signs() - before;
            drop(release);
            during
        })
    }

    #[test]
    fn no_sign_of_life_is_given_while_all_threads_hang_but_for_a_slow_disk() {
        assert_eq!(signs_while_all_threads_hang(false), 0);
        assert!(signs_while_all_threads_hang(true) > 1);
    }

    #[test]
    fn the_status_counts() {
        assert_eq!(
            status("http://[::1]:1", Some(1), 0),
            "serving on http://[::1]:1, 1 upload unfinished, 0 mergers at work"
        );
        assert_eq!(status("u", Some(3), 1), "serving on u, 3 uploads unfinished, 1 merger at work");
        assert!(status("u", None, 0).contains("cannot be read"));
    }

    #[test]
    fn threads_that_wait_for_a_disk_are_told_by_their_state() {
        let tasks = tempfile::tempdir().unwrap();
        let thread = |id: &str, stat: &str| {
            std::fs::create_dir(tasks.path().join(id)).unwrap();
            std::fs::write(tasks.path().join(id).join("stat"), stat).unwrap();
        };
        thread("1", "1 (bigupd) S 0 1");
        thread("2", "2 (a) D (b) R 0 1");
        assert!(!waits_for_disk(tasks.path()));
        thread("3", "3 (tokio-rt) worker) D 0 1");
        assert!(waits_for_disk(tasks.path()));
    }
}
