//! The digests of our own slices, and the file's digest that they join to.

use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest, TreeJoin, is_subtree_size};
use bigup_core::protocol::plan::Plan;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The digests of our slices. Shared by the senders.
#[derive(Default)]
pub struct LocalDigests {
    entries: Mutex<Vec<Entry>>,
    whole: Option<Digest>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    digest: Option<SliceDigest>,
    /// The server holds this slice, with our content.
    settled: bool,
}

impl LocalDigests {
    /// Nothing is known.
    pub fn new() -> LocalDigests {
        LocalDigests::default()
    }

    /// The digest of slice `id` is `digest`; false where it was another one before.
    #[must_use]
    pub fn learn(&self, id: u64, digest: SliceDigest) -> bool {
        self.entry(id, |entry| *entry.digest.get_or_insert(digest)) == digest
    }

    /// The server holds slice `id` with our content.
    pub fn settle(&self, id: u64) {
        self.entry(id, |entry| entry.settled = true);
    }

    /// True if the server holds slice `id` with our content, as far as we know.
    pub fn is_settled(&self, id: u64) -> bool {
        self.lock().get(id as usize).is_some_and(|entry| entry.settled)
    }

    /// The server lost the upload: nothing is settled any more.
    pub fn unsettle(&self) {
        self.lock().iter_mut().for_each(|entry| entry.settled = false);
    }

    /// The digest of the file, found in another way than by its slices.
    pub fn set_whole(&mut self, digest: Digest) {
        self.whole = Some(digest);
    }

    /// The digest of the file cut by `plan`.
    ///
    /// `None` where a slice is not known, or slices of such a size do not join and nobody found it in another way.
    pub fn file_digest(&self, plan: &Plan) -> Option<Digest> {
        self.whole.or_else(|| self.joined(plan))
    }

    fn joined(&self, plan: &Plan) -> Option<Digest> {
        let (num, entries) = (usize::try_from(plan.slice_num?).ok()?, self.lock());
        let digests = entries.get(..num)?.iter().map(|entry| entry.digest);
        if num == 1 {
            return entries[0].digest.filter(|only| only.kind == DigestKind::Hash).map(|only| only.digest);
        }
        if !is_subtree_size(plan.slice_size?) {
            return None;
        }
        let mut join = TreeJoin::new();
        for digest in digests {
            join.push(digest.filter(|digest| digest.kind == DigestKind::ChainingValue)?.digest);
        }
        join.finish()
    }

    fn entry<T>(&self, id: u64, change: impl FnOnce(&mut Entry) -> T) -> T {
        let (mut entries, id) = (self.lock(), id as usize);
        if entries.len() <= id {
            entries.resize(id + 1, Entry::default());
        }
        change(&mut entries[id])
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::digest::{of_bytes, of_slice};

    fn filled(bytes: &[u8], slice_size: usize) -> (LocalDigests, Plan) {
        let plan = Plan::new(None, Some(slice_size as u64), Some(bytes.len() as u64)).unwrap();
        let local = LocalDigests::new();
        // Backwards: senders finish in any order.
        for (id, slice) in bytes.chunks(slice_size).enumerate().collect::<Vec<_>>().into_iter().rev() {
            assert!(local.learn(id as u64, of_slice(&plan, id as u64, slice)));
        }
        (local, plan)
    }

    #[test]
    fn slices_in_any_order_join_to_the_files_digest() {
        let bytes: Vec<u8> = (0..5000).map(|i| i as u8).collect();
        for slice_size in [1024, 2048, 4096, 5000, 8192] {
            let (local, plan) = filled(&bytes, slice_size);
            assert_eq!(local.file_digest(&plan), Some(of_bytes(&bytes)), "{slice_size}");
        }
    }

    #[test]
    fn slices_that_are_no_subtrees_do_not_join() {
        let (mut local, plan) = filled(&[7; 5000], 1500);
        assert_eq!(local.file_digest(&plan), None);
        local.set_whole(of_bytes(&[7; 5000]));
        assert_eq!(local.file_digest(&plan), Some(of_bytes(&[7; 5000])));
    }

    #[test]
    fn a_missing_slice_leaves_the_files_digest_unknown() {
        let plan = Plan::new(None, Some(1024), Some(3000)).unwrap();
        let local = LocalDigests::new();
        assert!(local.learn(2, of_slice(&plan, 2, &[1; 952])));
        assert!(local.learn(0, of_slice(&plan, 0, &[1; 1024])));
        assert_eq!(local.file_digest(&plan), None);
    }

    #[test]
    fn a_slice_that_reads_differently_is_noticed() {
        let plan = Plan::new(None, Some(1024), Some(3000)).unwrap();
        let local = LocalDigests::new();
        assert!(local.learn(0, of_slice(&plan, 0, &[1; 1024])));
        assert!(local.learn(0, of_slice(&plan, 0, &[1; 1024])));
        assert!(!local.learn(0, of_slice(&plan, 0, &[2; 1024])));
    }

    #[test]
    fn nothing_is_settled_after_a_loss() {
        let local = LocalDigests::new();
        local.settle(3);
        assert!(local.is_settled(3) && !local.is_settled(2) && !local.is_settled(4));
        local.unsettle();
        assert!(!local.is_settled(3));
    }
}
