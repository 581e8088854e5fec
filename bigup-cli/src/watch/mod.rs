//! A folder whose files are pushed once they are complete.
//!
//! - [`seeing`] - finding files: by events, and by scans behind them.
//! - [`queue`] - files that are not stored yet, and when each is looked at.
//! - [`completeness`] - whether a file is complete.
//! - [`journal`] - the files that are stored, on disk.
//! - [`afterwards`] - the end of a local file that is stored; [`keeping`] - how long it stays before.
//! - [`paths`] - paths below the folder.
//! - [`rules`] - the choice of files, as the command line makes it.
//!
//! The queue is the folder itself: what is not in the journal is still to be pushed. So a server that is away for days, and a
//! kill at any instant, lose nothing. Memory depends on the number of files that are known, by 33 bytes each, and on a limited
//! queue; never on sizes.
//!
//! No request comes in here, and no terminal: who uses this pushes the files that are ready, and tells of the rest.

use crate::source::fingerprint::Fingerprint;
use crate::source::system::folder_event::FolderEvent;
use crate::source::system::folder_events::FolderId;
use crate::source::system::{self, Writers};
use crate::watch::afterwards::{End, Then, remove_empty};
use crate::watch::completeness::{Look, Quiet, Waiting};
use crate::watch::journal::{Journal, State};
use crate::watch::keeping::Keeping;
use crate::watch::paths::place;
use crate::watch::queue::Queue;
use crate::watch::rules::{Rules, is_marker, unit_of};
use crate::watch::seeing::{Finder, Seeing};
use crossbeam_channel::Receiver;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod afterwards;
pub mod completeness;
pub mod journal;
pub mod keeping;
pub mod paths;
pub mod queue;
pub mod rules;
pub mod seeing;

/// Most files that wait at a time; a scan finds the others later.
const MOST_WAITING: usize = 16_384;

/// Wait between two looks at a marker whose folder has other files that are not stored yet. Each push that ends has it looked
/// at too.
const MARKER_PAUSE: Duration = Duration::from_secs(30);

/// The times of a watched folder, and the end of its files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The times for which a file must rest.
    pub quiet: Quiet,
    /// Time between two scans where events are told.
    pub scan_every: Duration,
    /// Time between two scans where there are only scans.
    pub poll_every: Duration,
    /// Time that must have passed since the last change of a file.
    pub min_age: Duration,
    /// The end of stored files.
    pub then: Then,
    /// How long they stay before.
    pub keeping: Keeping,
    /// Files that wait and have so many bytes are told by [`Folder::growing`]. `None`: none are.
    pub growing_from: Option<u64>,
}

/// An event of a watched folder, for people and programs.
#[derive(Debug)]
pub enum Happening<'a> {
    /// A file was found that is to be pushed.
    Seen(&'a str),
    /// A file waits, for another reason than before.
    Waits(&'a str, &'a Waiting),
    /// A folder waits: nothing says that it is complete.
    UnitWaits(&'a str),
    /// A stored file ended so.
    Ended(&'a str, &'a End),
    /// A file or folder cannot be looked at, moved or removed.
    Failed(&'a Path, String),
    /// Less disk space is free than is to be, and no stored file is left that could go.
    Short,
    /// From now on there are only scans.
    OnlyScans(&'a str),
    /// The journal cannot be written.
    JournalFailed(io::Error),
}

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its path below the folder.
    pub path: Arc<str>,
    /// As it must be found.
    pub found: Fingerprint,
    /// Number of contents that were pushed under this path.
    pub times: u16,
}

/// The result of the push of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, and in the journal.
    Stored,
    /// It is to be tried again after a while.
    Failed,
    /// It changed, so that it is to be looked at again.
    Changed,
    /// It is not to be tried again before it changes.
    Refused,
    /// It is to be tried again at once, as if one content more had been pushed.
    Renumbered,
}

/// A watched folder.
pub struct Folder<'a> {
    root: PathBuf,
    rules: &'a dyn Rules,
    settings: Settings,
    journal: &'a Mutex<Journal>,
    tell: &'a dyn Fn(Happening<'_>),
    seeing: Seeing,
    finding: Finding,
    next_scan: Instant,
    last_scan: Instant,
    /// It was told that the disk is short, and that nothing can be done about it.
    is_short_told: bool,
}

