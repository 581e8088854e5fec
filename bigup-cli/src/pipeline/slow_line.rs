//! The rate at which the slices of a round leave, before the first of them is stored: on a line so slow that a slice
//! takes long, losing the connection would cost as much again.

use bigup_core::protocol::units::MIB;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time to watch before anything is judged: connections need a while to get up to speed.
const WATCH: Duration = Duration::from_secs(4);

/// Longest time that a slice may still take. What of it has left already would be lost.
const LONGEST: Duration = Duration::from_secs(15);

/// Intended time of a slice, where slices are cut anew.
const AIM: Duration = Duration::from_secs(4);

/// Smallest slice of those that are cut for a slow line, in bytes.
const SMALLEST: u64 = 64 << 10;

/// Longest pause between two pieces that counts as sending: beyond it the line was silent, which says nothing of its
/// rate.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Watches what leaves. Shared by the senders.
pub struct SlowLineDetector {
    seen: Mutex<Sent>,
    /// Nothing is to be judged, or not any more.
    is_over: AtomicBool,
    is_too_slow: AtomicBool,
}

/// The bytes that left so far, and their time.
#[derive(Clone, Copy, Default)]
struct Sent {
    bytes: u64,
    time: Duration,
    last: Option<Instant>,
}

impl SlowLineDetector {
    /// Nothing left yet. Nothing is judged unless `judges`.
    pub fn new(judges: bool) -> SlowLineDetector {
        let is_over = AtomicBool::new(!judges);
        SlowLineDetector { seen: Mutex::default(), is_over, is_too_slow: AtomicBool::new(false) }
    }

    /// A slice was stored: from here on slices are worth more than their size.
    pub fn stored(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// So many bytes more left, of slices of `slice_size` bytes that `senders` send. True: go on.
    pub fn left(&self, bytes: u64, slice_size: u64, senders: usize) -> bool {
        if bytes > 0 && !self.is_over.load(Ordering::Relaxed) {
            let seen = self.note(bytes, Instant::now());
            if seen.is_too_slow(slice_size, senders) {
                self.is_too_slow.store(true, Ordering::Relaxed);
            }
        }
        !self.is_too_slow()
    }

    fn note(&self, bytes: u64, now: Instant) -> Sent {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = seen.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        seen.time += pause.min(LONGEST_PAUSE);
        seen.bytes += bytes;
        seen.last = Some(now);
        *seen
    }

    /// True if slices take too long.
    pub fn is_too_slow(&self) -> bool {
        self.is_too_slow.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed)
    }

    /// The size of slices, in bytes, that would take a few seconds at the rate seen.
    pub fn fitting(&self, senders: usize) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).fitting(senders)
    }
}

impl Sent {
    /// Bytes a second that each sender sends.
    fn rate(&self, senders: usize) -> f64 {
        self.bytes as f64 / senders.max(1) as f64 / self.time.as_secs_f64().max(0.001)
    }

    fn is_too_slow(&self, slice_size: u64, senders: usize) -> bool {
        let left = slice_size.saturating_sub(self.bytes / senders.max(1) as u64);
        self.time >= WATCH && self.rate(senders) * LONGEST.as_secs_f64() < left as f64
    }

    fn fitting(&self, senders: usize) -> u64 {
        let size = ((self.rate(senders) * AIM.as_secs_f64()) as u64).clamp(SMALLEST, MIB);
        1 << size.ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: u64, bytes: u64) -> Sent {
        Sent { bytes, time: Duration::from_secs(seconds), last: None }
    }

    #[test]
    fn slices_that_take_longer_than_they_may_are_too_slow() {
        // 4 senders at 1 MiB/s in all: 8 MiB each take 32 s, 2 MiB 8 s.
        assert!(seen(8, 8 * MIB).is_too_slow(8 * MIB, 4));
        assert!(!seen(8, 8 * MIB).is_too_slow(2 * MIB, 4));
        assert!(!seen(3, 3 * MIB).is_too_slow(8 * MIB, 4), "too early to tell");
        assert!(!seen(15, 32 * MIB).is_too_slow(8 * MIB, 4));
    }

    #[test]
    fn a_slice_of_which_little_is_left_is_not_given_up() {
        // 1 MiB/s for one sender: the last 15 MiB take no longer than a slice may.
        assert!(seen(16, 16 * MIB).is_too_slow(32 * MIB, 1));
        assert!(!seen(17, 17 * MIB).is_too_slow(32 * MIB, 1));
        // Buffers of a proxy took 8 MiB at once.
        assert!(!seen(4, 12 * MIB).is_too_slow(32 * MIB, 1));
        assert!(seen(16, 12 * MIB).is_too_slow(32 * MIB, 1), "it became slower");
    }

    #[test]
    fn the_size_follows_the_rate() {
        assert_eq!(seen(8, 8 * MIB).fitting(4), MIB);
        assert_eq!(seen(8, MIB).fitting(4), 128 << 10);
        assert_eq!(seen(8, 0).fitting(4), SMALLEST);
        assert_eq!(seen(0, u64::MAX).fitting(0), MIB);
    }

    #[test]
    fn silence_is_not_slowness() {
        let (slow_line, began) = (SlowLineDetector::new(true), Instant::now());
        slow_line.note(MIB, began);
        let seen = slow_line.note(MIB, began + Duration::from_secs(60));
        assert_eq!((seen.bytes, seen.time), (2 * MIB, LONGEST_PAUSE));
        assert!(slow_line.left(0, u64::MAX, 1), "nothing left");
    }

    #[test]
    fn what_is_stored_is_never_given_up() {
        let slow_line = SlowLineDetector::new(true);
        slow_line.note(1, Instant::now() - Duration::from_secs(100));
        assert!(!slow_line.left(1, u64::MAX, 1));
        slow_line.stored();
        assert!(!slow_line.is_too_slow() && slow_line.left(1, u64::MAX, 1));
        assert!(SlowLineDetector::new(false).left(1, u64::MAX, 1));
    }
}
