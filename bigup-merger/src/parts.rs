//! Parts that go to the store of objects while slices still come, so that little is left to be sent at the end, and so that
//! their space comes back.
//!
//! A thread of its own sends the parts that are synced in `merged`. Its failures are no failures of merging: the
//! publication sends the parts that are missing then, and fails where the store does. A slice that it finds damaged is
//! looked at by the merging thread, which alone cuts `merged`.

use bigup_core::storage::finish::object_parts::{self, Source};
use bigup_core::storage::objects::Objects;
use bigup_core::storage::spool::{Spool, UploadRecord};
use std::collections::BTreeSet;
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
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    task: Mutex<Task>,
    is_new: Condvar,
    stop: AtomicBool,
}

/// The upload, the bytes of it that are synced, and what became of them.
#[derive(Default)]
struct Task {
    upload: Option<UploadRecord>,
    ready: u64,
    /// True while whole parts of the ready bytes are not in the store.
    is_behind: bool,
    /// A slice that differs from its record.
    damaged: Option<u64>,
    /// The reason why parts wait for the store. `None` while they do not.
    trouble: Option<String>,
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
        task.upload = Some(upload.clone()).filter(object_parts::may_be_sent_early);
        let is_more = task.upload.as_ref().is_some_and(|upload| ready >= object_parts::sizes_of(upload).part);
        task.is_behind |= is_more && ready > task.ready;
        task.ready = ready;
        self.shared.is_new.notify_one();
    }

    /// True while parts that could be sent are not in the store.
    pub fn is_behind(&self) -> bool {
        self.shared.task().is_behind
    }

    /// The reason why parts wait for the store. `None` while they do not.
    pub fn trouble(&self) -> Option<String> {
        self.shared.task().trouble.clone()
    }

    /// A slice that differed from its record when it was to be sent: once.
    pub fn damaged(&self) -> Option<u64> {
        self.shared.task().damaged.take()
    }

    /// Ends the thread.
    pub fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.is_new.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that sends parts has panicked");
        }
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        self.finish();
    }
}

fn send_forever(shared: &Shared, objects: &Objects, spool: &Spool, merged: &File, digests: &File) {
    let (mut sent, mut multipart, mut done) = (BTreeSet::new(), None, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let task = shared.task();
        let Some(upload) = task.upload.clone().filter(|_| task.ready != done) else {
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
                return Ok(None);
            }
            if multipart.is_none() {
                multipart = Some(object_parts::multipart(objects, source)?);
                sent.clear();
            }
            let Some(multipart) = multipart.as_ref().filter(|multipart| multipart.sizes() == sizes) else {
                return Ok(None);
            };
            object_parts::send_ready(multipart, source, ready, &mut sent, &shared.stop)
        })();
        let mut task = shared.task();
        match tried {
            Ok(damaged) => {
                done = ready;
                task.damaged = damaged;
                task.is_behind = task.ready > ready && task.ready / sizes.part > ready / sizes.part;
                task.trouble = None;
            }
            Err(e) => {
                log::info!("{}: parts wait for the store: {e}", upload.file_name);
                task.trouble = Some(e.to_string());
                multipart = None;
                drop(shared.is_new.wait_timeout(task, PAUSE));
            }
        }
    }
}
