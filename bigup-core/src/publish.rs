//! The one step that turns a complete spool into a finished file. Called by whoever holds the merger's lock: the merger,
//! and bigupd for an upload of a single slice.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  merged synced, digest computed and compared        spool as before: done again by the next merger
//! 2  merged stamped and freed of what is reserved       the same
//!    beyond its end, publication recorded, both synced
//! 3  merged renamed into files/, its folder synced      a spool whose head names the publication and which has no
//!                                                       `merged`, or one that is the finished file by another name: the
//!                                                       next merger goes on with 4
//! 4  section removed, spool renamed away and deleted    a hidden folder, swept later
//! ```
//! Where notices are left (crate::notice) step 4 renames the spool to `completed/` instead. So there is the spool or the
//! notice at every instant, and a power cut that takes the rename back leaves step 4 to be done again: the hook is told at
//! least once, and no further sync is needed.
//!
//! The file counts as finished once the spool is gone, which is after all syncs.

use crate::data_dir::DataDir;
use crate::digest::{self, Digest, DigestKind, LeafJoin, Leaves, SliceHasher};
use crate::disk::{self, BootId, Context};
use crate::info_ini::{self, InfoIni};
use crate::name::{FileName, printable};
use crate::notice;
use crate::plan::Plan;
use crate::room;
use crate::spool::{LockedSpool, MergerLock, Publication, Record, Records, Spool, Upload, hash_range};
use crate::store::{self, Claim, Entry, Opened, Stamp, Store, StoreError};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What came of an attempt to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is finished: whole, checked and synced, and the upload is gone.
    Published(Digest),
    /// There is no such upload.
    NoUpload,
    /// Something is missing yet: slices, their merging, or a client's word.
    NotYet,
    /// It cannot be published as things stand; says why. No merger is started until a client begins anew.
    Blocked(String),
}

