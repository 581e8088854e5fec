//! The files that are not stored yet, each with the time of the next look at it. Of a limited number: the others are found by
//! the next scan.

use crate::source::fingerprint::Fingerprint;
use crate::watch::completeness::{Waiting, Watched};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wait after the first failed push of a file; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A file that waits.
#[derive(Debug)]
pub struct Entry {
    /// Its state so far.
    pub watched: Watched,
    /// The next look. `None`: it is being pushed.
    due: Option<Instant>,
    /// Failed pushes in a row.
    failures: u32,
    /// Number of contents that were pushed under this path.
    pub times: u16,
    /// It is not pushed again before it has another fingerprint than this one.
    refused: Option<Fingerprint>,
    /// The reason to wait that was told last.
    pub told: Option<Waiting>,
}

/// All files that wait.
#[derive(Debug)]
pub struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    due: BTreeSet<(Instant, Arc<str>)>,
    most: usize,
    /// There was no room for a file: only a scan finds it.
    has_more: bool,
}

impl Queue {
    /// Takes so many files at most.
    pub fn new(most: usize) -> Queue {
        Queue { entries: HashMap::new(), due: BTreeSet::new(), most, has_more: false }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True once if files were left out, and there is room for them now.
    pub fn wants_scan(&mut self) -> bool {
        let wants = self.has_more && self.entries.len() <= self.most / 2;
        self.has_more &= !wants;
        wants
    }

    /// A file was found; it is looked at after `wait`. True if it is new here. One that waits already is looked at then at
    /// the latest, unless its last push failed.
    pub fn add(&mut self, path: &str, found: Fingerprint, times: u16, now: Instant, wait: Duration) -> bool {
        if let Some(entry) = self.entries.get_mut(path) {
            if entry.refused.is_some_and(|refused| refused != found) {
                (entry.refused, entry.failures) = (None, 0);
            }
            let is_sooner = entry.failures == 0 && entry.due.is_some_and(|due| due > now + wait);
            if is_sooner {
                self.look_after(path, now, wait);
            }
            return false;
        }
        if self.entries.len() >= self.most {
            self.has_more = true;
            return false;
        }
        let path: Arc<str> = path.into();
        let due = now + wait;
        let watched = Watched::new(found, now);
        let entry = Entry { watched, due: Some(due), failures: 0, times, refused: None, told: None };
        self.entries.insert(Arc::clone(&path), entry);
        self.due.insert((due, path));
        true
    }

    /// The time of the next look at any of them.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes the path that is due by now first, for a look at it.
    pub fn take_due(&mut self, now: Instant) -> Option<Arc<str>> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        let (_, path) = self.due.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&path) {
            entry.due = None;
        }
        Some(path)
    }

    /// A file here.
    pub fn get(&mut self, path: &str) -> Option<&mut Entry> {
        self.entries.get_mut(path)
    }

    /// It is looked at again after `wait`.
    pub fn look_after(&mut self, path: &str, now: Instant, wait: Duration) {
        let Some((path, _)) = self.entries.get_key_value(path) else { return };
        let path = Arc::clone(path);
        let Some(entry) = self.entries.get_mut(&path) else { return };
        if let Some(due) = entry.due.take() {
            self.due.remove(&(due, Arc::clone(&path)));
        }
        let due = now + wait;
        entry.due = Some(due);
        self.due.insert((due, path));
    }

    /// It is looked at now, unless it is being pushed, or its last push failed.
    pub fn look_soon(&mut self, path: &str, now: Instant) {
        if self.entries.get(path).is_some_and(|entry| entry.failures == 0 && entry.due.is_some_and(|due| due > now)) {
            self.look_after(path, now, Duration::ZERO);
        }
    }

    /// Its push failed: it is looked at again after a while, which is longer from time to time.
    pub fn failed(&mut self, path: &str, now: Instant) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        entry.failures += 1;
        let wait = FIRST_PAUSE.saturating_mul(1 << (entry.failures - 1).min(16)).min(LONGEST_PAUSE);
        self.look_after(path, now, wait);
    }

    /// It is refused as it is: with this fingerprint it is not pushed again.
    pub fn refused(&mut self, path: &str, as_it_is: Option<Fingerprint>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.refused = as_it_is;
            entry.failures = entry.failures.max(16);
        }
        self.failed(path, now);
    }

    /// Gives the memory back that many files needed.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// It is nothing to wait for any more.
    pub fn remove(&mut self, path: &str) {
        if let Some(Entry { due: Some(due), .. }) = self.entries.get(path)
            && let Some((path, _)) = self.entries.get_key_value(path)
        {
            self.due.remove(&(*due, Arc::clone(path)));
        }
        self.entries.remove(path);
    }

    /// Number of files whose paths begin with `prefix` and are meant.
    pub fn count(&self, prefix: &str, is_meant: impl Fn(&str) -> bool) -> usize {
        self.entries.keys().filter(|path| path.starts_with(prefix) && is_meant(path)).count()
    }

    /// Some of the files, with the reasons to wait that were told, where any was.
    pub fn reasons(&self, most: usize) -> Vec<(Arc<str>, Option<Waiting>)> {
        let first = self.due.iter().take(most);
        first.map(|(_, path)| (Arc::clone(path), self.entries.get(path).and_then(|entry| entry.told.clone()))).collect()
    }

    /// All paths.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }
}

