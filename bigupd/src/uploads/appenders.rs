//! Requests at work that append to uploads, and the ways to stop them: a newer request comes from a client that lost its
//! connection, and goes on where the older one left off.
//!
//! A request of this daemon is told by a channel. A request of another daemon on the same data folder is asked by a file
//! in the spool, which it looks at every two seconds.

use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Time between two looks whether a request at another daemon asks this one to stop. It is short beside the time that
/// such a request waits.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Requests at work that append, by the source of their upload, so that a newer one can tell them to stop. Only the
/// client of an upload knows its source: nobody else ends its requests.
#[derive(Clone, Debug, Default)]
pub struct Appenders(Arc<Mutex<HashMap<String, AtWork>>>);

/// A request at work that appends.
#[derive(Clone, Debug)]
pub struct AtWork(Arc<watch::Sender<bool>>);

impl AtWork {
    /// Waits until it has ended.
    pub async fn ended(&self) {
        self.0.closed().await;
    }

    fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Tells a request that appends to stop; it is one of the [`Appenders`] for as long as this lives.
#[derive(Debug)]
pub struct Appender {
    source: String,
    stop: watch::Receiver<bool>,
    at_work: AtWork,
    older: Option<AtWork>,
    all: Appenders,
}

impl Appenders {
    /// A request begins to append to the upload of `source`. Another one that does is told to stop.
    pub fn enter(&self, source: &str) -> Appender {
        let (sender, stop) = watch::channel(false);
        let (source, at_work) = (source.to_owned(), AtWork(Arc::new(sender)));
        let older = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), at_work.clone());
        older.iter().for_each(AtWork::stop);
        Appender { source, stop, at_work, older, all: self.clone() }
    }

    /// Tells the request that appends to the upload of `source` to stop. `None` if there is none.
    pub fn stop(&self, source: &str) -> Option<AtWork> {
        let at_work = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
        at_work.iter().for_each(AtWork::stop);
        at_work
    }
}

impl Appender {
    /// Waits until the older request, which was told to stop, has ended.
    pub async fn alone(&mut self) {
        if let Some(older) = &self.older {
            older.ended().await;
        }
        self.older = None;
    }

    /// True if this request was told to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// From here on, a request at another daemon on the folder `data` can ask this one, which has the tail of the upload
    /// `id`, to stop.
    pub fn heed_other_daemons(&self, data: &DataDir, id: &UploadId) {
        let (spool, at_work) = (Spool::of(data, id), self.at_work.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = at_work.ended() => {}
                () = asked_to_stop(spool) => at_work.stop(),
            }
        });
    }

    /// Waits until this request is told to stop.
    pub async fn stopped(&mut self) {
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.source).is_some_and(|at_work| Arc::ptr_eq(&at_work.0, &self.at_work.0)) {
            all.remove(&self.source);
        }
    }
}

/// Waits until a request asks the one at the tail of the upload to stop. A call that comes before the first look is not
/// seen: its request repeats it.
async fn asked_to_stop(spool: Spool) {
    let spool = Arc::new(spool);
    let look = || async {
        let spool = Arc::clone(&spool);
        tokio::task::spawn_blocking(move || spool.asked_to_stop()).await.ok().and_then(Result::ok).flatten()
    };
    let before = look().await;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Nothing is there, or can be read, once the upload has ended.
        if let Some(asked) = look().await
            && Some(asked) != before
        {
            return;
        }
    }
}
