//! Comparison of what the server holds of an earlier push with the source, where its token does not tell.

use crate::client::requests::UploadRequests;
use crate::client::server_digests::{ServerDigests, ids_below};
use crate::pipeline::local_digests::LocalDigests;
use crate::source::{Source, read_pieces};
use crate::upload::error::UploadError;
use bigup_core::protocol::digest::{SliceDigest, SliceHasher, kind_of};
use bigup_core::protocol::native::UploadResponse;
use bigup_core::protocol::plan::Plan;

/// True if all slices that `answer` says are held have the content of `source`: known, or compared now and noted in
/// `local`. Nothing may be sent before: the server would merge slices of two files, whose token is the same.
///
/// # Errors
/// The source cannot be read, or changed; the server does not answer.
pub fn holds_ours(
    requests: &UploadRequests<'_>,
    source: &dyn Source,
    plan: &Plan,
    answer: &UploadResponse,
    local: &LocalDigests,
) -> Result<bool, UploadError> {
    // What another source began counts for nothing before it is compared. A token made for this push is nobody else's.
    if answer.compare || !source.may_change_unseen() || requests.source != source.token() {
        return Ok(true);
    }
    let held = answer.held();
    let doubtful: Vec<u64> =
        ids_below(&held, plan.slice_num.unwrap_or(0)).filter(|id| !local.is_settled(*id)).collect();
    if doubtful.is_empty() {
        return Ok(true);
    }
    requests.observer.doing("comparing");
    let digests = ServerDigests::fetch(requests, doubtful.iter().copied())?;
    requests.heard(|| {
        for id in doubtful {
            match digests.get(id) {
                Some(held) if has(requests, source, plan, id, held)? => {
                    // A digest of the other kind joins with no others; the file is hashed in another way then.
                    if held.kind == kind_of(plan, id) && !local.learn(id, held) {
                        return Err(UploadError::SliceChanged(id));
                    }
                    local.settle(id);
                }
                // Also where nobody knows the digest of what is held.
                _ => return Ok(false),
            }
        }
        source.check_name()?;
        Ok(true)
    })
}

/// True if slice `id` of `source` has the digest `held`.
fn has(
    requests: &UploadRequests<'_>,
    source: &dyn Source,
    plan: &Plan,
    id: u64,
    held: SliceDigest,
) -> Result<bool, UploadError> {
    let (offset, len) = plan.offset_of(id).zip(plan.len_of(id)).ok_or(UploadError::NoPlace(id))?;
    let mut hasher = SliceHasher::new(held.kind, offset);
    read_pieces(source, offset, len, requests.stop, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish() == held)
}
