//! The command `watch`: pushes the files of a folder, each once it is complete, for as long as the program runs.
//!
//! One thread finds files and judges them; another one pushes those that are ready, in batches, as `push` does. A batch has
//! many small files, or ends with a large one, so that small ones need not wait for all large ones. While the server takes
//! files, the next batch is made ready during the push of one; else single files are tried, with growing pauses.

use crate::cli::args::watch::{OnChange, WatchArgs};
use crate::cli::counts::count;
use crate::cli::default_folder::default_folder;
use crate::cli::filter::Filter;
use crate::cli::followers::{Followers, Lines};
use crate::cli::inputs::{Input, InputFile, Inputs};
use crate::cli::push::{Interest, Line, push_each};
use crate::cli::report::Report;
use crate::cli::systemd;
use crate::cli::watch_status::{self, MOST_NAMED, StatusWriter, WaitingFile, WatchStatus};
use crate::client::address::masked;
use crate::source::error::SourceError;
use crate::source::fingerprint::Fingerprint;
use crate::source::system;
use crate::upload::error::UploadError;
use crate::upload::{Uploaded, is_small};
use crate::watch::afterwards::{End, Then};
use crate::watch::completeness::Waiting;
use crate::watch::journal::Journal;
use crate::watch::paths::{below, numbered, place};
use crate::watch::rules::Rules;
use crate::watch::{Folder, Happening, Outcome, Ready, Settings};
use anyhow::{Context, bail, ensure};
use bigup_core::protocol::name::FileName;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded, select};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Files that are left out unless a pattern like `!.*` takes that back: those that other programs have not finished, and
/// hidden ones.
const UNFINISHED: [&str; 4] = ["*.part", "*.tmp", "~*", ".*"];

/// Most files of the first batch; it grows while the server takes them.
const FIRST_BATCH: usize = 64;

/// Most files of a batch.
const LARGEST_BATCH: usize = 4096;

/// Wait after a batch of which the server took nothing; it doubles from one to the next.
const FIRST_REST: Duration = Duration::from_secs(1);

/// Longest wait.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Time without a push after which connections are closed, and memory is given back.
const IDLE: Duration = Duration::from_secs(5);

/// Smallest file that is sent while it grows, in bytes: a smaller one is pushed in a moment.
const FOLLOWED_FROM: u64 = 16 << 20;

/// Most lines about files that wait that people see in a minute.
const LINES_A_MINUTE: u32 = 20;

/// Watches the folder of `args` until the server turns us away; or shows the state of its watches, and returns true if all
/// of them are at work.
///
/// # Errors
/// The folder, the place on the server or the journal cannot be used, or the server accepts the token no more.
pub fn run(mut args: WatchArgs, report: &Report) -> anyhow::Result<bool> {
    args.push.replace = args.changed == OnChange::Replace;
    let args = &args;
    let state = args.state.clone().map_or_else(state_folder, Ok)?;
    if args.status {
        return watch_status::show(args, &state);
    }
    let given = args.push.paths.first().map_or(Path::new("."), |path| path.as_path());
    ensure!(given.is_dir(), "{} is no folder: watch takes a folder, push takes files", given.display());
    let root = system::real_path(given).with_context(|| given.display().to_string())?;
    let line = Line::new(&args.push, None)?;
    let into = match &args.push.into {
        Some(into) => Some(into.clone()),
        None => default_folder(&line.client, args.push.retry_policy(), report)?,
    };
    let into = into.unwrap_or_default().trim_end_matches('/').to_owned();
    FileName::new(&below(&into, "x")).map_err(|error| anyhow::anyhow!("--into {into}: {error}"))?;
    let then = usable(&args.then)?;
    std::fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
    let rules = Choice::new(args, &root, &[Some(system::real_path(&state)?), folder_of(&then)])?;
    let goal = format!("{} {into}/", args.push.server.url);
    let journal = Journal::open(&state, &root, &goal)?;
    // Of another watch of this to the same place it is not touched.
    args.metrics_file.as_ref().map_or(Ok(()), |path| usable_metrics_file(path, &root))?;
    let status = StatusWriter::new(journal.path(), args.metrics_file.clone());
    let (status, journal) = (RefCell::new(status), Mutex::new(journal));
    let (begun, said) =
        (WatchStatus::begin(&root, &format!("{} {into}/", masked(&args.push.server.url))), Cell::default());
    let work = Work { args, report, into: &into, root: &root, journal: &journal, said, status, begun };
    let growing_from = args.follow.then_some(FOLLOWED_FROM);
    let settings = Settings {
        quiet: args.quiet(),
        scan_every: args.scan,
        poll_every: args.poll,
        min_age: args.min_age,
        then,
        keeping: args.keeping(),
        growing_from,
    };
    let lines = &Lines::new(args, line);
    thread::scope(|scope| {
        let (give, batches) = bounded(1);
        let (tell, over) = bounded(1);
        let pusher = Pusher { args, report, into: &into, root: &root, journal: &journal, lines };
        scope.spawn(move || pusher.all(&batches, &tell));
        let followers = Followers::new(scope, args, report, (&root, &into), lines);
        work.forever(&rules, settings, &give, &over, followers).map(|()| false)
    })
}

