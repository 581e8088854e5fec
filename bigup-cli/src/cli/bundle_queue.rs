//! The files that go in bundles, and how much each bundle brings: as much as the line carries in a moment, so that a slow
//! one shows progress, and a broken one loses little.

use crate::upload::bundle::{BYTES, FILES};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bundles that are sent at a time: while one is stored the next ones are read and on their way.
pub const AT_A_TIME: usize = 8;

/// Bytes of the first bundles.
const FIRST: u64 = 128 << 10;

/// Least bytes.
const LEAST: u64 = 16 << 10;

/// A bundle that takes less time is followed by larger ones.
const QUICK: Duration = Duration::from_secs(1);

/// A bundle that takes more time is followed by smaller ones.
const SLOW: Duration = Duration::from_secs(4);

/// A file: its number, and its size in bytes.
pub type Numbered = (usize, u64);

/// The files that were not taken yet, and those that are to be pushed alone.
pub struct BundleQueue<'a> {
    left: Mutex<&'a [Numbered]>,
    alone: Mutex<Vec<Numbered>>,
    /// Most bytes of the next bundle.
    bytes: AtomicU64,
    /// There are no more bundles.
    is_over: AtomicBool,
}

impl<'a> BundleQueue<'a> {
    /// All of `files` are to be taken.
    pub fn new(files: &'a [Numbered]) -> BundleQueue<'a> {
        BundleQueue {
            left: Mutex::new(files),
            alone: Mutex::default(),
            bytes: AtomicU64::new(FIRST),
            is_over: AtomicBool::new(false),
        }
    }

    /// Takes the files of the next bundle: fewer towards the end, so that all threads have some. Empty: there is none.
    pub fn take(&self) -> &'a [Numbered] {
        if self.is_over.load(Ordering::Relaxed) {
            return &[];
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let most = left.len().div_ceil(AT_A_TIME).min(FILES);
        let (most_bytes, mut bytes) = (self.bytes.load(Ordering::Relaxed), 0);
        let fitting = left.iter().take(most).take_while(|(_, size)| {
            bytes += size;
            bytes <= most_bytes
        });
        // A file alone may be larger.
        let number = fitting.count().max(1).min(left.len());
        let (files, rest) = left.split_at(number);
        *left = rest;
        files
    }

    /// A bundle of so many `files` took this `time`, and these are to be pushed `alone`. Where it stored less than half of
    /// them no more bundles are taken: files that are there with other content, say, would all be sent twice.
    pub fn ended(&self, files: usize, alone: Vec<Numbered>, time: Duration) {
        if alone.len() * 2 > files {
            self.is_over.store(true, Ordering::Relaxed);
        }
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).extend(alone);
        let next = |bytes: u64| match time {
            _ if time < QUICK => (bytes * 2).min(BYTES),
            _ if time > SLOW => (bytes / 2).max(LEAST),
            _ => bytes,
        };
        self.bytes.store(next(self.bytes.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// The files that are to be pushed alone, and those that were not taken.
    pub fn left(self) -> Vec<Numbered> {
        let mut left = self.alone.into_inner().unwrap_or_else(PoisonError::into_inner);
        left.extend_from_slice(self.left.into_inner().unwrap_or_else(PoisonError::into_inner));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(files: &[Numbered]) -> Vec<u64> {
        files.iter().map(|(_, size)| *size).collect()
    }

    #[test]
    fn all_files_are_taken_once_and_towards_the_end_by_ever_fewer() {
        let files: Vec<Numbered> = (0..1000).map(|number| (number, 100)).collect();
        let queue = BundleQueue::new(&files);
        let (mut taken, mut lens) = (vec![], vec![]);
        while let bundle @ [_, ..] = queue.take() {
            taken.extend_from_slice(bundle);
            lens.push(bundle.len());
        }
        assert_eq!((taken, queue.left()), (files.clone(), vec![]));
        assert!(lens[0] == FILES && lens.is_sorted_by(|a, b| a >= b) && lens[lens.len() - 1] == 1, "{lens:?}");
    }

    #[test]
    fn a_bundle_has_as_many_bytes_as_go_in_a_moment_and_one_file_at_least() {
        let files: Vec<Numbered> = (0..1000).map(|number| (number, 50 << 10)).collect();
        let queue = BundleQueue::new(&files);
        assert_eq!(sizes(queue.take()), [50 << 10; 2]);
        let took = |time| queue.ended(1, vec![], time);
        (0..5).for_each(|_| took(Duration::ZERO));
        assert_eq!(queue.take().len(), 10);
        took(2 * QUICK);
        assert_eq!(queue.take().len(), 10);
        (0..9).for_each(|_| took(2 * SLOW));
        assert_eq!(queue.take().len(), 1);
    }

    #[test]
    fn where_bundles_store_little_the_rest_goes_alone() {
        let files: Vec<Numbered> = (0..100).map(|number| (number, 100)).collect();
        let queue = BundleQueue::new(&files);
        let [first, second] = [queue.take(), queue.take()];
        queue.ended(first.len(), first[..first.len() / 2].to_vec(), QUICK);
        assert!(!queue.take().is_empty());
        queue.ended(second.len(), second.to_vec(), QUICK);
        assert!(queue.take().is_empty());
        let alone = first.len() / 2 + second.len();
        assert!(queue.left().len() > alone + 60);
    }
}
