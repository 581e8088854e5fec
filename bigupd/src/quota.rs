//! How much lies below a prefix, and whether more may.
//!
//! What counts is what is there: the bytes of all finished files below the prefix, whoever pushed them, and of all
//! unfinished uploads, each with the size that its file will have. So it needs no books that could be wrong, and a file that
//! somebody removes by hand counts no more.
//!
//! Counting takes its time where there are many files, so a count holds for some seconds; what is granted meanwhile is
//! added to it. Nothing is refused by such a sum: it is counted anew first. Another daemon's grants are seen by the next
//! count.

use crate::arriving::Arriving;
use crate::tokens::Prefix;
use bigup_core::data_dir::DataDir;
use bigup_core::disk::Context;
use bigup_core::plan::Plan;
use bigup_core::spool::{Holdings, Spool};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use walkdir::WalkDir;

/// Shortest time for which a count holds.
const COUNT_HOLDS: Duration = Duration::from_secs(5);

/// A count holds this many times as long as it took, so that little of the time is spent on counting.
const COUNT_SHARE: u32 = 20;

/// What lies below one prefix, as far as known.
#[derive(Debug, Default)]
pub struct Usage {
    known: Mutex<Option<Count>>,
    arriving: Arriving,
}

#[derive(Debug)]
struct Count {
    /// Bytes that were there.
    found: u64,
    /// Bytes granted since.
    granted: u64,
    /// When it is counted anew.
    until: Instant,
}

impl Usage {
    /// Nothing is known yet; `arriving` are files that come and have no spool.
    pub fn new(arriving: Arriving) -> Usage {
        Usage { known: Mutex::default(), arriving }
    }

    /// Grants `more` bytes below `prefix` if it has at most `quota` bytes with them; else says how many there are.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn grant(&self, data: &DataDir, prefix: &Prefix, quota: u64, more: u64) -> io::Result<Result<(), u64>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |count: &Count| count.found.saturating_add(count.granted).saturating_add(more) <= quota;
        let may_stand = |count: &Count| Instant::now() < count.until && (fits(count) || count.granted == 0);
        let mut count = match known.take().filter(may_stand) {
            Some(count) => count,
            None => Count::now(data, prefix, &self.arriving)?,
        };
        let granted = fits(&count);
        if granted {
            count.granted += more;
        }
        let found = count.found;
        *known = Some(count);
        Ok(if granted { Ok(()) } else { Err(found) })
    }
}

impl Count {
    fn now(data: &DataDir, prefix: &Prefix, arriving: &Arriving) -> io::Result<Count> {
        let began = Instant::now();
        // In this order: a file that is finished meanwhile counts twice rather than not at all.
        let found = arriving.bytes(|name| prefix.covers(name));
        let found = found.saturating_add(unfinished(data, prefix)?).saturating_add(finished(data, prefix)?);
        let until = Instant::now() + COUNT_HOLDS.max(began.elapsed() * COUNT_SHARE);
        Ok(Count { found, granted: 0, until })
    }
}

fn unfinished(data: &DataDir, prefix: &Prefix) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for spool in Spool::all(data)? {
        // One that cannot be read, or has gone, holds nothing of use.
        if let Ok(Some(upload)) = spool.upload()
            && prefix.covers(upload.file_name.as_str())
            && let Ok(holdings) = spool.holdings(&upload)
        {
            bytes = bytes.saturating_add(size_of(&upload.plan, &holdings));
        }
    }
    Ok(bytes)
}

fn finished(data: &DataDir, prefix: &Prefix) -> io::Result<u64> {
    // Without the slash at the end, which would follow a link.
    let folder = data.files().join(prefix.as_str().trim_end_matches('/'));
    let mut bytes = 0_u64;
    for entry in WalkDir::new(&folder).follow_root_links(false) {
        match entry.and_then(|entry| entry.metadata()) {
            Ok(found) if found.is_file() => bytes = bytes.saturating_add(found.len()),
            Ok(_) => {}
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e).at("counting what is in", &folder),
        }
    }
    Ok(bytes)
}

