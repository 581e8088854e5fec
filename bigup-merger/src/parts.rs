//! Parts that go to the store of objects while slices still come, so that little is left to be sent at the end, and so that
//! their space comes back.
//!
//! Threads of their own send the parts that are synced in `merged`, each as soon as it is. Their failures are no failures of
//! merging: the publication sends the parts that are missing then, and fails where the store does. A slice that they find
//! damaged is looked at by the merging thread, which alone cuts `merged`.

use bigup_core::storage::finish::object_parts::{self, PartQueue, Source};
use bigup_core::storage::objects::Objects;
use bigup_core::storage::spool::{Spool, UploadRecord};
use std::fs::File;
use std::io;
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
    changed: Condvar,
}

/// The upload, the bytes of it that are synced, and what became of them.
#[derive(Default)]
struct Task {
    upload: Option<UploadRecord>,
    /// Number of uploads before this one: one of another cut is another upload.
    version: u64,
    /// Bytes that are synced.
    ready: u64,
    /// Number of parts that are in the store or on their way: the first ones.
    taken: u64,
    /// Number of parts that are in the store.
    stored: u64,
    /// The same at the last failure: the store works again once it has more.
    stored_at_failure: u64,
    /// A part could not be sent: no other is begun.
    has_failed: bool,
    is_over: bool,
    /// A slice that differs from its record.
    damaged: Option<u64>,
    /// The reason why parts wait for the store. `None` while they do not.
    trouble: Option<String>,
}

impl Task {
    /// Number of parts that are synced as a whole.
    fn ready_parts(&self) -> u64 {
        let Some(upload) = &self.upload else { return 0 };
        let (sizes, size) = (object_parts::sizes_of(upload), upload.plan.file_size.unwrap_or(0));
        if self.ready >= size { sizes.parts_of(size) } else { self.ready / sizes.part }
    }

    /// The next part, if it can be sent.
    fn next_part(&self) -> Option<u64> {
        (self.taken < self.ready_parts()).then_some(self.taken + 1)
    }

    fn is_behind(&self) -> bool {
        self.stored < self.ready_parts()
    }

    /// Takes over the record of the upload, if it matters for parts that it has changed.
    fn take_over(&mut self, upload: &UploadRecord) {
        let facts = |upload: &UploadRecord| (upload.plan.clone(), upload.gives_parts_back());
        let new = Some(upload).filter(|upload| object_parts::may_be_sent_early(upload));
        if new.map(facts) != self.upload.as_ref().map(facts) {
            (self.upload, self.version) = (new.cloned(), self.version + 1);
            (self.stored, self.taken, self.stored_at_failure) = (0, 0, 0);
        }
    }
}

impl Shared {
    fn task(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, task: MutexGuard<'a, Task>) -> MutexGuard<'a, Task> {
        self.changed.wait(task).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a part to be sent: its upload, and the version of that. `None`: it is over.
    fn some_upload(&self) -> Option<(UploadRecord, u64)> {
        let mut task = self.task();
        loop {
            if task.is_over {
                return None;
            }
            if task.next_part().is_some()
                && let Some(upload) = task.upload.clone()
            {
                task.has_failed = false;
                return Some((upload, task.version));
            }
            task = self.wait(task);
        }
    }
}

/// The parts of one upload that are to be sent.
struct Queue<'a> {
    shared: &'a Shared,
    version: u64,
}

impl PartQueue for Queue<'_> {
    fn next(&self) -> Option<u64> {
        let mut task = self.shared.task();
        loop {
            if task.is_over || task.has_failed || task.version != self.version {
                return None;
            }
            if let Some(number) = task.next_part() {
                task.taken = number;
                return Some(number);
            }
            task = self.shared.wait(task);
        }
    }

    fn is_stored(&self) {
        let mut task = self.shared.task();
        if task.version == self.version {
            task.stored += 1;
        }
        if task.stored > task.stored_at_failure {
            task.trouble = None;
        }
        self.shared.changed.notify_all();
    }

    fn end(&self) {
        self.shared.task().has_failed = true;
        self.shared.changed.notify_all();
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
        task.take_over(upload);
        task.ready = ready;
        self.shared.changed.notify_all();
    }

