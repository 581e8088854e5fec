//! The one step that turns a complete spool into a finished file. Its callers hold the merger's lock: the merger, and
//! bigupd for an upload of a single slice.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  merged synced, digest computed and compared        spool as before: done again by the next merger
//! 2  merged freed of space reserved beyond its end,     the same
//!    the time of the client's file and its digest
//!    stored on it, its group and mode given,
//!    publication recorded, both synced
//! 3  merged renamed into files/, its folder synced      a spool whose head names the publication and which has no
//!                                                       `merged`, or one that is the finished file by another name:
//!                                                       the next merger goes on with 4
//!    sealed                                             the same; without the seal the file is read when somebody asks
//!                                                       for its digest
//! 4  section removed, line of the audit log written,    the same; the line may come twice
//!    the mark for its client made
//! 5  spool renamed away and deleted                     a hidden folder, swept later
//! ```
//! Where finished files are objects of a store, there is no rename. Steps 2 and 3 are those of
//! `storage/objects/multipart.rs`: the file counts as published once the store shows the object with its size and
//! digest. After a kill the next merger finds that the same file is there, and goes on with 4.
//!
//! If completion records are left (crate::storage::finish::completion), step 5 renames the spool to `completed/`
//! instead. So there is the spool or the completion record at every instant, and a power cut that takes the rename back
//! leaves it to be done again: the hook is told at least once, and no further sync is needed.
//!
//! The file counts as finished once the spool is gone, which is after all syncs.

use crate::protocol::digest::{self, Digest, DigestKind, LeafJoin, Leaves, SliceHasher};
use crate::protocol::name::FileName;
use crate::protocol::plan::Plan;
use crate::protocol::sha256::{RunningSha256, Sha256};
use crate::storage::audit;
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, BootId, FileVersion, IoContext};
use crate::storage::finish::completion;
use crate::storage::finish::object_parts::{self, Source, Stored};
use crate::storage::info_ini::{self, InfoIni};
use crate::storage::objects::{Facts, Objects};
use crate::storage::space;
use crate::storage::spool::{
    FileSha256, HeldContent, LockedSpool, MergerLock, Publication, Record, Records, Spool, UploadRecord, hash_range,
    is_as_it_came, merged_is_right, slice_is_right,
};
use crate::storage::store::{self, DigestState, Entry, FinishedFile, OpenEntry, Store, StoreError, StoredDigest};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most attempts to give a file its name while files of that name come and go. Each attempt may read such a file.
const NAMING_ATTEMPTS: u32 = 3;

/// The work for the publication that a merger did on the way. The rest is done at publication.
#[derive(Clone, Debug, Default)]
pub struct Hashed {
    /// BLAKE3, where the digests of the slices do not join to it.
    pub digest: Option<Digest>,
    /// SHA-256, if it is of interest.
    pub sha256: Option<Sha256>,
}

/// The digests of a complete merged file.
struct Content {
    digest: Digest,
    /// `None` if the slices' digests do not join.
    leaves: Option<Leaves>,
    /// `None` if it is of no interest.
    sha256: Option<Sha256>,
}

/// The outcome of an attempt to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is finished: whole, checked and synced, and the upload is gone.
    Published(Digest),
    /// There is no such upload.
    NoUpload,
    /// A part is missing yet: slices, their merging, or a client's word.
    NotYet,
    /// The file cannot be published as things stand, for the reason given. No merger is started until a client begins
    /// anew.
    Blocked {
        /// The reason, in words that hold in every protocol.
        why: String,
        /// The step by which a client can resolve it. `None` if no such step is known.
        remedy: Option<Remedy>,
    },
}

/// The step by which the client of a blocked upload can resolve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Say that the finished file of other content is to be replaced.
    Replace,
    /// Upload the file again: held slices are compared then.
    UploadAgain,
    /// Upload the file under another name.
    OtherName,
}