/// All that is found, apart from finding it.
struct Finding {
    queue: Queue,
    /// Folders of which something says that they are complete.
    complete_units: HashSet<String>,
    /// Those that wait for it, as far as the present look tells.
    waiting_units: HashSet<String>,
    /// Those of them that were told.
    told_units: HashSet<String>,
    /// Complete folders whose files are to be found.
    units_to_scan: BTreeSet<String>,
    /// Stored files that are to be moved or removed; of units, their folders.
    to_end: BTreeSet<String>,
    /// Stored files that stay for now, or their units, each with the time of its last change: while the disk is short.
    kept: Option<HashMap<String, i128>>,
    /// Files and folders that failed, and were told.
    told_failures: HashSet<PathBuf>,
    /// Large files that wait, and were never stored, since they were asked for last.
    growing: BTreeSet<Arc<str>>,
}

impl<'a> Folder<'a> {
    /// Watches `root`, and finds all that is there.
    pub fn begin(
        root: &Path,
        rules: &'a dyn Rules,
        settings: Settings,
        journal: &'a Mutex<Journal>,
        tell: &'a dyn Fn(Happening<'_>),
    ) -> Folder<'a> {
        let (seeing, reason) = Seeing::new(root);
        reason.iter().for_each(|reason| tell(Happening::OnlyScans(reason)));
        let finding = Finding {
            queue: Queue::new(MOST_WAITING),
            complete_units: HashSet::new(),
            waiting_units: HashSet::new(),
            told_units: HashSet::new(),
            units_to_scan: BTreeSet::new(),
            to_end: BTreeSet::new(),
            kept: None,
            told_failures: HashSet::new(),
            growing: BTreeSet::new(),
        };
        let (root, now) = (root.to_owned(), Instant::now());
        let (next_scan, last_scan, is_short_told) = (now, now, false);
        let mut folder =
            Folder { root, rules, settings, journal, tell, seeing, finding, next_scan, last_scan, is_short_told };
        folder.scan();
        folder
    }

    /// Where events arrive, for [`Folder::look`].
    pub fn arrived(&self) -> &Receiver<Vec<FolderEvent<FolderId>>> {
        self.seeing.arrived()
    }

    /// Looks at what events tell of. `None`: there will be no more.
    pub fn look(&mut self, batch: Option<Vec<FolderEvent<FolderId>>>) {
        let Some(batch) = batch else {
            self.seeing.give_up();
            (self.tell)(Happening::OnlyScans("the system tells no more events"));
            self.next_scan = Instant::now();
            return;
        };
        let Folder { seeing, rules, .. } = self;
        let is_lost =
            seeing.look(batch, *rules, &mut finder(&mut self.finding, self.journal, *rules, &self.settings, self.tell));
        if is_lost || !self.seeing.has_events() {
            self.next_scan = Instant::now();
        }
        self.after_finding();
    }

    /// The time of the next work. What is ready is asked for by [`Folder::ready`] then.
    pub fn next_work(&self) -> Instant {
        self.finding.queue.next_due().map_or(self.next_scan, |due| due.min(self.next_scan))
    }

    /// The time of the next scan.
    pub fn next_scan(&self) -> Instant {
        self.next_scan
    }

    /// Scans, if it is time for it.
    pub fn scan_if_due(&mut self) {
        if self.finding.queue.wants_scan() || self.next_scan <= Instant::now() {
            self.scan();
        }
    }

    /// Number of files that are not stored yet, as far as they are known.
    pub fn waiting(&self) -> usize {
        self.finding.queue.len()
    }

    /// Some of the files that are not stored yet, with the reasons to wait that are known.
    pub fn reasons(&self, most: usize) -> Vec<(Arc<str>, Option<Waiting>)> {
        self.finding.queue.reasons(most)
    }

    /// Gives the memory back that many files needed.
    pub fn shrink(&mut self) {
        self.finding.queue.shrink();
    }

    /// Takes the paths of large files that were found to wait because they grow, or may.
    pub fn growing(&mut self) -> BTreeSet<Arc<str>> {
        mem::take(&mut self.finding.growing)
    }

    /// Takes files that are complete, until `is_enough` says so of their number and of the last one's size.
    pub fn ready(&mut self, mut is_enough: impl FnMut(usize, u64) -> bool) -> Vec<Ready> {
        let (mut ready, now) = (vec![], Instant::now());
        while let Some(path) = self.finding.queue.take_due(now) {
            if let Some(file) = self.judge(&path) {
                let size = file.found.size;
                ready.push(file);
                if is_enough(ready.len(), size) {
                    break;
                }
            }
        }
        ready
    }

    /// The file of `ready` was pushed, or could not be.
    pub fn over(&mut self, ready: &Ready, outcome: Outcome) {
        let (queue, now) = (&mut self.finding.queue, Instant::now());
        match outcome {
            Outcome::Stored => {
                queue.remove(&ready.path);
                // What came meanwhile was not looked at.
                self.find_again(&ready.path);
            }
            Outcome::Failed => {
                if let Some(entry) = queue.get(&ready.path) {
                    entry.told = Some(Waiting::Failed("its last push failed, and it is tried again".to_owned()));
                }
                queue.failed(&ready.path, now);
            }
            Outcome::Changed => queue.look_after(&ready.path, now, self.settings.quiet.told),
            Outcome::Refused => {
                if let Some(entry) = queue.get(&ready.path) {
                    entry.told = Some(Waiting::Failed("the server refuses it as it is".to_owned()));
                }
                queue.refused(&ready.path, Some(ready.found), now);
            }
            Outcome::Renumbered => {
                if let Some(entry) = queue.get(&ready.path) {
                    entry.times = entry.times.saturating_add(1);
                }
                queue.look_after(&ready.path, now, Duration::ZERO);
            }
        }
    }

    /// All of a batch is over: its records are synced, and what is stored is moved or removed.
    pub fn batch_over(&mut self) {
        if let Err(error) = journal(self.journal).sync() {
            (self.tell)(Happening::JournalFailed(error));
            // What is not in the journal for good stays where it is.
            self.finding.to_end.clear();
            return;
        }
        self.after_finding();
        if self.is_short() {
            // What is stored by now may go.
            self.next_scan = self.next_scan.min(self.last_scan + self.settings.poll_every);
        }
        // Their other files may be stored now.
        let (rules, queue) = (self.rules, &mut self.finding.queue);
        let markers: Vec<_> = queue.paths().filter(|path| is_marker(rules, path)).cloned().collect();
        markers.iter().for_each(|marker| queue.look_soon(marker, Instant::now()));
    }

    /// Looks at a file once more, as a scan does.
    fn find_again(&mut self, path: &str) {
        let full = place(&self.root, path);
        if fs::symlink_metadata(&full).is_ok_and(|found| found.is_file())
            && let Ok(found) = system::fingerprint_at(&full)
        {
            finder(&mut self.finding, self.journal, self.rules, &self.settings, self.tell).found(path, found);
        }
    }

    fn scan(&mut self) {
        self.last_scan = Instant::now();
        self.finding.kept = self.is_short().then(HashMap::new);
        journal(self.journal).begin_scan();
        self.finding.complete_units.clear();
        let Folder { seeing, rules, .. } = self;
        let is_complete =
            seeing.scan("", *rules, &mut finder(&mut self.finding, self.journal, *rules, &self.settings, self.tell));
        self.after_finding();
        self.end_oldest();
        if is_complete {
            journal(self.journal).end_scan();
            self.finding.told_failures.clear();
        }
        // A folder that is away comes back without an event.
        let has_events = self.seeing.has_events() && self.root.is_dir();
        let every = if has_events { self.settings.scan_every } else { self.settings.poll_every };
        self.next_scan = Instant::now() + every;
    }

    /// Finds the files of folders that turned out to be complete, and ends what is stored.
    fn after_finding(&mut self) {
        while let Some(unit) = self.finding.units_to_scan.pop_first() {
            let Folder { seeing, rules, .. } = self;
            seeing.scan(&unit, *rules, &mut finder(&mut self.finding, self.journal, *rules, &self.settings, self.tell));
        }
        for unit in mem::take(&mut self.finding.waiting_units) {
            let Finding { complete_units, told_units, .. } = &mut self.finding;
            if !complete_units.contains(&unit) && told_units.insert(unit.clone()) {
                (self.tell)(Happening::UnitWaits(&unit));
            }
        }
        for path in mem::take(&mut self.finding.to_end) {
            self.end_any(&path, false);
        }
    }

    /// Ends a stored file, or the files of a unit; `now`: also if it is to stay longer.
    fn end_any(&mut self, path: &str, now: bool) {
        match self.rules.has_units() && place(&self.root, path).is_dir() {
            true => self.end_unit(path, now),
            false => self.end(path),
        }
    }

    /// True if the disk is short of space, and stored files may go.
    fn is_short(&self) -> bool {
        self.settings.then != Then::Keep && self.settings.keeping.is_short(&self.root).unwrap_or(false)
    }

    /// Ends stored files, the oldest first, until the disk is short no more.
    fn end_oldest(&mut self) {
        let Some(kept) = self.finding.kept.take() else {
            self.is_short_told = false;
            return;
        };
        let mut oldest: Vec<_> = kept.into_iter().map(|(path, changed)| (changed, path)).collect();
        oldest.sort_unstable();
        for (_, path) in oldest {
            if !self.is_short() {
                return;
            }
            self.end_any(&path, true);
        }
        if self.is_short() && !mem::replace(&mut self.is_short_told, true) {
            (self.tell)(Happening::Short);
        }
    }

    /// Looks at a file that is due. `None`: it waits, or is nothing to wait for.
    fn judge(&mut self, path: &Arc<str>) -> Option<Ready> {
        let (full, now, quiet) = (place(&self.root, path), Instant::now(), self.settings.quiet);
        let found = fs::symlink_metadata(&full).ok().filter(|found| found.is_file());
        let found = found.and_then(|_| system::fingerprint_at(&full).ok());
        let Some(found) = found.filter(|found| !self.rules.leaves_out(Path::new(&**path), found.size)) else {
            self.finding.queue.remove(path);
            return None;
        };
        if journal(self.journal).state(path, &found) == State::Stored {
            self.finding.queue.remove(path);
            self.find_again(path);
            self.after_finding();
            return None;
        }
        let (age, least) = (keeping::age(&found), self.settings.min_age);
        if !least.is_zero() && age.is_none_or(|age| age < least) {
            let reason = age.map_or(Waiting::Future(least), |age| Waiting::Young { age, least });
            self.tell_waiting(path, reason);
            let wait = least.saturating_sub(age.unwrap_or_default());
            self.finding.queue.look_after(path, now, wait.min(self.settings.scan_every));
            return None;
        }
        let entry = self.finding.queue.get(path)?;
        let times = entry.times;
        // A file that cannot be opened is pushed: that tells the reason.
        let writers = || system::writers_of(&full).unwrap_or(Writers::Unknown);
        let look = match entry.watched.look(found, writers, now, quiet) {
            Look::Complete if entry.is_refused(&found) => {
                self.finding.queue.refused(path, Some(found), now);
                return None;
            }
            Look::Complete => match self.others_of_unit(path) {
                0 => return Some(Ready { path: Arc::clone(path), found, times }),
                others => Look::Again(Waiting::Others(others), MARKER_PAUSE),
            },
            again => again,
        };
        if let Look::Again(reason, pause) = look {
            let is_large = self.settings.growing_from.is_some_and(|least| found.size >= least);
            if is_large && times == 0 && matches!(reason, Waiting::Changed { .. } | Waiting::OpenForWriting(_)) {
                self.finding.growing.insert(Arc::clone(path));
            }
            self.tell_waiting(path, reason);
            self.finding.queue.look_after(path, now, pause);
        }
        None
    }

    fn tell_waiting(&mut self, path: &str, reason: Waiting) {
        let Some(entry) = self.finding.queue.get(path) else { return };
        let is_known = entry.told.as_ref().is_some_and(|told| mem::discriminant(told) == mem::discriminant(&reason));
        if !is_known {
            let reason = match reason {
                Waiting::OpenForWriting(_) => {
                    Waiting::OpenForWriting(system::writing_program(&place(&self.root, path)))
                }
                reason => reason,
            };
            entry.told = Some(reason.clone());
            (self.tell)(Happening::Waits(path, &reason));
        }
    }

    /// Number of files that must be stored before the one at `path`, which is a marker.
    fn others_of_unit(&mut self, path: &str) -> usize {
        let rules = self.rules;
        let Some((unit, _)) = unit_of(rules, path).filter(|_| is_marker(rules, path)) else { return 0 };
        let prefix = format!("{unit}/");
        let count = |queue: &Queue| queue.count(&prefix, |other| !is_marker(rules, other));
        match count(&self.finding.queue) {
            0 => {
                self.seeing.scan(
                    unit,
                    rules,
                    &mut finder(&mut self.finding, self.journal, rules, &self.settings, self.tell),
                );
                // It may have no room for all, but has some then.
                count(&self.finding.queue)
            }
            waiting => waiting,
        }
    }

    /// Ends a stored file.
    fn end(&mut self, path: &str) {
        let full = place(&self.root, path);
        let Ok(found) = system::fingerprint_at(&full) else { return };
        if journal(self.journal).state(path, &found) != State::Stored {
            return;
        }
        match afterwards::end(&self.root, path, &found, &self.settings.then) {
            Ok(End::Kept) => {}
            // It is found as another one by the next scan, or by its own event.
            Ok(End::Changed) => self.find_again(path),
            Ok(end) => {
                (self.tell)(Happening::Ended(path, &end));
                if let Err(error) = journal(self.journal).forget(path) {
                    (self.tell)(Happening::JournalFailed(error));
                }
            }
            Err(error) => self.finding.failed(&full, &error.to_string(), self.tell),
        }
    }

    /// Ends the files of a unit, if its marker is stored, and the time of all is over, or `now`.
    fn end_unit(&mut self, unit: &str, now: bool) {
        let keeping = if now { Keeping::default() } else { self.settings.keeping };
        let mut files = Stored { journal: self.journal, keeping, stored: vec![], is_whole: true };
        self.seeing.scan(unit, self.rules, &mut files);
        let Stored { stored, is_whole, .. } = files;
        if !is_whole || !stored.iter().any(|path| is_marker(self.rules, path)) {
            return;
        }
        // The marker last: what a kill leaves is ended by the next scan.
        let (markers, others): (Vec<_>, Vec<_>) = stored.into_iter().partition(|path| is_marker(self.rules, path));
        others.iter().chain(&markers).for_each(|path| self.end(path));
        if self.settings.then != Then::Keep {
            remove_empty(&place(&self.root, unit));
        }
    }
}

