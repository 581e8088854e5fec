//! A file at work: its counts, what the display has of it, and its events for programs.

use crate::cli::counts::PushCounts;
use crate::cli::display::{Progress, ProgressDisplay};
use crate::cli::print::print_json;
use crate::download::Downloaded;
use crate::upload::Uploaded;
use bigup_core::protocol::name::FileName;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A file at work.
pub struct Now {
    /// Its name on the server.
    pub name: FileName,
    /// Its slices and bytes.
    pub counts: PushCounts,
    /// Bytes that all files together have from this one.
    counted: u64,
    /// The beginning of the work on it.
    pub began: Instant,
    /// When the server last answered that it has a slice.
    pub last_slice: Option<Instant>,
    /// When its progress was told to a program.
    pub last_progress: Option<Instant>,
    /// When a retry was told.
    pub last_retry: Option<Instant>,
}

impl Now {
    /// Nothing of it is known yet.
    pub fn of(name: FileName) -> Now {
        Now {
            name,
            counts: PushCounts::default(),
            counted: 0,
            began: Instant::now(),
            last_slice: None,
            last_progress: None,
            last_retry: None,
        }
    }

    /// Its name as text.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The counts say something else than was counted so far.
    pub fn correct(&mut self, display: &mut ProgressDisplay) {
        let PushCounts { bytes_stored, file_size, .. } = self.counts;
        if let Some(all) = &mut display.all {
            all.progress.done = (all.progress.done + bytes_stored).saturating_sub(self.counted);
        }
        self.counted = bytes_stored;
        if let Some(file) = &mut display.file {
            match &mut file.progress {
                Some(progress) => (progress.done, progress.total) = (bytes_stored, file_size),
                none => *none = Some(Progress::new(bytes_stored, file_size, Instant::now())),
            }
            file.doing("");
        }
    }

    /// So many bytes more are stored.
    pub fn moved(&mut self, len: u64, display: &mut ProgressDisplay) {
        let now = Instant::now();
        self.counted += len;
        let file = display.file.as_mut().and_then(|file| {
            file.doing("");
            file.progress.as_mut()
        });
        let all = display.all.as_mut().map(|all| &mut all.progress);
        file.into_iter().chain(all).for_each(|progress| progress.moved(len, now));
        display.waiting = None;
    }

    /// The file is over; stored are so many bytes. `None`: it failed, and the rest of it will never be stored.
    pub fn over(&mut self, stored: Option<u64>, display: &mut ProgressDisplay) {
        display.file = None;
        display.waiting = None;
        let Some(all) = &mut display.all else { return };
        all.over += 1;
        match stored {
            Some(stored) => all.progress.moved(stored.saturating_sub(self.counted), Instant::now()),
            None => {
                let never = self.counts.file_size.unwrap_or(0).saturating_sub(self.counted);
                all.progress.total = all.progress.total.map(|total| total.saturating_sub(never));
            }
        }
    }

    /// Tells a program of the progress.
    pub fn progress(&mut self) {
        self.last_progress = Some(Instant::now());
        self.emit(json!({"event": "progress", "file_name": self.name(), "bytes_stored": self.counts.bytes_stored,
            "file_size": self.counts.file_size, "bytes_per_second": self.counts.rate(self.began.elapsed())}));
    }

    /// Tells a program of the end.
    pub fn done(&mut self, done: &Uploaded, time: Duration) {
        if !done.already {
            self.counts.bytes_stored = done.file_size;
            self.counts.file_size = Some(done.file_size);
            self.progress();
        }
        let held = if done.already { done.file_size } else { self.counts.bytes_held };
        let finish = self.last_slice.filter(|_| !done.at_once).map_or(Duration::ZERO, |last| last.elapsed());
        self.emit(json!({"event": "done", "file_name": self.name(), "file_size": done.file_size,
            "file_digest": done.file_digest.map(|digest| digest.to_string()),
            "bytes_sent": self.counts.bytes_sent, "bytes_held": held,
            "seconds": time.as_secs_f64(), "finish_seconds": finish.as_secs_f64(), "already": done.already}));
    }

    /// Tells a program of the end of a download.
    pub fn got(&mut self, done: &Downloaded, time: Duration) {
        let held = done.file_size - done.bytes_received;
        self.emit(json!({"event": "done", "file_name": self.name(), "file_size": done.file_size,
            "file_digest": done.file_digest.to_string(), "bytes_received": done.bytes_received, "bytes_held": held,
            "seconds": time.as_secs_f64(), "already": done.already}));
    }

    /// Tells a program of an event.
    pub fn emit(&self, event: Value) {
        print_json(&event);
    }
}
