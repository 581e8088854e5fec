//! Sets of slice ids as runs, so that a million held slices are told in a few bytes.

use serde::{Deserialize, Serialize};

/// A set of slice ids, kept as runs `[first, last]`, both inclusive, in ascending order and never touching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceRanges(Vec<[u64; 2]>);

impl SliceRanges {
    /// The ids `0..end`.
    pub fn up_to(end: u64) -> SliceRanges {
        SliceRanges(if end == 0 { vec![] } else { vec![[0, end - 1]] })
    }

    /// The ids below `frontier` and those in `others`, in any order, doubles allowed.
    pub fn with_frontier(frontier: u64, mut others: Vec<u64>) -> SliceRanges {
        others.sort_unstable();
        let mut ranges = SliceRanges::up_to(frontier);
        for id in others {
            match ranges.0.last_mut() {
                Some([_, last]) if id <= *last => {}
                Some([_, last]) if id == *last + 1 => *last = id,
                _ => ranges.0.push([id, id]),
            }
        }
        ranges
    }

    /// Number of ids.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|[first, last]| last - first + 1).sum()
    }

    /// The first id that is missing.
    pub fn first_gap(&self) -> u64 {
        self.runs().first().filter(|run| run[0] == 0).map_or(0, |run| run[1] + 1)
    }

    /// The first id from `id` on that is missing.
    pub fn end_of_run(&self, id: u64) -> u64 {
        let after = self.0.partition_point(|[first, _]| *first <= id);
        self.0[..after].last().filter(|[_, last]| *last >= id).map_or(id, |[_, last]| last + 1)
    }

    /// True if `id` is among them.
    pub fn contains(&self, id: u64) -> bool {
        let after = self.0.partition_point(|[first, _]| *first <= id);
        after > 0 && self.0[after - 1][1] >= id
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|[first, last]| *first..=*last)
    }

    /// The runs `[first, last]`, ascending.
    pub fn runs(&self) -> &[[u64; 2]] {
        &self.0
    }

    /// True if the runs keep the rules of this type, and the ids can be counted. Runs received from a peer might not.
    pub fn is_valid(&self) -> bool {
        self.0.iter().all(|[first, last]| last.checked_sub(*first).is_some_and(|more| more < u64::MAX))
            && self.0.windows(2).all(|w| w[0][1].checked_add(1).is_some_and(|next| next < w[1][0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_held_is_an_empty_list() {
        assert_eq!(serde_json::to_string(&SliceRanges::up_to(0)).unwrap(), "[]");
        assert_eq!(SliceRanges::up_to(0).count(), 0);
    }

    #[test]
    fn runs_that_touch_are_one() {
        let ranges = SliceRanges::with_frontier(3, vec![7, 3, 4, 9, 1, 7]);
        assert_eq!(serde_json::to_string(&ranges).unwrap(), "[[0,4],[7,7],[9,9]]");
    }

    #[test]
    fn foreign_runs_are_checked() {
        let valid = |text: &str| serde_json::from_str::<SliceRanges>(text).unwrap().is_valid();
        assert!(valid("[[0,4],[6,6]]"));
        assert!(!valid("[[4,0]]"));
        assert!(!valid("[[0,4],[5,6]]"));
        assert!(!valid("[[0,18446744073709551615],[5,6]]"));
        assert!(!valid("[[0,18446744073709551615]]"));
        assert!(valid("[[0,18446744073709551614]]"));
        assert!(valid("[[1,18446744073709551615]]"));
    }

    proptest! {
        #[test]
        fn equals_a_plain_set(frontier in 0u64..20, ids in prop::collection::vec(0u64..60, 0..50)) {
            let set: BTreeSet<u64> = (0..frontier).chain(ids.iter().copied()).collect();
            let ranges = SliceRanges::with_frontier(frontier, ids);
            prop_assert!(ranges.is_valid());
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            for id in 0..62 {
                prop_assert_eq!(ranges.contains(id), set.contains(&id));
                let missing = (id..).find(|id| !set.contains(id));
                prop_assert_eq!(Some(ranges.end_of_run(id)), missing);
            }
        }
    }
}