/// Finds stored files, and whether there are others.
struct Stored<'a> {
    journal: &'a Mutex<Journal>,
    keeping: Keeping,
    stored: Vec<String>,
    is_whole: bool,
}

impl Finder for Stored<'_> {
    fn found(&mut self, path: &str, fingerprint: Fingerprint) {
        match journal(self.journal).state(path, &fingerprint) {
            State::Stored if self.keeping.is_over(&fingerprint) => self.stored.push(path.to_owned()),
            State::Stored | State::New | State::Changed(_) => self.is_whole = false,
        }
    }

    fn failed(&mut self, _path: &Path, _message: &str) {
        self.is_whole = false;
    }

    fn only_scans(&mut self, _reason: &str) {}
}

impl Finding {
    fn failed(&mut self, path: &Path, message: &str, tell: &dyn Fn(Happening<'_>)) {
        // Of very many, some are told again.
        if self.told_failures.len() < MOST_WAITING && self.told_failures.insert(path.to_owned()) {
            tell(Happening::Failed(path, message.to_owned()));
        }
    }
}

/// Puts what is found where it belongs.
struct Sorter<'a> {
    finding: &'a mut Finding,
    journal: &'a Mutex<Journal>,
    rules: &'a dyn Rules,
    settings: &'a Settings,
    tell: &'a dyn Fn(Happening<'_>),
    now: Instant,
}

