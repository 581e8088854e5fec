//! The end of a push: everything is sent, the server merges and publishes.

use crate::client::requests::UploadRequests;
use crate::upload::error::{Step, UploadError};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::printable;
use bigup_core::protocol::native::{ErrorCode, UploadResponse};
use bigup_core::protocol::plan::Plan;
use std::time::{Duration, Instant};

/// Time that one question waits for the end, in seconds: below what proxies bear with, and below our own read timeout.
pub const WAIT_SECS: u64 = 25;

/// A server that answers sooner than this did not wait as asked; then we do.
const SOON: Duration = Duration::from_millis(500);

/// The result of waiting.
pub enum Finish {
    /// The file stands, whole and synced.
    Finished(UploadResponse),
    /// Slices are missing, or the upload is another one now.
    Missing(UploadResponse),
}

/// Waits until the file is finished or slices turn out to be missing.
///
/// # Errors
/// Refused, no answer, or nothing got better for too long.
pub fn wait(requests: &UploadRequests<'_>, plan: &Plan) -> Result<Finish, UploadError> {
    let mut before: Option<UploadResponse> = None;
    requests.retry.renew();
    loop {
        let asked = Instant::now();
        let answer = match requests.ask(WAIT_SECS) {
            // The push at work ends sooner or later; then the finished file is compared with ours.
            Err(busy) if busy.code() == Some(ErrorCode::Busy) && !requests.retry.is_over() => {
                requests.pause(busy.retry_after().unwrap_or(SOON).max(SOON))?;
                continue;
            }
            answer => answer.map_err(|error| UploadError::of_call(Step::Merge, error))?,
        };
        if answer.is_uploaded == 1 {
            return Ok(Finish::Finished(answer));
        }
        if is_missing_something(&answer, plan) {
            return Ok(Finish::Missing(answer));
        }
        tell(requests, before.as_ref(), &answer);
        if before.as_ref().is_none_or(|before| moved_on(before, &answer)) {
            requests.retry.renew();
        } else if requests.retry.is_over() {
            let why = answer.last_error.as_deref().unwrap_or("its log says why");
            return Err(UploadError::NotFinished(printable(why)));
        }
        before = Some(answer);
        requests.pause(SOON.saturating_sub(asked.elapsed()))?;
    }
}

/// The digest of the finished file: what `answer` says, which must be our `own` where both are known.
///
/// # Errors
/// They differ.
pub fn confirmed(own: Option<Digest>, said: Option<Digest>) -> Result<Option<Digest>, UploadError> {
    match (own, said) {
        (Some(local), Some(server)) if local != server => Err(UploadError::DigestMismatch { server, local }),
        _ => Ok(said.or(own)),
    }
}

/// `: why`, where the server said why it stopped merging.
pub fn because(answer: &UploadResponse) -> String {
    answer.last_error.as_ref().map(|why| format!(": {}", printable(why))).unwrap_or_default()
}

fn is_missing_something(answer: &UploadResponse, plan: &Plan) -> bool {
    let held = answer.held();
    let recut = answer.slice_size.is_some() && answer.slice_size != plan.slice_size;
    recut || (0..plan.slice_num.unwrap_or(0)).any(|id| !held.contains(id))
}

fn moved_on(before: &UploadResponse, now: &UploadResponse) -> bool {
    before.curr_merge_slice_id != now.curr_merge_slice_id
}

fn tell(requests: &UploadRequests<'_>, before: Option<&UploadResponse>, now: &UploadResponse) {
    let merged = now.curr_merge_slice_id.unwrap_or(0);
    requests.observer.doing(&format!("merging, {merged} of {} slices", now.slice_num.unwrap_or(0)));
    if let Some(why) = &now.last_error
        && before.and_then(|before| before.last_error.as_ref()) != Some(why)
    {
        requests.observer.noted(&format!("the merger stopped: {}", printable(why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::digest::of_bytes;
    use bigup_core::protocol::ranges::SliceRanges;

    fn holding(end: u64, slice_size: Option<u64>) -> UploadResponse {
        UploadResponse { slice_ranges_uploaded: Some(SliceRanges::up_to(end)), slice_size, ..UploadResponse::default() }
    }

    #[test]
    fn digests_are_compared_where_both_are_known() {
        let (a, b) = (of_bytes(b"a"), of_bytes(b"b"));
        assert_eq!(confirmed(Some(a), Some(a)).unwrap(), Some(a));
        assert_eq!(confirmed(Some(a), None).unwrap(), Some(a));
        assert_eq!(confirmed(None, Some(b)).unwrap(), Some(b));
        assert_eq!(confirmed(None, None).unwrap(), None);
        let message = confirmed(Some(a), Some(b)).unwrap_err().to_string();
        assert!(message.contains(&a.to_string()) && message.contains(&b.to_string()), "{message}");
    }

    #[test]
    fn missing_is_a_hole_or_another_cut() {
        let plan = Plan::new(None, Some(1024), Some(3000)).unwrap();
        assert!(!is_missing_something(&holding(3, Some(1024)), &plan));
        assert!(!is_missing_something(&holding(3, None), &plan));
        assert!(is_missing_something(&holding(2, Some(1024)), &plan));
        assert!(is_missing_something(&holding(3, Some(2048)), &plan));
    }
}