/// The folder of journals: `bigup` in `XDG_STATE_HOME` (XDG Base Directory Specification), or else in `~/.local/state`; on
/// Windows in `%LOCALAPPDATA%`.
fn state_folder() -> anyhow::Result<PathBuf> {
    let base = if cfg!(windows) {
        env::var_os("LOCALAPPDATA").map(PathBuf::from)
    } else {
        let given = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| env::home_dir().map(|home| home.join(".local/state")))
    };
    let base = base.context("there is no folder for the journal: give --state, or set XDG_STATE_HOME or HOME")?;
    Ok(base.join("bigup"))
}

/// Checks that a file of metrics can be written, and is not one of the files that are pushed.
fn usable_metrics_file(path: &Path, root: &Path) -> anyhow::Result<()> {
    let shown = format!("--metrics-file {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = system::real_path(folder).with_context(|| shown.clone())?;
    ensure!(!folder.starts_with(root), "{shown} is in the watched folder, so it would be pushed: use another folder");
    watch_status::replace(path, b"").with_context(|| shown)
}

/// The end of files, with a folder that is there.
fn usable(then: &Then) -> anyhow::Result<Then> {
    let Then::Move(folder) = then else { return Ok(then.clone()) };
    let made = std::fs::create_dir_all(folder).and_then(|()| system::real_path(folder));
    Ok(Then::Move(made.with_context(|| format!("--then move={}", folder.display()))?))
}

fn folder_of(then: &Then) -> Option<PathBuf> {
    match then {
        Then::Move(folder) => Some(folder.clone()),
        Then::Keep | Then::Delete => None,
    }
}

/// The choice of files by the options.
struct Choice {
    filter: Filter,
    /// Matches the files that say that their folders are complete.
    markers: Option<Filter>,
    /// Folders of our own in the watched one.
    own: Vec<PathBuf>,
}

impl Choice {
    fn new(args: &WatchArgs, root: &Path, own: &[Option<PathBuf>]) -> anyhow::Result<Choice> {
        let push = &args.push;
        let exclude: Vec<String> = UNFINISHED.map(str::to_owned).into_iter().chain(push.exclude.clone()).collect();
        let filter = Filter::new(&push.include, &exclude, push.max_size)?;
        let ready_when = args.ready_when.as_ref().map(|pattern| Filter::new(std::slice::from_ref(pattern), &[], None));
        let markers = ready_when.transpose().context("--ready-when")?;
        let mut inside = vec![];
        for folder in own.iter().flatten() {
            match folder.strip_prefix(root) {
                Ok(path) if path.as_os_str().is_empty() => {
                    bail!("{} is the watched folder: --state and --then move need another one", folder.display());
                }
                Ok(path) => inside.push(path.to_owned()),
                Err(_) => {}
            }
        }
        Ok(Choice { filter, markers, own: inside })
    }
}

impl Rules for Choice {
    fn leaves_out_folder(&self, path: &Path) -> bool {
        self.filter.leaves_out_folder(path) || self.own.iter().any(|own| path.starts_with(own))
    }

    fn leaves_out(&self, path: &Path, size: u64) -> bool {
        let mut parts = path.components();
        // One that says that its folder is complete counts, whatever its name is.
        let is_marker = self.has_units() && parts.next().is_some() && self.is_marker(parts.as_path());
        !is_marker && self.filter.leaves_out(path, || size).is_some()
    }

    fn has_units(&self) -> bool {
        self.markers.is_some()
    }

    fn is_marker(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty()
            && self.markers.as_ref().is_some_and(|markers| markers.leaves_out(path, || 0).is_none())
    }
}

/// Files that are pushed together.
struct Batch {
    ready: Vec<Ready>,
}

/// A batch that is over.
struct BatchOver {
    ready: Vec<Ready>,
    outcomes: Vec<Outcome>,
    /// A request failed.
    is_trouble: bool,
    /// The server accepts the token no more.
    is_turned_away: bool,
}

/// The thread that finds files.
struct Work<'a> {
    args: &'a WatchArgs,
    report: &'a Report,
    into: &'a str,
    root: &'a Path,
    journal: &'a Mutex<Journal>,
    /// The beginning of this minute, and the lines in it.
    said: Cell<Option<(Instant, u32)>>,
    /// The files for monitors.
    status: RefCell<StatusWriter>,
    /// Their first state.
    begun: WatchStatus,
}

