//! Parts that go to the store of objects while slices still come, so that little is left to be sent at the end.
//!
//! A thread of its own sends the parts that are synced in `merged`. Its failures are no failures of merging: the
//! publication sends the parts that are missing then, and fails where the store does.

use bigup_core::storage::finish::object_parts::{self, SentParts, Source};
use bigup_core::storage::objects::Objects;
use bigup_core::storage::spool::{Spool, UploadRecord};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread that sends parts. It ends when this is dropped, after the parts that are being sent.
pub struct PartSender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<SentParts>>,
}

#[derive(Default)]
struct Shared {
    task: Mutex<Task>,
    is_new: Condvar,
    stop: AtomicBool,
}

/// The upload, and the bytes of it that are synced.
#[derive(Default)]
struct Task {
    upload: Option<UploadRecord>,
    ready: u64,
}

impl Shared {
    fn task(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartSender {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(objects: Arc<Objects>, spool: Spool, merged: Arc<File>, digests: Arc<File>) -> io::Result<PartSender> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let work = move || send_forever(&of_thread, &objects, &spool, &merged, &digests);
        let thread = std::thread::Builder::new().name("parts".to_owned()).spawn(work)?;
        Ok(PartSender { shared, thread: Some(thread) })
    }

    /// Tells that the first `ready` bytes of `upload` are synced in `merged`.
    pub fn ready(&self, upload: &UploadRecord, ready: u64) {
        let mut task = self.shared.task();
        task.ready = ready;
        task.upload = Some(upload.clone()).filter(object_parts::may_be_sent_early);
        self.shared.is_new.notify_one();
    }

    /// Ends the thread, and tells the parts that it sent.
    pub fn finish(&mut self) -> SentParts {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.is_new.notify_one();
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        self.finish();
    }
}

fn send_forever(shared: &Shared, objects: &Objects, spool: &Spool, merged: &File, digests: &File) -> SentParts {
    let (mut sent, mut multipart, mut done) = (SentParts::default(), None, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let task = shared.task();
        let Some(upload) = task.upload.clone().filter(|_| task.ready > done) else {
            // A stop that was told before this is seen by then.
            drop(shared.is_new.wait_timeout(task, PAUSE));
            continue;
        };
        let ready = task.ready;
        drop(task);
        let source = Source { spool, upload: &upload, merged, digests };
        let sizes = object_parts::sizes_of(&upload);
        let tried = (|| {
            if ready < sizes.part {
                return Ok(());
            }
            if multipart.is_none() {
                multipart = Some(objects.multipart(spool.path(), &upload.file_name, sizes)?);
            }
            let Some(multipart) = multipart.as_ref().filter(|multipart| multipart.sizes() == sizes) else {
                return Ok(());
            };
            object_parts::send_ready(multipart, source, ready, &mut sent, &shared.stop)
        })();
        match tried {
            Ok(()) => done = ready,
            Err(e) => {
                log::info!("{}: parts wait for the store: {e}", upload.file_name);
                multipart = None;
                drop(shared.is_new.wait_timeout(shared.task(), PAUSE));
            }
        }
    }
    sent
}
