//! True if a peer keeps the pace: not silent for too long, and not slower than it must be on the average of each
//! window.
//!
//! Only time spent waiting for the peer counts. While the server waits for its own disk the clock stands still.

use crate::net::limits::Limits;
use std::fmt;
use std::time::Duration;

/// The pace of one peer within one body or response.
#[derive(Clone, Debug)]
pub struct MinRate {
    /// Longest silence, and the time over which the rate counts.
    window: Duration,
    /// Bytes a second. 0: any.
    rate: u64,
    silent: Duration,
    waited: Duration,
    bytes: u64,
}

/// A peer that does not keep the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooSlow {
    /// Not one byte moved for this time.
    Silent(Duration),
    /// Fewer bytes moved than must.
    Slow {
        /// Number of bytes moved.
        bytes: u64,
        /// Number of bytes required.
        least: u64,
        /// In this time.
        window: Duration,
    },
}

impl MinRate {
    /// The pace that bodies, and readers of responses, must keep.
    pub fn new(limits: &Limits) -> MinRate {
        let (window, rate) = (limits.body_timeout, limits.min_body_rate);
        MinRate { window, rate, silent: Duration::ZERO, waited: Duration::ZERO, bytes: 0 }
    }

    /// Longest time to wait for the peer before it is to be judged.
    pub fn patience(&self) -> Duration {
        self.window.saturating_sub(self.silent.max(self.waited))
    }

    /// The peer was waited for, and this many bytes moved then; 0: no bytes, and the time is over.
    ///
    /// # Errors
    /// It is too slow.
    pub fn waited(&mut self, time: Duration, bytes: u64) -> Result<(), TooSlow> {
        self.silent = if bytes > 0 { Duration::ZERO } else { self.silent + time };
        self.waited += time;
        self.bytes += bytes;
        if self.silent >= self.window {
            return Err(TooSlow::Silent(self.window));
        }
        if self.waited >= self.window {
            let least = (u128::from(self.rate) * self.window.as_millis() / 1000).try_into().unwrap_or(u64::MAX);
            if self.bytes < least {
                return Err(TooSlow::Slow { bytes: self.bytes, least, window: self.window });
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(())
    }
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TooSlow::Silent(time) => write!(f, "no byte of the body came for {} s", time.as_secs_f64()),
            TooSlow::Slow { bytes, least, window } => {
                write!(f, "{bytes} bytes of the body came in {} s, at least {least} must", window.as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(rate: u64) -> MinRate {
        let limits = Config::defaults("/d".into()).limits;
        MinRate::new(&Limits { body_timeout: 10 * SECOND, min_body_rate: rate, ..limits })
    }

    #[test]
    fn silence_adds_up_until_a_byte_comes() {
        let mut pace = pace(0);
        pace.waited(9 * SECOND, 0).unwrap();
        assert_eq!(pace.patience(), SECOND);
        pace.waited(SECOND / 2, 1).unwrap();
        pace.waited(9 * SECOND, 0).unwrap();
        assert_eq!(pace.waited(SECOND, 0), Err(TooSlow::Silent(10 * SECOND)));
    }

    #[test]
    fn each_window_counts_by_itself() {
        let mut pace = pace(100);
        pace.waited(SECOND, 1_000_000).unwrap();
        pace.waited(9 * SECOND, 1).unwrap();
        for _ in 0..9 {
            pace.waited(SECOND, 99).unwrap();
        }
        let slow = TooSlow::Slow { bytes: 990, least: 1000, window: 10 * SECOND };
        assert_eq!(pace.waited(SECOND, 99), Err(slow));
        assert_eq!(slow.to_string(), "990 bytes of the body came in 10 s, at least 1000 must");
    }

    #[test]
    fn who_is_not_waited_for_is_never_too_slow() {
        let mut pace = pace(u64::MAX);
        for _ in 0..1000 {
            pace.waited(Duration::ZERO, 1).unwrap();
        }
        assert_eq!(pace.patience(), 10 * SECOND);
    }
}