/// The step by which the client of an upload that is blocked can resolve it, as it stands. `None` if no such step is
/// known.
///
/// # Errors
/// `files/` cannot be read.
pub fn remedy(data: &DataDir, upload: &UploadRecord) -> io::Result<Option<Remedy>> {
    Ok(match upload {
        _ if upload.needs_comparison() => Some(Remedy::UploadAgain),
        // More slices were merged than such a file may have.
        _ if upload.plan.file_size.is_none() => Some(Remedy::OtherName),
        _ if upload.replace => None,
        _ => matches!(Store::new(data).lookup(&upload.file_name)?, Entry::File(_)).then_some(Remedy::Replace),
    })
}

/// Publishes the upload in `spool` if it is complete.
///
/// `_merger` proves that nobody else
/// changes the merged file.
///
/// # Errors
/// As the system gives them; the spool is as it was or further, never less.
pub fn publish(data: &DataDir, spool: &Spool, _merger: &MergerLock, hashed: Hashed) -> io::Result<Outcome> {
    let Some(mut locked) = spool.lock()? else { return Ok(Outcome::NoUpload) };
    if let Some(publication) = moved_already(data, spool, &locked)? {
        finish_moved(data, &locked, publication)?;
        let kind = kind_of(locked.upload().replace);
        end(data, locked, publication.digest, kind)?;
        return Ok(Outcome::Published(publication.digest));
    }
    if locked.upload().is_partial() || must_be_checked(spool, &locked)? {
        return Ok(Outcome::NotYet);
    }
    if locked.upload().blocked.is_some() || !adopt_whole(spool, &locked)? || !is_complete(&locked)? {
        let Some(why) = locked.upload().blocked.clone() else { return Ok(Outcome::NotYet) };
        return Ok(Outcome::Blocked { why, remedy: remedy(data, locked.upload())? });
    }
    if let Some(why) = learn_size(spool, &mut locked)? {
        return block(&mut locked, why, Some(Remedy::OtherName));
    }
    let upload = locked.upload().clone();
    let hashed_digest = hashed.digest.filter(|_| !upload.is_taken_over());
    if hashed_digest.is_none() && must_be_hashed(&upload, &locked.records())? {
        return Ok(Outcome::NotYet);
    }
    // Reading and syncing take their time; slices of this upload that come meanwhile find it held already.
    drop(locked);
    let merged_path = spool.merged_path();
    let merged = disk::open_or_create(&merged_path)?;
    // Parts are compared with the records, which are no proof after a take-over.
    if data.objects().is_some() && upload.is_taken_over() && !record_anew(spool, &upload, &merged)? {
        return Ok(Outcome::NotYet);
    }
    if data.objects().is_none()
        && let Some(slice_id) = first_hole(spool, &upload, &merged)?
    {
        return cut_damaged(spool, &merged, slice_id);
    }
    let (digest, leaves) = match hashed_digest {
        Some(digest) => (digest, None),
        None => match digest_of(spool, &upload, &merged)? {
            Ok(found) => found,
            Err(damaged) => return cut_damaged(spool, &merged, damaged),
        },
    };
    // Most of it is on disk by now; the rest must not keep others waiting for the lock.
    merged.sync_data().at("syncing", &merged_path)?;
    let sha256 = match (upload.sha256, hashed.sha256) {
        (None, _) => None,
        (Some(_), None) => Some(sha256_of(&merged).at("reading", &merged_path)?),
        (Some(_), hashed) => hashed,
    };
    let content = Content { digest, leaves, sha256 };
    if let Some(why) = content.broken_promise(&upload) {
        return refuse_content(spool, &upload, &merged, why);
    }
    if let Some(objects) = data.objects() {
        return give_object(data, objects, spool, &upload, &merged, &content);
    }
    for _ in 0..NAMING_ATTEMPTS {
        if let Some(outcome) = give_name(data, spool, &upload, &merged, &content)? {
            return Ok(outcome);
        }
    }
    let Some(mut locked) = lock_unchanged(spool, &upload)? else { return Ok(Outcome::NotYet) };
    block(&mut locked, exists(&upload), Some(Remedy::Replace))
}

impl Content {
    /// The reason why this is not the file that the upload's client promised. `None` if it promised nothing else.
    fn broken_promise(&self, upload: &UploadRecord) -> Option<String> {
        if let Some(promised) = upload.file_digest().filter(|promised| *promised != self.digest) {
            return Some(format!("the whole file has the digest {}, not {promised} as promised", self.digest));
        }
        match (upload.sha256, self.sha256) {
            (Some(FileSha256::Promised(promised)), Some(is)) if is != promised => {
                Some(format!("the whole file has the SHA-256 {is}, not {promised} as promised"))
            }
            _ => None,
        }
    }
}

