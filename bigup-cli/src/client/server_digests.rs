//! The digests of slices that the server holds, and whether ours are the same.

use crate::client::error::CallError;
use crate::client::requests::UploadRequests;
use bigup_core::protocol::digest::{SliceDigest, SliceHasher};
use bigup_core::protocol::native::{ErrorCode, MAX_DIGESTS};
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::ranges::SliceRanges;
use std::collections::HashMap;

/// Digests of held slices, by their ids.
#[derive(Default)]
pub struct ServerDigests(HashMap<u64, SliceDigest>);

impl ServerDigests {
    /// Asks for the digests of the slices `ids`, which ascend. Those that are not held, or whose digest makes no sense,
    /// are left out; an upload that ended meanwhile holds none.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn fetch(requests: &UploadRequests<'_>, ids: impl Iterator<Item = u64>) -> Result<ServerDigests, CallError> {
        let mut found = HashMap::new();
        for (first, last) in pages(ids) {
            let digests = match requests.digests(first, last) {
                Err(error) if error.code() == Some(ErrorCode::NoUpload) => break,
                digests => digests?,
            };
            found.extend((first..=last).zip(digests).filter_map(|(id, digest)| Some((id, digest?.parse().ok()?))));
        }
        Ok(ServerDigests(found))
    }

    /// True if slice `id` is held with our content, whose digest in our own terms is `own`. `digest_by` has the content
    /// digested in the server's.
    pub fn has(&self, plan: &Plan, id: u64, own: SliceDigest, digest_by: impl FnOnce(&mut SliceHasher)) -> bool {
        match self.0.get(&id) {
            Some(held) if held.kind == own.kind => *held == own,
            Some(held) => *held == digest_as(*held, plan, id, digest_by),
            None => false,
        }
    }

    /// The digest of slice `id`, where it is held.
    pub fn get(&self, id: u64) -> Option<SliceDigest> {
        self.0.get(&id).copied()
    }
}

/// The digest of slice `id`, of the same kind as `other`.
pub fn digest_like(other: SliceDigest, plan: &Plan, id: u64, bytes: &[u8]) -> SliceDigest {
    digest_as(other, plan, id, |hasher| hasher.update(bytes))
}

fn digest_as(other: SliceDigest, plan: &Plan, id: u64, digest_by: impl FnOnce(&mut SliceHasher)) -> SliceDigest {
    let mut hasher = SliceHasher::new(other.kind, plan.offset_of(id).unwrap_or(0));
    digest_by(&mut hasher);
    hasher.finish()
}

/// The ids in `held` below `limit`, ascending; what comes over the wire may go beyond.
pub fn ids_below(held: &SliceRanges, limit: u64) -> impl Iterator<Item = u64> {
    held.runs().iter().flat_map(move |[first, last]| *first..limit.min(last.saturating_add(1)))
}

/// Runs of at most [`MAX_DIGESTS`] ids, first and last, that cover all `ids`, which ascend.
fn pages(ids: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut pages: Vec<(u64, u64)> = Vec::new();
    for id in ids {
        match pages.last_mut() {
            Some((first, last)) if id - *first < MAX_DIGESTS => *last = id,
            _ => pages.push((id, id)),
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::digest::{DigestKind, of_slice};

    #[test]
    fn pages_hold_as_much_as_an_answer_and_no_more() {
        assert_eq!(pages([].into_iter()), []);
        assert_eq!(pages([3, 9].into_iter()), [(3, 9)]);
        assert_eq!(pages(0..MAX_DIGESTS), [(0, MAX_DIGESTS - 1)]);
        assert_eq!(pages(0..MAX_DIGESTS + 1), [(0, MAX_DIGESTS - 1), (MAX_DIGESTS, MAX_DIGESTS)]);
        assert_eq!(pages([5, 4 + MAX_DIGESTS, 5 + MAX_DIGESTS].into_iter()).len(), 2);
    }

    #[test]
    fn ids_beyond_the_end_are_passed_over() {
        let held: SliceRanges = serde_json::from_str("[[0,1],[3,18446744073709551615]]").unwrap();
        assert_eq!(ids_below(&held, 5).collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!(ids_below(&held, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(ids_below(&held, 0).count(), 0);
    }

    #[test]
    fn a_digest_of_the_other_kind_is_compared_too() {
        let plan = Plan::new(None, Some(1024), Some(4096)).unwrap();
        let (bytes, other) = ([5; 1024], [6; 1024]);
        let own = of_slice(&plan, 2, &bytes);
        for kind in [DigestKind::Hash, DigestKind::ChainingValue] {
            let theirs = digest_like(SliceDigest { kind, ..own }, &plan, 2, &bytes);
            let held = ServerDigests(HashMap::from([(2, theirs)]));
            let has = |id, own, bytes: &[u8]| held.has(&plan, id, own, |hasher| hasher.update(bytes));
            assert!(has(2, own, &bytes), "{kind:?}");
            assert!(!has(2, of_slice(&plan, 2, &other), &other), "{kind:?}");
            assert!(!has(1, own, &bytes), "not held");
        }
    }
}