/// Publishes the upload in `spool` if it is complete.
///
/// `hashed` is the digest of the merged file where the caller computed it on the way. `_merger` proves that nobody else
/// changes the merged file.
///
/// # Errors
/// As the system gives them; the spool is as it was or further, never less.
pub fn publish(data: &DataDir, spool: &Spool, _merger: &MergerLock, hashed: Option<Digest>) -> io::Result<Outcome> {
    let Some(mut locked) = spool.lock()? else { return Ok(Outcome::NoUpload) };
    if let Some(publication) = moved_already(data, spool, &locked)? {
        finish_moved(data, &locked, publication)?;
        end(data, locked)?;
        return Ok(Outcome::Published(publication.digest));
    }
    if must_be_checked(&locked)? {
        return Ok(Outcome::NotYet);
    }
    if locked.upload().blocked.is_some() || !adopt_whole(spool, &locked)? || !is_complete(&locked)? {
        return Ok(locked.upload().blocked.clone().map_or(Outcome::NotYet, Outcome::Blocked));
    }
    if let Some(why) = learn_size(spool, &mut locked)? {
        return block(&mut locked, why);
    }
    let upload = locked.upload().clone();
    // Reading and syncing take their time; slices of this upload that come meanwhile find it held already.
    drop(locked);
    let merged_path = spool.merged_path();
    let merged = disk::open_or_create(&merged_path)?;
    let (digest, leaves) = match hashed.filter(|_| !upload.taken_over) {
        Some(digest) => (digest, None),
        None => digest_of(spool, &upload, &merged)?,
    };
    // Mostly on disk by now; what is not yet must not keep others waiting for the lock.
    merged.sync_data().at("syncing", &merged_path)?;

    let Some(mut locked) = spool.lock()? else { return Ok(Outcome::NoUpload) };
    if *locked.upload() != upload || !is_complete(&locked)? {
        return Ok(Outcome::NotYet);
    }
    if let Some(promised) = upload.file_digest.filter(|promised| *promised != digest) {
        return refuse_content(&mut locked, &merged, digest, promised);
    }
    match in_the_way(data, &upload, digest)? {
        InTheWay::Nothing => {}
        InTheWay::TheSameFile => {
            // Whoever put it there may not be done with that.
            sync_entry(data, &upload.file_name)?;
            info_ini::tolerate(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
            if data.leaves_notices() {
                // A notice tells the digest by it.
                record(&locked, &merged, &merged_path, digest)?;
            }
            end(data, locked)?;
            return Ok(Outcome::Published(digest));
        }
        InTheWay::Other(what) => return block(&mut locked, what),
    }
    room::give_back_rest(&merged).at("cutting", &merged_path)?;
    store::stamp(&merged, &merged_path, &Stamp { digest, source: upload.source.clone() })?;
    if let (Some(leaves), Some(slice_size)) = (leaves, upload.plan.slice_size) {
        store::keep_leaves(&merged, &merged_path, slice_size, &leaves);
    }
    record(&locked, &merged, &merged_path, digest)?;
    merged.sync_all().at("syncing", &merged_path)?;
    match Store::new(data).publish(&merged_path, &upload.file_name, upload.replace) {
        Ok(()) => {}
        Err(StoreError::Exists) => return block(&mut locked, exists(data, &upload)),
        Err(StoreError::InTheWay(what)) => return block(&mut locked, what),
        Err(StoreError::Io(e)) => return Err(e),
    }
    info_ini::tolerate(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
    end(data, locked)?;
    Ok(Outcome::Published(digest))
}

/// Writes down, for good, that the merged file, of this digest, is about to become the finished one.
fn record(locked: &LockedSpool, merged: &File, merged_path: &Path, digest: Digest) -> io::Result<()> {
    let inode = merged.metadata().at("looking at", merged_path)?.ino();
    locked.records().set_publication(Some(Publication { inode, digest })).at("writing the digest of", merged_path)?;
    locked.records().0.sync_data().at("syncing the digests beside", merged_path)
}

/// The spool of a finished file goes.
fn end(data: &DataDir, locked: LockedSpool) -> io::Result<()> {
    if data.leaves_notices() { notice::leave(data, locked) } else { locked.remove() }
}

/// Whether the merged file was last written under another kernel, so that a merger must look first what of it survived.
/// One that is a single slice was synced before it became the merged file.
fn must_be_checked(locked: &LockedSpool) -> io::Result<bool> {
    let is_joined = !matches!(locked.upload().plan.slice_num, Some(0 | 1));
    Ok(is_joined && locked.records().merge_boot()? != Some(BootId::current()))
}

/// Whether the file stands in `files/` and only cleaning up is left, which the process that moved it did not live to do.
///
/// # Errors
/// As the system gives them.
pub fn is_moved(data: &DataDir, spool: &Spool, locked: &LockedSpool) -> io::Result<bool> {
    moved_already(data, spool, locked).map(|publication| publication.is_some())
}

/// The publication after which only cleaning up is left.
///
/// Where the file is still the upload's only slice, a power cut took back the rename that made it the merged file. It may
/// also bring back the old name beside the new one; then the upload must touch the file no more.
fn moved_already(data: &DataDir, spool: &Spool, locked: &LockedSpool) -> io::Result<Option<Publication>> {
    let Some(publication) = locked.records().publication()? else { return Ok(None) };
    // What cannot be looked at may be there: no error must pass for "it was moved", after which the spool is removed.
    let has_left =
        inode_of(&spool.merged_path())?.is_none() && inode_of(&spool.slice_path(0))? != Some(publication.inode);
    let is_moved = has_left || finished(data, locked, publication)?.is_some();
    Ok(is_moved.then_some(publication))
}

/// The finished file, opened, if it is still the one of this publication.
fn finished(data: &DataDir, locked: &LockedSpool, publication: Publication) -> io::Result<Option<File>> {
    let (store, name) = (Store::new(data), &locked.upload().file_name);
    let Opened::File(file) = store.open(name)? else { return Ok(None) };
    let inode = file.metadata().at("looking at", &store.path_of(name))?.ino();
    Ok((inode == publication.inode).then_some(file))
}

fn inode_of(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("looking at", path),
    }
}

/// Makes the entry of a finished file durable. One that somebody has moved or replaced since was there.
///
/// # Errors
/// As the system gives them.
pub fn sync_entry(data: &DataDir, name: &FileName) -> io::Result<()> {
    match Store::new(data).sync_entry(name) {
        Ok(()) | Err(StoreError::InTheWay(_) | StoreError::Exists) => Ok(()),
        Err(StoreError::Io(e)) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(StoreError::Io(e)) => Err(e),
    }
}

fn finish_moved(data: &DataDir, locked: &LockedSpool, publication: Publication) -> io::Result<()> {
    let (store, name) = (Store::new(data), &locked.upload().file_name);
    sync_entry(data, name)?;
    if let Some(file) = finished(data, locked, publication)? {
        let path = store.path_of(name);
        let known = store::claim(&file, &file.metadata().at("looking at", &path)?)?;
        // Room that was reserved under the name in the spool, after both names came back, changed its times.
        if known == Claim::Changed && hash_whole(&file)? == publication.digest {
            let source = locked.upload().source.clone();
            store::stamp(&file, &path, &Stamp { digest: publication.digest, source })?;
            file.sync_all().at("syncing", &path)?;
        }
    }
    info_ini::tolerate(name, InfoIni::new(data).remove(name));
    Ok(())
}

/// Makes the only slice of an upload the merged file, without copying; an empty file needs none. False: the slice is
/// not there, or must be checked first.
fn adopt_whole(spool: &Spool, locked: &LockedSpool) -> io::Result<bool> {
    let merged = spool.merged_path();
    if locked.upload().plan.slice_num == Some(0) {
        // What another source's upload had merged before this one turned out to be empty is none of it.
        return disk::open_or_create(&merged)?.set_len(0).at("cutting", &merged).map(|()| true);
    }
    if inode_of(&merged)?.is_some() {
        return Ok(true);
    }
    match locked.upload().plan.slice_num {
        Some(1) => {
            let len = locked.upload().plan.len_of(0);
            let record = locked.records().get(0)?;
            let trusted = record.is_some_and(|r| r.boot == BootId::current() && len.is_none_or(|len| len == r.len));
            if !trusted || !locked.is_held(0)? {
                return Ok(false);
            }
            // Synced first: a merged file without its slice beside it counts as synced.
            let slice = spool.slice_path(0);
            if let Err(e) = disk::open_regular(&slice)?.sync_all() {
                // Another sync could succeed without having written it, and reading it would tell nothing.
                locked.discard(0)?;
                return Err(e).at("syncing", &slice);
            }
            std::fs::rename(&slice, &merged).at("keeping", &merged).map(|()| true)
        }
        _ => Ok(true),
    }
}

fn is_complete(locked: &LockedSpool) -> io::Result<bool> {
    let upload = locked.upload();
    let holdings = locked.holdings()?;
    Ok(upload.may_be_published() && Some(holdings.frontier) == upload.plan.slice_num && holdings.waiting.is_empty())
}

/// Takes the size of the complete merged file for that of a file of which clients told only the number of slices.
/// Says so where it is none that such a file may have: more slices were merged than it was told to have then.
fn learn_size(spool: &Spool, locked: &mut LockedSpool) -> io::Result<Option<String>> {
    let plan = locked.upload().plan;
    if plan.file_size.is_some() {
        return Ok(None);
    }
    let path = spool.merged_path();
    let len = std::fs::metadata(&path).at("looking at", &path)?.len();
    match Plan::new(None, None, Some(len)).and_then(|size| plan.bind(&size)) {
        Ok(plan) => locked.save(Upload { plan, ..locked.upload().clone() }).map(|()| None),
        Err(why) => Ok(Some(format!("{why}; push it anew under another name"))),
    }
}

enum InTheWay {
    Nothing,
    TheSameFile,
    Other(String),
}

fn in_the_way(data: &DataDir, upload: &Upload, digest: Digest) -> io::Result<InTheWay> {
    Ok(match Store::new(data).lookup(&upload.file_name)? {
        Entry::Nothing => InTheWay::Nothing,
        Entry::File(found) if found.stamp.as_ref().is_some_and(|s| s.digest == digest) => InTheWay::TheSameFile,
        Entry::File(_) if upload.replace => InTheWay::Nothing,
        Entry::File(_) => InTheWay::Other(exists(data, upload)),
        Entry::Other(what) => InTheWay::Other(what),
    })
}

fn exists(data: &DataDir, upload: &Upload) -> String {
    let path = Store::new(data).path_of(&upload.file_name).display().to_string();
    format!("{} exists with other content; push with --replace to replace it", printable(&path))
}

fn block(locked: &mut LockedSpool, why: String) -> io::Result<Outcome> {
    let upload = locked.upload().clone();
    block_as(locked, upload, why)
}

/// Blocks `upload`, which may be another one than before, in one step.
fn block_as(locked: &mut LockedSpool, upload: Upload, why: String) -> io::Result<Outcome> {
    locked.records().set_publication(None)?;
    locked.save(Upload { blocked: Some(why.clone()), ..upload })?;
    Ok(Outcome::Blocked(why))
}

/// The whole file is not what a client promised. In an upload that was taken over the records may be what is wrong:
/// they are written anew from what the merged file really holds, so that the next comparison finds the differing slices.
fn refuse_content(locked: &mut LockedSpool, merged: &File, is: Digest, promised: Digest) -> io::Result<Outcome> {
    if locked.upload().taken_over {
        let plan = locked.upload().plan;
        for slice_id in 0..plan.slice_num.unwrap_or(0) {
            let (offset, len) = extent(&plan, slice_id);
            let digest = hash_range(merged, offset, len, SliceHasher::new(digest::kind_of(&plan, slice_id), offset))?;
            locked.records().put(slice_id, &Record { digest, len, boot: BootId::current() })?;
        }
        locked.records().0.sync_all()?;
    }
    // Whoever pushes it again compares what is held, sends what differs, and promises anew.
    let upload = Upload { taken_over: true, file_digest: None, ..locked.upload().clone() };
    let why = format!("the whole file has the digest {is}, not {promised} as promised; push it again");
    block_as(locked, upload, why)
}

/// The digest of the complete merged file, from the digests of its slices where these are enough, and of its leaves where
/// slices are subtrees.
fn digest_of(spool: &Spool, upload: &Upload, merged: &File) -> io::Result<(Digest, Option<Leaves>)> {
    let digests = spool.open_digests()?;
    let records = Records(&digests);
    let slice_num = upload.plan.slice_num.unwrap_or(0);
    let Some(slice_size) = upload.plan.slice_size.filter(|size| slice_num > 1 && digest::is_subtree_size(*size)) else {
        let only = if slice_num == 1 && !upload.taken_over { records.get(0)? } else { None };
        return match only {
            Some(record) if record.digest.kind == DigestKind::Hash => Ok((record.digest.digest, None)),
            _ => Ok((hash_whole(merged)?, None)),
        };
    };
    let mut join = LeafJoin::new(slice_size, slice_num);
    records.scan(0, slice_num - 1, |slice_id, record| {
        let value = match record.map(|record| record.digest) {
            Some(digest) if digest.kind == DigestKind::ChainingValue && !upload.taken_over => digest.digest,
            // It came before its offset was known, or what was recorded is no proof after a take-over.
            _ => {
                let (offset, len) = extent(&upload.plan, slice_id);
                hash_range(merged, offset, len, SliceHasher::new(DigestKind::ChainingValue, offset))?.digest
            }
        };
        join.push(value);
        Ok(())
    })?;
    let leaves = join.finish();
    Ok((leaves.root().expect("there are at least two slices"), Some(leaves)))
}

/// Offset and length of a slice of a complete upload, in bytes.
fn extent(plan: &Plan, slice_id: u64) -> (u64, u64) {
    let known = "a complete upload knows its sizes";
    (plan.offset_of(slice_id).expect(known), plan.len_of(slice_id).expect(known))
}

fn hash_whole(merged: &File) -> io::Result<Digest> {
    let len = merged.metadata()?.len();
    Ok(hash_range(merged, 0, len, SliceHasher::new(DigestKind::Hash, 0))?.digest)
}