/// The first slice of a complete upload whose bytes are not here: a store of objects has them, which is set no more.
/// `None` if all are here; then that is not looked for again.
fn first_hole(spool: &Spool, upload: &UploadRecord, merged: &File) -> io::Result<Option<u64>> {
    if !upload.gives_back || !spool.has_part_records() {
        return Ok(None);
    }
    let digests = spool.open_digests()?;
    for slice_id in 0..upload.plan.slice_num.unwrap_or(0) {
        if !merged_is_right(merged, &upload.plan, slice_id, Records(&digests).get(slice_id)?) {
            return Ok(Some(slice_id));
        }
    }
    spool.lock()?.map_or(Ok(()), |locked| locked.forget_parts()).map(|()| None)
}

/// The SHA-256 of a whole file.
fn sha256_of(file: &File) -> io::Result<Sha256> {
    let mut hash = RunningSha256::default();
    disk::read_range(file, 0, file.metadata()?.len(), |bytes| hash.update(bytes))?;
    Ok(hash.finish())
}

/// Gives the merged file, which is synced and has this content, its name in `files/`. `None` if a file of this name
/// appeared meanwhile. That file must be looked at first: it may be this very one.
fn give_name(
    data: &DataDir,
    spool: &Spool,
    upload: &UploadRecord,
    merged: &File,
    content: &Content,
) -> io::Result<Option<Outcome>> {
    let Content { digest, leaves, sha256 } = content;
    let (digest, sha256) = (*digest, *sha256);
    let merged_path = spool.merged_path();
    let read = read_what_is_there(data, upload)?;
    let Some(mut locked) = lock_unchanged(spool, upload)? else { return Ok(Some(Outcome::NotYet)) };
    match in_the_way(data, upload, digest, read.as_ref())? {
        InTheWay::Nothing => {}
        InTheWay::TheSameFile => {
            // The process that put it there may not be done with that.
            sync_entry(data, &upload.file_name)?;
            info_ini::log_failure(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
            if data.leaves_notices() {
                // A completion record tells the digest by it.
                record(&locked, merged, &merged_path, digest)?;
            }
            end(data, locked, digest, audit::AuditEvent::Finished)?;
            return Ok(Some(Outcome::Published(digest)));
        }
        InTheWay::Unread => return Ok(None),
        InTheWay::OtherFile => return block(&mut locked, exists(upload), Some(Remedy::Replace)).map(Some),
        InTheWay::Other(what) => return block(&mut locked, what, None).map(Some),
    }
    space::give_back_rest(merged).at("cutting", &merged_path)?;
    let stored_digest = StoredDigest { digest, source: upload.source.clone(), sha256 };
    store::stamp(merged, &merged_path, &stored_digest, upload.kept.modified)?;
    if let (Some(leaves), Some(slice_size)) = (leaves, upload.plan.slice_size) {
        store::keep_leaves(merged, &merged_path, slice_size, leaves);
    }
    Store::new(data).give_permissions(merged, &upload.file_name, upload.kept.mode)?;
    record(&locked, merged, &merged_path, digest)?;
    merged.sync_all().at("syncing", &merged_path)?;
    let replaces = upload.replace && matches!(Store::new(data).lookup(&upload.file_name)?, Entry::File(_));
    match Store::new(data).publish(&merged_path, &upload.file_name, upload.replace) {
        Ok(()) => {}
        Err(StoreError::Exists) => return Ok(None),
        Err(StoreError::InTheWay(what)) => return block(&mut locked, what, None).map(Some),
        Err(StoreError::Io(e)) => return Err(e),
    }
    info_ini::log_failure(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
    end(data, locked, digest, kind_of(replaces))?;
    Ok(Some(Outcome::Published(digest)))
}

/// Stores the merged file, which is synced and has this content, as the object of its name, and looks for it then: the
/// upload ends once the store shows it. Nobody waits for the store with a lock in hand.
fn give_object(
    data: &DataDir,
    objects: &Objects,
    spool: &Spool,
    upload: &UploadRecord,
    merged: &File,
    content: &Content,
) -> io::Result<Outcome> {
    let (digest, sha256, modified) = (content.digest, content.sha256, upload.kept.modified);
    let facts = Facts { digest, source: upload.source.clone(), sha256, modified };
    let (digests, mut replaced) = (spool.open_digests()?, None);
    for _ in 0..NAMING_ATTEMPTS {
        // Asked for once: each look is a request, and nothing holds the object in between.
        let found = objects.find(&upload.file_name)?;
        let mut entry = store::entry_of(found.as_ref());
        if matches!(&entry, Entry::File(found) if !upload.replace && may_be_the_same(upload, found)) {
            entry = Store::new(data).confirm(&upload.file_name)?;
        }
        let is_there = entry != Entry::Nothing;
        match obstacle(entry, upload, content.digest) {
            InTheWay::Nothing => {}
            InTheWay::TheSameFile => {
                replaced.iter().for_each(|object| objects.forget(object));
                // Another daemon may have stored it: then the parts of this upload are of no use.
                objects.abandon(spool.path())?;
                let Some(locked) = spool.lock()? else { return Ok(Outcome::NoUpload) };
                info_ini::log_failure(&upload.file_name, InfoIni::new(data).remove(&upload.file_name));
                if data.leaves_notices() {
                    record(&locked, merged, &spool.merged_path(), content.digest)?;
                }
                end(data, locked, content.digest, kind_of(replaced.is_some()))?;
                return Ok(Outcome::Published(content.digest));
            }
            InTheWay::Unread => continue,
            InTheWay::OtherFile => break,
            InTheWay::Other(what) => {
                let Some(mut locked) = lock_unchanged(spool, upload)? else { return Ok(Outcome::NotYet) };
                return block(&mut locked, what, None);
            }
        }
        replaced = found.filter(|_| is_there);
        let source = Source { spool, upload, merged, digests: &digests };
        if let Stored::Damaged(slice_id) = object_parts::store(objects, source, &facts)? {
            return cut_damaged(spool, merged, slice_id);
        }
    }
    let is_there = objects.find(&upload.file_name)?.is_some();
    let Some(mut locked) = lock_unchanged(spool, upload)? else { return Ok(Outcome::NotYet) };
    if !is_there {
        // SeaweedFS has a folder of that name in the way.
        let why = format!("the store takes no object {}, and shows none: names below it may exist", upload.file_name);
        return block(&mut locked, why, Some(Remedy::OtherName));
    }
    if upload.replace {
        return Err(io::Error::other(format!("objects of the name {} come and go too fast", upload.file_name)));
    }
    block(&mut locked, exists(upload), Some(Remedy::Replace))
}

fn kind_of(replaces: bool) -> audit::AuditEvent {
    if replaces { audit::AuditEvent::Replaced } else { audit::AuditEvent::Finished }
}

/// Writes down, for good, that the merged file, of this digest, is about to become the finished one.
fn record(locked: &LockedSpool, merged: &File, merged_path: &Path, digest: Digest) -> io::Result<()> {
    let inode = merged.metadata().at("looking at", merged_path)?.ino();
    locked.records().set_publication(Some(Publication { inode, digest })).at("writing the digest of", merged_path)?;
    locked.records().0.sync_data().at("syncing the digests beside", merged_path)
}

/// The spool of a finished file, of this digest, goes; its source may ask for it a while longer.
fn end(data: &DataDir, locked: LockedSpool, digest: Digest, kind: audit::AuditEvent) -> io::Result<()> {
    let upload = locked.upload();
    audit::AuditLine::of(kind, upload, Some(digest)).log();
    if let (Some(source), Some(size)) = (&upload.source, upload.plan.file_size) {
        locked.spool().mark_finished(source, digest, size);
    }
    if data.leaves_notices() { completion::leave(data, locked) } else { locked.remove() }
}

/// True if a merged file is there that no merger has written or looked at under this kernel. A merger must find out
/// first how much of it survived. A plan of a single slice proves nothing: a merger may have appended that slice, its
/// end not being known then, or not being able to adopt it. Nothing is left to be checked of an empty file.
fn must_be_checked(spool: &Spool, locked: &LockedSpool) -> io::Result<bool> {
    let is_empty = locked.upload().plan.slice_num == Some(0);
    let is_of_this_boot = locked.records().merge_boot()? == Some(BootId::current());
    Ok(!is_empty && !is_of_this_boot && inode_of(&spool.merged_path())?.is_some())
}

/// True if the records of the slices of a complete upload do not lead to the digest of the file. Then a merger hashes
/// all of it, and compares each slice with its record on the way. After a take-over records are no proof, and
/// [`publish`] hashes the file itself, to compare it with the digest that the client promised.
///
/// # Errors
/// The records cannot be read.
pub fn must_be_hashed(upload: &UploadRecord, records: &Records<'_>) -> io::Result<bool> {
    Ok(match upload.plan.slice_num {
        _ if upload.is_taken_over() => false,
        None | Some(0) => false,
        Some(1) => records.get(0)?.is_none_or(|record| record.digest.kind != DigestKind::Hash),
        Some(_) => !upload.plan.slice_size.is_some_and(digest::is_subtree_size),
    })
}

/// True if the file stands in `files/` and only cleaning up is left, which the process that moved it did not live to
/// do.
///
/// # Errors
/// As the system gives them.
pub fn is_moved(data: &DataDir, spool: &Spool, locked: &LockedSpool) -> io::Result<bool> {
    moved_already(data, spool, locked).map(|publication| publication.is_some())
}

/// The publication after which only cleaning up is left.
///
/// If the file is still the upload's only slice, a power cut took back the rename that made it the merged file. It may
/// also bring back the old name beside the new one; then the upload must touch the file no more.
fn moved_already(data: &DataDir, spool: &Spool, locked: &LockedSpool) -> io::Result<Option<Publication>> {
    if data.objects().is_some() {
        // Nothing is moved. An object that is there already is found when the upload is published once more.
        return Ok(None);
    }
    let Some(publication) = locked.records().publication()? else { return Ok(None) };
    // A file that cannot be looked at may be there: no error must pass for "it was moved", after which the spool is
    // removed.
    let has_left =
        inode_of(&spool.merged_path())?.is_none() && inode_of(&spool.slice_path(0))? != Some(publication.inode);
    let is_moved = has_left || finished(data, locked, publication)?.is_some();
    Ok(is_moved.then_some(publication))
}

/// The finished file, opened, if it is still the one of this publication.
fn finished(data: &DataDir, locked: &LockedSpool, publication: Publication) -> io::Result<Option<File>> {
    let OpenEntry::File(file, found) = Store::new(data).open(&locked.upload().file_name)? else { return Ok(None) };
    Ok((found.ino() == publication.inode).then_some(file))
}

fn inode_of(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("looking at", path),
    }
}

/// Makes the entry of a finished file durable. A file that somebody has moved or replaced since was there.
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
        let known = store::digest_state(&file, &file.metadata().at("looking at", &path)?)?;
        // Disk space that was reserved under the name in the spool, after both names came back, changed its times.
        if let DigestState::Stale { stored_digest, .. } = known
            && hash_whole(&file)? == publication.digest
        {
            let sha256 = stored_digest.sha256.filter(|_| stored_digest.digest == publication.digest);
            let source = locked.upload().source.clone();
            let stored_digest = StoredDigest { digest: publication.digest, source, sha256 };
            store::stamp(&file, &path, &stored_digest, locked.upload().kept.modified)?;
            file.sync_all().at("syncing", &path)?;
        }
    }
    info_ini::log_failure(name, InfoIni::new(data).remove(name));
    Ok(())
}

