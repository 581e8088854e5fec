//! The plan by which a file is cut into slices, and its arithmetic. No I/O.
//!
//! Natively all slices have one size, the last one apart. A client need not say everything at once: the seed's client
//! tells only how many slices there are, standard input has no length until it ends. A [`Plan`] holds the numbers that
//! are known so far. It only ever grows, and a number that contradicts it is refused with both numbers.
//!
//! A file that is joined from others is a sequence of [`Run`]s, each cut by a size of its own: its plan knows all
//! numbers from the start.
//!
//! Offsets and lengths of slices are asked for here and computed nowhere else.

use serde::{Deserialize, Serialize};

/// Most slices of one upload. A file of 16 TiB fits with slices of 16 MiB.
pub const MAX_SLICES: u64 = 1_000_000;

/// Largest file, in bytes: 16 TiB, the limit of a file on ext4 with 4 KiB blocks.
pub const MAX_FILE_SIZE: u64 = 16 << 40;

/// Slices of one size, one behind the other; the last of them may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Bytes of every slice but the last; never 0.
    pub slice_size: u64,
    /// Bytes of all slices; never 0.
    pub len: u64,
}

impl Run {
    fn slice_num(&self) -> u64 {
        self.len.div_ceil(self.slice_size)
    }

    /// Number of whole slices in its first `len` bytes.
    fn slices_in(&self, len: u64) -> u64 {
        if len >= self.len { self.slice_num() } else { len / self.slice_size }
    }
}

/// The known numbers by which an upload is cut.
///
/// `None` means "not known yet" in every field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of slices; 0 for an empty file.
    pub slice_num: Option<u64>,
    /// Bytes of every slice but the last; never 0.
    pub slice_size: Option<u64>,
    /// Bytes of the whole file.
    pub file_size: Option<u64>,
    /// Bytes of the last slice, if it came before the slice size was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_len: Option<u64>,
    /// Runs of slices, whose sizes differ. `None`: all slices have one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runs: Option<Vec<Run>>,
}

/// The reason numbers do not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A number of slices over [`MAX_SLICES`].
    #[error("{0} slices are too many: at most {MAX_SLICES}; use larger slices")]
    TooManySlices(u64),
    /// A file size over [`MAX_FILE_SIZE`].
    #[error("a file of {0} bytes is too large: at most {MAX_FILE_SIZE}")]
    FileTooLarge(u64),
    /// A slice size of 0.
    #[error("slice_size is 0: a slice has at least 1 byte")]
    ZeroSliceSize,
    /// The three numbers of one request disagree.
    #[error("slice_num is {given}, but {file_size} bytes in slices of {slice_size} are {computed} slices")]
    Count {
        /// The slice_num that was given.
        given: u64,
        /// The slice_num that the sizes give.
        computed: u64,
        /// Bytes of the file.
        file_size: u64,
        /// Bytes of a slice.
        slice_size: u64,
    },
    /// The number of slices cannot hold the size.
    #[error("slice_num is {slice_num} and file_size {file_size}: {slice_num} slices need at least 1 byte each")]
    Thin {
        /// Number of slices.
        slice_num: u64,
        /// Bytes of the file.
        file_size: u64,
    },
    /// A number that differs from what the upload has.
    #[error("{what} of this upload is {have}, not {given}")]
    Differs {
        /// The number's name on the wire.
        what: &'static str,
        /// The upload's.
        have: u64,
        /// The request's.
        given: u64,
    },
    /// A slice beyond the end.
    #[error("slice_id is {slice_id}, but this upload has {slice_num} slices (0 to {last})", last = .slice_num.saturating_sub(1))]
    BeyondEnd {
        /// The slice asked for.
        slice_id: u64,
        /// Number of slices.
        slice_num: u64,
    },
    /// A slice of a length other than its place asks for.
    #[error("slice {slice_id} of this upload has {expected} bytes, not {got}")]
    SliceLen {
        /// The slice.
        slice_id: u64,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        got: u64,
    },
    /// A last slice longer than the others.
    #[error("slice {slice_id}, the last one, has {got} bytes, more than the slice size {slice_size}")]
    LastTooLong {
        /// The slice.
        slice_id: u64,
        /// Bytes of the slices before it.
        slice_size: u64,
        /// Bytes it has.
        got: u64,
    },
    /// A size of slices, or of the last one, for an upload whose slices have several.
    #[error("slices of this upload have different sizes, so that {what} cannot be {given}")]
    Unequal {
        /// The number's name on the wire.
        what: &'static str,
        /// The request's.
        given: u64,
    },
    /// A run without slices, or of slices without bytes.
    #[error("run {0} of slices is empty")]
    EmptyRun(usize),
    /// A slice without content.
    #[error("slice {0} has 0 bytes: a slice has at least 1 byte")]
    EmptySlice(u64),
}

