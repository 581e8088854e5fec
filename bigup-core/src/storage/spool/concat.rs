//! Concatenation: partial uploads, whose slices become slices of another upload, the final one.
//!
//! A partial upload has a spool like any other, but no merger, and is never published. Once its place in a final upload
//! is known, its slices move there, each under the number that it has in that file. From there on the partial upload
//! holds the slices that the final one holds for it, and those that wait in its own spool.
//!
//! # Changes, and what a kill there leaves
//! ```text
//! 1  the final upload made, for good           the partial uploads as before; their client asks once more
//! 2  the place noted in each upload.json,      some know their place: as before
//!    for good
//! 3  a slice recorded in the final upload      a record without a slice, which means nothing
//! 4  the slice renamed to its place there      the final upload holds it, and so does the partial one
//! 5  the final upload published or cancelled   the partial upload is of no use, and goes with the next look at it;
//!                                              if there is a file, its client is told so for a while
//! ```
//! A slice whose 200 promised to survive a power cut is synced before step 3, and its new record between steps 3 and 4.
//!
//! The lock of a partial upload is taken before that of its final one.

use super::{LockedSpool, Spool, UploadId, UploadRecord};
use crate::protocol::digest::Digest;
use crate::protocol::name::FileName;
use crate::storage::disk::{self, Durability, IoContext};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};

/// Most slices that move under one lock of the final upload, for which its merger waits.
const GIVE_BATCH: usize = 256;

/// The role of an upload in a concatenation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concat {
    /// Its bytes become a part of the file of another upload, in this place. `None`: the place is not known yet.
    Partial(Option<Placement>),
    /// Its file consists of the bytes of partial uploads. The text names them, in the form of its protocol.
    Final(String),
}

impl Concat {
    /// True of a final upload.
    pub fn is_final(&self) -> bool {
        matches!(self, Concat::Final(_))
    }
}

/// The place of a partial upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of the final upload's file.
    pub file_name: FileName,
    /// The final upload's source. Another upload of that name is another one.
    pub source: String,
    /// The number that the first slice has in the final upload.
    pub first_slice: u64,
}

/// A [`Concat`] on disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConcatJson {
    Partial(Option<PlacementJson>),
    Final(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct PlacementJson {
    file_name: String,
    source: String,
    first_slice: u64,
}

impl ConcatJson {
    pub(super) fn new(concat: &Concat) -> ConcatJson {
        match concat.clone() {
            Concat::Final(text) => ConcatJson::Final(text),
            Concat::Partial(place) => ConcatJson::Partial(place.map(|Placement { file_name, source, first_slice }| {
                PlacementJson { file_name: file_name.as_str().to_owned(), source, first_slice }
            })),
        }
    }

    pub(super) fn read(self) -> Result<Concat, String> {
        Ok(match self {
            ConcatJson::Final(text) => Concat::Final(text),
            ConcatJson::Partial(None) => Concat::Partial(None),
            ConcatJson::Partial(Some(PlacementJson { file_name, source, first_slice })) => {
                let file_name = FileName::new(&file_name).map_err(|e| e.to_string())?;
                Concat::Partial(Some(Placement { file_name, source, first_slice }))
            }
        })
    }
}

/// The state of a final upload, as its partial uploads see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalState {
    /// It is unfinished.
    Unfinished(Box<UploadRecord>),
    /// It became a file of this digest a while ago.
    Finished(Digest),
    /// It was cancelled or has expired, or it became a file long ago.
    Gone,
}

impl Spool {
    /// The spool of the final upload that has this place.
    pub fn of_final(&self, place: &Placement) -> Spool {
        let id = UploadId::of_name(&place.file_name);
        Spool { path: self.path.with_file_name(id.as_str()), id }
    }

    /// The state of the final upload that has this place.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn final_state(&self, place: &Placement) -> io::Result<FinalState> {
        let spool = self.of_final(place);
        match spool.upload()?.filter(|upload| upload.source.as_ref() == Some(&place.source)) {
            Some(upload) => Ok(FinalState::Unfinished(Box::new(upload))),
            None => {
                Ok(spool.finished(&place.source)?.map_or(FinalState::Gone, |(digest, _)| FinalState::Finished(digest)))
            }
        }
    }

    /// Makes the first `taken` slices of a partial upload, which the final upload of this place has taken, survive a power
    /// cut there, as [`Spool::sync_slice`] does. One that did not survive is held no more.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_taken(&self, place: &Placement, taken: u64) -> io::Result<()> {
        let FinalState::Unfinished(upload) = self.final_state(place)? else { return Ok(()) };
        let spool = self.of_final(place);
        let first = spool.frontier(&upload)?.max(place.first_slice);
        (first..place.first_slice + taken).try_for_each(|slice_id| spool.sync_slice(slice_id).map(|_| ()))
    }

    /// Number of leading slices of the partial upload `upload` that its final one has taken.
    pub(super) fn taken(&self, upload: &UploadRecord, place: &Placement) -> io::Result<u64> {
        let slice_num = upload.plan.slice_num.unwrap_or(0);
        let found = match self.final_state(place)? {
            FinalState::Finished(_) => return Ok(slice_num),
            FinalState::Gone => return Ok(0),
            FinalState::Unfinished(found) => found,
        };
        match self.of_final(place).holdings(&found) {
            Ok(holdings) => {
                let end = holdings.ranges().end_of_run(place.first_slice);
                Ok(end.saturating_sub(place.first_slice).min(slice_num))
            }
            // Finished in between, or cancelled.
            Err(e) if e.kind() == ErrorKind::NotFound => match self.final_state(place)? {
                FinalState::Finished(_) => Ok(slice_num),
                FinalState::Unfinished(_) | FinalState::Gone => Ok(0),
            },
            Err(e) => Err(e),
        }
    }
}

