//! The output of a push: lines and a bar for people, JSON lines for programs.
//!
//! Results go to standard output, all else to standard error. Shared by all threads; whoever calls is never stopped by
//! an output that nobody reads. Several files may be at work: each has a [`FileReport`], whose lines name it. Of the
//! locks that of a file comes first, then that of all.

use crate::cli::advice;
use crate::cli::bar::Bar;
use crate::cli::console;
use crate::cli::counts::PushCounts;
use crate::cli::display::{AllLine, FileLine, Progress, ProgressDisplay, Waiting, short_time};
use crate::cli::print::{eprint_line, print_json, print_line};
use crate::client::observer::{Observer, Retry};
use crate::upload::Uploaded;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use serde_json::{Value, json};
use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two `progress` events.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Shortest time between two lines about retries where there is no bar to say it.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// The reader of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// People: results, notes, a bar on terminals.
    Human,
    /// People who want errors only.
    Quiet,
    /// Programs: one JSON object a line.
    Json,
}

/// Tells of the files of a push.
pub struct Report {
    style: Style,
    all: Mutex<All>,
    display: Arc<Mutex<ProgressDisplay>>,
}

/// All files together.
struct All {
    /// Number of files to push. 0: not said.
    expected: u64,
    /// Number of stored files.
    stored: u64,
    /// Number of files that are over, stored or not.
    over: u64,
    /// Several are at work at a time, so that none has a line.
    is_many: bool,
    /// Shows the display on the terminal.
    bar: Bar,
    /// Those at work.
    at_work: Vec<Arc<Mutex<Now>>>,
}

/// Tells of one file. Shared by all threads that work on it.
pub struct FileReport<'a> {
    report: &'a Report,
    now: Arc<Mutex<Now>>,
}

/// A file at work.
struct Now {
    name: FileName,
    counts: PushCounts,
    /// Bytes that all files together have from this one.
    counted: u64,
    began: Instant,
    /// When the server last answered that it has a slice.
    last_slice: Option<Instant>,
    last_progress: Option<Instant>,
    last_retry: Option<Instant>,
}

impl Report {
    /// A report for `style`, of no file so far.
    pub fn new(style: Style) -> Report {
        let all = All { expected: 0, stored: 0, over: 0, is_many: false, bar: Bar::hidden(), at_work: vec![] };
        Report { style, all: Mutex::new(all), display: Arc::default() }
    }

    /// So many files are to be pushed, of so many bytes. `None`: not known.
    pub fn expect(&self, files: u64, bytes: Option<u64>) {
        let mut all = self.all();
        all.expected = files;
        if self.style != Style::Human || !stderr().is_terminal() || !console::can_draw() {
            return;
        }
        if files > 1 {
            let progress = Progress::new(0, bytes, Instant::now());
            self.display().all = Some(AllLine { files, over: 0, progress });
        }
        all.bar = Bar::of(Arc::clone(&self.display));
    }

    /// Several files are at work at a time from here on.
    pub fn many(&self) {
        self.all().is_many = true;
    }

    /// From here on they are at work one after the other.
    pub fn one_by_one(&self) {
        self.all().is_many = false;
    }

    /// All files are over, or given up.
    pub fn end(&self) {
        self.all().bar.clear();
    }

    /// Work on a file begins.
    pub fn file(&self, name: &FileName) -> FileReport<'_> {
        let now = Arc::new(Mutex::new(Now::of(name.clone())));
        let mut all = self.all();
        all.at_work.push(Arc::clone(&now));
        self.display().file = (!all.is_many).then(|| FileLine::new(name.as_str()));
        FileReport { report: self, now }
    }

    /// Something that people should know.
    pub fn note(&self, text: &str) {
        if self.style == Style::Human {
            self.all().bar.print(text);
        }
    }

    /// The push failed, of `name` or altogether.
    pub fn failed(&self, name: Option<&str>, message: &str) {
        let all = self.all();
        match (self.style, name) {
            (Style::Json, name) => {
                print_json(&json!({"event": "error", "file_name": name, "message": message}));
            }
            (_, Some(name)) => all.bar.print(&format!("error: {name}: {message}")),
            (_, None) => all.bar.print(&format!("error: {message}")),
        }
    }

    /// A signal ends the program.
    pub fn interrupted(&self) {
        let last = self.all().at_work.last().cloned();
        let current = last.map(|now| {
            let now = now.lock().unwrap_or_else(PoisonError::into_inner);
            (now.name.as_str().to_owned(), now.counts.progress())
        });
        let (name, progress) = current.unzip();
        let (summary, name) = {
            let all = self.all();
            all.bar.clear();
            (all.progress(progress), name.filter(|_| all.expected <= 1))
        };
        let message = match summary {
            Some(summary) => format!("interrupted: {summary}; run the same command again to go on"),
            None => "interrupted".to_owned(),
        };
        match self.style {
            Style::Json => self.failed(name.as_deref(), &message),
            _ => eprint_line(&message),
        }
    }

    /// A line about all files together.
    pub fn total(&self, line: &str) {
        if self.style == Style::Human {
            print_line(line);
        }
    }

    /// Prints lines of results, which stay together.
    fn results(&self, lines: &[String]) {
        self.all().bar.pause(|| lines.iter().for_each(|line| print_line(line)));
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last of all locks: nobody takes another one, or prints, while holding it.
    fn display(&self) -> MutexGuard<'_, ProgressDisplay> {
        self.display.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// The progress; `current` is that of the file that was begun last. `None`: nothing was begun.
    fn progress(&self, current: Option<String>) -> Option<String> {
        let files = || format!("{} of {} files are stored", self.stored, self.expected);
        match (current, self.expected) {
            (current, 0 | 1) => current,
            (Some(current), _) if self.at_work.len() == 1 => Some(format!("{}; of the next, {current}", files())),
            (current, _) => (current.is_some() || self.over > 0).then(files),
        }
    }
}

