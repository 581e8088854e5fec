//! Responses that can be large: held slices as ids or runs, the list of uploads. Their size is declared before they are
//! made.

use crate::metrics::Limit;
use crate::net::response::{Response, json, json_bytes, json_text};
use crate::refusal::{Advice, Refusal};
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::ranges::SliceRanges;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::StatusCode;

/// Answers below it, in bytes, are made whatever else is going on.
const SMALL: u64 = 64 << 10;

/// Bytes of every response beside its list: the longest name, escaped, digests, errors.
const BESIDE: u64 = 32 << 10;

/// Number of responses of the largest size that can be in memory at once, on the way to their readers.
const LARGE_AT_ONCE: u64 = 4;

/// Seconds after which a client can retry if there is no memory for the response.
const RETRY_AFTER: u64 = 2;

/// The memory for responses.
#[derive(Clone, Debug)]
pub struct ResponseBudget {
    most: u64,
    /// A permit for each KiB.
    space: Arc<Semaphore>,
}

/// A text, and the memory that it takes until it is sent or its reader is gone.
struct Kept {
    text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl ResponseBudget {
    /// With responses of `most` bytes each.
    pub fn new(most: u64) -> ResponseBudget {
        let space = usize::try_from(kib(most).saturating_mul(LARGE_AT_ONCE)).unwrap_or(usize::MAX);
        ResponseBudget { most, space: Arc::new(Semaphore::new(space.min(Semaphore::MAX_PERMITS))) }
    }

    /// Checks that a response with these slices, as runs or as ids, is not too large. Returns its size in bytes, or a
    /// bit more.
    ///
    /// # Errors
    /// It is too large; the refusal names the remedy.
    pub fn size_with(&self, held: &SliceRanges, as_runs: bool) -> Result<u64, Refusal> {
        let digits = held.runs().last().map_or(1, |[_, last]| last.to_string().len() as u64);
        let (items, each, what, advice) = match as_runs {
            true => (held.runs().len() as u64, 2 * digits + 4, "runs", Advice::JoinRuns),
            false => (held.count(), digits + 1, "ids", Advice::AskForRuns),
        };
        let size = items.saturating_mul(each).saturating_add(BESIDE);
        if size > self.most {
            let facts =
                format!("the {what} of the held slices take up to {size} bytes, at most {} are sent", self.most);
            return Err(Refusal::over(Limit::ResponseSize, ErrorCode::TooLarge, facts).advising(advice));
        }
        Ok(size)
    }

    /// A response of at most `size` bytes.
    ///
    /// # Errors
    /// Too many large ones are on the way.
    pub fn make<T: Serialize>(&self, size: u64, answer: impl FnOnce() -> T) -> Result<Response, Refusal> {
        if size <= SMALL {
            return Ok(json(StatusCode::OK, &answer()));
        }
        let permits = u32::try_from(kib(size)).unwrap_or(u32::MAX);
        let space = Arc::clone(&self.space).try_acquire_many_owned(permits).map_err(|_| {
            let facts = "too many large answers are on the way";
            let refusal = Refusal::over(Limit::ResponseBudget, ErrorCode::Overloaded, facts);
            Refusal { retry_after: Some(RETRY_AFTER), ..refusal }.advising(Advice::AskLaterOrForRuns)
        })?;
        let text = Kept { text: json_text(&answer()), _room: space };
        Ok(json_bytes(StatusCode::OK, Bytes::from_owner(text)))
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn responses(response_size: u64) -> ResponseBudget {
        ResponseBudget::new(response_size)
    }

    #[test]
    fn the_size_is_never_told_too_small() {
        let scattered = SliceRanges::with_frontier(1000, (1001..999_999).step_by(3).collect());
        for held in [SliceRanges::default(), SliceRanges::up_to(1), SliceRanges::up_to(1_000_000), scattered] {
            let ids: Vec<u64> = held.iter().collect();
            let responses = responses(16 << 20);
            assert!(serde_json::to_string(&ids).unwrap().len() as u64 <= responses.size_with(&held, false).unwrap());
            assert!(serde_json::to_string(&held).unwrap().len() as u64 <= responses.size_with(&held, true).unwrap());
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_both_numbers() {
        let refusal = responses(1 << 20).size_with(&SliceRanges::up_to(1_000_000), false).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::TooLarge);
        assert!(refusal.facts.contains("7032768") && refusal.facts.contains("1048576"), "{}", refusal.facts);
        assert!(responses(1 << 20).size_with(&SliceRanges::up_to(1_000_000), true).is_ok());
    }

    #[test]
    fn large_answers_on_the_way_are_bounded_and_small_ones_are_not() {
        let responses = responses(1 << 20);
        let mut on_the_way: Vec<_> = (0..4).map(|_| responses.make(1 << 20, || "x").unwrap()).collect();
        assert_eq!(responses.make(1 << 20, || "x").unwrap_err().code, ErrorCode::Overloaded);
        assert!(responses.make(SMALL, || "x").is_ok());
        on_the_way.pop();
        assert!(responses.make(1 << 20, || "x").is_ok());
    }
}