impl Entry {
    /// True if its push with this fingerprint was refused.
    pub fn is_refused(&self, now: &Fingerprint) -> bool {
        self.refused == Some(*now)
    }

    /// True if it is being pushed, or looked at.
    pub fn is_taken(&self) -> bool {
        self.due.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Fingerprint = Fingerprint { size: 1, modified: 5, changed: 6, inode: 7, volume: 0 };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn files_are_looked_at_when_they_are_due_and_first_comes_first() {
        let (mut queue, start) = (Queue::new(10), Instant::now());
        assert!(queue.add("b", AT, 0, start, 2 * SECOND) && queue.add("a", AT, 0, start, 3 * SECOND));
        assert!(!queue.add("a", AT, 0, start, SECOND), "sooner, and not new");
        assert_eq!((queue.take_due(start), queue.next_due()), (None, Some(start + SECOND)));
        assert_eq!(queue.take_due(start + SECOND).as_deref(), Some("a"));
        assert!(queue.get("a").unwrap().is_taken() && !queue.get("b").unwrap().is_taken());
        queue.failed("a", start);
        assert!(!queue.add("a", AT, 0, start, SECOND));
        assert_eq!(queue.take_due(start + 2 * SECOND).as_deref(), Some("b"));
        assert_eq!(queue.take_due(start + 4 * SECOND), None, "it failed, and rests");
        assert_eq!(queue.take_due(start + 5 * SECOND).as_deref(), Some("a"));
        queue.remove("a");
        queue.remove("b");
        assert!(queue.is_empty() && queue.next_due().is_none());
    }

    #[test]
    fn of_too_many_files_the_rest_is_left_to_a_scan() {
        let (mut queue, start) = (Queue::new(2), Instant::now());
        for path in ["a", "b", "c"] {
            queue.add(path, AT, 0, start, SECOND);
        }
        assert_eq!((queue.len(), queue.wants_scan()), (2, false));
        queue.remove("a");
        assert!(queue.wants_scan() && !queue.wants_scan());
    }

    #[test]
    fn what_is_refused_waits_for_other_content() {
        let (mut queue, start) = (Queue::new(2), Instant::now());
        queue.add("a", AT, 0, start, SECOND);
        queue.refused("a", Some(AT), start);
        let entry = queue.get("a").unwrap();
        assert!(entry.is_refused(&AT) && !entry.is_refused(&Fingerprint { size: 2, ..AT }));
        assert_eq!(queue.next_due(), Some(start + LONGEST_PAUSE));
        queue.add("a", AT, 0, start, SECOND);
        assert_eq!(queue.next_due(), Some(start + LONGEST_PAUSE));
        queue.add("a", Fingerprint { size: 2, ..AT }, 0, start, SECOND);
        assert_eq!(queue.next_due(), Some(start + SECOND));
    }
}