impl Observer for FileReport<'_> {
    fn started(&self, plan: &Plan, slices_held: u64, bytes_held: u64) {
        let mut now = self.now();
        now.counts = PushCounts::starting(plan, slices_held, bytes_held);
        if self.style() == Style::Json {
            now.emit(json!({"event": "start", "file_name": now.name(), "file_size": plan.file_size,
                "slice_size": plan.slice_size, "slice_num": plan.slice_num,
                "slices_held": slices_held, "bytes_held": bytes_held}));
        }
        now.correct(&mut self.report.display());
    }

    fn corrected(&self, plan: &Plan, slices_stored: u64, bytes_stored: u64) {
        let mut now = self.now();
        let counts = PushCounts { slices_stored, bytes_stored, ..now.counts.clone() };
        now.counts = PushCounts { slice_num: plan.slice_num, file_size: plan.file_size, ..counts };
        now.correct(&mut self.report.display());
    }

    fn sent(&self, len: u64) {
        self.moved(len, |counts| counts.sent(len));
    }

    fn matched(&self, len: u64) {
        self.moved(len, |counts| counts.matched(len));
    }

    fn retrying(&self, retry: &Retry<'_>) {
        let &Retry { slice_id, attempt, wait, left, error } = retry;
        let mut now = self.now();
        log::debug!("{}: attempt {attempt} (slice {slice_id:?}) failed, again in {wait:?}: {error}", now.name);
        match self.style() {
            Style::Json => now.emit(json!({"event": "retry", "file_name": now.name(), "slice_id": slice_id,
                "attempt": attempt, "wait_seconds": wait.as_secs_f64(), "message": advice::of_call(error)})),
            Style::Human if self.report.all().bar.is_shown() => {
                let until = Instant::now() + left;
                self.report.display().waiting = Some(Waiting { why: error.in_short(), until });
            }
            Style::Human if now.last_retry.is_none_or(|last| last.elapsed() >= RETRY_EVERY) => {
                now.last_retry = Some(Instant::now());
                self.print(&now, &format!("retrying for {}: {}", short_time(left), advice::of_call(error)));
            }
            Style::Human | Style::Quiet => {}
        }
    }

    fn answered(&self) {
        self.report.display().waiting = None;
    }

    fn doing(&self, text: &str) {
        if let Some(file) = &mut self.report.display().file {
            file.doing(text);
        }
    }

    fn noted(&self, text: &str) {
        if self.style() == Style::Human {
            self.print(&self.now(), text);
        }
    }
}

impl FileReport<'_> {
    fn moved(&self, len: u64, change: impl FnOnce(&mut PushCounts)) {
        let mut now = self.now();
        change(&mut now.counts);
        now.last_slice = Some(Instant::now());
        now.moved(len, &mut self.report.display());
        if self.style() == Style::Json && now.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
            now.progress();
        }
    }

    /// The file is stored.
    pub fn done(self, done: &Uploaded) {
        {
            let mut now = self.now();
            now.over(Some(done.file_size), &mut self.report.display());
            let time = now.began.elapsed();
            match self.style() {
                Style::Human => {
                    let digest = done.file_digest.map(|digest| format!("{digest}  {}", now.name));
                    let lines: Vec<String> =
                        [Some(now.counts.summary(&now.name, done, time)), digest].into_iter().flatten().collect();
                    self.report.results(&lines);
                }
                Style::Json => now.done(done, time),
                Style::Quiet => {}
            }
        }
        self.end(|all| all.stored += 1);
    }

    /// The file could not be pushed.
    pub fn failed(self, message: &str) {
        let name = {
            let mut now = self.now();
            now.over(None, &mut self.report.display());
            now.name.as_str().to_owned()
        };
        self.report.failed(Some(&name), message);
        self.end(|_| {});
    }

    fn end(&self, count: impl FnOnce(&mut All)) {
        let mut all = self.report.all();
        all.at_work.retain(|now| !Arc::ptr_eq(now, &self.now));
        all.over += 1;
        count(&mut all);
    }

    fn print(&self, now: &Now, text: &str) {
        self.report.all().bar.print(&format!("{}: {text}", now.name));
    }

    fn style(&self) -> Style {
        self.report.style
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn of(name: FileName) -> Now {
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

    fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The counts say something else than was counted so far.
    fn correct(&mut self, display: &mut ProgressDisplay) {
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
    fn moved(&mut self, len: u64, display: &mut ProgressDisplay) {
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
    fn over(&mut self, stored: Option<u64>, display: &mut ProgressDisplay) {
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

    fn progress(&mut self) {
        self.last_progress = Some(Instant::now());
        self.emit(json!({"event": "progress", "file_name": self.name(), "bytes_stored": self.counts.bytes_stored,
            "file_size": self.counts.file_size, "bytes_per_second": self.counts.rate(self.began.elapsed())}));
    }

    fn done(&mut self, done: &Uploaded, time: Duration) {
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

    fn emit(&self, event: Value) {
        print_json(&event);
    }
}