/// It was removed meanwhile, or there is no such folder.
fn is_gone(error: &walkdir::Error) -> bool {
    let kind = error.io_error().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// What an unfinished upload counts for, in bytes: the size of its file, or of the slices that it holds while the size is
/// not known.
pub fn size_of(plan: &Plan, holdings: &Holdings) -> u64 {
    let held = || holdings.ranges().count().saturating_mul(plan.slice_size.unwrap_or(0));
    plan.file_size.unwrap_or_else(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::name::FileName;
    use bigup_core::room::Room;
    use bigup_core::spool::Upload;
    use std::fs;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        for (name, len) in [("a/x", 100), ("a/b/y", 20), ("ab", 3), ("c", 4000)] {
            let path = data.files().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; len]).unwrap();
        }
        (dir, data)
    }

    fn begin(data: &DataDir, name: &str, plan: Plan) {
        let upload = Upload::begin(FileName::new(name).unwrap(), plan, None);
        assert!(Spool::create(data, &upload, &Room::new(data, 0)).unwrap());
    }

    fn found(data: &DataDir, prefix: &Prefix) -> u64 {
        Count::now(data, prefix, &Arriving::default()).unwrap().found
    }

    #[test]
    fn files_and_uploads_below_the_prefix_count() {
        let (_dir, data) = data();
        let prefix: Prefix = "a/".parse().unwrap();
        assert_eq!((found(&data, &prefix), found(&data, &Prefix::default())), (120, 4123));
        for nothing in ["nothing/", "ab/x/"] {
            assert_eq!(found(&data, &nothing.parse().unwrap()), 0);
        }
        begin(&data, "a/z", Plan::new(None, Some(10), Some(1000)).unwrap());
        begin(&data, "abc", Plan::new(None, Some(10), Some(70_000)).unwrap());
        begin(&data, "a/open", Plan::new(None, Some(10), None).unwrap());
        assert_eq!(found(&data, &prefix), 1120);
        let open = data.tmp().join("a%2Fopen");
        fs::write(open.join("0"), [0; 10]).unwrap();
        fs::write(open.join("5"), [0; 10]).unwrap();
        assert_eq!(found(&data, &prefix), 1140);
        assert_eq!(found(&data, &Prefix::default()), 75_143);
    }

    #[test]
    fn links_are_not_followed() {
        let (_dir, data) = data();
        std::os::unix::fs::symlink(data.files().join("c"), data.files().join("a/link")).unwrap();
        std::os::unix::fs::symlink(data.files(), data.files().join("a/all")).unwrap();
        assert_eq!(found(&data, &"a/".parse().unwrap()), 120);
        std::os::unix::fs::symlink(data.files(), data.files().join("d")).unwrap();
        assert_eq!(found(&data, &"d/".parse().unwrap()), 0);
    }

    #[test]
    fn what_is_granted_counts_at_once_and_what_is_removed_counts_no_more() {
        let (_dir, data) = data();
        let (usage, prefix) = (Usage::default(), "a/".parse().unwrap());
        let grant = |more| usage.grant(&data, &prefix, 200, more).unwrap();
        assert_eq!(grant(50), Ok(()));
        begin(&data, "a/z", Plan::new(None, Some(10), Some(50)).unwrap());
        assert_eq!((grant(30), grant(31)), (Ok(()), Err(170)), "of the 30 nothing is there: they count no more");
        assert_eq!((grant(30), grant(0)), (Ok(()), Ok(())));
        fs::remove_file(data.files().join("a/x")).unwrap();
        assert_eq!(grant(130), Ok(()));
    }

    #[test]
    fn what_arrives_without_a_spool_counts() {
        let (_dir, data) = data();
        let arriving = Arriving::default();
        let (usage, prefix) = (Usage::new(arriving.clone()), "a/".parse().unwrap());
        let grant = |more| usage.grant(&data, &prefix, 200, more).unwrap();
        let counted = [arriving.count("a/z", 50, None), arriving.count("b", 1000, None)];
        assert_eq!((grant(30), grant(1)), (Ok(()), Ok(())));
        assert_eq!(grant(60), Err(170));
        drop(counted);
        let usage = Usage::new(arriving);
        assert_eq!(usage.grant(&data, &prefix, 200, 60).unwrap(), Ok(()));
    }

    #[test]
    fn nothing_overflows() {
        let (_dir, data) = data();
        assert_eq!(Usage::default().grant(&data, &Prefix::default(), u64::MAX - 1, u64::MAX).unwrap(), Err(4123));
    }
}
