//! The judgement that a file is complete: nobody changes it any more.
//!
//! It must have been found unchanged for a while. Where the system tells who may write to a file, nobody may: then a short
//! while is enough. Where it does not tell (network file systems, files of other users) a long while must do. Times are
//! those of our own clock since we first found the file as it is: a file may have any time of its own, and the machine's
//! clock may be set.

use crate::source::fingerprint::Fingerprint;
use crate::source::system::Writers;
use std::fmt;
use std::time::{Duration, Instant};

/// Longest time between two looks at a file that is open for writing. Where its end is told, it is looked at then.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The times for which a file must have been found unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Where the system tells that nobody can be writing to it.
    pub told: Duration,
    /// Where it does not tell.
    pub untold: Duration,
}

/// The reason why a file waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It was changed so long ago, and must not be for so long.
    Changed {
        /// Time since it was found changed.
        ago: Duration,
        /// Time that must pass.
        quiet: Duration,
    },
    /// Its last change is not so long ago as it must be.
    Young {
        /// Time since its last change, by its own times.
        age: Duration,
        /// Time that must have passed.
        least: Duration,
    },
    /// The time of its last change is in the future, and must be so long ago.
    Future(Duration),
    /// Some program can be writing to it.
    OpenForWriting(Option<(u32, String)>),
    /// It says that its folder is complete, and goes last: so many files of the folder are not stored yet.
    Others(usize),
    /// The last attempt failed.
    Failed(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Changed { ago, quiet } => {
                let seconds = |time: &Duration| time.as_secs_f64();
                write!(f, "changed {:.1} s ago, and must rest for {} s", seconds(ago), seconds(quiet))
            }
            Waiting::Young { age, least } => {
                let shown =
                    |time: &Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
                write!(f, "its last change was {} ago, and must be {} ago (--min-age)", shown(age), shown(least))
            }
            Waiting::Future(least) => {
                let least = humantime::format_duration(*least);
                write!(f, "the time of its last change is in the future, and must be {least} ago (--min-age)")
            }
            Waiting::OpenForWriting(Some((id, name))) => write!(f, "open for writing by process {id} ({name})"),
            Waiting::OpenForWriting(None) => write!(f, "open or mapped for writing by another program"),
            Waiting::Others(1) => write!(f, "goes last: 1 other file of its folder is not stored yet"),
            Waiting::Others(number) => write!(f, "goes last: {number} other files of its folder are not stored yet"),
            Waiting::Failed(message) => f.write_str(message),
        }
    }
}

/// A file that is looked at until it is complete.
#[derive(Clone, Debug)]
pub struct Watched {
    found: Fingerprint,
    /// When it was first found so.
    since: Instant,
    /// Looks that found it open for writing, in a row.
    busy_looks: u32,
}

/// The result of a look at a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It is complete.
    Complete,
    /// It is to be looked at again after this time.
    Again(Waiting, Duration),
}

impl Watched {
    /// It was just found so.
    pub fn new(found: Fingerprint, now: Instant) -> Watched {
        Watched { found, since: now, busy_looks: 0 }
    }

    /// Looks at it: it has the fingerprint `found` now, and `writers` tells who can be writing to it.
    pub fn look(&mut self, found: Fingerprint, writers: impl FnOnce() -> Writers, now: Instant, quiet: Quiet) -> Look {
        if found != self.found {
            *self = Watched::new(found, now);
        }
        let ago = now.saturating_duration_since(self.since);
        if ago < quiet.told {
            return Look::Again(Waiting::Changed { ago, quiet: quiet.told }, quiet.told - ago);
        }
        match writers() {
            Writers::None => Look::Complete,
            Writers::Some => {
                self.busy_looks += 1;
                let pause = quiet.told.max(Duration::from_millis(100)).saturating_mul(1 << self.busy_looks.min(8));
                Look::Again(Waiting::OpenForWriting(None), pause.min(LONGEST_PAUSE.max(quiet.told)))
            }
            Writers::Unknown if ago < quiet.untold => {
                Look::Again(Waiting::Changed { ago, quiet: quiet.untold }, quiet.untold - ago)
            }
            Writers::Unknown => Look::Complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Quiet = Quiet { told: Duration::from_secs(2), untold: Duration::from_secs(60) };

    fn at(size: u64) -> Fingerprint {
        Fingerprint { size, modified: 5, changed: 6, inode: 7, volume: 0 }
    }

    fn seconds(time: u64) -> Duration {
        Duration::from_secs(time)
    }

    #[test]
    fn a_file_that_nobody_can_write_to_is_complete_after_a_short_rest() {
        let start = Instant::now();
        let mut file = Watched::new(at(1), start);
        let mut look = |size, after| file.look(at(size), || Writers::None, start + seconds(after), QUIET);
        let changed = |ago| Waiting::Changed { ago: seconds(ago), quiet: QUIET.told };
        assert_eq!(look(1, 1), Look::Again(changed(1), seconds(1)));
        assert_eq!(look(2, 2), Look::Again(changed(0), seconds(2)), "it was changed");
        assert_eq!(look(2, 3), Look::Again(changed(1), seconds(1)));
        assert_eq!(look(2, 4), Look::Complete);
    }

    #[test]
    fn a_file_that_somebody_can_write_to_is_never_complete_however_long_it_rests() {
        let start = Instant::now();
        let mut file = Watched::new(at(1), start);
        let mut pauses = vec![];
        for after in [2, 10, 100, 1000, 100_000] {
            match file.look(at(1), || Writers::Some, start + seconds(after), QUIET) {
                Look::Again(Waiting::OpenForWriting(None), pause) => pauses.push(pause.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, [4, 8, 16, 30, 30]);
        assert_eq!(file.look(at(1), || Writers::None, start + seconds(100_001), QUIET), Look::Complete);
    }

    #[test]
    fn where_nobody_tells_a_long_rest_is_needed() {
        let start = Instant::now();
        let mut file = Watched::new(at(1), start);
        let mut look = |size, after| file.look(at(size), || Writers::Unknown, start + seconds(after), QUIET);
        assert_eq!(look(1, 2), Look::Again(Waiting::Changed { ago: seconds(2), quiet: QUIET.untold }, seconds(58)));
        assert!(matches!(look(2, 59), Look::Again(..)), "it was changed");
        assert!(matches!(look(2, 118), Look::Again(..)));
        assert_eq!(look(2, 119), Look::Complete);
    }

    #[test]
    fn a_reason_has_its_numbers() {
        let changed = Waiting::Changed { ago: Duration::from_millis(1200), quiet: seconds(2) };
        assert_eq!(changed.to_string(), "changed 1.2 s ago, and must rest for 2 s");
        let young = Waiting::Young { age: Duration::from_millis(61_500), least: seconds(3600) };
        assert_eq!(young.to_string(), "its last change was 1m 1s ago, and must be 1h ago (--min-age)");
        let open = Waiting::OpenForWriting(Some((812, "dd".to_owned())));
        assert_eq!(open.to_string(), "open for writing by process 812 (dd)");
    }
}
