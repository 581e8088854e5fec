//! Unfinished uploads: every slice that is held against its record.

use super::{Check, Finding, Repair};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::ranges::SliceRanges;
use bigup_core::storage::disk::{self, forget_cached};
use bigup_core::storage::finish::object_parts::{Source, stored_slices};
use bigup_core::storage::info_ini::InfoIni;
use bigup_core::storage::spool::{
    Holdings, MergerLock, OtherVersion, Records, Spool, UploadId, UploadRecord, merged_is_right, slice_is_right,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// Time between two tries of the lock of a merger that is at work.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Slices that do not match their records.
#[derive(Default)]
struct Wrong {
    waiting: Vec<u64>,
    merged: Vec<u64>,
}

/// An upload that can be checked.
struct Readable {
    upload: UploadRecord,
    holdings: Holdings,
    digests: File,
}

impl Check<'_> {
    pub(super) fn check_uploads(&mut self, unseen: &mut Vec<FileName>) -> io::Result<()> {
        for stray in Spool::strays(&self.data)? {
            if self.is_folder_asked_for(&stray, unseen) {
                self.unusable(&stray, "no folder, but in the place of an upload's");
            }
        }
        for spool in Spool::all(&self.data)? {
            let readable = match read(&spool) {
                Ok(Some(readable)) => readable,
                Ok(None) => continue,
                Err(why) if OtherVersion::of(&why).is_some() => {
                    if self.is_folder_asked_for(&spool, unseen) {
                        self.failed("upload", spool.folder(), &why.to_string());
                    }
                    continue;
                }
                Err(why) => {
                    if self.is_folder_asked_for(&spool, unseen) {
                        self.unusable(&spool, &why.to_string());
                    }
                    continue;
                }
            };
            let name = readable.upload.file_name.clone();
            if self.is_asked_for(name.as_str(), unseen) {
                self.tally.uploads += 1;
                if let Err(why) = self.check_upload(&spool, &name, &readable) {
                    self.failed("upload", name.as_str(), &why.to_string());
                }
            }
        }
        Ok(())
    }

    fn is_folder_asked_for(&self, spool: &Spool, unseen: &mut Vec<FileName>) -> bool {
        let names = &self.arguments.names;
        unseen.retain(|name| UploadId::of_name(name) != *spool.id());
        names.is_empty() || names.iter().any(|name| UploadId::of_name(name) == *spool.id())
    }

    /// Nothing can be done with it but to move it out of the way of the next push.
    fn unusable(&mut self, spool: &Spool, why: &str) {
        let aside = |check: &mut Self| {
            let aside = check.aside()?;
            Ok::<_, io::Error>(spool.set_aside(&aside)?.then(|| aside.tmp().join(spool.folder())))
        };
        let repair = match self.arguments.repair.then(|| aside(self)) {
            None => Repair::NotAsked,
            Some(Ok(Some(kept))) => Repair::Done(format!("moved to {}; push it again", kept.display())),
            Some(Ok(None)) => Repair::Failed("a process is at work on it; try again later".to_owned()),
            Some(Err(e)) => Repair::Failed(e.to_string()),
        };
        let finding = Finding { bytes: None, slices: None, what: format!("cannot be used: {why}") };
        self.damaged("upload", spool.folder(), &[finding], &repair);
    }

    fn check_upload(&mut self, spool: &Spool, name: &FileName, readable: &Readable) -> io::Result<()> {
        let wrong = self.wrong_slices(spool, readable)?;
        let all: Vec<u64> = wrong.merged.iter().chain(&wrong.waiting).copied().collect();
        if all.is_empty() {
            return Ok(());
        }
        let repair = match self.arguments.repair.then(|| self.repair_upload(spool, name, &wrong)) {
            None => Repair::NotAsked,
            Some(Ok(true)) => Repair::Done("the next push sends it again".to_owned()),
            Some(Ok(false)) => Repair::Failed("a merger is at work on it; try again when no push is".to_owned()),
            Some(Err(e)) => Repair::Failed(e.to_string()),
        };
        let findings: Vec<Finding> = SliceRanges::with_frontier(0, all)
            .runs()
            .iter()
            .map(|[first, last]| Finding {
                bytes: bytes_of(&readable.upload.plan, *first, *last),
                slices: Some((*first, *last)),
                what: "not what was recorded when it came".to_owned(),
            })
            .collect();
        self.damaged("upload", name.as_str(), &findings, &repair);
        Ok(())
    }

    /// Compares without locks, so that no process waits; a slice that looks wrong is checked again under the lock.
    fn wrong_slices(&mut self, spool: &Spool, readable: &Readable) -> io::Result<Wrong> {
        let (plan, records) = (&readable.upload.plan, Records(&readable.digests));
        let mut wrong = Wrong::default();
        for slice_id in readable.holdings.waiting.iter().copied() {
            let record = records.get(slice_id)?;
            self.tally.bytes += record.map_or(0, |record| record.len);
            if !slice_is_right(&spool.slice_path(slice_id), plan, slice_id, record)? {
                let Some(locked) = spool.lock()? else { return Ok(Wrong::default()) };
                wrong.waiting.extend(locked.is_waiting_slice_wrong(slice_id)?.then_some(slice_id));
            }
        }
        let merged = match disk::open_regular(&spool.merged_path()) {
            Ok(merged) => merged,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(wrong),
            Err(e) => return Err(e),
        };
        let stored = |check: &Self| -> io::Result<BTreeSet<u64>> {
            let source = Source { spool, upload: &readable.upload, merged: &merged, digests: &readable.digests };
            check
                .data
                .objects()
                .map_or(Ok(BTreeSet::new()), |objects| stored_slices(objects, source, readable.holdings.frontier))
        };
        let (in_store, mut suspects) = (stored(self)?, vec![]);
        for slice_id in 0..readable.holdings.frontier {
            if in_store.contains(&slice_id) {
                continue;
            }
            let record = records.get(slice_id)?;
            let len = record.map_or(0, |record| record.len);
            self.tally.bytes += len;
            if !merged_is_right(&merged, plan, slice_id, record) {
                suspects.push(slice_id);
            }
            forget_cached(&merged, plan.offset_of(slice_id).unwrap_or(0), len);
        }
        // Some may have gone there meanwhile. That is recorded before their bytes go here.
        let in_store = if suspects.is_empty() { in_store } else { stored(self)? };
        for slice_id in suspects.into_iter().filter(|slice_id| !in_store.contains(slice_id)) {
            let Some(locked) = spool.lock()? else { return Ok(Wrong::default()) };
            wrong.merged.extend(locked.is_merged_slice_wrong(slice_id)?.then_some(slice_id));
        }
        Ok(wrong)
    }

    /// Has wrong slices asked for again. `false` if a merger is at work, which may have opened the files to change.
    fn repair_upload(&self, spool: &Spool, name: &FileName, wrong: &Wrong) -> io::Result<bool> {
        let Some(merger) = self.merger_lock(spool)? else { return Ok(false) };
        if let Some(locked) = spool.lock()? {
            for slice_id in &wrong.waiting {
                locked.discard_if_wrong(*slice_id)?;
            }
        }
        spool.take_apart(&merger, &wrong.merged)?;
        drop(merger);
        InfoIni::new(&self.data).refresh(spool, name, None).map(|()| true)
    }

    fn merger_lock(&self, spool: &Spool) -> io::Result<Option<MergerLock>> {
        let deadline = Instant::now() + self.patience;
        loop {
            match spool.try_merger_lock()? {
                None if Instant::now() < deadline => std::thread::sleep(ASK_EVERY),
                lock => return Ok(lock),
            }
        }
    }
}

/// Reads the files needed to check an upload. `None` if it is gone.
fn read(spool: &Spool) -> io::Result<Option<Readable>> {
    let all = || -> io::Result<Option<Readable>> {
        let Some(upload) = spool.upload()? else { return Ok(None) };
        let digests = spool.read_digests()?;
        spool.merger()?;
        Ok(Some(Readable { holdings: spool.holdings(&upload)?, upload, digests }))
    };
    match all() {
        // Finished in between.
        Err(_) if !spool.path().exists() => Ok(None),
        read => read,
    }
}

fn bytes_of(plan: &Plan, first: u64, last: u64) -> Option<(u64, u64)> {
    Some((plan.offset_of(first)?, plan.offset_of(last)? + plan.len_of(last)? - 1))
}