impl LockedSpool {
    /// Moves slices that wait here to their places in the final upload. With [`Durability::PowerCut`] they survive a
    /// power cut there as they did here. True if a merger of the final upload would find something to do then. `false`
    /// also if no slice waits here, or if there is no final upload.
    ///
    /// # Errors
    /// As the system gives them. Each slice is here or there.
    pub fn give_slices(&self, durability: Durability) -> io::Result<bool> {
        let Some(place) = self.upload.placement() else { return Ok(false) };
        let (spool, waiting) = (self.spool.of_final(place), self.spool.waiting()?);
        if waiting.is_empty() {
            return Ok(false);
        }
        for slice_ids in waiting.chunks(GIVE_BATCH) {
            let Some(taking) = lock_final(&spool, place)? else { return Ok(false) };
            self.record_for(&taking, place, slice_ids)?;
            if durability == Durability::PowerCut {
                // The merger must not wait for it.
                drop(taking);
                spool.open_digests()?.sync_data().at("syncing the digests of", spool.path())?;
                let Some(taking) = lock_final(&spool, place)? else { return Ok(false) };
                self.rename_into(&taking, place, slice_ids)?;
                disk::sync_dir(spool.path())?;
            } else {
                self.rename_into(&taking, place, slice_ids)?;
            }
        }
        let Some(taking) = lock_final(&spool, place)? else { return Ok(false) };
        Ok(taking.holdings()?.need_merger(taking.upload()))
    }

    /// Records these slices in the final upload. One that is held there already, or that has no record here, goes: it is
    /// of no use, or is asked for again.
    fn record_for(&self, taking: &LockedSpool, place: &Placement, slice_ids: &[u64]) -> io::Result<()> {
        for slice_id in slice_ids {
            let record = self.records().get(*slice_id)?;
            match record {
                Some(record) if !taking.is_held(place.first_slice + slice_id)? => {
                    let put = taking.records().put(place.first_slice + slice_id, &record);
                    put.at("recording a slice in", taking.spool().path())?;
                }
                _ => self.discard(*slice_id)?,
            }
        }
        Ok(())
    }

    fn rename_into(&self, taking: &LockedSpool, place: &Placement, slice_ids: &[u64]) -> io::Result<()> {
        for slice_id in slice_ids {
            let (from, to) =
                (self.spool.slice_path(*slice_id), taking.spool().slice_path(place.first_slice + slice_id));
            match std::fs::rename(&from, &to) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                renamed => renamed.at("moving to its place in the file", &from)?,
            }
        }
        Ok(())
    }

    /// Removes this partial upload if its final upload is unfinished no more. If that became a file, the client of this
    /// one is told so for a while. True if it was removed.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub fn remove_if_final_ended(self) -> io::Result<bool> {
        let Some(place) = self.upload.placement() else { return Ok(false) };
        match self.spool.final_state(place)? {
            FinalState::Unfinished(_) => return Ok(false),
            FinalState::Finished(digest) => {
                if let (Some(source), Some(size)) = (&self.upload.source, self.upload.plan.file_size) {
                    self.spool.mark_finished(source, digest, size);
                }
            }
            FinalState::Gone => {}
        }
        self.remove().map(|()| true)
    }
}

