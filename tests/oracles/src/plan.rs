//! The arithmetic of slices. The bytes are read by `arbitrary`, as a file, facts about it in any order, and lies. All
//! facts must be taken, whatever their order; what is known must be true; lies are refused or do no harm.

use arbitrary::{Arbitrary, Unstructured};
use bigup_core::protocol::plan::{MAX_FILE_SIZE, MAX_SLICES, Plan, PlanError};

/// A file, cut into slices.
#[derive(Clone, Copy, Debug)]
struct Cut {
    slice_size: u64,
    file_size: u64,
}

/// Something that a client may say of it, or more than that.
#[derive(Arbitrary, Debug)]
enum Said {
    /// Any of the three numbers that are true.
    Facts { slice_num: bool, slice_size: bool, file_size: bool },
    /// A slice of it, as its turn is within the file.
    Slice(u32),
    /// Numbers, true or not.
    Numbers(Option<u64>, Option<u64>, Option<u64>),
    /// Numbers of a size that may well be true.
    SmallNumbers(Option<u8>, Option<u8>, Option<u8>),
    /// A slice, true or not.
    AnySlice(u64, u64),
    /// A slice of a size that may well be true.
    SmallSlice(u8, u8),
}

impl Cut {
    fn slice_num(&self) -> u64 {
        self.file_size.div_ceil(self.slice_size)
    }

    /// Offset and length of a slice, computed with room.
    fn extent(&self, slice_id: u64) -> (u128, u128) {
        let (size, file) = (u128::from(self.slice_size), u128::from(self.file_size));
        let offset = (u128::from(slice_id) * size).min(file);
        (offset, (offset + size).min(file) - offset)
    }

    fn facts(&self, slice_num: bool, slice_size: bool, file_size: bool) -> Plan {
        let num = slice_num.then(|| self.slice_num());
        Plan::new(num, slice_size.then_some(self.slice_size), file_size.then_some(self.file_size))
            .expect("facts do not contradict each other")
    }

    fn plan(&self) -> Plan {
        self.facts(true, true, true)
    }
}

/// Checks a file's plan.
///
/// # Panics
/// A fact is refused, or what a plan says is not true.
pub fn check(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let (Ok(cut), Ok(said)) = (a_cut(&mut data), Vec::<Said>::arbitrary(&mut data)) else { return };
    facts_are_taken_in_any_order(cut, &said);
    lies_do_no_harm(&said);
    prefixes_are_counted(cut, &mut data);
    if let Ok(other) = a_cut(&mut data) {
        common_slices_are_common(cut, other);
        let file_size = other.file_size.min(cut.slice_size.saturating_mul(MAX_SLICES));
        common_slices_are_common(cut, Cut { slice_size: cut.slice_size, file_size });
    }
}

/// A file within the limits.
fn a_cut(data: &mut Unstructured<'_>) -> arbitrary::Result<Cut> {
    let slice_size = match data.arbitrary::<u8>()? {
        0..=99 => data.int_in_range(1..=40)?,
        100..=199 => 1 << data.int_in_range(0..=40)?,
        _ => data.int_in_range(1..=MAX_FILE_SIZE * 2)?,
    };
    let most = MAX_FILE_SIZE.min(slice_size.saturating_mul(MAX_SLICES));
    let file_size = match data.arbitrary::<u8>()? {
        0..=149 => data.int_in_range(0..=400)?,
        150..=199 => most - data.int_in_range(0..=most.min(100))?,
        _ => data.int_in_range(0..=most)?,
    };
    Ok(Cut { slice_size, file_size: file_size.min(most) })
}

fn facts_are_taken_in_any_order(cut: Cut, said: &[Said]) {
    let mut plan = Plan::default();
    for said in said {
        let next = match *said {
            Said::Facts { slice_num, slice_size, file_size } => plan.bind(&cut.facts(slice_num, slice_size, file_size)),
            Said::Slice(turn) if cut.slice_num() > 0 => {
                let slice_id = u64::from(turn) % cut.slice_num();
                // A short last slice is told after the end is.
                if slice_id + 1 == cut.slice_num() && plan.slice_num.is_none() {
                    continue;
                }
                plan.learn(slice_id, cut.extent(slice_id).1 as u64)
            }
            _ => continue,
        };
        plan = next.unwrap_or_else(|why| panic!("{why}: {said:?} of {cut:?} on {plan:?}"));
        assert_true(&plan, cut);
    }
    let all = plan.bind(&cut.plan()).expect("the whole truth is taken too");
    assert_true(&all, cut);
    assert_eq!((all.slice_num, all.file_size), (Some(cut.slice_num()), Some(cut.file_size)));
}

/// Makes sure that whatever `plan` knows is so.
fn assert_true(plan: &Plan, cut: Cut) {
    assert_sound(plan);
    assert!(plan.slice_num.is_none_or(|num| num == cut.slice_num()), "{plan:?} {cut:?}");
    assert!(plan.file_size.is_none_or(|size| size == cut.file_size), "{plan:?} {cut:?}");
    assert!(plan.slice_size.is_none_or(|size| size == cut.slice_size), "{plan:?} {cut:?}");
    let num = cut.slice_num();
    let last = num.saturating_sub(1);
    for slice_id in [0, 1, num / 2, last.saturating_sub(1), last].into_iter().filter(|id| *id < num) {
        let (offset, len) = cut.extent(slice_id);
        assert!(plan.offset_of(slice_id).is_none_or(|is| u128::from(is) == offset), "{slice_id} {plan:?} {cut:?}");
        let is_known_inner = plan.slice_num.is_some() || slice_id < last;
        if is_known_inner {
            assert!(plan.len_of(slice_id).is_none_or(|is| u128::from(is) == len), "{slice_id} {plan:?} {cut:?}");
        }
    }
}