/// The pace of batches.
struct Pace {
    size: usize,
    rest: Duration,
    until: Instant,
}

impl Pace {
    /// Most batches that are ready or being pushed.
    fn most(&self) -> usize {
        if self.size > FIRST_BATCH { 2 } else { 1 }
    }

    fn after(&mut self, stored: usize, is_trouble: bool) {
        if stored > 0 {
            (self.size, self.rest) = ((self.size * 4).min(LARGEST_BATCH), FIRST_REST);
        } else if is_trouble {
            (self.size, self.until) = (1, Instant::now() + self.rest);
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
    }
}

impl Work<'_> {
    fn forever(
        &self,
        rules: &Choice,
        settings: Settings,
        give: &Sender<Batch>,
        over: &Receiver<BatchOver>,
        mut followers: Followers<'_, '_>,
    ) -> anyhow::Result<()> {
        let known = self.journal.lock().unwrap_or_else(PoisonError::into_inner).len();
        let tell = |happening: Happening<'_>| self.tell(happening);
        let mut folder = Folder::begin(self.root, rules, settings, self.journal, &tell);
        let place = if self.into.is_empty() { String::new() } else { format!(" into {}/", self.into) };
        self.report.event(
            json!({"event": "watching", "folder": self.root.display().to_string(), "known": known,
                "waiting": folder.waiting()}),
            &format!("watching {}{place}: {} known as stored", self.root.display(), count(known as u64, "file")),
            true,
        );
        let (mut pace, mut batches) = (Pace { size: FIRST_BATCH, rest: FIRST_REST, until: Instant::now() }, 0);
        let mut sum = self.begun.clone();
        let mut told = None;
        loop {
            folder.scan_if_due();
            if batches < pace.most() && pace.until <= Instant::now() {
                let size = pace.size;
                let ready = folder.ready(|files, bytes| files >= size || !is_small(bytes, self.args.push.slice_size));
                folder.growing().iter().for_each(|path| followers.follow(path));
                if !ready.is_empty() {
                    batches += 1;
                    ready.iter().for_each(|file| followers.end(&file.path));
                    give.send(Batch { ready }).context("the thread that pushes is gone")?;
                }
            }
            let status = (sum.stored, folder.waiting());
            if told != Some(status) && batches == 0 {
                systemd::ready(&format!("{} stored, {} waiting", count(sum.stored, "file"), folder.waiting()));
                told = Some(status);
            }
            let next_status = self.write_status(&folder, &sum);
            let work = match batches < pace.most() {
                true => folder.next_work().max(pace.until).min(folder.next_scan()),
                false => folder.next_scan(),
            };
            let work = next_status.map_or(work, |next| work.min(next));
            let arrived = folder.arrived().clone();
            select! {
                recv(arrived) -> batch => folder.look(batch.ok()),
                recv(over) -> batch => {
                    let batch = batch.context("the thread that pushes is gone")?;
                    batches -= 1;
                    self.over(&mut folder, &batch, &mut pace, &mut sum);
                    ensure!(!batch.is_turned_away, "the server accepts the token no more");
                }
                recv(after(work.saturating_duration_since(Instant::now()))) -> _ => {}
            }
        }
    }