fn lock_final(spool: &Spool, place: &Placement) -> io::Result<Option<LockedSpool>> {
    Ok(spool.lock()?.filter(|locked| locked.upload().source.as_ref() == Some(&place.source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::{DigestKind, SliceHasher};
    use crate::protocol::plan::{Plan, Run};
    use crate::storage::data_dir::DataDir;
    use crate::storage::space::DiskSpace;
    use crate::storage::spool::Place;
    use std::io::Write;

    const SOURCE: Option<&str> = Some("p");

    struct Fixture {
        _dir: tempfile::TempDir,
        data: DataDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(dir.path()).unwrap();
            Fixture { _dir: dir, data }
        }

        fn begin(&self, name: &str, plan: Plan, source: &str, concat: Concat) -> Spool {
            let upload = UploadRecord::begin(FileName::new(name).unwrap(), plan, Some(source.to_owned()));
            let upload = UploadRecord { concat: Some(concat), ..upload };
            let id = UploadId::of_name(&upload.file_name);
            assert!(Spool::create(&self.data, &id, &upload, &DiskSpace::new(&self.data, 0)).unwrap());
            Spool::of(&self.data, &id)
        }

        /// A partial upload of 25 bytes, in the place behind two slices, and its final upload.
        fn placed(&self) -> (Spool, Spool) {
            let place = Placement { file_name: FileName::new("f").unwrap(), source: "f".to_owned(), first_slice: 2 };
            let plan = Plan::new(None, Some(10), Some(25)).unwrap();
            let partial = self.begin("p", plan, "p", Concat::Partial(Some(place)));
            let runs = vec![Run { slice_size: 7, len: 14 }, Run { slice_size: 10, len: 25 }];
            let last = self.begin("f", Plan::of_runs(runs).unwrap(), "f", Concat::Final("final;x".to_owned()));
            (partial, last)
        }
    }

    fn store(spool: &Spool, slice_id: u64, content: &[u8]) {
        let mut locked = spool.lock().unwrap().unwrap();
        let plan = locked.upload().plan.clone();
        assert_eq!(locked.digest_kinds(slice_id, content.len() as u64).unwrap(), [DigestKind::Hash]);
        let space = DiskSpace::new(&DataDir::open(spool.path().parent().unwrap().parent().unwrap()).unwrap(), 0);
        let mut arrival = locked.arrival(slice_id, content.len() as u64, &plan, &space).unwrap();
        arrival.file().write_all(content).unwrap();
        let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
        hasher.update(content);
        let digests = [hasher.finish()];
        assert_eq!(locked.commit(&mut arrival, content.len() as u64, SOURCE, &digests).unwrap(), Place::Wanted);
    }

    fn frontier(spool: &Spool) -> u64 {
        spool.lock().unwrap().unwrap().frontier().unwrap()
    }

    #[test]
    fn slices_move_to_their_places_and_stay_held() {
        let f = Fixture::new();
        let (partial, last) = f.placed();
        store(&partial, 0, &[1; 10]);
        store(&partial, 2, &[3; 5]);
        for durability in [Durability::Process, Durability::PowerCut] {
            let is_due = partial.lock().unwrap().unwrap().give_slices(durability).unwrap();
            assert!(!is_due, "the slices before it are missing");
        }
        assert_eq!((partial.waiting().unwrap(), last.waiting().unwrap()), (vec![], vec![2, 4]));
        assert_eq!(std::fs::read(last.slice_path(4)).unwrap(), [3; 5]);
        assert_eq!(frontier(&partial), 1);
        assert!(!partial.merged_path().exists());
        store(&partial, 1, &[2; 10]);
        assert!(partial.lock().unwrap().unwrap().is_held(1).unwrap());
        partial.lock().unwrap().unwrap().give_slices(Durability::Process).unwrap();
        assert_eq!((frontier(&partial), last.waiting().unwrap()), (3, vec![2, 3, 4]));
    }

    #[test]
    fn a_slice_that_is_held_in_its_place_is_not_replaced() {
        let f = Fixture::new();
        let (partial, last) = f.placed();
        store(&partial, 0, &[1; 10]);
        partial.lock().unwrap().unwrap().give_slices(Durability::Process).unwrap();
        std::fs::write(partial.slice_path(0), [9; 10]).unwrap();
        partial.lock().unwrap().unwrap().give_slices(Durability::Process).unwrap();
        assert_eq!(std::fs::read(last.slice_path(2)).unwrap(), [1; 10]);
        assert_eq!(partial.waiting().unwrap(), Vec::<u64>::new());
    }

    #[test]
    fn a_partial_upload_ends_with_its_final_one() {
        for is_finished in [false, true] {
            let f = Fixture::new();
            let (partial, last) = f.placed();
            store(&partial, 0, &[1; 10]);
            assert!(!partial.lock().unwrap().unwrap().remove_if_final_ended().unwrap());
            if is_finished {
                last.mark_finished("f", Digest([7; 32]), 39);
            }
            last.lock().unwrap().unwrap().remove().unwrap();
            assert_eq!(frontier(&partial), if is_finished { 3 } else { 0 });
            assert!(partial.lock().unwrap().unwrap().remove_if_final_ended().unwrap());
            assert!(partial.lock().unwrap().is_none());
            assert_eq!(partial.finished("p").unwrap(), is_finished.then_some((Digest([7; 32]), 25)));
        }
    }

    #[test]
    fn another_upload_of_that_name_is_not_its_final_one() {
        let f = Fixture::new();
        let (partial, last) = f.placed();
        last.lock().unwrap().unwrap().remove().unwrap();
        f.begin("f", Plan::new(None, Some(10), Some(25)).unwrap(), "other", Concat::Final(String::new()));
        store(&partial, 0, &[1; 10]);
        assert!(!partial.lock().unwrap().unwrap().give_slices(Durability::Process).unwrap());
        assert_eq!(partial.waiting().unwrap(), [0]);
        assert!(partial.lock().unwrap().unwrap().remove_if_final_ended().unwrap());
    }
}
