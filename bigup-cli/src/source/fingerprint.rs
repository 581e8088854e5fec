//! The attributes of a file that tell of a change of its bytes, and their differences. The system gives them
//! ([`crate::source::system`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time after a change in which the kernel can still give the next change the same time: its clock tick, 10 ms at most.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// The same where a file system keeps whole seconds, two of them on FAT.
const WHOLE_SECONDS: Duration = Duration::from_millis(2020);

/// The attributes that change when a file's bytes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the bytes, in nanoseconds since 1970.
    pub modified: i128,
    /// Time of the last change of bytes or attributes, which no program can set back; 0 where the system has none.
    pub changed: i128,
    /// Number of the file within its file system; 0 where the system has none.
    pub inode: u64,
    /// Serial number of the file system; 0 where the system gives no lasting one.
    pub volume: u64,
}

impl Fingerprint {
    /// True if `later` has another time of change, and nothing else: a link to the file was made, its mode was changed,
    /// or its bytes were and the time of that was set back.
    pub fn differs_in_attributes(&self, later: &Fingerprint) -> bool {
        self.changed != later.changed && *self == Fingerprint { changed: self.changed, ..*later }
    }

    /// Time until a change from then on gives another fingerprint than this one, which was just taken. Zero: any
    /// change from now on does.
    pub fn settles_in(&self) -> Duration {
        // No file system with finer times gives whole seconds often; then the wait is in vain, and short.
        let is_coarse = self.last_change() % 1_000_000_000 == 0;
        let step = if is_coarse { WHOLE_SECONDS } else { CLOCK_TICK };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        let age = now - self.last_change();
        // A time that lies ahead is another machine's, or the clock was set: nobody knows how old it is.
        if age >= step.as_nanos() as i128 { Duration::ZERO } else { step }
    }

    /// Time of the last change of anything, in nanoseconds since 1970. The time of the bytes can be set to any time, also
    /// one in the future, so it counts only where the system has no other.
    pub fn last_change(&self) -> i128 {
        if self.changed == 0 { self.modified } else { self.changed }
    }

    /// The differences of `later`, in words. `None`: there is no difference.
    pub fn difference(&self, later: &Fingerprint) -> Option<String> {
        let mut differences = Vec::new();
        if self.size != later.size {
            differences.push(format!("size {} -> {} bytes", self.size, later.size));
        }
        if (self.volume, self.inode) != (later.volume, later.inode) {
            differences.push("replaced by another file".to_owned());
        }
        if self.modified != later.modified {
            differences.push("written to".to_owned());
        } else if self.changed != later.changed && differences.is_empty() {
            differences.push("attributes changed".to_owned());
        }
        if differences.is_empty() { None } else { Some(differences.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_with_both_numbers() {
        let before = Fingerprint { size: 100, modified: 1, changed: 1, inode: 1, volume: 0 };
        assert_eq!(before.difference(&before), None);
        let grown = Fingerprint { size: 120, modified: 2, changed: 2, ..before };
        assert_eq!(before.difference(&grown).unwrap(), "size 100 -> 120 bytes, written to");
        let sly = Fingerprint { changed: 2, ..before };
        assert_eq!(before.difference(&sly).unwrap(), "attributes changed");
        assert!(before.differs_in_attributes(&sly) && !before.differs_in_attributes(&before));
        assert!(!before.differs_in_attributes(&grown));
        let other = Fingerprint { inode: 2, changed: 2, ..before };
        assert_eq!(before.difference(&other).unwrap(), "replaced by another file");
        assert!(!before.differs_in_attributes(&other));
    }

    #[test]
    fn a_time_is_certain_once_the_clock_that_gave_it_has_moved_on() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let at = |changed: i128| Fingerprint { size: 1, modified: changed, changed, inode: 1, volume: 0 }.settles_in();
        let second = now - now % 1_000_000_000;
        assert_eq!(at(second), WHOLE_SECONDS, "of a clock of whole seconds");
        assert_eq!(at(second - 2_000_000_001), Duration::ZERO);
        assert_eq!(at(second - 3_000_000_000), Duration::ZERO);
        assert_eq!(at((now | 1) + 3_600_000_000_001), CLOCK_TICK, "it lies ahead");
    }
}
