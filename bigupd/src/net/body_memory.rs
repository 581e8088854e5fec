//! Memory of bodies: limits the memory of all of them together, keeps some of it while it is needed again and again,
//! and gives it back to the system.
//!
//! # What bodies take
//! A body that arrives has its bytes in three places: in hyper's buffer (the bytes of one read from the socket), in the
//! batch that is being gathered, and in the batch that is being written. The size of each place depends on the number
//! of bodies at work ([`BodyMemory`]). If they are few, each gets as much as is of use; else each has its share of
//! `max_body_memory`, down to a floor. The gathered bytes are written early if nothing more comes
//! ([`crate::http::receive`]), so a client that stalls holds only the bytes of the last read from its socket.
//!
//! # Keeping and giving back
//! Bodies come in pieces of [`MAX_BUFFER`], each in memory of its own. glibc would ask the system for each and give it
//! back a moment later, a page fault for every 4 KiB of a body; so it is told to keep some (mallopt(3)). An idle
//! connection, though, keeps a little memory, and the large buffers of thousands of connections lie between those bits.
//! glibc gives such buffers back only if told to (malloc_trim(3)).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Largest buffer of a connection, in bytes: the most that one read from a socket can bring. Larger buffers save little
/// time, smaller ones cost some.
pub const MAX_BUFFER: usize = 256 << 10;

/// Shortest time between two times of giving back: more buffers become free in it.
const PAUSE: Duration = Duration::from_secs(2);

/// A single one for the process, like its memory.
static FREED: Notify = Notify::const_new();

/// The bodies of this process.
pub static BODIES: BodyMemory = BodyMemory::new(64 << 20);

/// Least bytes that a body can read at once, and gather to a batch, however many bodies there are: smaller pieces cost
/// more work.
const FLOOR: u64 = 16 << 10;

/// Number of parts of a body's share: two for each of its batches, one for the piece being read, and the same number
/// for bytes that hyper has read and not handed on.
const READ_PARTS: u64 = 8;

/// The same of a batch.
const BATCH_PARTS: u64 = 4;

/// Counts bodies at work, and tells the memory that each can have.
#[derive(Debug)]
pub struct BodyMemory {
    most: AtomicU64,
    at_work: AtomicU64,
}

/// A body at work, counted until it is dropped.
#[derive(Debug)]
pub struct BodyInMemory(&'static BodyMemory);

impl BodyMemory {
    /// No body at work; all together can have `most` bytes.
    const fn new(most: u64) -> BodyMemory {
        BodyMemory { most: AtomicU64::new(most), at_work: AtomicU64::new(0) }
    }

    /// Has all together take at most so many bytes, beside the floor of each.
    pub fn limit(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Counts one more.
    pub fn begin(&'static self) -> BodyInMemory {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        BodyInMemory(self)
    }

    /// Bytes that a body can read from its socket at once.
    pub fn read_len(&self) -> usize {
        // At most MAX_BUFFER, which is a usize.
        self.part(READ_PARTS, MAX_BUFFER as u64) as usize
    }

    /// Bytes of a body that can be gathered before they are written; `best` if there is memory enough.
    pub fn batch_len(&self, best: u64) -> u64 {
        self.part(BATCH_PARTS, best)
    }

    /// A body's share divided by `parts`, `best` at most.
    fn part(&self, parts: u64, best: u64) -> u64 {
        let thread_share = self.most.load(Ordering::Relaxed) / self.at_work.load(Ordering::Relaxed).max(1);
        (thread_share / parts).max(FLOOR).min(best)
    }
}

impl Drop for BodyInMemory {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes that buffers became free.
pub fn note_freed() {
    FREED.notify_one();
}

/// Gives back freed memory, soon after it was noted.
pub async fn give_back_forever() {
    loop {
        FREED.notified().await;
        tokio::time::sleep(PAUSE).await;
        let _ = tokio::task::spawn_blocking(give_back).await;
    }
}

/// Bytes that glibc keeps at the end of its heap: the pieces of some bodies that are on their way to the disk.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;

/// Has memory kept between one piece of a body and the next. For the start of the program.
#[cfg(target_env = "gnu")]
pub fn keep_some() {
    use nix::libc::{M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    for (setting, value) in [(M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, 16 * MAX_BUFFER as i32)] {
        // SAFETY: it can be called at any time and from any thread, and changes nothing that is in use.
        let is_set = unsafe { mallopt(setting, value) } == 1;
        if !is_set {
            log::debug!("cannot set glibc's malloc option {setting} to {value}: more memory may stay in use");
        }
    }
}

/// Has memory kept between one piece of a body and the next. For the start of the program.
#[cfg(not(target_env = "gnu"))]
pub fn keep_some() {}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it can be called at any time and from any thread, and changes nothing that is in use.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn bodies_have_what_is_best_while_they_are_few_and_then_their_share() {
        static FEW: BodyMemory = BodyMemory::new(64 * MIB);
        let mut at_work = vec![];
        for bodies in 1..=10_000_u64 {
            at_work.push(FEW.begin());
            let (read, batch) = (FEW.read_len() as u64, FEW.batch_len(MIB));
            assert!(bodies > 16 || (read, batch) == (MAX_BUFFER as u64, MIB), "{bodies}: {read}, {batch}");
            let all = bodies * (2 * read + 2 * batch);
            assert!(all <= 64 * MIB + bodies * 4 * FLOOR, "{bodies} bodies may have {all} bytes");
            assert!(read >= FLOOR && batch >= FLOOR);
        }
        assert_eq!(FEW.batch_len(FLOOR / 2), FLOOR / 2, "nobody waits for more than is best");
        drop(at_work);
        assert_eq!((FEW.read_len(), FEW.batch_len(MIB)), (MAX_BUFFER, MIB));
    }

    #[test]
    fn the_documents_tell_the_same_numbers() {
        let each = format!("{}", 4 * FLOOR / 1024);
        assert!(include_str!("../../../docs/operations.md").contains(&format!("beside {each} KiB for each")));
        let setting = crate::config::settings::find("max_body_memory").unwrap();
        assert!(setting.help.contains(&format!("beside {each}K for each")));
        assert_eq!(setting.default, Some("64M"));
        assert_eq!(BODIES.most.load(Ordering::Relaxed), 64 * MIB);
    }
}