/// Makes the only slice of an upload the merged file, without copying; an empty file needs none. `false` if the slice
/// is not there, or must be checked first.
fn adopt_whole(spool: &Spool, locked: &LockedSpool) -> io::Result<bool> {
    let merged = spool.merged_path();
    if locked.upload().plan.slice_num == Some(0) {
        // Slices that another source's upload had merged before this one turned out to be empty are none of it.
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
            // The slice is synced first: a merged file without its slice beside it counts as synced.
            let path = spool.slice_path(0);
            let slice = disk::open_regular(&path)?;
            if let Err(e) = slice.sync_all() {
                // Another sync could succeed without having written it, and reading it would tell nothing.
                locked.discard(0)?;
                return Err(e).at("syncing", &path);
            }
            if !is_as_it_came(&slice) {
                // The slice is read from the disk: memory may still hold bytes that never got there.
                disk::forget_cached(&slice, 0, 0);
                if !slice_is_right(&path, &locked.upload().plan, 0, record)? {
                    log::warn!("{}: the only slice did not reach the disk; it will be asked for again", spool.folder());
                    return locked.discard(0).map(|()| false);
                }
            }
            std::fs::rename(&path, &merged).at("keeping", &merged).map(|()| true)
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
/// Returns a message if such a file cannot have that size: more slices were merged than it was told to have then.
fn learn_size(spool: &Spool, locked: &mut LockedSpool) -> io::Result<Option<String>> {
    let plan = &locked.upload().plan;
    if plan.file_size.is_some() {
        return Ok(None);
    }
    let path = spool.merged_path();
    let len = std::fs::metadata(&path).at("looking at", &path)?.len();
    match Plan::new(None, None, Some(len)).and_then(|size| plan.bind(&size)) {
        Ok(plan) => locked.save(UploadRecord { plan, ..locked.upload().clone() }).map(|()| None),
        Err(why) => Ok(Some(why.to_string())),
    }
}

enum InTheWay {
    Nothing,
    TheSameFile,
    /// A file of the same size whose content is not known.
    Unread,
    /// A file of other content.
    OtherFile,
    /// A thing that is no file, with its description.
    Other(String),
}

/// Reads a finished file of this name that may have the same content and does not tell, which would be in the way. It
/// takes its time, so nobody may wait for a lock meanwhile.
fn read_what_is_there(data: &DataDir, upload: &UploadRecord) -> io::Result<Option<(FileVersion, StoredDigest)>> {
    let store = Store::new(data);
    match store.lookup(&upload.file_name)? {
        Entry::File(found) if !upload.replace && may_be_the_same(upload, &found) => {}
        _ => return Ok(None),
    }
    let Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }) = store.confirm(&upload.file_name)? else {
        return Ok(None);
    };
    Ok(store.version(&upload.file_name)?.map(|seen| (seen, stored_digest)))
}

