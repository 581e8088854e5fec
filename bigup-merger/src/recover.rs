//! The parts of a spool that a merger can trust at its start.
//!
//! Under the same kernel lengths and names are right, whichever process was killed. The content of a slice is checked
//! when it is merged ([`crate::merge`]). Under another kernel (the boot id differs) all bytes that were not synced can
//! be wrong, and names can be missing. Slices below the recorded synced frontier that have no slice file any more have
//! reached the disk. All other slices are checked. A slice that matches its digest is merged again. If it is gone or
//! wrong, its merged bytes are checked. If both are wrong, the merged file is cut there and the slice is asked for
//! again. Bytes that only the store of objects has, as far as that is recorded, are not looked for: the sender of parts
//! asks the store ([`crate::parts`]).

use bigup_core::protocol::plan::Plan;
use bigup_core::storage::disk::{self, BootId, IoContext};
use bigup_core::storage::finish::object_parts::{Source, recorded_slices};
use bigup_core::storage::space;
use bigup_core::storage::spool::{Record, Records, Spool, UploadRecord, merged_is_right, slice_is_right};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;

/// Where merging goes on.
pub struct Recovered {
    /// The record of the upload.
    pub upload: UploadRecord,
    /// The file so far; it ends at the frontier.
    pub merged: File,
    /// The next slice to be appended.
    pub frontier: u64,
    /// Slices below the frontier to be written again, ascending.
    pub again: Vec<u64>,
    /// Slices that waited. A merger that died may have learned that some of them could not be written back.
    pub found: BTreeSet<u64>,
}

/// Finds out where merging goes on. `None` if there is no such upload.
///
/// # Errors
/// As the system gives them.
pub fn recover(spool: &Spool) -> io::Result<Option<Recovered>> {
    let Some(locked) = spool.lock()? else { return Ok(None) };
    let upload = locked.upload().clone();
    let merged_path = spool.merged_path();
    let merged = disk::open_or_create(&merged_path)?;
    let holdings = locked.holdings()?;
    let same_boot = locked.records().merge_boot()? == Some(BootId::current());
    let synced = if same_boot { holdings.frontier } else { locked.records().synced()? };
    drop(locked);

    let mut doubtful: BTreeSet<u64> = (synced..holdings.frontier).collect();
    doubtful.extend(holdings.waiting.iter().filter(|id| **id < holdings.frontier));
    let (mut frontier, mut damaged, mut again) = (holdings.frontier, None, vec![]);
    let digests = spool.open_digests()?;
    let found = holdings.waiting.iter().copied().collect();
    let source = Source { spool, upload: &upload, merged: &merged, digests: &digests };
    let stored = if doubtful.is_empty() { BTreeSet::new() } else { recorded_slices(source, holdings.frontier)? };
    let above: Vec<u64> = holdings.waiting.into_iter().filter(|id| *id >= holdings.frontier).collect();
    for slice_id in doubtful {
        match state_of(spool, &Records(&digests), &merged, &upload.plan, slice_id, same_boot)? {
            State::Good => again.push(slice_id),
            State::MergedAlready => {
                log::debug!(slice = slice_id; "{}: slice {slice_id} was merged and reached the disk", spool.folder());
                discard_unless_sent_anew(spool, slice_id)?;
            }
            State::Damaged if stored.contains(&slice_id) => discard_unless_sent_anew(spool, slice_id)?,
            State::Damaged => {
                log::warn!(slice = slice_id; "{}: slice {slice_id} did not survive; it will be asked for again", spool.folder());
                (frontier, damaged) = (slice_id, Some(slice_id));
                break;
            }
        }
    }
    // Also drops a slice that was being appended when its merger was killed.
    let len = merged.metadata().at("looking at", &merged_path)?.len();
    let end = if upload.plan.slice_num == Some(frontier) { len } else { upload.plan.offset_of(frontier).unwrap_or(0) };
    space::cut(&merged, end, upload.ahead()).at("cutting", &merged_path)?;
    if let Some(slice_id) = damaged {
        // The cut comes first, for good: without its file a slice below the frontier would count as merged and synced.
        merged.sync_all().at("syncing", &merged_path)?;
        spool.lock()?.map_or(Ok(()), |locked| locked.note_cut(slice_id))?;
        discard_unless_sent_anew(spool, slice_id)?;
    }
    check_waiting(spool, &Records(&digests), &upload.plan, &above)?;
    Records(&digests).set_merge_boot(BootId::current()).at("writing", spool.path())?;
    // So that the folder's entries are there before the first slice is unlinked.
    disk::sync_dir(spool.path())?;
    Ok(Some(Recovered { upload, merged, frontier, again, found }))
}

enum State {
    /// The slice's file is right.
    Good,
    /// The slice's file is wrong; its merged bytes are right.
    MergedAlready,
    /// Neither is.
    Damaged,
}

fn state_of(
    spool: &Spool,
    records: &Records<'_>,
    merged: &File,
    plan: &Plan,
    slice_id: u64,
    same_boot: bool,
) -> io::Result<State> {
    let record = records.get(slice_id)?;
    if same_boot && record.is_some_and(|r| r.boot == BootId::current()) {
        return Ok(State::Good);
    }
    if slice_is_right(&spool.slice_path(slice_id), plan, slice_id, record)? {
        return Ok(State::Good);
    }
    // Under the same boot the merged bytes can be those that a failed sync has lost, which read well for as long as
    // they stay in memory.
    let was_merged = !same_boot && merged_is_right(merged, plan, slice_id, record);
    Ok(if was_merged { State::MergedAlready } else { State::Damaged })
}

/// Checks the slices that were written under another kernel, all at once, so that all that are damaged are asked for at
/// once. Those that are right have reached the disk, and are as good as any from now on.
fn check_waiting(spool: &Spool, records: &Records<'_>, plan: &Plan, waiting: &[u64]) -> io::Result<()> {
    for slice_id in waiting {
        let record = records.get(*slice_id)?;
        if record.is_some_and(|r| r.boot == BootId::current()) {
            continue;
        }
        if !slice_is_right(&spool.slice_path(*slice_id), plan, *slice_id, record)? {
            log::warn!(slice = slice_id; "{}: slice {slice_id} did not survive; it will be asked for again", spool.folder());
            discard_unless_sent_anew(spool, *slice_id)?;
        } else if let (Some(locked), Some(record)) = (spool.lock()?, record)
            && locked.records().get(*slice_id)? == Some(record)
        {
            locked.records().put(*slice_id, &Record { boot: BootId::current(), ..record })?;
        }
    }
    Ok(())
}

/// Under the lock, and checked again: a client may have sent it anew in the meantime.
fn discard_unless_sent_anew(spool: &Spool, slice_id: u64) -> io::Result<()> {
    spool.lock()?.map_or(Ok(()), |locked| locked.discard_if_wrong(slice_id).map(drop))
}
