//! Grants of bytes and files that are not on the disk yet.
//!
//! Limits count the bytes and files on the disk: unfinished uploads ([`crate::admission::upload_count`]), and files
//! below a quota's prefix ([`crate::admission::quota`]). Between the count and the moment at which a grant can be seen
//! there, other clients ask, too. So a [`Grant`] counts from the decision on, which is made under one lock, for as long
//! as it lives. Bytes that have [landed](Grant::landed) on the disk count until the next count, which sees them there.
//!
//! ```text
//! at work    granted; a spool is being made, a slice or a small file arrives       counts
//! landed     it is on the disk, and came there after the last count began          counts
//! counted    a count that began later has seen it, or has not: it was removed      counts by that
//! given up   the grant was dropped without having landed                           counts no more
//! ```
//! A grant that lands during a count may be seen by that count and counts as landed too: counted twice rather than not
//! at all. So no request is refused by a sum in which a grant landed; the sum is counted anew first, once for all that
//! wait for it. Nor is a request refused for good because of grants at work. Such a grant can belong to the same
//! request, sent before over a connection that broke, and can be on the disk and counted there already. The client is
//! asked to retry. No lock is held meanwhile. The next count sees another daemon's grants.

use crate::admission::amount::{self, Amount};
use crate::admission::quota::{self, Quota};
use crate::admission::tokens::Prefix;
use crate::admission::turns::CountTurns;
use crate::admission::upload_count::{UploadCount, UploadList};
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a count of uploads is reused below the limit. Daemons that share a folder can exceed the limit by the
/// uploads that begin in this time.
const UPLOADS_HOLD: Duration = Duration::from_secs(2);

/// The same at the limit: an upload that ended can still count for this time.
const UPLOADS_HOLD_WHEN_FULL: Duration = Duration::from_millis(200);

/// Shortest time for which a count below a prefix is reused.
const TREE_HOLDS: Duration = Duration::from_secs(5);

/// It is good this many times as long as it took, so that little of the time is spent on counting.
const TREE_HOLDS_TIMES: u32 = 20;

/// A request to add bytes and files.
#[derive(Clone, Debug)]
pub struct GrantRequest<'a> {
    /// Name of the file.
    pub name: &'a FileName,
    /// The token of the request; `None` stands for all clients without a token.
    pub token: Option<&'a str>,
    /// The kind of growth.
    pub what: Growing,
    /// Most unfinished uploads of all.
    pub most_uploads: u64,
    /// Most of those of the token. `None`: any number.
    pub most_of_token: Option<u64>,
    /// The quota that the addition must fit into. `None` if there is no quota.
    pub quota: Option<&'a Quota>,
}

/// A kind of growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// An upload of a file of this many bytes, to be begun.
    Upload(u64),
    /// A file of this many bytes that comes in one request, and counts as an upload until then.
    UnnamedFile(u64),
    /// An upload that is there and is to be this token's.
    TakeOver,
    /// A slice of this many bytes of an upload that counts by its held slices.
    Slice(u64),
    /// So many bytes more than an upload has counted for, its slices at work being among them.
    Growth(u64),
}

/// The reason something does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// The number of unfinished uploads is at its limit.
    Uploads,
    /// The token has so many.
    OfToken(u64),
    /// The quota: so much is there, and so much was asked for.
    Quota(Amount, Amount),
    /// The quota, because of other clients' additions: the request would fit without those.
    QuotaForNow,
}

/// A count that is needed before a request can be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncounted {
    /// The unfinished uploads.
    Uploads,
    /// Everything below this prefix.
    Below(Prefix),
}

/// The grants of a daemon. Copies share them.
#[derive(Clone, Debug)]
pub struct Grants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: DataDir,
    upload_count: UploadCount,
    book: Mutex<Book>,
    listing: CountTurns,
    trees: Mutex<HashMap<Prefix, Arc<CountTurns>>>,
}

/// Something that was granted. Dropped, it counts no more.
#[derive(Debug)]
pub struct Grant {
    grants: Grants,
    number: u64,
}

/// Where something counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// Among all unfinished uploads.
    Uploads,
    /// Among those of a token; `None`: of all clients without a token.
    UploadsOf(Option<String>),
    /// Everything below a prefix with a quota.
    Below(Prefix),
}

