//! Syncing in a thread of its own, so that appending goes on while the disk writes.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Syncs the same files again and again, one sync at a time.
pub struct Syncer {
    ask: Option<Sender<()>>,
    done: Receiver<(io::Result<()>, Duration)>,
    thread: Option<JoinHandle<()>>,
    at_work: bool,
    took: Duration,
}

impl Syncer {
    /// Starts the thread for `files`, which are synced in this order.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(files: Vec<Arc<File>>) -> io::Result<Syncer> {
        let (ask, asked) = channel::<()>();
        let (tell, done) = channel();
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
            for () in asked {
                let began = Instant::now();
                let synced = files.iter().try_for_each(|file| file.sync_data());
                if tell.send((synced, began.elapsed())).is_err() {
                    return;
                }
            }
        })?;
        Ok(Syncer { ask: Some(ask), done, thread: Some(thread), at_work: false, took: Duration::ZERO })
    }

    /// True if a sync is under way whose end was not taken yet.
    pub fn is_at_work(&self) -> bool {
        self.at_work
    }

    /// Begins a sync of all that was written so far. No other sync may be under way.
    pub fn begin(&mut self) {
        debug_assert!(!self.at_work);
        // The thread ends only after we do.
        self.at_work = self.ask.as_ref().is_some_and(|ask| ask.send(()).is_ok());
    }

    /// Takes the end of the sync under way, waiting for it at most `patience`; `None` waits for as long as it takes.
    /// `Ok(false)`: it goes on, or there was no sync.
    ///
    /// # Errors
    /// Bytes written before that sync began may not have reached the disk, and never will.
    pub fn end(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        if !self.at_work {
            return Ok(false);
        }
        let ended = match patience {
            Some(patience) => match self.done.recv_timeout(patience) {
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                ended => ended.map_err(io::Error::other),
            },
            None => self.done.recv().map_err(io::Error::other),
        };
        self.at_work = false;
        let (synced, took) = ended?;
        self.took = took;
        synced.map(|()| true)
    }

    /// Duration of the sync whose end was taken last.
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if a sync does, which is a call of the kernel.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sync_that_begins_ends_once() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut syncer = Syncer::start(vec![Arc::clone(&file), file]).unwrap();
        assert!(!syncer.end(None).unwrap(), "there was none");
        for _ in 0..3 {
            syncer.begin();
            assert!(syncer.is_at_work());
            assert!(syncer.end(None).unwrap());
            assert!(!syncer.end(Some(Duration::ZERO)).unwrap());
        }
        syncer.begin();
    }

    #[test]
    fn a_failed_sync_is_told() {
        // A pipe cannot be synced (fsync(2), EINVAL).
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut syncer = Syncer::start(vec![Arc::new(file)]).unwrap();
        syncer.begin();
        assert!(syncer.end(None).is_err());
        assert!(!syncer.is_at_work());
    }
}