impl Plan {
    /// Takes the numbers that a client told. Any of them may be missing.
    ///
    /// # Errors
    /// The numbers are over the limits or contradict each other.
    pub fn new(slice_num: Option<u64>, slice_size: Option<u64>, file_size: Option<u64>) -> Result<Plan, PlanError> {
        Plan { slice_num, slice_size, file_size, last_len: None, runs: None }.completed()
    }

    /// The plan of a file that consists of these runs.
    ///
    /// # Errors
    /// A run is empty, or they are over the limits.
    pub fn of_runs(runs: Vec<Run>) -> Result<Plan, PlanError> {
        Plan { runs: Some(runs), ..Plan::default() }.completed()
    }

    /// Fills in the numbers that follow from the runs.
    fn completed_by_runs(mut self, runs: &[Run]) -> Result<Plan, PlanError> {
        if let Some(empty) = runs.iter().position(|run| run.slice_size == 0 || run.len == 0) {
            return Err(PlanError::EmptyRun(empty));
        }
        for (what, given) in [("slice_size", self.slice_size), ("the last slice's size", self.last_len)] {
            given.map_or(Ok(()), |given| Err(PlanError::Unequal { what, given }))?;
        }
        let (mut slice_num, mut file_size) = (0u64, 0u64);
        for run in runs {
            slice_num = slice_num.saturating_add(run.slice_num());
            file_size = file_size.saturating_add(run.len);
        }
        self.slice_num = agree("slice_num", self.slice_num, slice_num)?;
        self.file_size = agree("file_size", self.file_size, file_size)?;
        Ok(self)
    }

    /// Fills in the numbers that follow from the known ones, and checks them all.
    fn completed(mut self) -> Result<Plan, PlanError> {
        if let Some(runs) = self.runs.take() {
            self = self.completed_by_runs(&runs)?;
            self.runs = Some(runs);
            return self.within_limits();
        }
        if self.slice_size == Some(0) {
            return Err(PlanError::ZeroSliceSize);
        }
        if self.slice_num == Some(0) {
            self.file_size = agree("file_size", self.file_size, 0)?;
        }
        if let (Some(file_size), Some(slice_size)) = (self.file_size, self.slice_size) {
            let computed = file_size.div_ceil(slice_size);
            match self.slice_num {
                Some(given) if given != computed => {
                    return Err(PlanError::Count { given, computed, file_size, slice_size });
                }
                _ => self.slice_num = Some(computed),
            }
        }
        if let (Some(num), Some(last)) = (self.slice_num, self.last_len) {
            // Only a damaged upload.json says such a thing.
            let before = num.checked_sub(1).ok_or(PlanError::BeyondEnd { slice_id: 0, slice_num: 0 })?;
            let end = match self.slice_size {
                Some(slice_size) if last > slice_size => {
                    return Err(PlanError::LastTooLong { slice_id: before, slice_size, got: last });
                }
                _ if last == 0 => return Err(PlanError::EmptySlice(before)),
                Some(slice_size) => Some(before.saturating_mul(slice_size).saturating_add(last)),
                None => Some(last).filter(|_| before == 0),
            };
            self.file_size = end.map_or(Ok(self.file_size), |end| agree("file_size", self.file_size, end))?;
        }
        if let (Some(slice_num), Some(file_size)) = (self.slice_num, self.file_size) {
            if slice_num > file_size {
                return Err(PlanError::Thin { slice_num, file_size });
            }
            if slice_num == 0 && file_size > 0 {
                return Err(PlanError::Differs { what: "file_size", have: 0, given: file_size });
            }
        }
        self.within_limits()
    }