    /// Writes what monitors read; when to do it next, if now is too early.
    fn write_status(&self, folder: &Folder<'_>, sum: &WatchStatus) -> Option<Instant> {
        let known = self.journal.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let files = folder.reasons(MOST_NAMED).into_iter();
        let files = files.map(|(path, reason)| WaitingFile {
            file_name: self.name(&path),
            reason: reason.map_or_else(|| "found".to_owned(), |reason| reason.to_string()),
        });
        let (waiting, files) = (folder.waiting() as u64, files.collect());
        let state = WatchStatus { known, waiting, files, ..sum.clone() };
        self.status.borrow_mut().write(state).unwrap_or_else(|error| {
            log::warn!("the state of the watch cannot be written: {error}");
            None
        })
    }

    /// A batch is over: all that it changed goes into `sum`, too.
    fn over(&self, folder: &mut Folder<'_>, batch: &BatchOver, pace: &mut Pace, sum: &mut WatchStatus) {
        batch.ready.iter().zip(&batch.outcomes).for_each(|(ready, outcome)| folder.over(ready, *outcome));
        folder.batch_over();
        if folder.waiting() == 0 {
            folder.shrink();
        }
        let of =
            |wanted: Outcome| batch.ready.iter().zip(&batch.outcomes).filter(move |(_, outcome)| **outcome == wanted);
        let stored = of(Outcome::Stored).count();
        sum.stored += stored as u64;
        sum.stored_bytes += of(Outcome::Stored).map(|(file, _)| file.found.size).sum::<u64>();
        sum.failed += (of(Outcome::Failed).count() + of(Outcome::Refused).count()) as u64;
        if stored > 0 {
            sum.last_stored = watch_status::now();
        }
        pace.after(stored, batch.is_trouble);
    }

    fn name(&self, path: &str) -> String {
        below(self.into, path)
    }

    fn tell(&self, happening: Happening<'_>) {
        match happening {
            Happening::Seen(path) => {
                let name = self.name(path);
                self.report.event(json!({"event": "seen", "file_name": name}), &format!("{name} was found"), false);
            }
            Happening::Waits(path, reason) => {
                let is_brief = matches!(reason, Waiting::Changed { .. } | Waiting::Young { .. });
                let is_important = !is_brief && self.may_say();
                self.report.waits(&self.name(path), &reason.to_string(), is_important);
            }
            Happening::UnitWaits(unit) => {
                let pattern = self.args.ready_when.as_deref().unwrap_or_default();
                let reason = format!("no file in it matches --ready-when {pattern}");
                self.report.waits(&self.name(&format!("{unit}/")), &reason, self.may_say());
            }
            Happening::Ended(path, End::Moved(to)) => {
                let (name, to) = (self.name(path), system::shown(to).display().to_string());
                let event = json!({"event": "source_moved", "file_name": name, "to": to});
                self.report.event(event, &format!("{name} is stored; moved here to {to}"), false);
            }
            Happening::Ended(path, _) => {
                let name = self.name(path);
                let event = json!({"event": "source_removed", "file_name": name});
                self.report.event(event, &format!("{name} is stored; removed here"), false);
            }
            Happening::Failed(path, message) => {
                self.report.failed(Some(&system::shown(path).display().to_string()), &message);
            }
            Happening::Short => {
                let wanted = self.args.keep_free.map(|space| space.to_string()).unwrap_or_default();
                let message =
                    format!("less disk space is free than --keep-free {wanted}, and no stored file is left here");
                self.report.failed(None, &message);
            }
            Happening::OnlyScans(reason) => {
                let every = humantime::format_duration(self.args.poll);
                let event = json!({"event": "scanning", "seconds": self.args.poll.as_secs_f64(), "reason": reason});
                self.report.event(event, &format!("scanning every {every}: {reason}"), true);
            }
            Happening::JournalFailed(error) => {
                let message = "the journal cannot be written: files that are stored now are read again after a restart";
                self.report.failed(None, &format!("{message}: {error}"));
            }
        }
    }