/// True if a finished file has the size of the upload and does not tell its content.
fn may_be_the_same(upload: &UploadRecord, found: &FinishedFile) -> bool {
    found.stored_digest.is_none() && Some(found.size) == upload.plan.file_size
}

/// The obstacle in the way of an upload, of this digest; `read` is the version and the digest of an obstacle that was
/// read.
fn in_the_way(
    data: &DataDir,
    upload: &UploadRecord,
    digest: Digest,
    read: Option<&(FileVersion, StoredDigest)>,
) -> io::Result<InTheWay> {
    let store = Store::new(data);
    let mut entry = store.lookup(&upload.file_name)?;
    if let (Entry::File(found), Some(read)) = (&mut entry, read)
        && found.stored_digest.is_none()
        && store.version(&upload.file_name)? == Some(read.0)
    {
        found.stored_digest = Some(read.1.clone());
    }
    Ok(obstacle(entry, upload, digest))
}

/// The obstacle that `entry` is to an upload of its name and of this digest.
fn obstacle(entry: Entry, upload: &UploadRecord, digest: Digest) -> InTheWay {
    match entry {
        Entry::Nothing => InTheWay::Nothing,
        Entry::File(found) if found.stored_digest.as_ref().is_some_and(|s| s.digest == digest) => InTheWay::TheSameFile,
        Entry::File(_) if upload.replace => InTheWay::Nothing,
        Entry::File(found) if may_be_the_same(upload, &found) => InTheWay::Unread,
        Entry::File(_) => InTheWay::OtherFile,
        Entry::Other(what) => InTheWay::Other(what),
    }
}