    fn within_limits(self) -> Result<Plan, PlanError> {
        if let Some(num) = self.slice_num.filter(|n| *n > MAX_SLICES) {
            return Err(PlanError::TooManySlices(num));
        }
        if let Some(size) = self.file_size.filter(|n| *n > MAX_FILE_SIZE) {
            return Err(PlanError::FileTooLarge(size));
        }
        Ok(self)
    }

    /// This plan with the numbers that `other` knows beyond it.
    ///
    /// # Errors
    /// A number that both know differs.
    pub fn bind(&self, other: &Plan) -> Result<Plan, PlanError> {
        fn one(what: &'static str, have: Option<u64>, given: Option<u64>) -> Result<Option<u64>, PlanError> {
            given.map_or(Ok(have), |given| agree(what, have, given))
        }
        // Sizes before the number of slices: they say more to a reader of the error.
        let bound = Plan {
            file_size: one("file_size", self.file_size, other.file_size)?,
            slice_size: one("slice_size", self.slice_size, other.slice_size)?,
            slice_num: one("slice_num", self.slice_num, other.slice_num)?,
            last_len: one("the last slice's size", self.last_len, other.last_len)?,
            runs: self.runs.clone().or_else(|| other.runs.clone()),
        };
        if let (Some(one), Some(other)) = (&self.runs, &other.runs)
            && one != other
        {
            let sizes = [one, other].map(|runs| runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.len)));
            return Err(PlanError::Differs { what: "file_size", have: sizes[0], given: sizes[1] });
        }
        bound.completed()
    }

    /// This plan with the numbers that a slice of `len` bytes in place `slice_id` tells.
    ///
    /// # Errors
    /// The slice has no place in this upload.
    pub fn learn(&self, slice_id: u64, len: u64) -> Result<Plan, PlanError> {
        if let Some(slice_num) = self.slice_num.filter(|n| slice_id >= *n) {
            return Err(PlanError::BeyondEnd { slice_id, slice_num });
        }
        if slice_id >= MAX_SLICES {
            return Err(PlanError::TooManySlices(slice_id.saturating_add(1)));
        }
        if len == 0 {
            return Err(PlanError::EmptySlice(slice_id));
        }
        if let Some(expected) = self.len_of(slice_id) {
            if expected != len {
                return Err(PlanError::SliceLen { slice_id, expected, got: len });
            }
            return Ok(self.clone());
        }
        let is_last = self.slice_num == Some(slice_id + 1);
        let learned = if is_last {
            Plan { last_len: agree("the last slice's size", self.last_len, len)?, ..self.clone() }
        } else {
            Plan { slice_size: agree("slice_size", self.slice_size, len)?, ..self.clone() }
        };
        let learned = learned.completed()?;
        // If the sizes tell the number of slices, this slice may turn out to be no full one, or beyond the end.
        if learned.slice_num == self.slice_num { Ok(learned) } else { learned.learn(slice_id, len) }
    }

    /// Offset of slice `slice_id`, in bytes from the start of the file; `None` while that is not known.
    pub fn offset_of(&self, slice_id: u64) -> Option<u64> {
        if self.runs.is_some() {
            let place = self.run_of(slice_id).map(|(run, first, start)| start + (slice_id - first) * run.slice_size);
            return place.or(self.file_size);
        }
        if slice_id == 0 { Some(0) } else { self.slice_size?.checked_mul(slice_id) }
    }

    /// Bytes of slice `slice_id`; `None` while that is not known. `slice_id` is within the upload.
    ///
    /// While the number of slices is not known every slice is a full one: a shorter one ends the file.
    pub fn len_of(&self, slice_id: u64) -> Option<u64> {
        if self.runs.is_some() {
            let (run, first, _) = self.run_of(slice_id)?;
            return Some(run.slice_size.min(run.len - (slice_id - first) * run.slice_size));
        }
        match self.slice_num {
            Some(num) if slice_id + 1 == num => match (self.file_size, self.offset_of(slice_id)) {
                (Some(file_size), Some(offset)) => Some(file_size - offset),
                _ => self.last_len,
            },
            _ => self.slice_size,
        }
    }

    /// The slice that the byte at `offset` is in; `None` while that is not known. Beyond the end of the file it is the
    /// slice that a longer one would have there.
    pub fn slice_at(&self, offset: u64) -> Option<u64> {
        if let Some(runs) = &self.runs {
            let found = placed(runs).find(|(run, _, start)| offset < start + run.len);
            return found.map_or(self.slice_num, |(run, first, start)| Some(first + (offset - start) / run.slice_size));
        }
        match self.slice_size {
            None | Some(0) => Some(0).filter(|_| self.slice_num == Some(1)),
            Some(slice_size) => Some(offset / slice_size),
        }
    }

    /// Number of whole slices in the first `merged_len` bytes of the file.
    pub fn slices_in(&self, merged_len: u64) -> u64 {
        if let Some(runs) = &self.runs {
            let begun = placed(runs).take_while(|(_, _, start)| *start < merged_len);
            return begun.last().map_or(0, |(run, first, start)| first + run.slices_in(merged_len - start));
        }
        let places_are_known = self.slice_size.is_some() || self.slice_num.is_some_and(|num| num <= 1);
        if places_are_known && self.file_size == Some(merged_len) {
            return self.slice_num.unwrap_or(0);
        }
        let Some(slice_size) = self.slice_size else { return 0 };
        let full = merged_len / slice_size;
        match self.slice_num {
            // The last slice counts only if the whole size is there, which the first lines answer.
            Some(num) if self.file_size.is_some() => full.min(num.saturating_sub(1)),
            Some(num) => full.min(num),
            // Somebody made the merged file longer than any upload.
            None => full.min(MAX_SLICES),
        }
    }

    /// Number of leading slices that have the same place and length in both plans.
    pub fn common_slices(&self, other: &Plan) -> u64 {
        if self == other {
            return self.slice_num.unwrap_or(MAX_SLICES);
        }
        if self.runs.is_some() || other.runs.is_some() {
            return common_of_runs(&self.as_runs(), &other.as_runs());
        }
        if self.slice_size.is_none() || self.slice_size != other.slice_size {
            return 0;
        }
        let full = |plan: &Plan| match (plan.file_size, plan.slice_num, plan.slice_size) {
            (Some(file_size), _, Some(slice_size)) => file_size / slice_size,
            (None, Some(num), _) => num.saturating_sub(1),
            _ => MAX_SLICES,
        };
        full(self).min(full(other))
    }
}

