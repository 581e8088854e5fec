//! How fast the slices of a round leave, before the first of them is stored: on a line so slow that a slice takes long,
//! losing the connection would cost as much again.

use bigup_core::units::MIB;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to watch before anything is judged: connections need a while to get up to speed.
const WATCH: Duration = Duration::from_secs(4);

/// How long a slice may take.
const LONGEST: Duration = Duration::from_secs(15);

/// How long one should take, where slices are cut anew.
const AIM: Duration = Duration::from_secs(4);

/// Smallest slice of those that are cut for a slow line, in bytes.
const SMALLEST: u64 = 64 << 10;

/// Watches what leaves. Shared by the senders.
pub struct Gauge {
    began: Instant,
    left: AtomicU64,
    /// Nothing is to be judged, or not any more.
    is_over: AtomicBool,
    is_too_slow: AtomicBool,
}

impl Gauge {
    /// Nothing left yet. Nothing is judged unless `judges`.
    pub fn new(judges: bool) -> Gauge {
        let is_over = AtomicBool::new(!judges);
        Gauge { began: Instant::now(), left: AtomicU64::new(0), is_over, is_too_slow: AtomicBool::new(false) }
    }

    /// A slice was stored: from here on slices are worth more than their size.
    pub fn stored(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// So many bytes more left, of slices of `slice_size` bytes that `senders` send. Whether to go on.
    pub fn left(&self, bytes: u64, slice_size: u64, senders: usize) -> bool {
        let left = self.left.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !self.is_over.load(Ordering::Relaxed) && is_too_slow(self.began.elapsed(), left, slice_size, senders) {
            self.is_too_slow.store(true, Ordering::Relaxed);
        }
        !self.is_too_slow()
    }

    /// Whether slices take too long.
    pub fn is_too_slow(&self) -> bool {
        self.is_too_slow.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed)
    }

    /// The size of slices, in bytes, that would take a few seconds at the rate seen.
    pub fn fitting(&self, senders: usize) -> u64 {
        fitting(self.began.elapsed(), self.left.load(Ordering::Relaxed), senders)
    }
}

fn is_too_slow(time: Duration, left: u64, slice_size: u64, senders: usize) -> bool {
    let each = left as f64 / senders.max(1) as f64;
    time >= WATCH && each / time.as_secs_f64() * LONGEST.as_secs_f64() < slice_size as f64
}

fn fitting(time: Duration, left: u64, senders: usize) -> u64 {
    let rate = left as f64 / senders.max(1) as f64 / time.as_secs_f64().max(0.001);
    let size = ((rate * AIM.as_secs_f64()) as u64).clamp(SMALLEST, MIB);
    1 << size.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn slices_that_take_longer_than_they_may_are_too_slow() {
        // 4 senders at 1 MiB/s in all: 8 MiB each take 32 s, 2 MiB 8 s.
        assert!(is_too_slow(8 * S, 8 * MIB, 8 * MIB, 4));
        assert!(!is_too_slow(8 * S, 8 * MIB, 2 * MIB, 4));
        assert!(!is_too_slow(3 * S, 3 * MIB, 8 * MIB, 4), "too early to tell");
        assert!(!is_too_slow(15 * S, 32 * MIB, 8 * MIB, 4));
    }

    #[test]
    fn the_size_follows_the_rate() {
        assert_eq!(fitting(8 * S, 8 * MIB, 4), MIB);
        assert_eq!(fitting(8 * S, MIB, 4), 128 << 10);
        assert_eq!(fitting(8 * S, 0, 4), SMALLEST);
        assert_eq!(fitting(Duration::ZERO, u64::MAX, 0), MIB);
    }

    #[test]
    fn what_is_stored_is_never_given_up() {
        let gauge = Gauge::new(true);
        gauge.stored();
        gauge.is_too_slow.store(true, Ordering::Relaxed);
        assert!(!gauge.is_too_slow() && gauge.left(1, u64::MAX, 1));
        assert!(Gauge::new(false).left(1, u64::MAX, 1));
    }
}
