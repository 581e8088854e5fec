//! Slices that came a short time ago, whose files are kept open. As long as they are open, a merger knows that it reads
//! the bytes that came, without comparing them with their digest ([`bigup_core::storage::spool::is_as_it_came`]).
//!
//! They are let go once their names are gone, so that their blocks become free and nobody writes them back; and after
//! 10 s, or when too many came since. A merger then reads them, which costs time and nothing else.

use crate::descriptors;
use bigup_core::storage::spool::Arrival;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Time that a file is kept open: a merger that keeps pace takes much less.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Time between two scans for names that are gone.
const PAUSE: Duration = Duration::from_millis(100);

/// The files kept open.
#[derive(Clone, Debug)]
pub struct RecentSlices {
    kept: Arc<Mutex<VecDeque<(Instant, Arrival)>>>,
    most: usize,
    came: Arc<Notify>,
}

impl Default for RecentSlices {
    fn default() -> RecentSlices {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let most = usize::try_from(descriptors::kept_open(files)).unwrap_or(0);
        RecentSlices { kept: Arc::default(), most, came: Arc::default() }
    }
}

impl RecentSlices {
    /// Keeps the file of a slice that was committed. May block.
    pub fn keep(&self, arrival: Arrival) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((Instant::now(), arrival));
        let first = kept.len().saturating_sub(self.most);
        let gone: Vec<_> = kept.drain(..first).collect();
        drop(kept);
        // Outside the lock: the last to close a file that has no name any more removes it.
        drop(gone);
        self.came.notify_one();
    }

    /// Lets go those whose time is over or whose names are gone. True if any is left. May block.
    pub fn let_go(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |when: &Instant, arrival: &Arrival| {
            when.elapsed() < KEPT_FOR && arrival.file().metadata().is_ok_and(|found| found.nlink() > 0)
        };
        let (stay, gone) = kept.drain(..).partition(|(when, arrival)| is_kept(when, arrival));
        *kept = stay;
        let is_any_left = !kept.is_empty();
        drop(kept);
        drop::<VecDeque<_>>(gone);
        is_any_left
    }
}

/// Lets go files that need not be kept any more, again and again.
pub async fn let_go_forever(recent: RecentSlices) {
    loop {
        recent.came.notified().await;
        let mut is_any_left = true;
        while is_any_left {
            tokio::time::sleep(PAUSE).await;
            let at_work = recent.clone();
            is_any_left = tokio::task::spawn_blocking(move || at_work.let_go()).await.unwrap_or(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::name::FileName;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::data_dir::DataDir;
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};

    #[test]
    fn what_has_no_name_is_let_go_and_so_are_the_oldest_of_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let name = FileName::new("x").unwrap();
        let plan = Plan::new(None, Some(1024), Some(10_240)).unwrap();
        assert!(
            Spool::create(
                &data,
                &UploadId::of_name(&name),
                &UploadRecord::begin(name.clone(), plan, None),
                &DiskSpace::new(&data, 0)
            )
            .unwrap()
        );
        let spool = Spool::of(&data, &UploadId::of_name(&name));
        let recent = RecentSlices { most: 3, ..RecentSlices::default() };
        let ids = || -> Vec<u64> {
            let kept = recent.kept.lock().unwrap();
            let name = |arrival: &Arrival| arrival.path().file_name().unwrap().to_str().unwrap().to_owned();
            kept.iter().map(|(_, arrival)| name(arrival).split('.').next().unwrap().parse().unwrap()).collect()
        };
        assert!(!recent.let_go());
        (0..5).for_each(|slice_id| recent.keep(spool.arrival(slice_id).unwrap()));
        assert_eq!(ids(), [2, 3, 4]);
        let path = recent.kept.lock().unwrap()[1].1.path().to_owned();
        std::fs::remove_file(path).unwrap();
        assert!(recent.let_go());
        assert_eq!(ids(), [2, 4]);
    }
}
