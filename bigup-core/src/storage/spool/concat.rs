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
    /// power cut there as they did here. True if a merger of the final upload would find something to do. `false` also
    /// if there is no final upload.
    ///
    /// # Errors
    /// As the system gives them. Each slice is here or there.
    pub fn give_slices(&self, durability: Durability) -> io::Result<bool> {
        let Some(place) = self.upload.placement() else { return Ok(false) };
        let spool = self.spool.of_final(place);
        for slice_ids in self.spool.waiting()?.chunks(GIVE_BATCH) {
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
