//! What people and programs get to see of a push: lines and a bar for people, JSON lines for programs.
//!
//! Results go to standard output, all else to standard error. Shared by all threads; whoever calls is never stopped by
//! an output that nobody reads.

use crate::bar::Bar;
use crate::tally::{Done, Tally};
use bigup_core::name::{FileName, printable, steers};
use bigup_core::plan::Plan;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two `progress` events.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Shortest time between two lines about retries where there is no bar to say it.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Who is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// People: results, notes, a bar on terminals.
    Human,
    /// People who want errors only.
    Quiet,
    /// Programs: one JSON object a line.
    Json,
}

/// Tells of the files of a push, one after the other.
pub struct Report {
    style: Style,
    now: Mutex<Now>,
}

/// The file at work.
struct Now {
    name: Option<FileName>,
    tally: Tally,
    bar: Bar,
    began: Instant,
    last_progress: Option<Instant>,
    last_retry: Option<Instant>,
    retrying: bool,
}

impl Report {
    /// Nothing to tell yet.
    pub fn new(style: Style) -> Report {
        Report { style, now: Mutex::new(Now::of(None)) }
    }

    /// Work on a file begins.
    pub fn file(&self, name: &FileName) {
        *self.now() = Now::of(Some(name.clone()));
    }

    /// It is known how the file is cut and what the server holds of it, in slices and bytes.
    pub fn start(&self, plan: &Plan, slices_held: u64, bytes_held: u64) {
        let mut now = self.now();
        now.tally = Tally::starting(plan, slices_held, bytes_held);
        if self.style == Style::Json {
            now.emit(json!({"event": "start", "file_name": now.name(), "file_size": plan.file_size,
                "slice_size": plan.slice_size, "slice_num": plan.slice_num,
                "slices_held": slices_held, "bytes_held": bytes_held}));
        }
        if let (Style::Human, true, Some(name)) = (self.style, stderr().is_terminal(), &now.name) {
            now.bar = Bar::new(name, plan.file_size, bytes_held);
        }
    }

    /// The server holds so many slices and bytes by now, whatever was counted before.
    pub fn correct(&self, plan: &Plan, slices_stored: u64, bytes_stored: u64) {
        let mut now = self.now();
        let tally = Tally { slices_stored, bytes_stored, ..now.tally.clone() };
        now.tally = Tally { slice_num: plan.slice_num, file_size: plan.file_size, ..tally };
        now.bar.stored(bytes_stored);
    }

    /// A slice of `len` bytes was sent and taken.
    pub fn sent(&self, len: u64) {
        self.moved(|tally| tally.sent(len));
    }

    /// A slice of `len` bytes turned out to be held with our content.
    pub fn matched(&self, len: u64) {
        self.moved(|tally| tally.matched(len));
    }