    /// True if people may see one more line about a file that waits.
    fn may_say(&self) -> bool {
        let now = Instant::now();
        let begun = self.said.get().filter(|(begun, _)| now.duration_since(*begun) < Duration::from_secs(60));
        let (begun, lines) = begun.unwrap_or((now, 0));
        self.said.set(Some((begun, lines.saturating_add(1))));
        lines < LINES_A_MINUTE
    }
}

/// The thread that pushes.
struct Pusher<'a> {
    args: &'a WatchArgs,
    report: &'a Report,
    into: &'a str,
    root: &'a Path,
    journal: &'a Mutex<Journal>,
    lines: &'a Lines<'a>,
}

impl Pusher<'_> {
    fn all(&self, batches: &Receiver<Batch>, tell: &Sender<BatchOver>) {
        let mut is_at_rest = false;
        loop {
            // At rest nothing is left to be closed.
            let wait = if is_at_rest { Duration::MAX } else { IDLE };
            match batches.recv_timeout(wait) {
                Ok(batch) => {
                    is_at_rest = false;
                    // Nobody listens any more at the end of the program.
                    let _ = tell.send(self.push(batch));
                }
                // Connections take memory, also at rest.
                Err(RecvTimeoutError::Timeout) => {
                    is_at_rest = self.lines.close();
                    if is_at_rest {
                        system::give_memory_back();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn push(&self, Batch { ready }: Batch) -> BatchOver {
        let line = match self.lines.get() {
            Ok(line) => line,
            // A token that is being replaced, say.
            Err(error) => {
                self.report.failed(None, &format!("{error:#}"));
                let outcomes = vec![Outcome::Failed; ready.len()];
                return BatchOver { ready, outcomes, is_trouble: true, is_turned_away: false };
            }
        };
        let outcomes = Mutex::new(vec![Outcome::Failed; ready.len()]);
        let (mut numbers, mut inputs) = (vec![], Inputs::default());
        for (number, file) in ready.iter().enumerate() {
            match FileName::new(&self.name_of(file)) {
                Ok(name) => {
                    numbers.push(number);
                    let origin = Input::File(place(self.root, &file.path));
                    inputs.files.push(InputFile { origin, name });
                }
                Err(error) => {
                    self.report.failed(Some(&file.path), &error.to_string());
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = Outcome::Refused;
                }
            }
        }
        let noting =
            Noting { pusher: self, ready: &ready, numbers: &numbers, outcomes: &outcomes, trouble: Mutex::default() };
        let push = push_each(&self.args.push, self.report, &line, &inputs, &noting);
        let is_trouble = noting.trouble.into_inner().unwrap_or_else(PoisonError::into_inner) || push.not_tried > 0;
        // Of many, people see no lines of their own.
        let stored = push.stored.iter().filter(|stored| **stored).count() as u64;
        if ready.len() > 1 {
            self.report.total(&format!("{} stored", count(stored, "file")));
        }
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        BatchOver { ready, outcomes, is_trouble, is_turned_away: line.client.is_turned_away() }
    }

    /// The name on the server.
    fn name_of(&self, file: &Ready) -> String {
        let name = below(self.into, &file.path);
        match (self.args.changed, file.times) {
            (OnChange::Number, 1..) => numbered(&name, u32::from(file.times) + 1),
            _ => name,
        }
    }
}

/// Notes what becomes of the files of a batch.
struct Noting<'a> {
    pusher: &'a Pusher<'a>,
    ready: &'a [Ready],
    /// The numbers in `ready` of those that are pushed.
    numbers: &'a [usize],
    outcomes: &'a Mutex<Vec<Outcome>>,
    trouble: Mutex<bool>,
}

impl Noting<'_> {
    fn set(&self, number: usize, outcome: Outcome) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)[self.numbers[number]] = outcome;
    }
}

