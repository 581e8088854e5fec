//! Another push of the same name, from another source, is at work or was until a moment ago: wait for its end, and
//! compare its content with ours.
//!
//! Content that differs is an error only where the other push moves on. A push that was interrupted, perhaps our own
//! before the file was changed, falls silent; then the server lets us go on with it.

use crate::client::error::CallError;
use crate::client::requests::UploadRequests;
use crate::client::server_digests::{ServerDigests, digest_like, ids_below};
use crate::pipeline::slice_size;
use crate::source::Source;
use crate::upload::error::UploadError;
use bigup_core::protocol::native::{ErrorCode, UploadResponse};
use bigup_core::protocol::plan::{MAX_SLICES, Plan};
use std::collections::HashSet;
use std::time::Duration;

/// Time between two looks where the server does not say.
const POLL: Duration = Duration::from_secs(3);

/// Shortest and longest time between two looks, whatever the server says.
const POLL_LIMITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// The other push, as seen so far.
#[derive(Default)]
pub struct Contention {
    seen: Option<UploadResponse>,
    equal: HashSet<u64>,
    /// The difference of its content from ours. `None`: not found.
    difference: Option<String>,
    /// True if slices arrived while we looked.
    moves: bool,
}

impl Contention {
    /// Waits a while because of `busy`; afterwards it is time to ask again whether it is our turn.
    ///
    /// `source` is ours, where it can be read at any place: then what the server holds is compared with it.
    ///
    /// # Errors
    /// The other content differs from ours, or nothing moved for too long.
    pub fn wait_turn(
        &mut self,
        requests: &UploadRequests<'_>,
        source: Option<&dyn Source>,
        busy: CallError,
    ) -> Result<(), UploadError> {
        if self.seen.is_none() {
            requests.observer.noted(&format!("waiting: {busy}"));
            requests.retry.renew();
        }
        requests.pause(busy.retry_after().unwrap_or(POLL).clamp(POLL_LIMITS.0, POLL_LIMITS.1))?;
        let answer = match requests.peek() {
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => return Ok(()),
            answer => answer?,
        };
        if answer.is_uploaded == 1 {
            return Ok(());
        }
        self.watch(requests, &answer, busy)?;
        if let (Some(source), None) = (source, &self.difference) {
            self.difference = self.compare(requests, source, &answer)?;
        }
        self.seen = Some(answer);
        match &self.difference {
            Some(difference) if self.moves => {
                let (name, difference) = (requests.name.to_string(), difference.clone());
                Err(UploadError::AnotherPush { name, difference })
            }
            _ => Ok(()),
        }
    }

    /// Renews the time of retries where the other push moves.
    fn watch(
        &mut self,
        requests: &UploadRequests<'_>,
        answer: &UploadResponse,
        busy: CallError,
    ) -> Result<(), UploadError> {
        let marks = |answer: &UploadResponse| (answer.held(), answer.curr_merge_slice_id);
        self.moves |= self.seen.as_ref().is_some_and(|seen| seen.held() != answer.held());
        let cut = |answer: &UploadResponse| (answer.slice_size, answer.file_size);
        if self.seen.as_ref().is_some_and(|seen| cut(seen) != cut(answer)) {
            self.equal.clear();
            self.difference = None;
        }
        if self.seen.as_ref().is_none_or(|seen| marks(seen) != marks(answer)) {
            requests.retry.renew();
        } else if requests.retry.is_over() {
            return Err(UploadError::Stalled { seconds: requests.retry.retry_for().as_secs(), busy });
        }
        Ok(())
    }

    /// Compares the held slices that were not compared yet; says how the other content differs from ours, if it does.
    fn compare(
        &mut self,
        requests: &UploadRequests<'_>,
        source: &dyn Source,
        answer: &UploadResponse,
    ) -> Result<Option<String>, UploadError> {
        let Some(slice_size) = answer.slice_size else { return Ok(None) };
        if let Some(theirs) = answer.file_size.filter(|size| *size != source.size()) {
            return Ok(Some(format!("it sends {theirs} bytes, this file has {}", source.size())));
        }
        let Ok(plan) = Plan::new(answer.slice_num, Some(slice_size), Some(source.size())) else {
            return Ok(Some("its slices are not those of this file".to_owned()));
        };
        let held = answer.held();
        let new: Vec<u64> =
            ids_below(&held, plan.slice_num.unwrap_or(MAX_SLICES)).filter(|id| !self.equal.contains(id)).collect();
        let digests = ServerDigests::fetch(requests, new.iter().copied())?;
        let mut bytes = slice_size::buffer(slice_size.min(source.size()))?;
        for id in new {
            if let Some(digest) = digests.get(id) {
                let place = plan.offset_of(id).zip(plan.len_of(id));
                let (offset, len) = place.ok_or(UploadError::NoPlace(id))?;
                let len = len as usize;
                source.read_at(offset, &mut bytes[..len])?;
                if digest_like(digest, &plan, id, &bytes[..len]) != digest {
                    return Ok(Some(format!("its content differs from this file's in slice {id}")));
                }
                self.equal.insert(id);
            }
        }
        Ok(None)
    }
}
