//! The buffers of a push: a fixed number circulates between the reader and the senders.

use crate::buffer::Buffer;
use crate::pipeline::error::SliceSizeError;
use crate::pipeline::slice_size;
use crate::stop::StopSignal;
use crossbeam_channel::{Receiver, Sender};
use std::sync::atomic::{AtomicUsize, Ordering};

/// At most `limit` buffers, made when first needed and used again and again.
///
/// That limit bounds the memory of a push: a thread that finds no buffer waits for one.
pub struct Buffers {
    give: Sender<Buffer>,
    empty: Receiver<Buffer>,
    limit: usize,
    made: AtomicUsize,
}

impl Buffers {
    /// At most `limit` buffers; the first is made when it is needed.
    pub fn new(limit: usize) -> Buffers {
        let (give, empty) = crossbeam_channel::bounded(limit);
        Buffers { give, empty, limit, made: AtomicUsize::new(0) }
    }

    /// Counts `buffer`, which somebody made already and will [`Buffers::give_back`], among those made.
    pub fn adopt(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// A buffer of `len` bytes of any content; waits for one where all are in use. `None` when stopped.
    ///
    /// Only one thread, the reader, may ask.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn take(&self, len: u64, stop: &StopSignal) -> Result<Option<Buffer>, SliceSizeError> {
        let Some(mut buffer) = self.find(stop) else { return Ok(None) };
        match usize::try_from(len) {
            Ok(len) if len <= buffer.capacity() => buffer.set_len(len),
            _ => {
                // The old one goes first: there are never more than `limit`.
                drop(buffer);
                buffer = slice_size::buffer(len)?;
            }
        }
        Ok(Some(buffer))
    }

    /// A buffer of any length. `None` when stopped.
    fn find(&self, stop: &StopSignal) -> Option<Buffer> {
        if let Ok(buffer) = self.empty.try_recv() {
            return Some(buffer);
        }
        if self.made.load(Ordering::Relaxed) < self.limit {
            self.made.fetch_add(1, Ordering::Relaxed);
            return Some(Buffer::default());
        }
        crossbeam_channel::select! {
            recv(self.empty) -> buffer => buffer.ok(),
            recv(stop) -> _ => None,
        }
    }

    /// Takes a buffer back.
    pub fn give_back(&self, buffer: Buffer) {
        // There is room for all that were made, and both ends are ours: this neither waits nor fails.
        let _ = self.give.try_send(buffer);
    }

    /// Number of buffers made so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;
    use std::thread;

    fn never() -> StopSignal {
        crossbeam_channel::never()
    }

    #[test]
    fn buffers_are_made_when_needed_and_never_more_than_the_limit() {
        let buffers = Buffers::new(2);
        assert_eq!(buffers.made(), 0);
        let first = buffers.take(10, &never()).unwrap().unwrap();
        buffers.give_back(first);
        for _ in 0..10 {
            let again = buffers.take(10, &never()).unwrap().unwrap();
            assert_eq!((again.len(), buffers.made()), (10, 1));
            buffers.give_back(again);
        }
        let (_a, _b) = (buffers.take(10, &never()).unwrap(), buffers.take(10, &never()).unwrap());
        assert_eq!(buffers.made(), 2);
    }

    #[test]
    fn whoever_finds_no_buffer_waits_for_one() {
        let buffers = Buffers::new(1);
        let only = buffers.take(10, &never()).unwrap().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| buffers.take(4, &never()).unwrap().unwrap().len());
            buffers.give_back(only);
            assert_eq!(waiting.join().unwrap(), 4);
        });
        assert_eq!(buffers.made(), 1);
    }

    #[test]
    fn a_halt_ends_the_wait() {
        let (buffers, stop) = (Buffers::new(1), Stop::new());
        let _only = buffers.take(10, stop.signal()).unwrap();
        stop.stop();
        assert!(matches!(buffers.take(10, stop.signal()), Ok(None)));
    }

    #[test]
    fn an_adopted_buffer_counts() {
        let (buffers, stop) = (Buffers::new(1), Stop::new());
        buffers.adopt();
        stop.stop();
        assert!(matches!(buffers.take(10, stop.signal()), Ok(None)));
        buffers.give_back(Buffer::new(20).unwrap());
        assert_eq!(buffers.take(10, stop.signal()).unwrap().map(|b| b.len()), Some(10));
        assert_eq!(buffers.made(), 1);
    }
}