/// The count of a single place; for uploads `files` is their number.
#[derive(Debug, Default)]
struct ScopeCount {
    at_work: Amount,
    /// Since the count that stands began.
    landed: Amount,
    /// Since the one that is at work began.
    landed_meanwhile: Amount,
}

/// The result of a count.
#[derive(Clone, Copy, Debug)]
struct Counted<T> {
    what: T,
    began: Instant,
    /// Until when it is good.
    until: Instant,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Folders that were there; those after them are to be made.
    folders_there: u64,
    token: Option<String>,
    what: Growing,
    /// Bytes for which it counts while it is at work.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Book {
    last: u64,
    at_work: HashMap<u64, Entry>,
    tallies: HashMap<Scope, ScopeCount>,
    listed: Option<Counted<Arc<UploadList>>>,
    below: HashMap<Prefix, Counted<Amount>>,
}

/// The verdict of the book on a request.
enum GrantVerdict {
    Granted(u64),
    Over(OverLimit),
    /// Nothing, before this was counted anew.
    Uncounted(Uncounted),
}

impl Grants {
    /// No grants yet, on `data`.
    pub fn new(data: DataDir) -> Grants {
        let (upload_count, book, listing, trees) = Default::default();
        Grants(Arc::new(Inner { data, upload_count, book, listing, trees }))
    }

