//! The sent and held parts of a file, in numbers and words. No I/O.

use crate::download::Downloaded;
use crate::upload::Uploaded;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::units::show_size;
use std::time::Duration;

/// Counts of one file's push.
#[derive(Clone, Debug, Default)]
pub struct PushCounts {
    /// Number of slices, where known.
    pub slice_num: Option<u64>,
    /// Bytes of the file, where known.
    pub file_size: Option<u64>,
    /// Slices that the server holds by now.
    pub slices_stored: u64,
    /// Bytes that the server holds by now.
    pub bytes_stored: u64,
    /// Slices that it held without our sending them.
    pub slices_held: u64,
    /// Bytes that it held without our sending them.
    pub bytes_held: u64,
    /// Bytes that we sent and it took.
    pub bytes_sent: u64,
}

impl PushCounts {
    /// The beginning: the server holds so many slices and bytes.
    pub fn starting(plan: &Plan, slices_held: u64, bytes_held: u64) -> PushCounts {
        PushCounts {
            slice_num: plan.slice_num,
            file_size: plan.file_size,
            slices_stored: slices_held,
            bytes_stored: bytes_held,
            slices_held,
            bytes_held,
            bytes_sent: 0,
        }
    }

    /// A slice of `len` bytes was sent and taken.
    pub fn sent(&mut self, len: u64) {
        self.bytes_sent += len;
        self.stored(len);
    }

    /// A slice of `len` bytes turned out to be held with our content.
    pub fn matched(&mut self, len: u64) {
        self.slices_held += 1;
        self.bytes_held += len;
        self.stored(len);
    }

    fn stored(&mut self, len: u64) {
        self.slices_stored += 1;
        self.bytes_stored += len;
    }

    /// Bytes sent a second on the average of `time`.
    pub fn rate(&self, time: Duration) -> u64 {
        rate(self.bytes_sent, time)
    }

    /// `37 of 128 slices are stored`.
    pub fn progress(&self) -> String {
        match self.slice_num {
            Some(num) => format!("{} of {num} slices are stored", self.slices_stored.min(num)),
            None => format!("{} stored", count(self.slices_stored, "slice")),
        }
    }

    /// The line for people about a push that ended well.
    pub fn summary(&self, name: &FileName, done: &Uploaded, time: Duration) -> String {
        let size = show_size(done.file_size);
        if done.already {
            let nothing = if done.at_once { "" } else { "; nothing was sent" };
            return format!("{name}: {size}, stored already{nothing}");
        }
        let seconds = time.as_secs_f64();
        let rate = show_size(self.rate(time));
        let held = match self.slices_held {
            0 => String::new(),
            held => format!("; {} held already", count(held, "slice")),
        };
        format!("{name}: {size} stored, merged and verified in {seconds:.1} s ({rate}/s{held})")
    }
}

/// The line for people about a download that ended well.
pub fn download_summary(name: &FileName, done: &Downloaded, time: Duration) -> String {
    let size = show_size(done.file_size);
    if done.already {
        return format!("{name}: {size}, here already; nothing was fetched");
    }
    let (seconds, rate) = (time.as_secs_f64(), show_size(rate(done.bytes_received, time)));
    let held = match done.file_size - done.bytes_received {
        0 => String::new(),
        held => format!("; {} was here already", show_size(held)),
    };
    format!("{name}: {size} fetched and verified in {seconds:.1} s ({rate}/s{held})")
}

/// `1 slice`, `2 slices`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn rate(bytes: u64, time: Duration) -> u64 {
    // A clock that did not move would make it infinite.
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> FileName {
        FileName::new("big.iso").unwrap()
    }

    #[test]
    fn a_push_is_summed_up_in_a_line() {
        let plan = Plan::new(None, Some(8 << 20), Some(1 << 30)).unwrap();
        let mut counts = PushCounts::starting(&plan, 2, 16 << 20);
        counts.matched(8 << 20);
        (3..128).for_each(|_| counts.sent(8 << 20));
        let done = Uploaded { file_size: 1 << 30, file_digest: None, already: false, at_once: false };
        assert_eq!(
            counts.summary(&name(), &done, Duration::from_secs(2)),
            "big.iso: 1.00 GiB stored, merged and verified in 2.0 s (500 MiB/s; 3 slices held already)"
        );
        assert_eq!(counts.progress(), "128 of 128 slices are stored");
    }

    #[test]
    fn what_was_there_already_is_told_as_such() {
        let done = Uploaded { file_size: 5, file_digest: None, already: true, at_once: false };
        let line = PushCounts::default().summary(&name(), &done, Duration::ZERO);
        assert_eq!(line, "big.iso: 5 B, stored already; nothing was sent");
    }

    #[test]
    fn an_unknown_number_of_slices_is_left_out() {
        let mut counts = PushCounts::default();
        counts.sent(1);
        assert_eq!(counts.progress(), "1 slice stored");
        counts.sent(1);
        assert_eq!(counts.progress(), "2 slices stored");
    }

    #[test]
    fn no_time_is_no_infinite_rate() {
        let mut counts = PushCounts::default();
        counts.sent(1000);
        assert_eq!(counts.rate(Duration::ZERO), 1_000_000);
    }
}
