//! The output of a push: lines and a bar for people, JSON lines for programs.
//!
//! Results go to standard output, all else to standard error. Shared by all threads; whoever calls is never stopped by
//! an output that nobody reads. Several files may be at work: each has a [`FileReport`], whose lines name it. Of the
//! locks that of a file comes first, then that of all.

use crate::cli::advice;
use crate::cli::at_work::Now;
use crate::cli::bar::Bar;
use crate::cli::console;
use crate::cli::counts::{PushCounts, count, download_summary};
use crate::cli::display::{AllLine, FileLine, Progress, ProgressDisplay, Waiting, short_time};
use crate::cli::print::{eprint_line, log_line, print_json, print_line};
use crate::client::observer::{Observer, Retry};
use crate::download::Downloaded;
use crate::upload::Uploaded;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::units::show_size;
use serde_json::{Value, json};
use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two `progress` events.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Shortest time between two lines about retries where there is no bar to say it.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Most files whose results have lines of their own where nobody asks for more: those of thousands tell people nothing.
const EACH: u64 = 20;

/// The reader of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// People: results, notes, a bar on terminals.
    Human,
    /// People who want a line for each file, however many there are.
    Verbose,
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
    /// Bytes of the stored files.
    bytes: u64,
    /// Bytes that were sent or received for them.
    moved: u64,
    /// The beginning of the command.
    began: Instant,
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

impl Report {
    /// A report for `style`, of no file so far.
    pub fn new(style: Style) -> Report {
        let (bar, began) = (Bar::hidden(), Instant::now());
        let all =
            All { expected: 0, stored: 0, over: 0, bytes: 0, moved: 0, began, is_many: false, bar, at_work: vec![] };
        Report { style, all: Mutex::new(all), display: Arc::default() }
    }