impl Interest for Noting<'_> {
    fn expected(&self, number: usize) -> Option<Fingerprint> {
        Some(self.ready[self.numbers[number]].found)
    }

    fn stored(&self, number: usize, done: &Uploaded) {
        let Ready { path, found, times } = &self.ready[self.numbers[number]];
        let mut journal = self.pusher.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = journal.note(path, found, done.file_digest, times.saturating_add(1)) {
            let message = format!("the journal cannot be written, the file is read again after a restart: {error}");
            self.pusher.report.failed(Some(path), &message);
        }
        self.set(number, Outcome::Stored);
    }

    fn failed(&self, number: usize, error: &UploadError) -> bool {
        let is_gone = |error: &SourceError| matches!(error, SourceError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound);
        let outcome = match error {
            UploadError::Changed(_) | UploadError::SliceChanged(_) => Outcome::Changed,
            UploadError::Source(error) if is_gone(error) => Outcome::Changed,
            // It is being written to again.
            UploadError::Source(SourceError::Io { cause, .. }) if cause.kind() == io::ErrorKind::ResourceBusy => {
                Outcome::Changed
            }
            error if error.is_existing_file() && self.pusher.args.changed == OnChange::Number => Outcome::Renumbered,
            error if error.is_existing_file() => Outcome::Refused,
            UploadError::Name(_) => Outcome::Refused,
            error => {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) |= error.call().is_some();
                Outcome::Failed
            }
        };
        self.set(number, outcome);
        // What is tried again is no failure so far; but that a file cannot be read is.
        let is_unreadable = outcome == Outcome::Failed && matches!(error, UploadError::Source(_));
        outcome != Outcome::Refused && !is_unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn choice(arguments: &[&str], own: &[Option<PathBuf>]) -> anyhow::Result<Choice> {
        match Cli::try_parse_from([&["bigup-cli", "watch", "/w"], arguments].concat())?.command {
            Command::Watch(args) => Choice::new(&args, Path::new("/w"), own),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unfinished_and_hidden_files_are_left_out_unless_that_is_taken_back() {
        let plain = choice(&[], &[]).unwrap();
        for path in ["a.part", "x/a.tmp", "~a", ".a", "x/.git/a"] {
            assert!(plain.leaves_out(Path::new(path), 1), "{path}");
        }
        assert!(plain.leaves_out_folder(Path::new("x/.git")) && !plain.leaves_out(Path::new("x/a~"), 1));
        let hidden = choice(&["--exclude", "!.*", "--exclude", "*.log", "--max-size", "10"], &[]).unwrap();
        assert!(!hidden.leaves_out(Path::new(".a"), 10) && hidden.leaves_out(Path::new("a.part"), 1));
        assert!(hidden.leaves_out(Path::new("a.log"), 1) && hidden.leaves_out(Path::new("a"), 11));
    }

    #[test]
    fn a_marker_counts_whatever_its_name_is() {
        let units = choice(&["--ready-when", "/.done", "--include", "*.bin"], &[]).unwrap();
        assert!(!units.leaves_out(Path::new("run/.done"), 1) && units.leaves_out(Path::new(".done"), 1));
        assert!(units.is_marker(Path::new(".done")) && !units.is_marker(Path::new("x/.done")));
        assert!(!units.leaves_out(Path::new("run/a.bin"), 1) && units.leaves_out(Path::new("run/a"), 1));
    }

    #[test]
    fn folders_of_our_own_are_left_out() {
        let own = [Some(PathBuf::from("/w/done")), None, Some(PathBuf::from("/elsewhere"))];
        let choice_of = choice(&[], &own).unwrap();
        assert!(choice_of.leaves_out_folder(Path::new("done")) && choice_of.leaves_out_folder(Path::new("done/x")));
        assert!(!choice_of.leaves_out_folder(Path::new("done2")));
        assert!(choice(&[], &[Some(PathBuf::from("/w"))]).err().unwrap().to_string().contains("is the watched folder"));
    }

    #[test]
    fn the_pace_falls_with_trouble_and_rises_with_success() {
        let mut pace = Pace { size: FIRST_BATCH, rest: FIRST_REST, until: Instant::now() };
        pace.after(0, true);
        assert!(pace.size == 1 && pace.until > Instant::now() && pace.rest == 2 * FIRST_REST);
        (0..10).for_each(|_| pace.after(0, true));
        assert_eq!(pace.rest, LONGEST_REST);
        pace.after(1, true);
        assert_eq!((pace.size, pace.rest), (4, FIRST_REST));
        (0..10).for_each(|_| pace.after(1, false));
        assert_eq!(pace.size, LARGEST_BATCH);
    }
}
