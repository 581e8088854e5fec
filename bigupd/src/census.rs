//! How many unfinished uploads there are, told cheaply.
//!
//! They are folders, and come and go by the hands of mergers and other daemons too. Listing them for every upload that
//! begins would make each of a thousand cost a thousand times one; so they are counted now and then, and those that begin
//! here are added in between.

use bigup_core::data_dir::DataDir;
use bigup_core::spool::Spool;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a count is good enough while there is room: by as much may daemons that share a folder miss each other's.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// The same once there is none: so long may one that ended still count.
const GOOD_WHEN_FULL: Duration = Duration::from_millis(200);

/// The count.
#[derive(Debug, Default)]
pub struct Census(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    when: Instant,
    uploads: u64,
}

impl Census {
    /// Counts one more upload, that is about to begin, unless there are `most` already. Whether there was room.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn admit(&self, data: &DataDir, most: u64) -> io::Result<bool> {
        self.look(data, most, 1)
    }

    /// Whether there are fewer than `most` uploads.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn has_room(&self, data: &DataDir, most: u64) -> io::Result<bool> {
        self.look(data, most, 0)
    }

    /// Counts `more` uploads unless there are `most` already. Whether there was room.
    fn look(&self, data: &DataDir, most: u64, more: u64) -> io::Result<bool> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let good = counted.take().filter(|last| {
            let good_for = if last.uploads < most { GOOD_FOR } else { GOOD_WHEN_FULL };
            last.when.elapsed() < good_for
        });
        let mut now = match good {
            Some(good) => good,
            None => Counted { when: Instant::now(), uploads: Spool::all(data)?.len() as u64 },
        };
        let has_room = now.uploads < most;
        now.uploads += if has_room { more } else { 0 };
        *counted = Some(now);
        Ok(has_room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::name::FileName;
    use bigup_core::plan::Plan;
    use bigup_core::room::Room;
    use bigup_core::spool::Upload;

    fn begin(data: &DataDir, name: &str) {
        let upload = Upload::begin(FileName::new(name).unwrap(), Plan::default(), None);
        assert!(Spool::create(data, &upload, &Room::new(data, 0)).unwrap());
    }

    #[test]
    fn uploads_that_are_there_and_those_about_to_begin_count() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::create(folder.path()).unwrap();
        begin(&data, "a");
        let census = Census::default();
        assert!(census.admit(&data, 3).unwrap());
        assert!(census.admit(&data, 3).unwrap());
        assert!(!census.admit(&data, 3).unwrap());
    }

    #[test]
    fn what_ended_makes_room_soon_after_it_was_full() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::create(folder.path()).unwrap();
        begin(&data, "a");
        let census = Census::default();
        assert!(!census.admit(&data, 1).unwrap());
        std::fs::remove_dir_all(data.tmp().join("a")).unwrap();
        std::thread::sleep(GOOD_WHEN_FULL);
        assert!(census.admit(&data, 1).unwrap());
    }
}
