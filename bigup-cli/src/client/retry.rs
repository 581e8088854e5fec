//! Failures that may pass, the wait before the next attempt, and the time to give up.

use crate::client::error::CallError;
use crate::client::observer::{Observer, Retry};
use crate::stop::{StopSignal, is_closed, sleep};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wait before the second attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait of our own, so that a server that comes back is soon found.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// The reaction to a full disk of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Fail with the server's numbers.
    Stop,
    /// Ask again until there is disk space, or the time of retries is over.
    Wait,
}

/// The number and the time of retries of failed requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Repetitions of a request at most. 0: each is sent once.
    pub retries: u32,
    /// Time without any success after which an upload gives up.
    pub retry_for: Duration,
    /// The reaction to a full disk of the server.
    pub when_full: WhenFull,
}

/// A policy, and the time of the last success. Shared by all threads of a push.
pub struct RetryBudget {
    policy: RetryPolicy,
    last_success: Mutex<Instant>,
    calls: Mutex<Calls>,
}

/// Requests, with all their repetitions.
struct Calls {
    at_work: usize,
    last_end: Instant,
}

impl Default for RetryPolicy {
    /// 100 retries within 10 minutes; a full disk is an error.
    fn default() -> RetryPolicy {
        RetryPolicy { retries: 100, retry_for: Duration::from_secs(600), when_full: WhenFull::Stop }
    }
}

impl RetryPolicy {
    /// True if the same request may succeed later. A full disk stays full, except where the server says otherwise or
    /// the user wants to wait.
    pub fn may_pass(&self, error: &CallError) -> bool {
        let is_awaited = error.is_full() && self.when_full == WhenFull::Wait;
        is_awaited || error.is_temporary() && !matches!(error, CallError::GaveUp { .. })
    }
}

impl RetryBudget {
    /// The time of `policy` begins now.
    pub fn new(policy: RetryPolicy) -> RetryBudget {
        let (last_success, calls) = (Mutex::new(Instant::now()), Calls { at_work: 0, last_end: Instant::now() });
        RetryBudget { policy, last_success, calls: Mutex::new(calls) }
    }

    /// True if the server has heard nothing for `time`.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.at_work == 0 && calls.last_end.elapsed() >= time
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls = Calls { at_work: change(calls.at_work), last_end: Instant::now() };
    }

    /// Something got better.
    pub fn renew(&self) {
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Longest time without progress.
    pub fn retry_for(&self) -> Duration {
        self.policy.retry_for
    }

    /// True if nothing got better for too long.
    pub fn is_over(&self) -> bool {
        self.last_success.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= self.policy.retry_for
    }

    /// True if attempt number `attempt`, failed, was the last; the first one failed at `first_failure`.
    ///
    /// A slice may take longer than the time of retries on a slow link, so the time counts from the first failure at
    /// most.
    fn ends(&self, attempt: u32, first_failure: Instant) -> bool {
        attempt > self.policy.retries || (self.is_over() && first_failure.elapsed() >= self.policy.retry_for)
    }

    /// Time in which attempts go on without progress; the first attempt failed at `first_failure`.
    fn left(&self, first_failure: Instant) -> Duration {
        let last_success = *self.last_success.lock().unwrap_or_else(PoisonError::into_inner);
        self.policy.retry_for.saturating_sub(last_success.max(first_failure).elapsed())
    }

    /// Calls `call` until it succeeds, fails for good, or the time of retries is over; waits between attempts unless
    /// stopped.
    ///
    /// `slice_id` is what the attempts are about, for the report.
    ///
    /// # Errors
    /// The failure that does not pass, or that attempts ran out, with the last failure.
    pub fn call<T>(
        &self,
        observer: &dyn Observer,
        stop: &StopSignal,
        slice_id: Option<u64>,
        call: impl FnMut() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.count(|at_work| at_work + 1);
        let result = self.repeat(observer, stop, slice_id, call);
        self.count(|at_work| at_work.saturating_sub(1));
        result
    }

    fn repeat<T>(
        &self,
        observer: &dyn Observer,
        stop: &StopSignal,
        slice_id: Option<u64>,
        mut call: impl FnMut() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        let mut first_failure = None;
        for attempt in 1.. {
            if is_closed(stop) {
                return Err(CallError::Stopped);
            }
            let error = match call() {
                Err(error) if self.policy.may_pass(&error) => error,
                result => {
                    if first_failure.is_some() {
                        observer.answered();
                    }
                    return result;
                }
            };
            let first_failure = *first_failure.get_or_insert_with(Instant::now);
            if self.ends(attempt, first_failure) {
                return Err(gave_up(attempt, began.elapsed(), error));
            }
            let wait = pause(attempt, error.retry_after(), random());
            let left = self.left(first_failure);
            observer.retrying(&Retry { slice_id, attempt, wait, left, error: &error });
            if !sleep(stop, wait) {
                return Err(CallError::Stopped);
            }
        }
        unreachable!("attempts end at the number of retries, which is smaller")
    }
}

