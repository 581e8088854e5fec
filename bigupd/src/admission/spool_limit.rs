//! `spool_limit`: the bytes of unfinished uploads in the data folder while some of them wait for the store of objects.
//!
//! Below the limit everything is let in. Above it nothing is, as long as the store has something to take: its space comes
//! back. If the store has all that it can take, the slices that merging waits for are let in, and no others: each of them
//! makes a part whole, so that the store gets something to take. So nothing waits for ever.
//!
//! A slice counts twice until it is merged: its file stays beside its copy in the merged file until that copy is synced. So
//! merging never brings the bytes above the limit, however many slices wait when a merger begins.
//!
//! The bytes are counted at most once a second below the limit, and anew for each request above it, once for all that wait.
//! Bytes that were let in and are not on the disk yet, or came there since, count as well. So requests at the same time go
//! over the limit by the slices that merging waits for only: one of each upload. Another daemon on the folder may let in as
//! much as comes in a second.

use crate::admission::turns::CountTurns;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::Spool;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a count is good below the limit.
const HOLDS: Duration = Duration::from_secs(1);

/// Places that a slice takes before its file is removed: that file, and its copy in the merged file.
const SPACES: u64 = 2;

/// The limit of a data folder. Copies count together.
#[derive(Clone, Debug)]
pub struct SpoolLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: DataDir,
    /// Bytes; 0: no limit.
    most: u64,
    turns: CountTurns,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counted: Option<Counted>,
    /// Bytes that were let in, and may not be on the disk yet; with those of their copies, as the next two.
    at_work: u64,
    /// Bytes that came to the disk since the count that stands began.
    since: u64,
    /// The same since the count at work began.
    meanwhile: u64,
}

/// Bytes that were let in. They count as such until this is dropped, once a count can see them on the disk.
#[derive(Debug)]
pub struct LetIn {
    of: SpoolLimit,
    len: u64,
}

impl Drop for LetIn {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.at_work = state.at_work.saturating_sub(self.len);
        state.since = state.since.saturating_add(self.len);
        state.meanwhile = state.meanwhile.saturating_add(self.len);
    }
}

/// A count.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    began: Option<Instant>,
    /// Bytes in all spools, and of the copies that merging will make of slices that wait.
    bytes: u64,
    /// True if the store has something to take.
    store_is_behind: bool,
}

/// More is in the spools than may be while the store is slow or away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolsFull {
    /// Bytes that are there, and those of copies of slices that wait.
    pub bytes: u64,
    /// Bytes that may be there.
    pub most: u64,
}

impl State {
    fn total(&self) -> u64 {
        let counted = self.counted.map_or(0, |counted| counted.bytes);
        counted.saturating_add(self.since).saturating_add(self.at_work)
    }
}

impl SpoolLimit {
    /// At most `most` bytes in the spools of `data`, if it has a store of objects; 0: the disk is the limit.
    pub fn new(data: DataDir, most: u64) -> SpoolLimit {
        let most = if data.objects().is_some() { most } else { 0 };
        SpoolLimit(Arc::new(Inner { data, most, turns: CountTurns::default(), state: Mutex::default() }))
    }

    /// True if there is a limit.
    pub fn is_set(&self) -> bool {
        self.0.most > 0
    }