/// Makes sure that what a plan knows keeps the limits and does not contradict itself.
///
/// # Panics
/// It does not.
pub fn assert_sound(plan: &Plan) {
    assert!(plan.slice_num.is_none_or(|num| num <= MAX_SLICES), "{plan:?}");
    assert!(plan.file_size.is_none_or(|size| size <= MAX_FILE_SIZE), "{plan:?}");
    assert_ne!(plan.slice_size, Some(0), "{plan:?}");
    if let (Some(num), Some(file)) = (plan.slice_num, plan.file_size) {
        assert!(num <= file && (num > 0) == (file > 0), "{plan:?}");
    }
    if let (Some(slice), Some(file)) = (plan.slice_size, plan.file_size) {
        assert_eq!(plan.slice_num, Some(file.div_ceil(slice)), "{plan:?}");
        let num = file.div_ceil(slice);
        if num > 0 {
            let end = u128::from(plan.offset_of(num - 1).expect("sizes are known"))
                + u128::from(plan.len_of(num - 1).expect("sizes are known"));
            assert_eq!(end, u128::from(file), "{plan:?}");
        }
        assert_eq!(plan.slices_in(file), num, "{plan:?}");
    }
    assert_eq!(plan.bind(plan), Ok(plan.clone()), "a plan says nothing new to itself");
    assert!(plan.slices_in(u64::MAX) <= MAX_SLICES, "{plan:?}");
}

fn lies_do_no_harm(said: &[Said]) {
    let mut plan = Plan::default();
    let new = |num: Option<u64>, size: Option<u64>, file: Option<u64>| Plan::new(num, size, file);
    for said in said {
        let next: Result<Plan, PlanError> = match *said {
            Said::Numbers(num, size, file) => new(num, size, file).and_then(|other| plan.bind(&other)),
            Said::SmallNumbers(num, size, file) => {
                new(num.map(u64::from), size.map(u64::from), file.map(u64::from)).and_then(|other| plan.bind(&other))
            }
            Said::AnySlice(slice_id, len) => learn(&plan, slice_id, len),
            Said::SmallSlice(slice_id, len) => learn(&plan, slice_id.into(), len.into()),
            _ => continue,
        };
        let Ok(next) = next else { continue };
        assert_sound(&next);
        assert_grown(&plan, &next);
        plan = next;
    }
}

/// Learns a slice; a slice that has its place has the same one afterwards.
fn learn(plan: &Plan, slice_id: u64, len: u64) -> Result<Plan, PlanError> {
    let learned = plan.learn(slice_id, len)?;
    assert!(slice_id < MAX_SLICES && len > 0);
    assert_eq!(learned.len_of(slice_id), Some(len), "{plan:?}");
    assert_eq!(learned.learn(slice_id, len), Ok(learned.clone()));
    Ok(learned)
}

/// Makes sure that `next` knows all that `plan` knew.
fn assert_grown(plan: &Plan, next: &Plan) {
    let kept = |before: Option<u64>, after: Option<u64>| before.is_none() || before == after;
    assert!(kept(plan.slice_num, next.slice_num), "{plan:?} {next:?}");
    assert!(kept(plan.slice_size, next.slice_size), "{plan:?} {next:?}");
    assert!(kept(plan.file_size, next.file_size), "{plan:?} {next:?}");
}

fn prefixes_are_counted(cut: Cut, data: &mut Unstructured<'_>) {
    let plan = cut.plan();
    for _ in 0..4 {
        let Ok(near) = data.int_in_range(0..=cut.slice_num()) else { return };
        let Ok(off) = data.int_in_range(0..=2) else { return };
        let len =
            u64::try_from(cut.extent(near).0).expect("it is within the file").saturating_add(off).saturating_sub(1);
        let len = len.min(cut.file_size);
        let mut whole = u128::from(len / cut.slice_size);
        if len == cut.file_size {
            whole = cut.slice_num().into();
        }
        assert_eq!(u128::from(plan.slices_in(len)), whole, "{len} bytes of {cut:?}");
    }
}

fn common_slices_are_common(a: Cut, b: Cut) {
    let common = a.plan().common_slices(&b.plan());
    assert_eq!(common, b.plan().common_slices(&a.plan()));
    assert!(common <= a.slice_num().min(b.slice_num()), "{a:?} {b:?}");
    if let Some(last) = common.checked_sub(1) {
        assert_eq!(a.extent(last), b.extent(last), "{a:?} {b:?}");
    }
    let is_there = common < a.slice_num().min(b.slice_num());
    if is_there && a.slice_size == b.slice_size {
        assert_ne!(a.extent(common), b.extent(common), "{a:?} {b:?}");
    }
}