    /// So many files are to be pushed, of so many bytes. `None`: not known.
    pub fn expect(&self, files: u64, bytes: Option<u64>) {
        let mut all = self.all();
        all.expected = files;
        if !self.is_for_people() || !stderr().is_terminal() || !console::can_draw() {
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
        log_line(text);
        if self.is_for_people() {
            self.all().bar.print(text);
        }
    }

    /// A file waits for this reason. People see it if it is `important`, or if they want to see all.
    pub fn waits(&self, name: &str, reason: &str, is_important: bool) {
        let event = json!({"event": "waiting", "file_name": name, "reason": reason});
        self.event(event, &format!("{name} waits: {reason}"), is_important);
    }

    /// An event for programs, and the line for people, who see it if it is `important`, or if they want to see all.
    pub fn event(&self, event: Value, line: &str, is_important: bool) {
        log_line(line);
        match self.style {
            Style::Json => print_json(&event),
            Style::Verbose => self.all().bar.print(line),
            Style::Human if is_important => self.all().bar.print(line),
            Style::Human | Style::Quiet => {}
        }
    }

    /// Several of them: of many, people see the first ones.
    pub fn notes(&self, notes: &[String]) {
        let shown = if self.style == Style::Verbose { notes.len() } else { notes.len().min(EACH as usize) };
        notes[..shown].iter().for_each(|note| self.note(note));
        notes[shown..].iter().for_each(|note| log_line(note));
        if shown < notes.len() {
            self.note(&format!("{} more such notes (--verbose shows all)", notes.len() - shown));
        }
    }

    /// The push failed, of `name` or altogether.
    pub fn failed(&self, name: Option<&str>, message: &str) {
        log_line(&format!("error: {}{message}", name.map(|name| format!("{name}: ")).unwrap_or_default()));
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

    /// A signal ends the program, which would have gone on for ever.
    pub fn stopped(&self) {
        self.end();
        let message = "stopped: what is not stored yet is pushed after the next start";
        match self.style {
            Style::Json => self.failed(None, message),
            _ => eprint_line(message),
        }
    }

    /// A line about all files together.
    pub fn total(&self, line: &str) {
        log_line(line);
        if self.is_for_people() {
            print_line(line);
        }
    }

    /// The sum of all files, which were `done`; besides those that were begun so many failed.
    pub fn summary(&self, done: &str, never_begun: u64) {
        let (files, failed, bytes, moved, time) = {
            let all = self.all();
            (all.stored, all.over - all.stored + never_begun, all.bytes, all.moved, all.began.elapsed())
        };
        let rate = (moved as f64 / time.as_secs_f64().max(0.001)) as u64;
        if self.style == Style::Json {
            print_json(&json!({"event": "total", "files": files, "failed": failed, "bytes": bytes,
                "bytes_moved": moved, "seconds": time.as_secs_f64(), "bytes_per_second": rate}));
        }
        let mut line = format!("{}, {} {done}", count(files, "file"), show_size(bytes));
        if moved > 0 {
            line += &format!(" in {:.1} s ({}/s)", time.as_secs_f64(), show_size(rate));
        }
        if failed > 0 {
            line += &format!("; {failed} failed");
        }
        self.total(&line);
    }

    fn is_for_people(&self) -> bool {
        matches!(self.style, Style::Human | Style::Verbose)
    }

    /// True if each file has lines of its own.
    fn shows_each(&self) -> bool {
        self.style == Style::Verbose || self.style == Style::Human && self.all().expected <= EACH
    }

    /// Prints lines of results, which stay together.
    fn results(&self, lines: &[String]) {
        lines.iter().for_each(|line| log_line(line));
        if !self.shows_each() {
            return;
        }
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
    /// A file of `bytes` is stored, of which so many moved.
    fn add(&mut self, bytes: u64, moved: u64) {
        self.stored += 1;
        self.bytes += bytes;
        self.moved += moved;
    }

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
            Style::Human | Style::Verbose if self.report.all().bar.is_shown() => {
                let until = Instant::now() + left;
                self.report.display().waiting = Some(Waiting { why: error.in_short(), until });
            }
            Style::Human | Style::Verbose if now.last_retry.is_none_or(|last| last.elapsed() >= RETRY_EVERY) => {
                now.last_retry = Some(Instant::now());
                self.print(&now, &format!("retrying for {}: {}", short_time(left), advice::of_call(error)));
            }
            Style::Human | Style::Verbose | Style::Quiet => {}
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
        let now = self.now();
        log_line(&format!("{}: {text}", now.name));
        if self.report.is_for_people() {
            self.print(&now, text);
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

    /// The file was stored as it began: it came with others, in one request.
    pub fn stored_at_once(&self, done: &Uploaded) {
        if let Ok(plan) = Plan::new(Some(1), Some(done.file_size), Some(done.file_size)) {
            self.started(&plan, 0, 0);
        }
        if !done.already {
            self.sent(done.file_size);
        }
    }

    /// The file is stored.
    pub fn done(self, done: &Uploaded) {
        {
            let mut now = self.now();
            now.over(Some(done.file_size), &mut self.report.display());
            let time = now.began.elapsed();
            if self.style() == Style::Json {
                now.done(done, time);
            }
            let digest = done.file_digest.map(|digest| format!("{digest}  {}", now.name));
            let lines = [Some(now.counts.summary(&now.name, done, time)), digest];
            self.report.results(&lines.into_iter().flatten().collect::<Vec<_>>());
        }
        let moved = self.now().counts.bytes_sent;
        self.end(|all| all.add(done.file_size, moved));
    }

    /// The file is here.
    pub fn got(self, done: &Downloaded) {
        {
            let mut now = self.now();
            now.over(Some(done.file_size), &mut self.report.display());
            let time = now.began.elapsed();
            if self.style() == Style::Json {
                now.got(done, time);
            }
            let digest = format!("{}  {}", done.file_digest, now.name);
            self.report.results(&[download_summary(&now.name, done, time), digest]);
        }
        self.end(|all| all.add(done.file_size, done.bytes_received));
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

    /// The file is not pushed now, for this reason, and will be tried again.
    pub fn waits(self, reason: &str) {
        let name = {
            let mut now = self.now();
            now.over(None, &mut self.report.display());
            now.name.as_str().to_owned()
        };
        self.report.waits(&name, reason, true);
        self.set_aside();
    }

    /// The file is not pushed in this way; its push begins anew.
    pub fn set_aside(self) {
        self.report.all().at_work.retain(|now| !Arc::ptr_eq(now, &self.now));
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
