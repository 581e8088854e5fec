//! Takes the lock of an upload from its merger, whichever process started that.

use bigup_core::storage::spool::{MERGER_LOCK, MergerLock, Spool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two tries of the lock of a merger that is to leave: shorter than a daemon needs to start the next
/// merger.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Time for which a lock is not asked for elsewhere: commands and daemons hold it for an instant.
const AN_INSTANT: Duration = Duration::from_millis(100);

/// Time after which a merger on another machine is asked again.
const ASK_ELSEWHERE_EVERY: Duration = Duration::from_secs(1);

/// Takes the merger's lock of a spool from its holder, within the time `wait`.
///
/// # Errors
/// It is not given up, there is no such spool, or as the system gives them.
pub fn take_from_merger(spool: &Spool, wait: Duration) -> io::Result<MergerLock> {
    let began = Instant::now();
    let (deadline, mut told, mut ask_elsewhere) = (began + wait, None, began + AN_INSTANT);
    loop {
        if let Some(lock) = spool.try_merger_lock()? {
            return Ok(lock);
        }
        let at_work = spool.merger()?;
        if let Some(pid) = at_work.filter(|pid| at_work != told && is_merger_of(*pid, spool)) {
            // It may have exited by itself.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
            told = at_work;
        }
        if told.is_none() && Instant::now() >= ask_elsewhere {
            spool.ask_merger_to_leave()?;
            ask_elsewhere += ASK_ELSEWHERE_EVERY;
        }
        if Instant::now() >= deadline {
            return Err(stays(at_work, wait));
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn stays(at_work: Option<u32>, wait: Duration) -> io::Error {
    let who = match at_work {
        Some(pid) if pid > 0 => {
            format!("the merger, process {pid}, was told to leave and did not within {wait:?}: end it")
        }
        _ => format!("another process was at work on it for {wait:?}"),
    };
    io::Error::other(format!("{who}, and cancel again"))
}

/// True if the process merges this upload. Its id can be an old one that belongs to another process by now. It can also
/// be that of a daemon or another command, which hold the lock for an instant, and must not be killed.
fn is_merger_of(pid: u32, spool: &Spool) -> bool {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_merger =
        command_line.split(|b| *b == 0).any(|arg| arg == b"--file-name" || arg.starts_with(b"--file-name="));
    is_merger && has_open(pid, &spool.path().join(MERGER_LOCK))
}

fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(wanted) = fs::symlink_metadata(path) else { return false };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut open = entries.filter_map(|entry| fs::metadata(entry.path()).ok());
    open.any(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
}
