//! How the reader and the senders of one round stop each other.

use bigup_core::protocol::digest::Digest;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A channel on which nothing ever arrives; it is closed when all is to stop.
pub type StopSignal = Receiver<Infallible>;

/// Why a round stops before all its slices are sent.
#[derive(Debug)]
pub enum StopReason {
    /// Something failed for good.
    Failed(anyhow::Error),
    /// The server says that the file is finished, with this digest if it says so: nothing more is needed.
    Finished(Option<Digest>),
    /// The server does not know the upload any more.
    Lost,
    /// Slices take too long on this line.
    TooSlow,
}

/// Stops the threads of a round. The first verdict counts.
pub struct RoundStop {
    verdict: Mutex<Option<StopReason>>,
    open: Mutex<Option<Sender<Infallible>>>,
    signal: StopSignal,
}

impl RoundStop {
    /// Nothing is to stop yet.
    pub fn new() -> RoundStop {
        let (open, signal) = crossbeam_channel::bounded(0);
        RoundStop { verdict: Mutex::new(None), open: Mutex::new(Some(open)), signal }
    }

    /// Stops everything because of `verdict`.
    pub fn raise(&self, verdict: StopReason) {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Closed once all is to stop.
    pub fn signal(&self) -> &StopSignal {
        &self.signal
    }

    /// Whether all is to stop.
    pub fn is_raised(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Why it stopped, where it did.
    pub fn into_verdict(self) -> Option<StopReason> {
        self.verdict.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for RoundStop {
    fn default() -> RoundStop {
        RoundStop::new()
    }
}

/// Waits; false where `stop` cut it short.
pub fn sleep(stop: &StopSignal, time: Duration) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// Whether `stop` says so by now.
pub fn is_closed(stop: &StopSignal) -> bool {
    stop.try_recv() == Err(TryRecvError::Disconnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_counts() {
        let halt = RoundStop::new();
        assert!(!halt.is_raised() && !is_closed(halt.signal()));
        halt.raise(StopReason::Lost);
        halt.raise(StopReason::Finished(None));
        assert!(halt.is_raised() && is_closed(halt.signal()));
        assert!(matches!(halt.into_verdict(), Some(StopReason::Lost)));
    }

    #[test]
    fn a_wait_is_cut_short() {
        let halt = RoundStop::new();
        assert!(sleep(halt.signal(), Duration::from_millis(1)));
        halt.raise(StopReason::Lost);
        assert!(!sleep(halt.signal(), Duration::from_secs(3600)));
    }
}