    fn moved(&self, change: impl FnOnce(&mut Tally)) {
        let mut now = self.now();
        change(&mut now.tally);
        now.bar.stored(now.tally.bytes_stored);
        if std::mem::take(&mut now.retrying) {
            now.bar.message(String::new());
        }
        if self.style == Style::Json && now.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
            now.progress();
        }
    }

    /// Attempt number `attempt` failed as `message` says; the next one follows after `wait`.
    pub fn retry(&self, slice_id: Option<u64>, attempt: u32, wait: Duration, message: &str) {
        log::debug!("attempt {attempt} (slice {slice_id:?}) failed, again in {wait:?}: {message}");
        let mut now = self.now();
        match self.style {
            Style::Json => now.emit(json!({"event": "retry", "file_name": now.name(), "slice_id": slice_id,
                "attempt": attempt, "wait_seconds": wait.as_secs_f64(), "message": message})),
            Style::Human if now.bar.is_shown() => {
                now.retrying = true;
                now.bar.message(format!("retrying: {message}"));
            }
            Style::Human if now.last_retry.is_none_or(|last| last.elapsed() >= RETRY_EVERY) => {
                now.last_retry = Some(Instant::now());
                now.note(&format!("retrying: {message}"));
            }
            Style::Human | Style::Quiet => {}
        }
    }

    /// What goes on now, for the bar.
    pub fn doing(&self, text: String) {
        self.now().bar.message(text);
    }

    /// Something that people should know.
    pub fn note(&self, text: &str) {
        if self.style == Style::Human {
            self.now().note(text);
        }
    }

    /// The file is stored.
    pub fn done(&self, done: &Done) {
        let mut now = self.now();
        now.bar.clear();
        let time = now.began.elapsed();
        match (self.style, &now.name) {
            (Style::Human, Some(name)) => {
                print_line(&now.tally.summary(name, done, time));
                if let Some(digest) = done.file_digest {
                    print_line(&format!("{digest}  {name}"));
                }
            }
            (Style::Json, _) => now.done(done, time),
            _ => {}
        }
        now.name = None;
    }

    /// The push failed: of the file at work, of the file `name`, or altogether.
    pub fn failed(&self, name: Option<&str>, message: &str) {
        let mut now = self.now();
        now.bar.clear();
        let at_work = now.name.take().map(|name| name.as_str().to_owned());
        let name = name.map(str::to_owned).or(at_work);
        match (self.style, name) {
            (Style::Json, name) => now.emit(json!({"event": "error", "file_name": name, "message": message})),
            (_, Some(name)) => eprint_line(&format!("error: {name}: {message}")),
            (_, None) => eprint_line(&format!("error: {message}")),
        }
    }

    /// A signal ends the program.
    pub fn interrupted(&self) {
        let message = {
            let now = self.now();
            match now.name {
                Some(_) => format!("interrupted: {}; run the same command again to go on", now.tally.progress()),
                None => "interrupted".to_owned(),
            }
        };
        match self.style {
            Style::Json => self.failed(None, &message),
            _ => {
                self.now().bar.clear();
                eprint_line(&message);
            }
        }
    }

    /// A line about all files together.
    pub fn total(&self, line: &str) {
        if self.style == Style::Human {
            print_line(line);
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn of(name: Option<FileName>) -> Now {
        Now {
            name,
            tally: Tally::default(),
            bar: Bar::hidden(),
            began: Instant::now(),
            last_progress: None,
            last_retry: None,
            retrying: false,
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(FileName::as_str)
    }

    fn note(&self, text: &str) {
        let prefix = self.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        self.bar.print(&format!("{prefix}{text}"));
    }

    fn progress(&mut self) {
        self.last_progress = Some(Instant::now());
        self.emit(json!({"event": "progress", "file_name": self.name(), "bytes_stored": self.tally.bytes_stored,
            "file_size": self.tally.file_size, "bytes_per_second": self.tally.rate(self.began.elapsed())}));
    }

    fn done(&mut self, done: &Done, time: Duration) {
        if !done.already {
            self.tally.bytes_stored = done.file_size;
            self.tally.file_size = Some(done.file_size);
            self.progress();
        }
        let held = if done.already { done.file_size } else { self.tally.bytes_held };
        self.emit(json!({"event": "done", "file_name": self.name(), "file_size": done.file_size,
            "file_digest": done.file_digest.map(|digest| digest.to_string()),
            "bytes_sent": self.tally.bytes_sent, "bytes_held": held,
            "seconds": time.as_secs_f64(), "already": done.already}));
    }

    fn emit(&self, event: Value) {
        print_json(&event);
    }
}

/// Prints a line of results, in printable form.
pub fn print_line(line: &str) {
    // A reader that went away wants no more lines; the exit code still tells.
    let _ = writeln!(stdout().lock(), "{}", printable(line));
}

/// Prints a line for programs.
pub fn print_json(value: &Value) {
    let _ = writeln!(stdout().lock(), "{}", json_line(value));
}

/// Prints a line for people, in printable form.
pub fn eprint_line(line: &str) {
    // Nothing is left to complain to.
    let _ = writeln!(stderr().lock(), "{}", printable(line));
}

/// `value` as JSON that means the same and may be shown on a terminal: what would steer it, which JSON has in strings only,
/// is escaped (RFC 8259, section 7).
fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if steers(c) {
            line.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_steers_no_terminal_and_means_the_same() {
        let value = json!({"a\u{9b}2J": "é\u{1b}[2J\n\u{202e}\u{e0041}\\\""});
        let line = json_line(&value);
        assert!(!line.chars().any(steers), "{line:?}");
        assert!(line.contains("é") && line.contains(r"\udb40\udc41"), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
