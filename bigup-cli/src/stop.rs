//! Stopping an upload from another thread.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A channel on which nothing ever arrives; it is closed when all is to stop.
pub type StopSignal = Receiver<Infallible>;

/// Stops uploads. Clones stop the same ones.
///
/// ```
/// let stop = bigup_client::stop::Stop::new();
/// let other = stop.clone();
/// std::thread::spawn(move || other.stop()).join().unwrap();
/// assert!(stop.is_stopped());
/// ```
#[derive(Clone, Debug)]
pub struct Stop {
    open: Arc<Mutex<Option<Sender<Infallible>>>>,
    signal: StopSignal,
}

impl Stop {
    /// Nothing is stopped at first.
    pub fn new() -> Stop {
        let (open, signal) = crossbeam_channel::bounded(0);
        Stop { open: Arc::new(Mutex::new(Some(open))), signal }
    }

    /// Stops all that has this, now and later. The second call changes nothing.
    pub fn stop(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Closed once all is to stop.
    pub fn signal(&self) -> &StopSignal {
        &self.signal
    }

    /// True if all is to stop.
    pub fn is_stopped(&self) -> bool {
        is_closed(&self.signal)
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

/// Waits; false where `stop` cut it short.
pub fn sleep(stop: &StopSignal, time: Duration) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// True if `stop` says so by now.
pub fn is_closed(stop: &StopSignal) -> bool {
    stop.try_recv() == Err(TryRecvError::Disconnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_cuts_a_wait_short() {
        let stop = Stop::new();
        assert!(sleep(stop.signal(), Duration::from_millis(1)) && !stop.is_stopped());
        stop.clone().stop();
        assert!(!sleep(stop.signal(), Duration::from_secs(3600)) && stop.is_stopped());
    }
}