    /// Grants the request, or gives the reason against it. Blocks on the disk.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn take(&self, ask: &GrantRequest<'_>) -> io::Result<Result<Grant, OverLimit>> {
        let asked = Instant::now();
        loop {
            match self.take_counted(ask, asked) {
                Ok(decided) => return Ok(decided),
                Err(uncounted) => self.count(&uncounted, asked)?,
            }
        }
    }

    /// The same by the counts so far, for a request first made at the moment `asked`: it does not wait.
    ///
    /// # Errors
    /// This is to be [counted](Grants::count) first. Counts since `asked` are not asked for again.
    pub fn take_counted(&self, ask: &GrantRequest<'_>, asked: Instant) -> Result<Result<Grant, OverLimit>, Uncounted> {
        // A slice's upload was granted its folders when it began.
        let folders_there = match ask.what {
            Growing::Upload(_) | Growing::UnnamedFile(_) => quota::folders_there(&self.0.data, ask.name),
            Growing::TakeOver | Growing::Slice(_) | Growing::Growth(_) => u64::MAX,
        };
        let verdict = self.book().decide(ask, folders_there, asked);
        match verdict {
            GrantVerdict::Granted(number) => Ok(Ok(Grant { grants: self.clone(), number })),
            GrantVerdict::Over(over) => Ok(Err(over)),
            GrantVerdict::Uncounted(what) => Err(what),
        }
    }

    /// Counts this, unless another thread has counted it since the moment `asked`. Can take long.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn count(&self, what: &Uncounted, asked: Instant) -> io::Result<()> {
        match what {
            Uncounted::Uploads => self.count_uploads(asked),
            Uncounted::Below(prefix) => self.count_below(prefix, asked),
        }
    }

    fn count_uploads(&self, since: Instant) -> io::Result<()> {
        self.0.listing.count_since(since, || {
            let began = Instant::now();
            self.book().count_begins(|place| !matches!(place, Scope::Below(_)));
            let listed = Arc::new(self.0.upload_count.look(&self.0.data)?);
            let mut book = self.book();
            book.count_ends(|place| !matches!(place, Scope::Below(_)));
            book.listed = Some(Counted { what: listed, began, until: began + UPLOADS_HOLD });
            Ok(())
        })
    }

    fn count_below(&self, prefix: &Prefix, since: Instant) -> io::Result<()> {
        self.turns(prefix).count_since(since, || {
            let began = Instant::now();
            let here = |place: &Scope| matches!(place, Scope::Below(below) if below == prefix);
            self.book().count_begins(here);
            self.count_uploads(began)?;
            let listed = self.book().listed.as_ref().map(|found| Arc::clone(&found.what)).unwrap_or_default();
            let what = quota::count(&self.0.data, prefix, &listed)?;
            let mut book = self.book();
            book.count_ends(here);
            let until = Instant::now() + TREE_HOLDS.max(began.elapsed() * TREE_HOLDS_TIMES);
            book.below.insert(prefix.clone(), Counted { what, began, until });
            Ok(())
        })
    }

    fn turns(&self, prefix: &Prefix) -> Arc<CountTurns> {
        let mut trees = self.0.trees.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(trees.entry(prefix.clone()).or_default())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Grants {
    /// Does `work` while no other thread can count below `prefix`, and drops the last count of it. `work` can ask
    /// whether a thread waits for a count.
    pub(crate) fn while_counting(&self, prefix: &Prefix, work: impl FnOnce(&dyn Fn() -> bool)) {
        let turns = self.turns(prefix);
        // Beside the one here and that in the table.
        let is_waited_for = || Arc::strong_count(&turns) > 2;
        self.forget_counts();
        let count = || {
            work(&is_waited_for);
            // Nothing was counted.
            Err(io::ErrorKind::Interrupted.into())
        };
        assert!(turns.count_since(Instant::now(), count).is_err());
    }

    /// No count is good any more.
    pub(crate) fn forget_counts(&self) {
        self.book().below.clear();
    }
}

impl Grant {
    /// It is on the disk now, and counts as such.
    pub fn landed(self) {
        self.grants.book().end(self.number, true);
        // Its drop finds nothing left of it.
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.grants.book().end(self.number, false);
    }
}

impl Entry {
    fn new(ask: &GrantRequest<'_>, folders_there: u64, bytes: u64) -> Entry {
        let token = ask.token.map(str::to_owned);
        Entry { name: ask.name.as_str().to_owned(), folders_there, token, what: ask.what, bytes }
    }

    /// Its part of the counts of uploads: in all, and of the token.
    fn as_upload(&self) -> (bool, bool) {
        match self.what {
            Growing::Upload(_) | Growing::UnnamedFile(_) => (true, true),
            Growing::TakeOver => (false, true),
            Growing::Slice(_) | Growing::Growth(_) => (false, false),
        }
    }

    /// Its amount below `prefix`, which covers its name.
    fn below(&self, prefix: &Prefix) -> Amount {
        match self.what {
            Growing::Upload(_) | Growing::UnnamedFile(_) => {
                let folders = self.name.matches('/').count() as u64;
                let above = prefix.as_str().matches('/').count() as u64;
                let to_be_made = folders.saturating_sub(above.max(self.folders_there));
                Amount::of_file(self.bytes).plus(Amount::of_folders(to_be_made))
            }
            Growing::TakeOver => Amount::default(),
            Growing::Slice(_) => Amount { files: 0, ..Amount::of_file(self.bytes) },
            Growing::Growth(_) => Amount { bytes: self.bytes, files: 0 },
        }
    }

    /// The same where nothing else is at work: then it is not shared with slices.
    fn below_by_itself(&self, prefix: &Prefix) -> Amount {
        match self.what {
            Growing::Growth(bytes) => Amount { bytes, files: 0 },
            _ => self.below(prefix),
        }
    }

    /// All places in which it counts, and for how much.
    fn places(&self, book: &Book) -> Vec<(Scope, Amount)> {
        let one = Amount { bytes: 0, files: 1 };
        let (of_all, of_token) = self.as_upload();
        let uploads = of_all.then_some((Scope::Uploads, one));
        let own = of_token.then(|| (Scope::UploadsOf(self.token.clone()), one));
        let below = prefixes(&self.name).filter_map(|prefix| {
            let place = Scope::Below(prefix.clone());
            book.tallies.contains_key(&place).then(|| (place, self.below(&prefix)))
        });
        uploads.into_iter().chain(own).chain(below).collect()
    }
}

/// All prefixes that cover a name.
fn prefixes(name: &str) -> impl Iterator<Item = Prefix> {
    let ends = name.match_indices('/').map(|(at, _)| at + 1);
    // A folder of a name can always be a prefix.
    [0].into_iter().chain(ends).filter_map(|end| Prefix::try_from(name[..end].to_owned()).ok())
}

impl Book {
    fn decide(&mut self, ask: &GrantRequest<'_>, folders_there: u64, asked: Instant) -> GrantVerdict {
        if let Some(quota) = ask.quota {
            self.know(&quota.prefix);
        }
        let bytes = match ask.what {
            Growing::Upload(bytes) | Growing::UnnamedFile(bytes) | Growing::Slice(bytes) => bytes,
            Growing::TakeOver => 0,
            Growing::Growth(bytes) => bytes.saturating_sub(self.slices_at_work(ask.name)),
        };
        let entry = Entry::new(ask, folders_there, bytes);
        let verdict = self.decide_uploads(&entry, ask, asked).or_else(|| self.decide_quota(&entry, ask, asked));
        verdict.unwrap_or_else(|| GrantVerdict::Granted(self.begin(entry)))
    }

    /// `None` if it is within the limits for uploads.
    fn decide_uploads(&self, entry: &Entry, ask: &GrantRequest<'_>, asked: Instant) -> Option<GrantVerdict> {
        let (of_all, of_token) = entry.as_upload();
        let (most, most_of_token) = (of_all.then_some(ask.most_uploads), ask.most_of_token.filter(|_| of_token));
        if most.is_none() && most_of_token.is_none() {
            return None;
        }
        let now = Instant::now();
        let Some(found) = self.listed.as_ref().filter(|found| found.began >= asked || now < found.until) else {
            return Some(GrantVerdict::Uncounted(Uncounted::Uploads));
        };
        let own = Scope::UploadsOf(entry.token.clone());
        let all = self.sum(&Scope::Uploads, Amount { bytes: 0, files: found.what.number }).files;
        let of_token = found.what.number_of(entry.token.as_deref());
        let of_token = self.sum(&own, Amount { bytes: 0, files: of_token }).files;
        let over = if most.is_some_and(|most| all >= most) {
            OverLimit::Uploads
        } else if most_of_token.is_some_and(|most| of_token >= most) {
            OverLimit::OfToken(of_token)
        } else {
            return None;
        };
        let stands = found.began >= asked || now < found.began + UPLOADS_HOLD_WHEN_FULL;
        Some(if stands { GrantVerdict::Over(over) } else { GrantVerdict::Uncounted(Uncounted::Uploads) })
    }

    /// `None` if it is within the quota.
    fn decide_quota(&self, entry: &Entry, ask: &GrantRequest<'_>, asked: Instant) -> Option<GrantVerdict> {
        let quota = ask.quota.filter(|quota| quota.prefix.covers(&entry.name))?;
        let more = entry.below(&quota.prefix);
        if more == Amount::default() {
            return None;
        }
        let now = Instant::now();
        let place = Scope::Below(quota.prefix.clone());
        let found = self.below.get(&quota.prefix).filter(|found| found.began >= asked || now < found.until);
        let uncounted = || Some(GrantVerdict::Uncounted(Uncounted::Below(quota.prefix.clone())));
        let Some(found) = found else { return uncounted() };
        let there = self.sum(&place, found.what);
        if quota.allows(there.plus(more)) {
            return None;
        }
        let has_landed = self.tallies.get(&place).is_some_and(|tally| tally.landed != Amount::default());
        let stands = found.began >= asked || !has_landed;
        if !stands {
            return uncounted();
        }
        // A grant at work can belong to the same request, sent before, and can be on the disk and counted there
        // already.
        let tally = self.tallies.get(&place);
        let at_rest = found.what.plus(tally.map_or(Amount::default(), |tally| tally.landed));
        let passes = quota.allows(at_rest.plus(entry.below_by_itself(&quota.prefix)));
        Some(GrantVerdict::Over(if passes { OverLimit::QuotaForNow } else { OverLimit::Quota(there, more) }))
    }

    fn sum(&self, place: &Scope, found: Amount) -> Amount {
        self.tallies.get(place).map_or(found, |tally| found.plus(tally.landed).plus(tally.at_work))
    }

    /// From now on changes below `prefix` are counted.
    fn know(&mut self, prefix: &Prefix) {
        let place = Scope::Below(prefix.clone());
        if self.tallies.contains_key(&place) {
            return;
        }
        let below = self.at_work.values().filter(|entry| prefix.covers(&entry.name)).map(|entry| entry.below(prefix));
        let at_work = below.fold(Amount::default(), Amount::plus);
        self.tallies.insert(place, ScopeCount { at_work, ..ScopeCount::default() });
    }

    /// Bytes of the slices that are at work of an upload.
    fn slices_at_work(&self, name: &FileName) -> u64 {
        self.slices_of(name.as_str()).map(|entry| entry.bytes.max(amount::BLOCK)).sum()
    }

    fn slices_of(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.at_work.values().filter(move |entry| entry.name == name && matches!(entry.what, Growing::Slice(_)))
    }

    fn begin(&mut self, entry: Entry) -> u64 {
        for (place, amount) in entry.places(self) {
            let tally = self.tallies.entry(place).or_default();
            tally.at_work = tally.at_work.plus(amount);
        }
        self.last += 1;
        self.at_work.insert(self.last, entry);
        self.last
    }

    /// A grant is at work no more.
    fn end(&mut self, number: u64, landed: bool) {
        let Some(mut entry) = self.at_work.remove(&number) else { return };
        for (place, amount) in entry.places(self) {
            let tally = self.tallies.entry(place).or_default();
            tally.at_work = tally.at_work.minus(amount);
        }
        if landed {
            self.land(&mut entry);
        }
        // Of the many that come and go nothing is to be left.
        self.tallies.retain(|place, tally| matches!(place, Scope::Below(_)) || !tally.is_empty());
    }

    fn land(&mut self, entry: &mut Entry) {
        if let Growing::Growth(all) = entry.what {
            // The upload counts with its size now, and its slices at work are part of that.
            entry.bytes = all;
            let name = entry.name.clone();
            let slices =
                self.at_work.iter().filter(|(_, slice)| slice.name == name && matches!(slice.what, Growing::Slice(_)));
            let numbers: Vec<u64> = slices.map(|(number, _)| *number).collect();
            numbers.into_iter().for_each(|number| self.end(number, false));
        }
        for (place, amount) in entry.places(self) {
            // A draft is no upload any more: its file is finished.
            if matches!(entry.what, Growing::UnnamedFile(_)) && !matches!(place, Scope::Below(_)) {
                continue;
            }
            let tally = self.tallies.entry(place).or_default();
            tally.landed = tally.landed.plus(amount);
            tally.landed_meanwhile = tally.landed_meanwhile.plus(amount);
        }
    }

    fn count_begins(&mut self, of: impl Fn(&Scope) -> bool) {
        for (_, tally) in self.tallies.iter_mut().filter(|(place, _)| of(place)) {
            tally.landed_meanwhile = Amount::default();
        }
    }

    fn count_ends(&mut self, of: impl Fn(&Scope) -> bool) {
        for (_, tally) in self.tallies.iter_mut().filter(|(place, _)| of(place)) {
            tally.landed = std::mem::take(&mut tally.landed_meanwhile);
        }
    }
}

impl ScopeCount {
    fn is_empty(&self) -> bool {
        [self.at_work, self.landed, self.landed_meanwhile].iter().all(|amount| *amount == Amount::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::amount::BLOCK;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
    use std::fs;
    use std::sync::Barrier;

    const UNIT: u64 = 10 * BLOCK;

    struct Fixture {
        _dir: tempfile::TempDir,
        data: DataDir,
        grants: Grants,
        quota: Quota,
    }

    impl Fixture {
        fn new(quota: u64) -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(dir.path()).unwrap();
            fs::create_dir(data.files().join("a")).unwrap();
            let quota = Quota { prefix: "a".parse().unwrap(), bytes: Some(quota), files: None };
            Fixture { _dir: dir, grants: Grants::new(data.clone()), data, quota }
        }

        fn take(&self, name: &str, what: Growing) -> Result<Grant, OverLimit> {
            let name = FileName::new(name).unwrap();
            let ask = GrantRequest {
                name: &name,
                token: Some("t"),
                what,
                most_uploads: 5,
                most_of_token: Some(4),
                quota: Some(&self.quota),
            };
            self.grants.take(&ask).unwrap()
        }

        fn other(&self, name: &str, what: Growing) -> Result<Grant, OverLimit> {
            let name = FileName::new(name).unwrap();
            let ask =
                GrantRequest { name: &name, token: None, what, most_uploads: 5, most_of_token: None, quota: None };
            self.grants.take(&ask).unwrap()
        }

        fn begin(&self, name: &str, size: u64) {
            let plan = Plan::new(None, Some(BLOCK), Some(size)).unwrap();
            let upload = UploadRecord {
                token: Some("t".to_owned()),
                ..UploadRecord::begin(FileName::new(name).unwrap(), plan, None)
            };
            assert!(
                Spool::create(
                    &self.data,
                    &UploadId::of_name(&upload.file_name),
                    &upload,
                    &DiskSpace::new(&self.data, 0)
                )
                .unwrap()
            );
        }
    }

    #[track_caller]
    fn assert_over(taken: Result<Grant, OverLimit>, there: u64, more: u64) {
        match taken {
            Err(OverLimit::Quota(is, was_asked)) => assert_eq!((is.bytes, was_asked.bytes), (there, more)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_grant_counts_until_it_is_dropped_and_then_by_what_is_on_the_disk() {
        let f = Fixture::new(2 * UNIT);
        let first = f.take("a/x", Growing::Upload(UNIT)).unwrap();
        assert_eq!(f.take("a/y", Growing::Upload(UNIT + 1)).unwrap_err(), OverLimit::QuotaForNow);
        assert_over(f.take("a/y", Growing::Upload(2 * UNIT + 1)), UNIT, 2 * UNIT + 1);
        drop(first);
        let whole = f.take("a/y", Growing::Upload(2 * UNIT)).unwrap();
        f.begin("a/y", 2 * UNIT);
        whole.landed();
        assert_over(f.take("a/z", Growing::UnnamedFile(1)), 2 * UNIT, BLOCK);
    }

    #[test]
    fn nothing_is_refused_for_good_because_of_its_own_twin() {
        let f = Fixture::new(3 * UNIT);
        // Sent again while the first one is at work.
        let first = f.take("a/x", Growing::Upload(2 * UNIT)).unwrap();
        assert_eq!(f.take("a/x", Growing::Upload(2 * UNIT)).unwrap_err(), OverLimit::QuotaForNow);
        // A count finds it on the disk, and the grant is still at work.
        f.begin("a/x", 2 * UNIT);
        f.grants.book().below.clear();
        assert_eq!(f.take("a/y", Growing::UnnamedFile(UNIT)).unwrap_err(), OverLimit::QuotaForNow);
        first.landed();
        drop(f.take("a/y", Growing::UnnamedFile(UNIT)).unwrap());
    }

    #[test]
    fn an_upload_that_tells_too_large_a_size_is_refused_for_good_also_by_its_last_slice() {
        let f = Fixture::new(4 * UNIT);
        f.take("a/y", Growing::UnnamedFile(2 * UNIT)).unwrap().landed();
        std::fs::write(f.data.files().join("a/y"), vec![0; 2 * UNIT as usize]).unwrap();
        let _slice = f.take("a/x", Growing::Slice(UNIT)).unwrap();
        assert_over(f.take("a/x", Growing::Growth(3 * UNIT)), 3 * UNIT, 2 * UNIT);
    }

    #[test]
    fn nothing_is_refused_by_a_sum_of_what_landed() {
        let f = Fixture::new(2 * UNIT);
        // Landed, and removed by hand.
        f.take("a/x", Growing::UnnamedFile(2 * UNIT)).unwrap().landed();
        drop(f.take("a/y", Growing::UnnamedFile(2 * UNIT)).unwrap());
    }

    #[test]
    fn of_many_at_once_as_many_are_granted_as_fit() {
        for _ in 0..20 {
            let f = Fixture::new(2 * UNIT);
            let gate = Barrier::new(16);
            let granted: Vec<Grant> = std::thread::scope(|scope| {
                let ask = |i| {
                    let (f, gate) = (&f, &gate);
                    scope.spawn(move || {
                        gate.wait();
                        f.take(&format!("a/{i}"), Growing::Upload(UNIT)).ok()
                    })
                };
                let asked: Vec<_> = (0..16).map(ask).collect();
                asked.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
            });
            assert_eq!(granted.len(), 2);
        }
    }

    #[test]
    fn whoever_has_no_quota_counts_in_those_of_others() {
        let f = Fixture::new(2 * UNIT);
        let before = f.other("a/x", Growing::Upload(UNIT)).unwrap();
        let own = f.take("a/y", Growing::Upload(BLOCK)).unwrap();
        let after = f.other("a/z", Growing::UnnamedFile(UNIT)).unwrap();
        assert_eq!(f.take("a/w", Growing::Slice(1)).unwrap_err(), OverLimit::QuotaForNow);
        drop((before, own));
        drop(f.take("a/w", Growing::Slice(1)).unwrap());
        after.landed();
        f.other("b/a/x", Growing::Upload(100 * UNIT)).unwrap().landed();
        drop(f.take("a/w", Growing::UnnamedFile(2 * UNIT)).unwrap());
    }

    #[test]
    fn uploads_count_in_all_and_of_each_token() {
        let f = Fixture::new(u64::MAX);
        for i in 0..3 {
            let grant = f.take(&format!("a/{i}"), Growing::Upload(1)).unwrap();
            f.begin(&format!("a/{i}"), 1);
            grant.landed();
        }
        let unnamed = f.take("a/d", Growing::UnnamedFile(1)).unwrap();
        assert_eq!(f.take("a/e", Growing::Upload(1)).unwrap_err(), OverLimit::OfToken(4));
        assert_eq!(f.take("a/e", Growing::TakeOver).unwrap_err(), OverLimit::OfToken(4));
        let other = f.other("e", Growing::Upload(1)).unwrap();
        assert_eq!(f.other("f", Growing::UnnamedFile(1)).unwrap_err(), OverLimit::Uploads);
        unnamed.landed();
        drop(f.take("a/e", Growing::Upload(1)).unwrap());
        drop(f.take("a/e", Growing::TakeOver).unwrap());
        drop(other);
        // Another daemon began it, which is seen within seconds.
        f.begin("late", 1);
        let deadline = Instant::now() + 60 * UPLOADS_HOLD;
        while f.take("a/0", Growing::TakeOver).is_ok() {
            assert!(Instant::now() < deadline, "it is not seen");
            std::thread::sleep(UPLOADS_HOLD_WHEN_FULL);
        }
    }

    #[test]
    fn an_upload_whose_size_is_told_counts_with_that_and_no_more_with_its_slices() {
        let f = Fixture::new(4 * UNIT);
        let slices: Vec<Grant> = (0..3).map(|_| f.take("a/x", Growing::Slice(UNIT)).unwrap()).collect();
        assert_over(f.take("a/x", Growing::Growth(4 * UNIT + 1)), 3 * UNIT, UNIT + 1);
        let growth = f.take("a/x", Growing::Growth(4 * UNIT)).unwrap();
        assert_eq!(f.take("a/y", Growing::UnnamedFile(1)).unwrap_err(), OverLimit::QuotaForNow);
        growth.landed();
        drop(slices);
        let below = Scope::Below("a".parse().unwrap());
        let book = f.grants.book();
        assert_eq!((book.tallies[&below].landed.bytes, book.tallies[&below].at_work.bytes), (4 * UNIT, 0));
    }

    #[test]
    fn folders_to_be_made_count_below_the_prefix_only() {
        let f = Fixture::new(3 * BLOCK);
        assert_over(f.take("a/b/c/d/e", Growing::UnnamedFile(0)), 0, 4 * BLOCK);
        fs::create_dir(f.data.files().join("a/b")).unwrap();
        f.take("a/b/c", Growing::UnnamedFile(0)).unwrap().landed();
        assert_over(f.take("a/b/d/e/f", Growing::Upload(0)), BLOCK, 3 * BLOCK);
        let deep = Fixture { quota: Quota { prefix: "n/m".parse().unwrap(), bytes: None, files: Some(2) }, ..f };
        drop(deep.take("n/m/o/p", Growing::UnnamedFile(1)).unwrap());
        assert!(matches!(
            deep.take("n/m/o/q/p", Growing::UnnamedFile(1)),
            Err(OverLimit::Quota(_, Amount { files: 3, .. }))
        ));
    }

    #[test]
    fn nothing_is_left_of_grants_that_are_over() {
        let f = Fixture::new(UNIT);
        f.take("a/x", Growing::UnnamedFile(1)).unwrap().landed();
        drop(f.take("a/y", Growing::Upload(1)).unwrap());
        let book = f.grants.book();
        assert!(book.at_work.is_empty());
        assert_eq!(book.tallies.keys().collect::<Vec<_>>(), [&Scope::Below("a".parse().unwrap())]);
    }
}
