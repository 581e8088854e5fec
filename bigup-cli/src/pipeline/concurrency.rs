//! The number of senders, the number of slices that wait for them, and the memory that both take.

use crate::pipeline::sender_tuning::{MOST, SenderTuning};
use bigup_core::protocol::units::MIB;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Senders to begin with where nobody says how many: one for each processor, and within these bounds enough to fill a
/// short line.
const FIRST: (usize, usize) = (2, 4);

/// Senders to begin with on a long line, which few hardly fill.
const FIRST_FAR: usize = 32;

/// Bytes of slices in memory where nobody says how many senders; with large slices it bounds their number.
const MEMORY: u64 = 48 * MIB;

/// Fewest senders that there may be all the same, however large slices are.
const LEAST: usize = 4;

/// An answer that takes this long to come back is from far away.
pub const FAR: Duration = Duration::from_millis(5);

/// The senders of a push. Shared by its files, so that what was found out about the line is not lost with one of them.
pub struct Concurrency {
    width: Mutex<SenderTuning>,
    is_fixed: bool,
    queue_size: usize,
    began: Instant,
}

impl Concurrency {
    /// `senders`, neither more nor less, or where it is None as many as help, up to `most`; `queue_size` slices wait
    /// between them and the reader. All are at least 1.
    pub fn new(senders: Option<usize>, most: usize, queue_size: usize) -> Concurrency {
        let by_itself = || SenderTuning::new(first().min(most), most);
        let width = Mutex::new(senders.map_or_else(by_itself, |fixed| SenderTuning::new(fixed, fixed)));
        Concurrency { width, is_fixed: senders.is_some(), queue_size, began: Instant::now() }
    }

    /// The server is far away: begins with more, unless their number was given.
    pub fn reach_far(&self) {
        if !self.is_fixed {
            self.lock().begin_with(FIRST_FAR);
        }
    }

    /// Slices that wait.
    pub fn queue_size(&self) -> usize {
        self.queue_size
    }

    /// Most senders of slices of `slice_size` bytes.
    pub fn most(&self, slice_size: u64) -> usize {
        if self.is_fixed {
            return self.lock().now();
        }
        let fit = usize::try_from(MEMORY / slice_size.max(1)).unwrap_or(usize::MAX);
        fit.saturating_sub(self.queue_size).clamp(LEAST, MOST)
    }

    /// Buffers for slices of `slice_size` bytes that may be needed at the same time.
    pub fn buffers(&self, slice_size: u64) -> usize {
        self.most(slice_size) + self.queue_size
    }

    /// The intended number of senders now, at most `most`.
    pub fn width(&self, most: usize) -> usize {
        self.lock().now().min(most)
    }

    /// A slice of `len` bytes was stored.
    pub fn stored(&self, len: u64) {
        self.lock().stored(self.began.elapsed(), len);
    }

    fn lock(&self) -> MutexGuard<'_, SenderTuning> {
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first() -> usize {
    // If nobody can tell, few processors are as likely as many.
    std::thread::available_parallelism().map_or(FIRST.0, usize::from).clamp(FIRST.0, FIRST.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_senders_of_large_slices() {
        let concurrency = Concurrency::new(None, MOST, 2);
        assert_eq!([256 << 10, MIB, 8 * MIB, 64 * MIB].map(|size| concurrency.most(size)), [MOST, 46, 4, 4]);
        assert_eq!(concurrency.buffers(8 * MIB) as u64 * 8 * MIB, MEMORY);
        assert!((2..=4).contains(&concurrency.width(concurrency.most(MIB))));
        concurrency.reach_far();
        assert_eq!(concurrency.width(concurrency.most(MIB)), FIRST_FAR);
    }

    #[test]
    fn a_number_that_was_given_stays() {
        for given in [9, 64, 200] {
            let concurrency = Concurrency::new(Some(given), MOST, 2);
            concurrency.reach_far();
            assert_eq!(concurrency.most(64 * MIB), given);
            assert_eq!((concurrency.buffers(64 * MIB), concurrency.width(given)), (given + 2, given));
        }
    }
}
