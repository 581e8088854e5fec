//! The reader and the senders of one round stop each other.

use crate::pipeline::error::RoundError;
use crate::stop::{Stop, StopSignal};
use bigup_core::protocol::digest::Digest;
use std::sync::{Mutex, PoisonError};

/// Why a round stops before all its slices are sent.
#[derive(Debug)]
pub enum StopReason {
    /// Something failed for good.
    Failed(RoundError),
    /// The server says that the file is finished, with this digest if it says so: nothing more is needed.
    Finished(Option<Digest>),
    /// The server does not know the upload any more.
    Lost,
    /// Slices take too long on this line.
    TooSlow,
}

/// Stops the threads of a round. The first reason counts.
#[derive(Default)]
pub struct RoundStop {
    reason: Mutex<Option<StopReason>>,
    stop: Stop,
}

impl RoundStop {
    /// Nothing is to stop yet.
    pub fn new() -> RoundStop {
        RoundStop::default()
    }

    /// Stops everything because of `reason`.
    pub fn raise(&self, reason: StopReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.stop.stop();
    }

    /// Closed once all is to stop.
    pub fn signal(&self) -> &StopSignal {
        self.stop.signal()
    }

    /// True if all is to stop.
    pub fn is_raised(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Why it stopped, where it did.
    pub fn into_reason(self) -> Option<StopReason> {
        self.reason.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let stop = RoundStop::new();
        assert!(!stop.is_raised());
        stop.raise(StopReason::Lost);
        stop.raise(StopReason::Finished(None));
        assert!(stop.is_raised());
        assert!(matches!(stop.into_reason(), Some(StopReason::Lost)));
    }
}
