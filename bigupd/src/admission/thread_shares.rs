//! Threads that can block on the disk, shared fairly.
//!
//! There are some hundreds of threads in all, and each request needs a thread now and then. A client that sends
//! hundreds of requests, each waiting for the disk or for a count of many files, would take all of them. So each token,
//! and each host without a token, gets no more than a share at once. Work beyond it waits, and only for its own share.

use crate::net::connection_slots;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Threads in all for work that can block.
pub const THREADS: usize = 1024;

/// Most threads of a share. It is more than a client has senders. It is also more than the number of requests that can
/// wait for a hook's response (`on_begin`), which can ask the daemon something itself.
const SHARE: usize = 160;

/// The owner of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ShareOwner {
    /// Every client that shows this secret, by its hash. Only later is it known whether it is a token's, and only
    /// tokens' requests have work that takes time.
    Secret([u8; 32]),
    /// Of a host.
    Host(IpAddr),
    /// Of an unknown client.
    Unknown,
}

impl ShareOwner {
    /// The owner of a request that carries this secret, or no secret, and comes from this address.
    pub fn of(secret: Option<&str>, address: Option<IpAddr>) -> ShareOwner {
        match (secret, address) {
            (Some(secret), _) => ShareOwner::Secret(*blake3::hash(secret.as_bytes()).as_bytes()),
            (None, Some(address)) => ShareOwner::Host(connection_slots::peer(address)),
            (None, None) => ShareOwner::Unknown,
        }
    }
}

/// All shares; unused ones are dropped.
#[derive(Clone, Debug, Default)]
pub struct ThreadShares(Arc<Mutex<HashMap<ShareOwner, Weak<Semaphore>>>>);

/// The share of one. Copies are of the same share.
#[derive(Clone, Debug)]
pub struct ThreadShare {
    permits: Arc<Semaphore>,
}

impl ThreadShares {
    /// The share of `whose`.
    pub fn of(&self, whose: ShareOwner) -> ThreadShare {
        let mut thread_shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = thread_shares.get(&whose).and_then(Weak::upgrade) {
            return ThreadShare { permits };
        }
        if thread_shares.len() >= 64 && thread_shares.len().is_power_of_two() {
            thread_shares.retain(|_, permits| permits.strong_count() > 0);
        }
        let permits = Arc::new(Semaphore::new(SHARE));
        thread_shares.insert(whose, Arc::downgrade(&permits));
        ThreadShare { permits }
    }
}

impl ThreadShare {
    /// Does work that can block on a thread of the share, once a thread is free. Work that has begun is done to the
    /// end, even if its caller is gone.
    ///
    /// # Errors
    /// It panicked, or the daemon ends.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        // It is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn host(last: u8) -> ShareOwner {
        ShareOwner::of(None, Some([10, 0, 0, last].into()))
    }

    #[test]
    fn one_has_a_share_and_another_another() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let thread_shares = ThreadShares::default();
        let at_work = Arc::new(AtomicUsize::new(0));
        let (tell, told) = mpsc::channel::<()>();
        let told = Arc::new(Mutex::new(told));
        let many = (0..SHARE + 50).map(|_| {
            let (thread_share, at_work, told) = (thread_shares.of(host(1)), Arc::clone(&at_work), Arc::clone(&told));
            runtime.spawn(async move {
                let work = move || {
                    at_work.fetch_add(1, Ordering::Relaxed);
                    // Blocks until all are told to end.
                    let _ = told.lock().unwrap().recv();
                };
                thread_share.run(work).await.unwrap();
            })
        });
        let many: Vec<_> = many.collect();
        while at_work.load(Ordering::Relaxed) < SHARE {
            std::thread::yield_now();
        }
        runtime.block_on(thread_shares.of(host(2)).run(|| ())).unwrap();
        runtime.block_on(thread_shares.of(ShareOwner::of(Some("secret"), None)).run(|| ())).unwrap();
        assert_eq!(at_work.load(Ordering::Relaxed), SHARE, "the others wait");
        drop(tell);
        many.into_iter().for_each(|one| runtime.block_on(one).unwrap());
        assert_eq!(at_work.load(Ordering::Relaxed), SHARE + 50);
    }

    #[test]
    fn little_is_kept_of_those_that_left() {
        let thread_shares = ThreadShares::default();
        for i in 0..100_000_u32 {
            drop(thread_shares.of(ShareOwner::of(Some(&i.to_string()), None)));
        }
        assert!(thread_shares.0.lock().unwrap().len() <= 65);
        let one = thread_shares.of(host(1));
        assert!(Arc::ptr_eq(&one.permits, &thread_shares.of(host(1)).permits));
    }

    #[test]
    fn whose_work_it_is_goes_by_the_secret_first() {
        let address = Some("10.0.0.1".parse().unwrap());
        assert_eq!(ShareOwner::of(Some("a"), address), ShareOwner::of(Some("a"), None));
        assert_ne!(ShareOwner::of(Some("a"), address), ShareOwner::of(Some("b"), address));
        assert_eq!(ShareOwner::of(None, address), ShareOwner::of(None, Some("::ffff:10.0.0.1".parse().unwrap())));
        assert_eq!(ShareOwner::of(None, None), ShareOwner::Unknown);
    }
}