    /// Lets in `len` bytes of a slice, or tells why not. `is_next` tells if merging waits for that slice, or if an upload
    /// begins. Blocks on the disk, and must be called without any lock.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn take(&self, len: u64, is_next: impl FnOnce() -> io::Result<bool>) -> io::Result<Result<LetIn, SpoolsFull>> {
        let most = self.0.most;
        if !self.is_set() {
            return Ok(Ok(LetIn { of: self.clone(), len: 0 }));
        }
        let len = len.saturating_mul(SPACES);
        let let_in = |mut state: MutexGuard<'_, State>| {
            state.at_work = state.at_work.saturating_add(len);
            drop(state);
            Ok(Ok(LetIn { of: self.clone(), len }))
        };
        let asked = Instant::now();
        {
            let state = self.state();
            let is_fresh = state.counted.and_then(|counted| counted.began).is_some_and(|began| began.elapsed() < HOLDS);
            if is_fresh && state.total().saturating_add(len) <= most {
                return let_in(state);
            }
        }
        self.0.turns.count_since(asked, || self.count())?;
        let is_next = is_next()?;
        let state = self.state();
        let is_behind = state.counted.is_some_and(|counted| counted.store_is_behind);
        if state.total().saturating_add(len) <= most || (is_next && !is_behind) {
            return let_in(state);
        }
        Ok(Err(SpoolsFull { bytes: state.total(), most }))
    }

    fn count(&self) -> io::Result<()> {
        let mut counted = Counted { began: Some(Instant::now()), ..Counted::default() };
        self.state().meanwhile = 0;
        for spool in Spool::all(&self.0.data)? {
            match count_one(&spool) {
                Ok((bytes, for_store)) => {
                    counted.bytes += bytes;
                    counted.store_is_behind |= for_store > 0;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::debug!("{} counts for nothing: {e}", spool.folder()),
            }
        }
        let mut state = self.state();
        (state.counted, state.since) = (Some(counted), state.meanwhile);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a spool with those of copies that are still to be made, and bytes that the store could take now.
fn count_one(spool: &Spool) -> io::Result<(u64, u64)> {
    let Some(upload) = spool.upload()? else { return Ok((0, 0)) };
    let holdings = spool.holdings(&upload)?;
    let held = spool.bytes(&upload, &holdings)?;
    // Looked at last: a slice that is merged in between counts once more, not once less.
    let bytes = spool.bytes_on_disk()? + (held.held - held.merged) * (SPACES - 1);
    Ok((bytes, spool.for_store(&upload, &holdings)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::name::FileName;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::objects::{ObjectSettings, Objects};
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{UploadId, UploadRecord};
    use std::sync::Barrier;

    const MIB: u64 = 1 << 20;

    /// A data folder with a store that nobody asks, and a spool of an upload that gives space back.
    fn spool(folder: &std::path::Path) -> (DataDir, Spool) {
        let settings = ObjectSettings {
            url: "s3://bucket".parse().unwrap(),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            region: "r".to_owned(),
            path_style: true,
            credentials_file: None,
            parts_at_once: 1,
        };
        let objects = Objects::new(settings).unwrap();
        let data = DataDir::create(folder).unwrap().with_objects(Some(Arc::new(objects)));
        let plan = Plan::new(None, Some(MIB), Some(64 * MIB)).unwrap();
        let upload = UploadRecord::begin(FileName::new("f").unwrap(), plan, Some("s".to_owned()));
        let upload = UploadRecord { gives_back: true, ..upload };
        let id = UploadId::of_name(&upload.file_name);
        assert!(Spool::create(&data, &id, &upload, &DiskSpace::new(&data, 0)).unwrap());
        let spool = Spool::of(&data, &id);
        (data, spool)
    }

    /// Those of forty requests for a mebibyte at once that are let in.
    fn let_in(limit: &SpoolLimit, is_next: bool) -> Vec<LetIn> {
        let start = Barrier::new(40);
        std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                limit.take(MIB, || Ok(is_next)).unwrap().ok()
            };
            let asking: Vec<_> = (0..40).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
        })
    }

    #[test]
    fn many_requests_at_once_fill_the_rest_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (data, spool) = spool(dir.path());
        std::fs::write(spool.slice_path(3), vec![7; 2 * MIB as usize]).unwrap();
        // Beside the two mebibytes, which merging will copy, there are some small files.
        let limit = SpoolLimit::new(data.clone(), 12 * MIB + MIB / 2);
        let first = let_in(&limit, false);
        assert_eq!((first.len(), let_in(&limit, false).len()), (4, 0));
        // None of them came to the disk.
        drop(first);
        assert_eq!(let_in(&SpoolLimit::new(data, 0), false).len(), 40, "no limit");
    }

    #[test]
    fn above_the_limit_only_that_is_let_in_which_gives_the_store_something_to_take() {
        let dir = tempfile::tempdir().unwrap();
        let (data, spool) = spool(dir.path());
        std::fs::write(spool.slice_path(3), vec![7; 2 * MIB as usize]).unwrap();
        let limit = SpoolLimit::new(data, MIB);
        assert!(limit.take(MIB, || Ok(true)).unwrap().is_ok());
        assert!(limit.take(MIB, || Ok(false)).unwrap().is_err());
        // A slice is merged: its file counts until it is removed, and not for another copy.
        std::fs::write(spool.merged_path(), vec![7; 8 * MIB as usize]).unwrap();
        let full = limit.take(MIB, || Ok(true)).unwrap().unwrap_err();
        assert!(full.most == MIB && (10 * MIB..12 * MIB).contains(&full.bytes), "{full:?}");
        assert!(limit.take(0, || Ok(true)).unwrap().is_err(), "no upload begins");
    }
}