fn exists(upload: &UploadRecord) -> String {
    format!("{} exists with other content", upload.file_name)
}

fn block(locked: &mut LockedSpool, why: String, remedy: Option<Remedy>) -> io::Result<Outcome> {
    let upload = locked.upload().clone();
    block_as(locked, upload, why, remedy)
}

/// Blocks `upload`, which may be another one than before, in one step.
fn block_as(
    locked: &mut LockedSpool,
    upload: UploadRecord,
    why: String,
    remedy: Option<Remedy>,
) -> io::Result<Outcome> {
    locked.records().set_publication(None)?;
    locked.save(UploadRecord { blocked: Some(why.clone()), ..upload })?;
    Ok(Outcome::Blocked { why, remedy })
}

/// Refuses a whole file that is not the promised one. In an upload that was taken over the records may be wrong: they
/// are written anew from the real content of the merged file, so that the next comparison finds the differing slices.
fn refuse_content(spool: &Spool, upload: &UploadRecord, merged: &File, why: String) -> io::Result<Outcome> {
    if upload.is_taken_over() && !record_anew(spool, upload, merged)? {
        return Ok(Outcome::NotYet);
    }
    let Some(mut locked) = lock_unchanged(spool, upload)? else { return Ok(Outcome::NotYet) };
    if upload.gives_back && spool.has_part_records() {
        // Parts of which the bytes are not here cannot get other slices: all of it is sent again.
        locked.cut_to(merged, 0)?;
        return block_as(
            &mut locked,
            UploadRecord { content: HeldContent::Own(None), ..upload.clone() },
            why,
            Some(Remedy::UploadAgain),
        );
    }
    // A client that pushes it again compares the held slices, sends those that differ, and promises anew.
    let upload = UploadRecord { content: HeldContent::ToCompare, ..upload.clone() };
    block_as(&mut locked, upload, why, Some(Remedy::UploadAgain))
}

