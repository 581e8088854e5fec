//! Sleeping until a slice arrives, the upload changes, the spool goes, a signal asks to stop, or time is over.
//!
//! If the system has no watch left (inotify(7), `max_user_instances` and `max_user_watches`) the spool is scanned now
//! and then instead. On a file system that other machines share, both is done: no watch tells of their changes.

use bigup_core::storage::disk::may_be_shared;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// True if to stop, and something to sleep on until then.
pub struct Stop {
    flag: Arc<AtomicBool>,
    /// Becomes readable with the signal.
    wake: Option<UnixStream>,
}

impl Stop {
    /// Stops on SIGTERM and SIGINT. A second one ends the process on the spot, wherever it is, which loses nothing.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn on_signals() -> io::Result<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        let (wake, signalled) = UnixStream::pair()?;
        // A file that is larger than allowed is an error of the write then, and not our end (setrlimit(2), RLIMIT_FSIZE).
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, and a thread that wakes up finds it set.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        Ok(Stop { flag, wake: Some(wake) })
    }

    /// Never stops; for use within another program.
    pub fn never() -> Stop {
        Stop { flag: Arc::default(), wake: None }
    }

    /// True if to stop now.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

/// An event that ends a wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// Files of these names appeared in the spool. `None`: too many to tell. A signal gives an empty list.
    Changed(Option<Vec<String>>),
    /// The time is over.
    TimeOver,
    /// The spool is gone.
    Gone,
}

/// Time between two scans where inotify is not available.
const WITHOUT_WATCH: Duration = Duration::from_millis(100);

/// Time between two scans where other machines may bring slices.
const SHARED: Duration = Duration::from_millis(500);

/// Watches one spool.
pub struct Watch<'a> {
    /// `None` if no watch was left.
    inotify: Option<Inotify>,
    /// Time after which anything may have changed unseen. `None` if all changes are seen.
    scan_every: Option<Duration>,
    stop: &'a Stop,
}

impl<'a> Watch<'a> {
    /// Begins to watch the folder `path`; from here on nothing is missed.
    ///
    /// # Errors
    /// It does not exist.
    pub fn new(path: &Path, stop: &'a Stop) -> io::Result<Watch<'a>> {
        match watch(path) {
            Ok(inotify) => {
                let scan_every = may_be_shared(path)?.then_some(SHARED);
                Ok(Watch { inotify: Some(inotify), scan_every, stop })
            }
            // Used up, or forbidden: by others, by a limit, or by a sandbox.
            Err(e @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOSPC | Errno::ENOMEM | Errno::ENOSYS | Errno::EPERM)) => {
                log::warn!("{}: cannot be watched, scanned every 100 ms instead: {e}", path.display());
                Ok(Watch::without(stop))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn without(stop: &'a Stop) -> Watch<'a> {
        Watch { inotify: None, scan_every: Some(WITHOUT_WATCH), stop }
    }

    /// Waits for at most `time`, rounded up to milliseconds.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn wait(&mut self, time: Duration) -> io::Result<Wakeup> {
        let scan_in = self.scan_every.filter(|scan_every| time > *scan_every);
        let millis = i32::try_from(scan_in.unwrap_or(time).as_millis() + 1).unwrap_or(i32::MAX);
        let mut fds: Vec<PollFd<'_>> =
            self.inotify.as_ref().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)).into_iter().collect();
        fds.extend(self.stop.wake.as_ref().map(|wake| PollFd::new(wake.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if scan_in.is_some() => Ok(Wakeup::Changed(None)),
            Ok(0) => Ok(Wakeup::TimeOver),
            Ok(_) => self.drain(),
            Err(Errno::EINTR) => Ok(Wakeup::Changed(Some(vec![]))),
            Err(e) => Err(e.into()),
        }
    }

    fn drain(&mut self) -> io::Result<Wakeup> {
        let Some(inotify) = &self.inotify else { return Ok(Wakeup::Changed(Some(vec![]))) };
        let mut names = Some(vec![]);
        loop {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(Wakeup::Changed(names)),
                Err(e) => return Err(e.into()),
            };
            for event in events {
                if event.mask.intersects(AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF) {
                    return Ok(Wakeup::Gone);
                }
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    names = None;
                }
                if let (Some(names), Some(name)) = (&mut names, event.name) {
                    names.extend(name.into_string());
                }
            }
        }
    }
}

fn watch(path: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let wanted = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(path, wanted)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn tells_what_appeared_and_when_the_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        fs::create_dir(&spool).unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        let stop = Stop::never();
        let mut watch = Watch::new(&spool, &stop).unwrap();
        assert_eq!(watch.wait(Duration::ZERO).unwrap(), Wakeup::TimeOver);
        fs::rename(dir.path().join("x"), spool.join("7")).unwrap();
        assert_eq!(watch.wait(LONG).unwrap(), Wakeup::Changed(Some(vec!["7".to_owned()])));
        fs::rename(&spool, dir.path().join("gone")).unwrap();
        assert_eq!(watch.wait(LONG).unwrap(), Wakeup::Gone);
    }
    #[test]
    fn without_a_watch_anything_may_have_changed_and_the_time_still_ends() {
        let stop = Stop::never();
        let mut watch = Watch::without(&stop);
        assert_eq!(watch.wait(LONG).unwrap(), Wakeup::Changed(None));
        assert_eq!(watch.wait(Duration::ZERO).unwrap(), Wakeup::TimeOver);
    }
}