    /// Bytes of a part. `None`: no part can be sent before all of the file is there.
    pub fn part_size(&self) -> Option<u64> {
        self.shared.task().upload.as_ref().map(|upload| object_parts::sizes_of(upload).part)
    }

    /// True while parts that could be sent are not in the store.
    pub fn is_behind(&self) -> bool {
        self.shared.task().is_behind()
    }

    /// Waits until all parts that could be sent are in the store, or cannot be sent.
    pub fn send_rest(&self) {
        let is_pending = |task: &Task| task.is_behind() && task.trouble.is_none() && task.damaged.is_none();
        let mut task = self.shared.task();
        // A thread that has panicked tells nothing.
        while is_pending(&task) && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let waited = self.shared.changed.wait_timeout(task, PAUSE);
            task = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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
        self.shared.task().is_over = true;
        self.shared.changed.notify_all();
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
    while let Some((upload, version)) = shared.some_upload() {
        let source = Source { spool, upload: &upload, merged, digests };
        let tried = object_parts::multipart(objects, source)
            .and_then(|multipart| object_parts::send_early(&multipart, source, &Queue { shared, version }));
        let mut task = shared.task();
        match tried {
            Ok(None) => {}
            Ok(damaged) => {
                // The merging thread decides about it, and ends this sender.
                task.damaged = damaged;
                return shared.changed.notify_all();
            }
            Err(e) => {
                log::info!("{}: parts wait for the store: {e}", upload.file_name);
                task.trouble = Some(e.to_string());
                task.stored_at_failure = task.stored_at_failure.max(task.stored);
                // Those that are there are found there.
                (task.stored, task.taken) = (0, 0);
                shared.changed.notify_all();
                drop(shared.changed.wait_timeout_while(task, PAUSE, |task| !task.is_over));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::name::FileName;
    use bigup_core::protocol::plan::Plan;
    use std::thread;

    const MIB: u64 = 1 << 20;

    fn upload(slice_size: u64) -> UploadRecord {
        let plan = Plan::new(None, Some(slice_size), Some(20 * MIB)).unwrap();
        UploadRecord::begin(FileName::new("f").unwrap(), plan, None)
    }

    fn sender() -> PartSender {
        PartSender { shared: Arc::default(), thread: None }
    }

    #[test]
    fn each_part_is_sent_once_as_soon_as_it_is_synced() {
        let (sender, upload) = (sender(), upload(8 * MIB));
        sender.ready(&upload, 8 * MIB - 1);
        assert!(!sender.is_behind() && sender.shared.task().next_part().is_none());
        let queue = Queue { shared: &sender.shared, version: 1 };
        thread::scope(|scope| {
            let taking = scope.spawn(|| [queue.next(), queue.next(), queue.next()]);
            sender.ready(&upload, 8 * MIB);
            sender.ready(&upload, 20 * MIB);
            assert_eq!(taking.join().unwrap(), [Some(1), Some(2), Some(3)], "the last one is short");
        });
        assert!(sender.is_behind());
        (1..=3).for_each(|_| queue.is_stored());
        assert!(!sender.is_behind());
        sender.send_rest();
    }

    #[test]
    fn threads_end_with_a_failure_with_another_cut_and_with_the_merger() {
        let (sender, upload) = (sender(), upload(8 * MIB));
        sender.ready(&upload, 20 * MIB);
        let (of_it, version) = sender.shared.some_upload().unwrap();
        assert_eq!((of_it, version), (upload, 1));
        let queue = Queue { shared: &sender.shared, version };
        assert_eq!(queue.next(), Some(1));
        queue.end();
        assert_eq!(queue.next(), None);
        assert!(sender.shared.some_upload().is_some() && queue.next() == Some(2), "it goes on after a pause");
        sender.ready(&self::upload(10 * MIB), 20 * MIB);
        assert_eq!(queue.next(), None);
        let other = Queue { shared: &sender.shared, version: 2 };
        assert_eq!((other.next(), other.next(), sender.part_size()), (Some(1), Some(2), Some(10 * MIB)));
        queue.is_stored();
        assert!(sender.is_behind(), "a part of the cut before counts no more");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.next());
            sender.shared.task().is_over = true;
            sender.shared.changed.notify_all();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert!(sender.shared.some_upload().is_none());
    }
}