/// Records each slice as the merged file has it in its place. Reading takes its time, so each is recorded under a lock
/// of its own; a kill leaves some of them recorded, which is as true. `false` if the upload changed meanwhile, or was
/// cut at a place that the disk cannot give back.
fn record_anew(spool: &Spool, upload: &UploadRecord, merged: &File) -> io::Result<bool> {
    let plan = &upload.plan;
    for slice_id in 0..plan.slice_num.unwrap_or(0) {
        let (offset, len) = extent(plan, slice_id);
        let hasher = SliceHasher::new(digest::kind_of(plan, slice_id), offset);
        let digest = match hash_range(merged, offset, len, hasher) {
            Err(e) if disk::is_lost(&e) => return cut_damaged(spool, merged, slice_id).map(|_| false),
            hashed => hashed?,
        };
        let Some(locked) = lock_unchanged(spool, upload)? else { return Ok(false) };
        locked.records().put(slice_id, &Record { digest, len, boot: BootId::current() })?;
    }
    spool.open_digests()?.sync_all().at("syncing the digests in", spool.path()).map(|()| true)
}

/// The spool under its lock, if the upload is unchanged, and complete.
fn lock_unchanged(spool: &Spool, upload: &UploadRecord) -> io::Result<Option<LockedSpool>> {
    let Some(locked) = spool.lock()? else { return Ok(None) };
    Ok(if locked.upload() == upload && is_complete(&locked)? { Some(locked) } else { None })
}

/// Cuts the file at a slice that was damaged after it was merged and synced; the slices cut off are asked for again.
fn cut_damaged(spool: &Spool, merged: &File, slice_id: u64) -> io::Result<Outcome> {
    let Some(mut locked) = spool.lock()? else { return Ok(Outcome::NoUpload) };
    let (offset, len) = extent(&locked.upload().plan, slice_id);
    let is_lost = spool.has_part_records() && disk::is_hole(merged, offset, len)?;
    if is_lost {
        locked.cut_lost(merged, slice_id)?;
        return Err(lost_by_store(slice_id));
    }
    locked.cut_to(merged, slice_id)?;
    Err(damaged_since_merged(slice_id))
}