impl Plan {
    /// The run that slice `slice_id` is of, the first slice of it, and its offset. `None` beyond the end, and without
    /// runs.
    fn run_of(&self, slice_id: u64) -> Option<(&Run, u64, u64)> {
        placed(self.runs.as_ref()?).find(|(run, first, _)| slice_id < first + run.slice_num())
    }

    /// All slices as runs. Empty if sizes are not known.
    fn as_runs(&self) -> Vec<Run> {
        match (&self.runs, self.slice_size, self.file_size) {
            (Some(runs), ..) => runs.clone(),
            (None, Some(slice_size), Some(len)) if len > 0 => vec![Run { slice_size, len }],
            _ => vec![],
        }
    }
}

/// Each run with its first slice, and its offset.
fn placed(runs: &[Run]) -> impl Iterator<Item = (&Run, u64, u64)> {
    runs.iter().scan((0, 0), |(slices, bytes), run| {
        let place = (run, *slices, *bytes);
        *slices += run.slice_num();
        *bytes += run.len;
        Some(place)
    })
}

/// Number of leading slices that two sequences of runs share.
fn common_of_runs(one: &[Run], other: &[Run]) -> u64 {
    let mut common = 0;
    for (a, b) in one.iter().zip(other) {
        match a.slice_size == b.slice_size {
            true if a.len == b.len => common += a.slice_num(),
            true => return common + a.slices_in(b.len).min(b.slices_in(a.len)),
            false => return common,
        }
    }
    common
}

