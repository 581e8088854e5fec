//! Group syncs of folders. When hundreds of files are finished in one folder, each would wait for a sync of its own of
//! that folder, and each sync has the drive write its cache. So a caller that comes while a folder is being synced
//! waits for the next sync of it, together with all other callers that came meanwhile.

use crate::storage::disk::again;
use std::collections::HashMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The syncs that are wanted or under way in this process, by their targets.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    turns: Mutex<HashMap<String, Turns>>,
    ended: Condvar,
}

/// The syncs of one thing, numbered from 1.
#[derive(Debug, Default)]
struct Turns {
    begun: u64,
    ended: u64,
    runs: bool,
    /// The last one that failed, and how.
    failed: Option<(u64, io::Error)>,
    /// Number of callers that wait for a sync or run it. The last of them removes this entry.
    waiting: usize,
}

impl GroupSync {
    /// Syncs `what` by `sync`: by this call, or by the call of another waiter for the same, which begins after this was
    /// called.
    ///
    /// # Errors
    /// The result of `sync`, for all callers that waited for it.
    pub(crate) fn sync(&self, what: &str, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        const WAITED_FOR: &str = "it stays while anybody waits";
        let mut all = self.lock();
        let turns = all.entry(what.to_owned()).or_default();
        turns.waiting += 1;
        // A sync that runs already may have passed before the change was made.
        let mine = turns.begun + 1;
        loop {
            let turns = all.get_mut(what).expect(WAITED_FOR);
            if turns.ended >= mine {
                break;
            }
            if turns.runs {
                all = self.ended.wait(all).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            (turns.begun, turns.runs) = (turns.begun + 1, true);
            let number = turns.begun;
            drop(all);
            let result = sync();
            all = self.lock();
            let turns = all.get_mut(what).expect(WAITED_FOR);
            (turns.ended, turns.runs) = (number, false);
            if let Err(e) = result {
                turns.failed = Some((number, e));
            }
            self.ended.notify_all();
        }
        let turns = all.get_mut(what).expect(WAITED_FOR);
        turns.waiting -= 1;
        // A later one that failed counts too: it is no proof that all is well.
        let failed = turns.failed.as_ref().filter(|(number, ..)| *number >= mine);
        let result = failed.map_or(Ok(()), |(_, error)| Err(again(error)));
        if turns.waiting == 0 {
            all.remove(what);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Turns>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn who_comes_during_a_sync_shares_the_next_one() {
        let (syncs, began) = (GroupSync::default(), AtomicU64::new(0));
        let sync = || {
            began.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(200));
            Ok(())
        };
        thread::scope(|scope| {
            scope.spawn(|| syncs.sync("a", sync).unwrap());
            while began.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            (0..20).for_each(|_| drop(scope.spawn(|| syncs.sync("a", sync).unwrap())));
        });
        assert_eq!((began.into_inner(), syncs.lock().len()), (2, 0));
    }

    #[test]
    fn all_who_waited_for_a_sync_that_failed_learn_of_it_and_the_next_may_succeed() {
        let (syncs, began) = (GroupSync::default(), AtomicU64::new(0));
        let sync = || {
            let number = began.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(200));
            if number == 1 { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| syncs.sync("a", sync));
            while began.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            let others: Vec<_> = (0..5).map(|_| scope.spawn(|| syncs.sync("a", sync))).collect();
            first.join().unwrap().unwrap();
            for other in others {
                assert!(other.join().unwrap().unwrap_err().to_string().contains("os error 5"));
            }
        });
        syncs.sync("a", sync).unwrap();
    }
}