/// The error for a slice that the store of objects had, and has no more.
pub fn lost_by_store(slice_id: u64) -> io::Error {
    let message = format!(
        "the store has lost parts that it had taken, or another program has ended their upload: slice {slice_id} and what \
         follows it are asked for again"
    );
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The error for a slice that was damaged after it was merged and synced.
pub fn damaged_since_merged(slice_id: u64) -> io::Error {
    let message =
        format!("slice {slice_id} was damaged after it was merged; it and what follows it are asked for again");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The digest of the complete merged file, from the digests of its slices if these are enough, and of its leaves if
/// slices are subtrees; or the slice that is not what its record says, or that the disk cannot give back, if one was
/// read.
fn digest_of(spool: &Spool, upload: &UploadRecord, merged: &File) -> io::Result<Result<(Digest, Option<Leaves>), u64>> {
    let digests = spool.open_digests()?;
    let records = Records(&digests);
    let slice_num = upload.plan.slice_num.unwrap_or(0);
    let Some(slice_size) = upload.plan.slice_size.filter(|size| slice_num > 1 && digest::is_subtree_size(*size)) else {
        let only = if slice_num == 1 && !upload.is_taken_over() { records.get(0)? } else { None };
        return match only {
            Some(record) if record.digest.kind == DigestKind::Hash => Ok(Ok((record.digest.digest, None))),
            _ => hash_slices(merged, &upload.plan).map(|hashed| hashed.map(|digest| (digest, None))),
        };
    };
    let (mut join, mut damaged) = (LeafJoin::new(slice_size, slice_num), None);
    records.scan(0, slice_num - 1, |slice_id, record| {
        let value = match record.map(|record| record.digest) {
            Some(digest) if digest.kind == DigestKind::ChainingValue && !upload.is_taken_over() => digest.digest,
            // The slice came before its offset was known, or its record is no proof after a take-over.
            _ => match chaining_value(merged, &upload.plan, slice_id, record.filter(|_| !upload.is_taken_over()))? {
                Some(value) => value,
                None => {
                    damaged.get_or_insert(slice_id);
                    return Ok(());
                }
            },
        };
        join.push(value);
        Ok(())
    })?;
    if let Some(slice_id) = damaged {
        return Ok(Err(slice_id));
    }
    let leaves = join.finish();
    Ok(Ok((leaves.root().expect("there are at least two slices"), Some(leaves))))
}

/// The chaining value of a merged slice, which is read for it. `None` if it is not what its record says, if there is
/// one, or if the disk cannot give it back.
fn chaining_value(merged: &File, plan: &Plan, slice_id: u64, record: Option<Record>) -> io::Result<Option<Digest>> {
    let (offset, len) = extent(plan, slice_id);
    let mut hasher = SliceHasher::new(DigestKind::ChainingValue, offset);
    let mut recorded = record.map(|record| SliceHasher::new(record.digest.kind, offset));
    let read = disk::read_range(merged, offset, len, |bytes| {
        hasher.update(bytes);
        recorded.iter_mut().for_each(|recorded| recorded.update(bytes));
    });
    if let Err(e) = read {
        return if disk::is_lost(&e) { Ok(None) } else { Err(e) };
    }
    let is_right = record.zip(recorded).is_none_or(|(record, is)| is.finish() == record.digest);
    Ok(is_right.then(|| hasher.finish().digest))
}

/// Offset and length of a slice of a complete upload, in bytes.
fn extent(plan: &Plan, slice_id: u64) -> (u64, u64) {
    let known = "a complete upload knows its sizes";
    (plan.offset_of(slice_id).expect(known), plan.len_of(slice_id).expect(known))
}

/// The hash of a complete merged file; or the slice that the disk cannot give back.
fn hash_slices(merged: &File, plan: &Plan) -> io::Result<Result<Digest, u64>> {
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    for slice_id in 0..plan.slice_num.unwrap_or(0) {
        let (offset, len) = extent(plan, slice_id);
        match disk::read_range(merged, offset, len, |bytes| hasher.update(bytes)) {
            Err(e) if disk::is_lost(&e) => return Ok(Err(slice_id)),
            read => read?,
        }
    }
    Ok(Ok(hasher.finish().digest))
}

fn hash_whole(merged: &File) -> io::Result<Digest> {
    let len = merged.metadata()?.len();
    Ok(hash_range(merged, 0, len, SliceHasher::new(DigestKind::Hash, 0))?.digest)
}
