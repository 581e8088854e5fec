//! Concatenation: a final upload is made of partial ones, which may still be running. Their slices move to it, and are
//! merged as they come ([`bigup_core::storage::spool::Concat`]).
//!
//! The key of a final upload follows from those of its partial ones. So a client that asks again, having lost the
//! response, is told the same upload, also once that is finished; and forty that ask at once are told one.

use super::begin::{check_not_paused, show_life};
use super::create::{CreateRequest, Created, UploadKey};
use super::refusals::no_such_upload;
use super::settings::SliceAck;
use super::{SliceStored, Uploads};
use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::refusal::{Refusal, within_request};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::{Plan, Run};
use bigup_core::storage::disk::Durability;
use bigup_core::storage::spool::{Concat, FinalState, LockedSpool, Placement, Spool, UploadId, UploadRecord};
use std::collections::HashSet;

/// Most partial uploads of a final one. Each is a lock that is held while they get their places.
pub const MAX_PARTIALS: usize = 256;

/// A partial upload, as its client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialName {
    /// Its secret.
    pub key: UploadKey,
    /// Its name.
    pub name: FileName,
}

/// A final upload to be created.
#[derive(Clone, Debug)]
pub struct ConcatRequest {
    /// The upload; its size follows from the partial ones.
    pub create: CreateRequest,
    /// The partial uploads, in the order of their bytes.
    pub partials: Vec<PartialName>,
    /// The same as the client wrote it.
    pub text: String,
}

/// The partial uploads of a final one, as they were found.
struct Found {
    /// The plan of the final upload. `None`: partial uploads are gone, since it is finished.
    plan: Option<Plan>,
    /// The number of each one's first slice in the final upload.
    first_slices: Vec<u64>,
    /// Name of the file that they were placed in before. `None` if they were not.
    placed_in: Option<FileName>,
}

impl Uploads {
    /// Creates the final upload of these partial ones, or returns the one that is there. True beside it if all of its
    /// bytes are held.
    ///
    /// # Errors
    /// A partial upload is not there, belongs to another file, or has no length yet; or the upload is refused. The
    /// partial uploads are as before then.
    pub fn concatenate(&self, ask: &ConcatRequest) -> Result<(Created, bool), Refusal> {
        check_distinct(&ask.partials)?;
        let key = UploadKey::of_partials(ask.partials.iter().map(|partial| &partial.key));
        let found = self.look_at_partials(ask, &key)?;
        let text = Concat::Final(ask.text.clone());
        let created = match (&found.placed_in, &found.plan) {
            (Some(name), _) => self.placed(key, name)?,
            (None, plan) => self.create_upload(&ask.create, key, plan.as_ref(), Some(text))?,
        };
        if created.is_finished {
            self.end_partials(&ask.partials)?;
            return Ok((created, true));
        }
        let created = self.place(ask, created, &found.first_slices)?;
        let id = UploadId::of_name(&created.name);
        let state = self.peek(&id, &created.name, Some(&created.key.source()))?;
        let is_whole = !matches!(state, Some(super::NameState::Unfinished(unfinished)) if !unfinished.is_all_held());
        Ok((created, is_whole))
    }

    /// The final upload with this key that partial ones were placed in.
    fn placed(&self, key: UploadKey, name: &FileName) -> Result<Created, Refusal> {
        let (id, source) = (UploadId::of_name(name), key.source());
        let is_finished = self.lock_of(&Spool::of(&self.data, &id), &source)?.is_none();
        Ok(Created { key, name: name.clone(), is_finished })
    }

    fn look_at_partials(&self, ask: &ConcatRequest, key: &UploadKey) -> Result<Found, Refusal> {
        let (mut runs, mut first_slices, mut slices) = (vec![], vec![], 0);
        let (mut placed_in, mut is_any_gone) = (None, false);
        for (number, partial) in (1..).zip(&ask.partials) {
            ask.create.by.check(&[Permission::Push], Some(&partial.name))?;
            let Some(locked) = self.lock_partial(partial)? else {
                if self.became(&partial.id(), &partial.name, &partial.key.source())?.is_none() {
                    return Err(not_there(number));
                }
                is_any_gone = true;
                continue;
            };
            let upload = locked.upload();
            if let Some(place) = check_partial(number, upload, &ask.create.by, &key.source())? {
                placed_in = Some(place.file_name.clone());
            }
            let plan = &upload.plan;
            let (Some(len), Some(slice_size), Some(slice_num)) = (plan.file_size, plan.slice_size, plan.slice_num)
            else {
                return Err(without_length(number));
            };
            first_slices.push(slices);
            slices += slice_num;
            runs.extend((len > 0).then_some(Run { slice_size, len }));
        }
        let plan = if is_any_gone { None } else { Some(plan_of(runs)?) };
        Ok(Found { plan, first_slices, placed_in })
    }

    fn lock_partial(&self, partial: &PartialName) -> Result<Option<LockedSpool>, Refusal> {
        self.lock_of(&Spool::of(&self.data, &partial.id()), &partial.key.source())
    }