/// `given`, if `have` is not known or the same.
fn agree(what: &'static str, have: Option<u64>, given: u64) -> Result<Option<u64>, PlanError> {
    match have {
        Some(have) if have != given => Err(PlanError::Differs { what, have, given }),
        _ => Ok(Some(given)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sized(slice_size: u64, file_size: u64) -> Plan {
        Plan::new(None, Some(slice_size), Some(file_size)).unwrap()
    }

    #[test]
    fn counts_slices_at_the_borders() {
        for (file_size, slice_num) in [(0, 0), (1, 1), (9, 1), (10, 1), (11, 2), (19, 2), (20, 2), (21, 3)] {
            assert_eq!(sized(10, file_size).slice_num, Some(slice_num), "{file_size} bytes");
        }
        assert_eq!(sized(10, 21).len_of(2), Some(1));
        assert_eq!(sized(10, 20).len_of(1), Some(10));
        assert_eq!(sized(10, 19).len_of(1), Some(9));
    }

    #[test]
    fn contradictions_within_a_request_are_told_with_both_numbers() {
        let message = Plan::new(Some(5), Some(10), Some(100)).unwrap_err().to_string();
        assert_eq!(message, "slice_num is 5, but 100 bytes in slices of 10 are 10 slices");
        assert_eq!(Plan::new(Some(1), Some(0), None), Err(PlanError::ZeroSliceSize));
        assert_eq!(Plan::new(Some(0), None, Some(3)), Err(PlanError::Differs { what: "file_size", have: 3, given: 0 }));
        assert_eq!(Plan::new(Some(4), None, Some(3)), Err(PlanError::Thin { slice_num: 4, file_size: 3 }));
        assert!(Plan::new(Some(1), None, Some(3)).is_ok());
    }

    #[test]
    fn limits_hold_at_the_borders() {
        assert!(Plan::new(Some(MAX_SLICES), None, None).is_ok());
        assert_eq!(Plan::new(Some(MAX_SLICES + 1), None, None), Err(PlanError::TooManySlices(MAX_SLICES + 1)));
        assert!(Plan::new(None, Some(16 << 20), Some(MAX_FILE_SIZE - (48 << 30) * 16)).is_ok());
        let (slice, file) = (Some(1 << 30), Some(MAX_FILE_SIZE + 1));
        assert_eq!(Plan::new(None, slice, file), Err(PlanError::FileTooLarge(MAX_FILE_SIZE + 1)));
        assert!(Plan::new(Some(u64::MAX), Some(u64::MAX), Some(u64::MAX)).is_err());
    }

    #[test]
    fn the_seeds_upload_learns_its_sizes_in_any_order() {
        let begun = Plan::new(Some(3), None, None).unwrap();
        assert_eq!((begun.offset_of(2), begun.len_of(0)), (None, None));
        let last_first = begun.learn(2, 4).unwrap();
        assert_eq!((last_first.file_size, last_first.len_of(2)), (None, Some(4)));
        let both = last_first.learn(0, 10).unwrap();
        assert_eq!((both.slice_size, both.file_size), (Some(10), Some(24)));
        assert_eq!(
            both,
            begun.learn(1, 10).unwrap().learn(2, 4).unwrap().learn(0, 10).unwrap().with_last_len_of(&both)
        );
    }

    impl Plan {
        fn with_last_len_of(&self, other: &Plan) -> Plan {
            Plan { last_len: other.last_len, ..self.clone() }
        }
    }

    #[test]
    fn slices_that_contradict_the_upload_are_refused() {
        let plan = Plan::new(Some(3), None, None).unwrap().learn(0, 10).unwrap();
        assert_eq!(plan.learn(3, 10), Err(PlanError::BeyondEnd { slice_id: 3, slice_num: 3 }));
        assert_eq!(plan.learn(1, 9), Err(PlanError::SliceLen { slice_id: 1, expected: 10, got: 9 }));
        assert_eq!(plan.learn(2, 11), Err(PlanError::LastTooLong { slice_id: 2, slice_size: 10, got: 11 }));
        assert_eq!(plan.learn(2, 0), Err(PlanError::EmptySlice(2)));
        let long_last = Plan::new(Some(3), None, None).unwrap().learn(2, 11).unwrap();
        assert_eq!(long_last.learn(0, 10), Err(PlanError::LastTooLong { slice_id: 2, slice_size: 10, got: 11 }));
        let single = Plan::new(Some(1), None, None).unwrap().learn(0, 7).unwrap();
        assert_eq!(single.file_size, Some(7));
        assert_eq!(single.learn(0, 8), Err(PlanError::SliceLen { slice_id: 0, expected: 7, got: 8 }));
    }

    #[test]
    fn what_contradicts_itself_on_disk_is_refused() {
        let read = |text: &str| Plan::default().bind(&serde_json::from_str(text).unwrap());
        let no_slices = read(r#"{"slice_num":0,"slice_size":10,"file_size":0,"last_len":5}"#);
        assert_eq!(no_slices, Err(PlanError::BeyondEnd { slice_id: 0, slice_num: 0 }));
        let none_by_sizes = read(r#"{"slice_num":null,"slice_size":10,"file_size":0,"last_len":5}"#);
        assert_eq!(none_by_sizes, no_slices);
        let no_size = read(r#"{"slice_num":null,"slice_size":0,"file_size":null}"#);
        assert_eq!(no_size, Err(PlanError::ZeroSliceSize));
        let empty_last = read(r#"{"slice_num":3,"slice_size":10,"file_size":null,"last_len":0}"#);
        assert_eq!(empty_last, Err(PlanError::EmptySlice(2)));
        let two_lengths = read(r#"{"slice_num":1,"slice_size":null,"file_size":5,"last_len":7}"#);
        assert_eq!(two_lengths, Err(PlanError::Differs { what: "file_size", have: 5, given: 7 }));
    }

    #[test]
    fn a_slice_that_tells_the_number_of_slices_is_one_of_them() {
        let plan = Plan::new(None, None, Some(25)).unwrap();
        assert_eq!(plan.learn(2, 10), Err(PlanError::SliceLen { slice_id: 2, expected: 5, got: 10 }));
        assert_eq!(plan.learn(3, 10), Err(PlanError::BeyondEnd { slice_id: 3, slice_num: 3 }));
        assert_eq!(plan.learn(1, 10).unwrap().slice_num, Some(3));
    }

    #[test]
    fn a_last_slice_keeps_its_length_while_its_offset_is_not_known() {
        let plan = Plan::new(Some(3), None, Some(24)).unwrap().learn(2, 4).unwrap();
        assert_eq!((plan.offset_of(2), plan.len_of(2)), (None, Some(4)));
        assert_eq!(plan.learn(2, 5), Err(PlanError::SliceLen { slice_id: 2, expected: 4, got: 5 }));
        assert_eq!(plan.learn(0, 10).unwrap().len_of(2), Some(4));
    }

    #[test]
    fn an_unknown_length_is_bound_later() {
        let open = Plan::new(None, Some(10), None).unwrap();
        assert_eq!(open.learn(7, 9), Err(PlanError::SliceLen { slice_id: 7, expected: 10, got: 9 }));
        let bound = open.bind(&Plan::new(None, None, Some(75)).unwrap()).unwrap();
        assert_eq!((bound.slice_num, bound.len_of(7)), (Some(8), Some(5)));
        let other = Plan::new(None, None, Some(76)).unwrap();
        assert_eq!(bound.bind(&other), Err(PlanError::Differs { what: "file_size", have: 75, given: 76 }));
    }

    #[test]
    fn slices_in_counts_whole_slices_only() {
        let plan = sized(10, 25);
        for (len, slices) in [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (24, 2), (25, 3)] {
            assert_eq!(plan.slices_in(len), slices, "{len} bytes");
        }
        let even = sized(10, 20);
        assert_eq!((even.slices_in(19), even.slices_in(20)), (1, 2));
        // The seed's, before the last slice came: nothing is known of its length.
        let seed = Plan::new(Some(3), Some(10), None).unwrap();
        assert_eq!((seed.slices_in(20), seed.slices_in(29)), (2, 2));
        assert_eq!(Plan::new(Some(3), None, None).unwrap().slices_in(0), 0);
        assert_eq!(Plan::new(Some(0), None, None).unwrap().slices_in(0), 0);
        assert_eq!(Plan::new(None, Some(1), None).unwrap().slices_in(u64::MAX), MAX_SLICES);
        // Nothing is merged before places are known, however long the merged file is.
        assert_eq!(Plan::new(Some(3), None, Some(24)).unwrap().slices_in(24), 0);
        assert_eq!(Plan::new(Some(1), None, Some(24)).unwrap().slices_in(24), 1);
    }

    #[test]
    fn each_byte_is_in_one_slice() {
        let plan = sized(10, 25);
        let slices = [0, 9, 10, 24, 25, 30].map(|offset| plan.slice_at(offset));
        assert_eq!(slices, [0, 0, 1, 2, 2, 3].map(Some));
        assert_eq!(Plan::new(Some(1), None, Some(25)).unwrap().slice_at(24), Some(0));
        assert_eq!(Plan::new(Some(3), None, Some(25)).unwrap().slice_at(24), None);
    }

    #[test]
    fn a_grown_file_keeps_its_full_slices() {
        assert_eq!(sized(10, 25).common_slices(&sized(10, 47)), 2);
        assert_eq!(sized(10, 25).common_slices(&sized(10, 25)), 3);
        assert_eq!(sized(10, 20).common_slices(&sized(10, 20)), 2);
        assert_eq!(sized(10, 25).common_slices(&sized(20, 25)), 0);
        assert_eq!(Plan::new(None, Some(10), None).unwrap().common_slices(&sized(10, 25)), 2);
    }

    fn runs(runs: &[(u64, u64)]) -> Plan {
        Plan::of_runs(runs.iter().map(|(slice_size, len)| Run { slice_size: *slice_size, len: *len }).collect())
            .unwrap()
    }

    #[test]
    fn runs_of_slices_tell_all_numbers() {
        let plan = runs(&[(10, 25), (4, 4), (10, 20)]);
        assert_eq!((plan.slice_num, plan.slice_size, plan.file_size), (Some(6), None, Some(49)));
        let places: Vec<_> = (0..6).map(|id| (plan.offset_of(id).unwrap(), plan.len_of(id).unwrap())).collect();
        assert_eq!(places, [(0, 10), (10, 10), (20, 5), (25, 4), (29, 10), (39, 10)]);
        assert_eq!((plan.offset_of(6), plan.len_of(6)), (Some(49), None));
        assert_eq!(plan.learn(2, 5), Ok(plan.clone()));
        assert_eq!(plan.learn(2, 10), Err(PlanError::SliceLen { slice_id: 2, expected: 5, got: 10 }));
        assert_eq!(plan.learn(6, 1), Err(PlanError::BeyondEnd { slice_id: 6, slice_num: 6 }));
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(Plan::default().bind(&serde_json::from_str(&text).unwrap()), Ok(plan));
    }

    #[test]
    fn runs_that_make_no_sense_are_refused() {
        let of = |runs: &[(u64, u64)]| {
            Plan::of_runs(runs.iter().map(|(slice_size, len)| Run { slice_size: *slice_size, len: *len }).collect())
        };
        assert_eq!(of(&[(10, 5), (0, 5)]), Err(PlanError::EmptyRun(1)));
        assert_eq!(of(&[(10, 0)]), Err(PlanError::EmptyRun(0)));
        assert_eq!(of(&[(1, MAX_SLICES), (1, 1)]), Err(PlanError::TooManySlices(MAX_SLICES + 1)));
        assert!(matches!(of(&[(1 << 30, MAX_FILE_SIZE), (1, 1)]), Err(PlanError::FileTooLarge(_))));
        assert!(of(&[(u64::MAX, u64::MAX), (u64::MAX, u64::MAX)]).is_err());
        let plan = runs(&[(10, 25), (4, 4)]);
        let sized = Plan::new(None, Some(10), None).unwrap();
        assert_eq!(plan.bind(&sized), Err(PlanError::Unequal { what: "slice_size", given: 10 }));
        let longer = Plan::new(None, None, Some(30)).unwrap();
        assert_eq!(plan.bind(&longer), Err(PlanError::Differs { what: "file_size", have: 29, given: 30 }));
        assert!(plan.bind(&runs(&[(10, 29)])).is_err());
    }

    #[test]
    fn runs_share_their_leading_slices() {
        let plan = runs(&[(10, 25), (4, 9)]);
        for (other, common) in [
            (runs(&[(10, 25), (4, 9)]), 6),
            (runs(&[(10, 25), (4, 8)]), 5),
            (runs(&[(10, 25)]), 3),
            (runs(&[(10, 24), (4, 9)]), 2),
            (sized(10, 47), 2),
            (sized(4, 34), 0),
        ] {
            assert_eq!((plan.common_slices(&other), other.common_slices(&plan)), (common, common), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn every_plan_of_runs_covers_the_file_once(sizes in proptest::collection::vec((1u64..50, 1u64..500), 1..8)) {
            let plan = runs(&sizes);
            let mut end = 0;
            for id in 0..plan.slice_num.unwrap() {
                prop_assert_eq!(plan.offset_of(id), Some(end));
                let len = plan.len_of(id).unwrap();
                prop_assert!(len > 0);
                for offset in [end, end + len - 1] {
                    prop_assert_eq!(plan.slice_at(offset), Some(id));
                }
                prop_assert_eq!(plan.slices_in(end + len - 1), id);
                end += len;
                prop_assert_eq!(plan.slices_in(end), id + 1);
            }
            prop_assert_eq!(Some(end), plan.file_size);
            prop_assert_eq!(plan.offset_of(plan.slice_num.unwrap()), Some(end));
        }

        #[test]
        fn every_plan_covers_the_file_once(slice_size in 1u64..5000, file_size in 1u64..200_000) {
            let plan = sized(slice_size, file_size);
            let mut end = 0;
            for id in 0..plan.slice_num.unwrap() {
                prop_assert_eq!(plan.offset_of(id), Some(end));
                let len = plan.len_of(id).unwrap();
                prop_assert!(len > 0 && len <= slice_size);
                prop_assert_eq!(plan.slices_in(end + len - 1), id);
                end += len;
                prop_assert_eq!(plan.slices_in(end), id + 1);
            }
            prop_assert_eq!(end, file_size);
        }

        #[test]
        fn any_numbers_are_refused_or_consistent(num: Option<u64>, size: Option<u64>, file: Option<u64>, id: u64, len: u64) {
            if let Ok(plan) = Plan::new(num, size, file)
                && let Ok(learned) = plan.learn(id, len)
            {
                prop_assert_eq!(learned.len_of(id), Some(len));
                prop_assert_eq!(learned.learn(id, len), Ok(learned));
            }
        }
    }
}
