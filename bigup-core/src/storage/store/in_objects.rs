//! Finished files that are objects.

use super::{Content, Entry, FinishedFile, FolderEntry, ListedFile, OpenFile, Removal, StoredDigest};
use crate::protocol::digest::{DigestKind, SliceHasher};
use crate::protocol::kept::FileTime;
use crate::protocol::name::FileName;
use crate::storage::disk::FileVersion;
use crate::storage::objects::{Facts, Listed, Object, ObjectReader, Objects};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of an object that are read at once.
const PIECE: usize = 256 << 10;

impl From<Facts> for StoredDigest {
    fn from(facts: Facts) -> StoredDigest {
        StoredDigest { digest: facts.digest, source: facts.source, sha256: facts.sha256 }
    }
}

fn version_of(object: &Object) -> FileVersion {
    FileVersion::of_object(&object.etag, object.size, object.modified)
}

pub(super) fn version(objects: &Objects, name: &FileName) -> io::Result<Option<FileVersion>> {
    Ok(objects.find(name)?.map(|object| version_of(&object)))
}

pub(super) fn lookup(objects: &Objects, name: &FileName) -> io::Result<Entry> {
    Ok(entry_of(objects.find(name)?.as_ref()))
}

/// An object as a finished file. `None`: there is no object.
pub(crate) fn entry_of(object: Option<&Object>) -> Entry {
    object.map_or(Entry::Nothing, |object| {
        Entry::File(FinishedFile { size: object.size, stored_digest: object.facts.clone().map(Into::into) })
    })
}

/// Reads an object that another program stored. Its digest cannot be written down on it.
pub(super) fn confirm(objects: &Arc<Objects>, name: &FileName) -> io::Result<Entry> {
    let Some(open) = open_file(objects, name)? else { return Ok(Entry::Nothing) };
    let OpenFile { size, stored_digest, .. } = &open;
    let (size, known) = (*size, stored_digest.clone());
    if known.is_some() {
        return Ok(Entry::File(FinishedFile { size, stored_digest: known }));
    }
    let (mut hasher, mut piece, mut at) = (SliceHasher::new(DigestKind::Hash, 0), vec![0; PIECE], 0);
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        open.content.read_exact_at(&mut piece[..len], at)?;
        hasher.update(&piece[..len]);
        at += len as u64;
    }
    let stored_digest = Some(StoredDigest { digest: hasher.finish().digest, source: None, sha256: None });
    Ok(Entry::File(FinishedFile { size, stored_digest }))
}

pub(super) fn open_file(objects: &Arc<Objects>, name: &FileName) -> io::Result<Option<OpenFile>> {
    Ok(objects.find(name)?.map(|object| open(objects, &object)))
}

fn open(objects: &Arc<Objects>, object: &Object) -> OpenFile {
    let kept = object.facts.as_ref().and_then(|facts| facts.modified);
    OpenFile {
        content: Content::Object(ObjectReader::new(objects, object)),
        size: object.size,
        modified: kept.and_then(FileTime::to_system).unwrap_or(object.modified),
        source_modified: kept,
        changed: object.modified,
        version: version_of(object),
        stored_digest: object.facts.clone().map(Into::into),
    }
}

pub(super) fn remove(
    objects: &Arc<Objects>,
    name: &FileName,
    is_meant: impl FnOnce(OpenFile) -> bool,
) -> io::Result<Removal> {
    let Some(object) = objects.find(name)? else { return Ok(Removal::Nothing) };
    if !is_meant(open(objects, &object)) {
        return Ok(Removal::Kept);
    }
    objects.remove(&object)?;
    Ok(Removal::Removed)
}

/// A list tells no digests and no times of clients' files: each would be a request of its own.
fn listed(name: String, size: u64, etag: &str, modified: SystemTime) -> Option<ListedFile> {
    let version = FileVersion::of_object(etag, size, modified);
    // Another program may have stored an object whose key is no name.
    let name = FileName::new(&name).ok()?;
    Some(ListedFile { name, size, modified, source_modified: None, digest: None, version })
}

pub(super) fn list(
    objects: &Objects,
    prefix: &str,
    after: &str,
    mut each: impl FnMut(ListedFile) -> ControlFlow<()>,
) -> io::Result<()> {
    objects.list(prefix, after, false, |found| match found {
        Listed::Object { name, size, etag, modified } => {
            listed(name, size, &etag, modified).map_or(ControlFlow::Continue(()), &mut each)
        }
        Listed::Folder(_) => ControlFlow::Continue(()),
    })?;
    Ok(())
}

pub(super) fn list_level(
    objects: &Objects,
    path: &str,
    (prefix, after): (&str, &str),
    mut each: impl FnMut(FolderEntry) -> ControlFlow<()>,
) -> io::Result<()> {
    // A prefix beyond this level is that of one folder in it.
    let deeper = prefix.strip_prefix(path).and_then(|rest| rest.split_once('/'));
    if let Some((folder, _)) = deeper {
        let mut has_any = false;
        objects.list(prefix, "", false, |_| {
            has_any = true;
            ControlFlow::Break(())
        })?;
        let folder = format!("{path}{folder}/");
        if has_any && folder.as_str() > after {
            let _ = each(FolderEntry::Folder(folder));
        }
        return Ok(());
    }
    let prefix = if prefix.starts_with(path) { prefix } else { path };
    objects.list(prefix, after, true, |found| {
        let entry = match found {
            Listed::Object { name, size, etag, modified } => listed(name, size, &etag, modified).map(FolderEntry::File),
            Listed::Folder(name) => Some(FolderEntry::Folder(name)),
        };
        entry.map_or(ControlFlow::Continue(()), &mut each)
    })?;
    Ok(())
}