    /// Gives the partial uploads their places in the final one, all at once or none, and their slices to it. If another
    /// request has placed them in an upload of the same key, that one is returned.
    fn place(&self, ask: &ConcatRequest, created: Created, first_slices: &[u64]) -> Result<Created, Refusal> {
        let source = created.key.source();
        let mut partials: Vec<(usize, &PartialName)> = ask.partials.iter().enumerate().collect();
        // All who take several locks take them in one order.
        partials.sort_by_key(|(_, partial)| partial.id());
        let (mut locked, mut placed_in) = (vec![], None);
        for (index, partial) in partials {
            let found = match self.lock_partial(partial)?.ok_or_else(|| not_there(index + 1)) {
                Ok(found) => found,
                // Another request has finished the same file.
                Err(_) if self.became(&UploadId::of_name(&created.name), &created.name, &source)?.is_some() => {
                    return Ok(Created { is_finished: true, ..created });
                }
                Err(refusal) => return self.withdraw(&created, refusal),
            };
            match check_partial(index + 1, found.upload(), &ask.create.by, &source) {
                Err(refusal) => return self.withdraw(&created, refusal),
                Ok(Some(place)) if place.file_name != created.name => placed_in = Some(place.file_name.clone()),
                Ok(_) => {}
            }
            locked.push((index, found));
        }
        if let Some(name) = placed_in {
            drop(locked);
            self.end(&UploadId::of_name(&created.name), &source)?;
            return self.placed(created.key, &name);
        }
        for (index, found) in &mut locked {
            let first_slice = first_slices.get(*index).copied().unwrap_or_default();
            let place = Placement { file_name: created.name.clone(), source: source.clone(), first_slice };
            let upload = UploadRecord { concat: Some(Concat::Partial(Some(place))), ..found.upload().clone() };
            found.save(upload)?;
        }
        for (_, found) in locked {
            found.give_slices(self.durability())?;
        }
        Ok(created)
    }

    /// Ends a final upload whose partial ones cannot be placed in it, for this reason.
    fn withdraw(&self, created: &Created, refusal: Refusal) -> Result<Created, Refusal> {
        self.end(&UploadId::of_name(&created.name), &created.key.source())?;
        Err(refusal)
    }

    fn durability(&self) -> Durability {
        match self.settings.slice_ack {
            SliceAck::Written => Durability::Process,
            SliceAck::Synced => Durability::PowerCut,
        }
    }

    /// Gives slices of a partial upload to the final one that has this place.
    pub(super) fn give_slices(&self, spool: &Spool, source: &str, place: Placement) -> Result<SliceStored, Refusal> {
        let Some(locked) = self.lock_of(spool, source)? else { return Ok(SliceStored::Waits) };
        let is_merger_due = locked.give_slices(self.durability())?;
        Ok(if is_merger_due { SliceStored::MergerDue(place.file_name) } else { SliceStored::Waits })
    }

    /// Removes those of the partial uploads whose final upload is unfinished no more.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn end_partials(&self, partials: &[PartialName]) -> Result<(), Refusal> {
        for partial in partials {
            if let Some(locked) = self.lock_partial(partial)? {
                locked.remove_if_final_ended()?;
            }
        }
        Ok(())
    }

    /// Makes sure that the final upload of a partial one goes on, and shows that its client is alive.
    ///
    /// # Errors
    /// It is paused.
    pub(super) fn check_final(&self, spool: &Spool, upload: &UploadRecord) -> Result<(), Refusal> {
        let Some(place) = upload.placement() else { return Ok(()) };
        if let FinalState::Unfinished(upload) = spool.final_state(place)? {
            check_not_paused(&upload)?;
            show_life(&spool.of_final(place));
        }
        Ok(())
    }
}

impl PartialName {
    fn id(&self) -> UploadId {
        UploadId::of_name(&self.name)
    }
}

/// The place that a partial upload has in the final one of `source`, if it has it already.
///
/// # Errors
/// The upload is no partial one, or it belongs to another file.
fn check_partial<'a>(
    number: usize,
    upload: &'a UploadRecord,
    by: &Access,
    source: &str,
) -> Result<Option<&'a Placement>, Refusal> {
    by.check_go_on(upload)?;
    if !upload.is_partial() {
        let facts = format!("upload {number} of those to be joined is no partial upload: create it as one");
        return Err(Refusal::new(ErrorCode::BadRequest, facts));
    }
    match upload.placement() {
        Some(place) if place.source != source => {
            let facts = format!("partial upload {number} is part of another file already: upload its bytes again");
            Err(Refusal::new(ErrorCode::Conflict, facts))
        }
        place => Ok(place),
    }
}

fn check_distinct(partials: &[PartialName]) -> Result<(), Refusal> {
    let bad = |facts: String| Err(Refusal::new(ErrorCode::BadRequest, facts));
    let mut seen = HashSet::new();
    if partials.is_empty() {
        return bad("a file is joined from one partial upload at least, and none is named".to_owned());
    }
    if partials.len() > MAX_PARTIALS {
        let is = partials.len();
        return bad(format!("a file is joined from up to {MAX_PARTIALS} partial uploads, not {is}: use larger ones"));
    }
    match (1..).zip(partials).find(|(_, partial)| !seen.insert(partial.key.as_str())) {
        Some((number, _)) => bad(format!("partial upload {number} is named twice: its bytes can be in one place only")),
        None => Ok(()),
    }
}

fn plan_of(runs: Vec<Run>) -> Result<Plan, Refusal> {
    let plan = if runs.is_empty() { Plan::new(Some(0), None, Some(0)) } else { Plan::of_runs(runs) };
    plan.map_err(within_request)
}

fn not_there(number: usize) -> Refusal {
    let facts = format!("partial upload {number}: {}", no_such_upload().facts);
    Refusal::new(ErrorCode::NoUpload, facts)
}

fn without_length(number: usize) -> Refusal {
    let facts = format!("the length of partial upload {number} is not known yet: tell it first, and join them then");
    Refusal::new(ErrorCode::BadRequest, facts)
}