fn gave_up(attempts: u32, time: Duration, last: CallError) -> CallError {
    if attempts == 1 {
        return last;
    }
    CallError::GaveUp { attempts, seconds: time.as_secs(), last: Box::new(last) }
}

/// The wait after attempt number `attempt` (from 1) failed.
///
/// Twice as long each time, and anything between the half and the whole of it, so that many clients do not come back
/// at the same moment; not less than the server asked for.
fn pause(attempt: u32, retry_after: Option<Duration>, random: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_PAUSE);
    let jittered = whole.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0);
    jittered.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

fn random() -> u32 {
    // Without randomness all that is lost is the spread.
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::observer::NoObserver;
    use crate::client::tls::TlsFailure;
    use bigup_core::protocol::native::ErrorCode;
    use std::cell::Cell;

    fn refused(status: u16, code: ErrorCode, retry_after: Option<u64>) -> CallError {
        let retry_after = retry_after.map(Duration::from_secs);
        CallError::Refused { status, code, message: "no".to_owned(), retry_after }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_jitter_between_half_and_whole() {
        let ms = |attempt, random| pause(attempt, None, random).as_millis();
        assert_eq!((ms(1, 0), ms(1, u32::MAX)), (100, 200));
        assert_eq!((ms(2, 0), ms(2, u32::MAX)), (200, 400));
        assert_eq!((ms(6, 0), ms(6, u32::MAX)), (3200, 6400));
        assert_eq!((ms(7, 0), ms(7, u32::MAX)), (5000, 10_000));
        assert_eq!((ms(u32::MAX, 0), ms(u32::MAX, u32::MAX)), (5000, 10_000));
    }

    #[test]
    fn the_server_may_ask_for_more_up_to_a_limit_and_never_for_less() {
        let secs = |retry_after| pause(1, Some(Duration::from_secs(retry_after)), 0);
        assert_eq!(secs(0), Duration::from_millis(100));
        assert_eq!(secs(7), Duration::from_secs(7));
        assert_eq!(secs(120), Duration::from_secs(120));
        assert_eq!(secs(121), Duration::from_secs(120));
    }

    #[test]
    fn only_some_refusals_may_pass() {
        let retry = |when_full| RetryPolicy { when_full, ..RetryPolicy::default() };
        let may_pass = |error: &CallError| retry(WhenFull::Stop).may_pass(error);
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(may_pass(&refused(status, ErrorCode::Unknown, None)), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 409, 413, 501] {
            assert!(!may_pass(&refused(status, ErrorCode::Unknown, Some(1))), "{status}");
        }
        assert!(may_pass(&refused(400, ErrorCode::Damaged, None)));
        assert!(!may_pass(&refused(507, ErrorCode::NoSpace, None)));
        assert!(may_pass(&refused(507, ErrorCode::NoSpace, Some(1))));
        assert!(retry(WhenFull::Wait).may_pass(&refused(507, ErrorCode::NoSpace, None)));
        assert!(!retry(WhenFull::Wait).may_pass(&refused(413, ErrorCode::TooLarge, None)));
    }

    #[test]
    fn what_others_say_in_the_place_of_the_server_passes_once_that_was_there() {
        let retry = RetryPolicy::default();
        let url = || "http://h".to_owned();
        let foreign = |status, met| {
            retry.may_pass(&CallError::Foreign { url: url(), status, excerpt: String::new(), met, retry_after: None })
        };
        for status in [500, 502, 511, 520, 524, 530, 599] {
            assert!(foreign(status, false), "{status}");
        }
        for status in [200, 204, 400, 401, 403, 404, 418] {
            assert!(!foreign(status, false) && foreign(status, true), "{status}");
        }
        for status in [413, 414, 431] {
            assert!(!foreign(status, true), "{status}");
        }
        for met in [false, true] {
            let moved = CallError::Moved { url: url(), status: 302, location: url(), met };
            let tls = CallError::Tls { url: url(), failure: TlsFailure::Other(String::new()), met };
            assert_eq!((retry.may_pass(&moved), retry.may_pass(&tls)), (met, met));
        }
    }

    #[test]
    fn gives_up_after_the_allowed_retries_and_tells_the_last_failure() {
        let retry = RetryBudget::new(RetryPolicy { retries: 2, ..RetryPolicy::default() });
        let calls = Cell::new(0);
        let result: Result<(), _> = retry.call(&NoObserver, &crossbeam_channel::never(), None, || {
            calls.set(calls.get() + 1);
            Err(refused(503, ErrorCode::Unknown, None))
        });
        assert_eq!(calls.get(), 3);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("3 attempts") && message.ends_with(": no"), "{message}");
    }

    #[test]
    fn gives_up_when_nothing_got_better_for_too_long() {
        let retry = RetryBudget::new(RetryPolicy { retry_for: Duration::ZERO, ..RetryPolicy::default() });
        let result: Result<(), _> =
            retry.call(&NoObserver, &crossbeam_channel::never(), None, || Err(refused(503, ErrorCode::Unknown, None)));
        assert!(matches!(result, Err(CallError::Refused { .. })));
    }
}