fn finder<'a>(
    finding: &'a mut Finding,
    journal: &'a Mutex<Journal>,
    rules: &'a dyn Rules,
    settings: &'a Settings,
    tell: &'a dyn Fn(Happening<'_>),
) -> Sorter<'a> {
    Sorter { finding, journal, rules, settings, tell, now: Instant::now() }
}

impl Finder for Sorter<'_> {
    fn found(&mut self, path: &str, found: Fingerprint) {
        let (finding, unit) = (&mut *self.finding, unit_of(self.rules, path));
        if let Some((unit, rest)) = unit
            && self.rules.is_marker(Path::new(rest))
            && finding.complete_units.insert(unit.to_owned())
        {
            finding.told_units.remove(unit);
            finding.units_to_scan.insert(unit.to_owned());
        }
        let times = match journal(self.journal).state(path, &found) {
            State::New => 0,
            State::Changed(times) => times,
            State::Stored => {
                finding.queue.remove(path);
                if self.settings.then != Then::Keep {
                    let whole = unit.map_or(path, |(unit, _)| unit).to_owned();
                    if self.settings.keeping.is_over(&found) {
                        finding.to_end.insert(whole);
                    } else if let Some(kept) = &mut finding.kept {
                        let (changed, last) = (keeping::last_change(&found), kept.entry(whole).or_insert(i128::MIN));
                        *last = changed.max(*last);
                    }
                }
                return;
            }
        };
        if let Some((unit, _)) = unit
            && !finding.complete_units.contains(unit)
        {
            if finding.waiting_units.len() < MOST_WAITING {
                finding.waiting_units.insert(unit.to_owned());
            }
            return;
        }
        if finding.queue.add(path, found, times, self.now, self.settings.quiet.told) {
            (self.tell)(Happening::Seen(path));
        }
    }

    fn failed(&mut self, path: &Path, message: &str) {
        self.finding.failed(path, message, self.tell);
    }

    fn only_scans(&mut self, reason: &str) {
        (self.tell)(Happening::OnlyScans(reason));
    }
}

fn journal(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
