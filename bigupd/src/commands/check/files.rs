//! Finished files: each against the digest on it.

use super::{Check, Finding, Repair};
use bigup_core::protocol::digest::{Digest, DigestKind, Leaves, SliceHasher};
use bigup_core::protocol::name::{FileName, MAX_NAME_LEN, printable};
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::disk::forget_cached;
use bigup_core::storage::finish::unpublish::{Damaged, Unpublished, unpublish};
use bigup_core::storage::spool::{UploadId, hash_range};
use bigup_core::storage::store::{self, DigestState, OpenEntry, Store, StoredDigest};
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use walkdir::WalkDir;

/// A file that can be checked.
struct CheckableFile {
    file: File,
    stored_digest: StoredDigest,
    /// Bytes that it must have.
    size: u64,
    /// The size of the slices in which it came, and its leaves.
    leaves: Option<(u64, Leaves)>,
}

/// The result of looking up a name.
enum Lookup {
    Checkable(CheckableFile),
    /// It cannot be compared; the text gives the reason, and the facts known of it.
    Unknown(String),
    Gone,
}

impl Check<'_> {
    /// All files below `files/`: no link is followed, and nothing but regular files is opened.
    pub(super) fn check_files(&mut self, unseen: &mut Vec<FileName>) {
        let files = self.data.files();
        let roots: Vec<PathBuf> = match &self.arguments.names[..] {
            [] => vec![files.clone()],
            names => names.iter().map(|name| files.join(name.as_str())).collect(),
        };
        for root in roots {
            // Deeper than the longest name of single letters nothing is ours.
            let walk = WalkDir::new(root).follow_root_links(false).max_depth(MAX_NAME_LEN / 2 + 1);
            for entry in walk {
                match entry {
                    Ok(entry) if entry.file_type().is_dir() => {}
                    Ok(entry) => self.check_entry(&files, entry.path(), entry.file_type().is_file(), unseen),
                    Err(e) if e.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {}
                    Err(e) => self.failed("file", &e.path().unwrap_or(&files).to_string_lossy(), &e.to_string()),
                }
            }
        }
    }

    fn check_entry(&mut self, files: &Path, path: &Path, is_file: bool, unseen: &mut Vec<FileName>) {
        let below = path.strip_prefix(files).unwrap_or(path).to_string_lossy();
        let Ok(name) = path
            .strip_prefix(files)
            .map_err(|_| ())
            .and_then(|path| FileName::new(path.to_str().ok_or(())?).map_err(|_| ()))
        else {
            return self.unknown(&below, "bigup gives no file such a name");
        };
        if !self.is_asked_for(name.as_str(), unseen) {
            return;
        }
        if !is_file {
            return self.unknown(name.as_str(), "no regular file");
        }
        match open(&Store::new(&self.data), &name) {
            Ok(Lookup::Checkable(stamped)) => self.check_file(&name, &stamped),
            Ok(Lookup::Unknown(what)) => self.unknown(name.as_str(), &what),
            // Another program may have moved it.
            Ok(Lookup::Gone) => {}
            Err(e) => self.failed("file", name.as_str(), &e.to_string()),
        }
    }

    fn check_file(&mut self, name: &FileName, stamped: &CheckableFile) {
        let findings = stamped.findings();
        // A writer that changed the file during the read also changed its time.
        match stamped.file.metadata().and_then(|found| store::digest_state(&stamped.file, &found)) {
            Ok(DigestState::Valid { stored_digest, .. }) if stored_digest == stamped.stored_digest => {}
            _ => return self.unknown(name.as_str(), "it changed while it was read"),
        }
        self.tally.files += 1;
        self.tally.bytes += stamped.size;
        if findings.is_empty() {
            return;
        }
        let repair = if self.arguments.repair { self.repair_file(name, stamped) } else { Repair::NotAsked };
        self.damaged("file", name.as_str(), &findings, &repair);
    }

    fn repair_file(&mut self, name: &FileName, stamped: &CheckableFile) -> Repair {
        let aside = match self.aside() {
            Ok(aside) => aside,
            Err(e) => return Repair::Failed(e.to_string()),
        };
        let damaged = Damaged {
            id: &UploadId::of_name(name),
            name,
            file: &stamped.file,
            stored_digest: &stamped.stored_digest,
            size: stamped.size,
            slice_size: stamped.leaves.as_ref().map(|(slice_size, _)| *slice_size),
        };
        let moved = || format!("moved to {}", Store::new(&aside).path_of(name).display());
        match unpublish(&self.data, &aside, &self.space, &damaged) {
            Ok(Unpublished::Slices) => Repair::Done(format!("{}; push it again: only what differs is sent", moved())),
            Ok(Unpublished::Whole(why)) => Repair::Done(format!("{}; push it again, all of it ({why})", moved())),
            Ok(Unpublished::Replaced) => Repair::Done("another file has taken its place".to_owned()),
            Err(e) => Repair::Failed(e.to_string()),
        }
    }
}

/// Opens a file, to be compared with its recorded digest.
fn open(store: &Store, name: &FileName) -> io::Result<Lookup> {
    let OpenEntry::File(file, found) = store.open(name)? else { return Ok(Lookup::Gone) };
    Ok(match store::digest_state(&file, &found)? {
        DigestState::Absent => Lookup::Unknown(format!(
            "no digest is kept on it: it was put there by somebody else, or restored without extended attributes; {} \
             bytes, last written to at {}",
            found.len(),
            time_of(&found)
        )),
        DigestState::Stale { stored_digest, size } => Lookup::Unknown(format!(
            "changed since it was published: then {size} bytes of the digest {}; now {} bytes, last written to at {}",
            stored_digest.digest,
            found.len(),
            time_of(&found)
        )),
        DigestState::Valid { stored_digest, size } => Lookup::Checkable(CheckableFile {
            leaves: store::read_leaves(&file, stored_digest.digest),
            file,
            stored_digest,
            size,
        }),
    })
}

/// Time of the last write to a file, for people (RFC 3339, UTC).
fn time_of(found: &Metadata) -> String {
    let when = found.modified().unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(when.max(UNIX_EPOCH)).to_string()
}

impl CheckableFile {
    fn findings(&self) -> Vec<Finding> {
        let (parts, plan) = match &self.leaves {
            None => (vec![(0, self.size, DigestKind::Hash, self.stored_digest.digest)], None),
            Some((slice_size, leaves)) => (self.parts(leaves), Plan::new(None, Some(*slice_size), None).ok()),
        };
        let mut findings: Vec<Finding> = vec![];
        for (offset, len, kind, digest) in parts {
            let is = hash_range(&self.file, offset, len, SliceHasher::new(kind, offset));
            forget_cached(&self.file, offset, len);
            let what = match is {
                Ok(is) if is.digest == digest => continue,
                Ok(_) => "not what was published".to_owned(),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => "cut off".to_owned(),
                Err(e) => format!("cannot be read: {}", printable(&e.to_string())),
            };
            let last = (offset + len).saturating_sub(1);
            match findings.last_mut() {
                Some(Finding { bytes: Some((_, end)), what: before, .. }) if *end + 1 == offset && *before == what => {
                    *end = last;
                }
                _ => findings.push(Finding { bytes: Some((offset, last)), slices: None, what }),
            }
        }
        if let Ok(found) = self.file.metadata()
            && found.len() > self.size
        {
            let what = format!("beyond the end: the file must have {} bytes", self.size);
            findings.push(Finding { bytes: Some((self.size, found.len() - 1)), slices: None, what });
        }
        for finding in &mut findings {
            let slices = finding.bytes.zip(plan.as_ref());
            finding.slices = slices.and_then(|((first, last), plan)| plan.slice_at(first).zip(plan.slice_at(last)));
        }
        findings
    }

    /// Offset, length and digest of each leaf.
    fn parts(&self, leaves: &Leaves) -> Vec<(u64, u64, DigestKind, Digest)> {
        let offsets = (0..).map(|i| i * leaves.leaf_len);
        let within = offsets.zip(&leaves.values).filter(|(offset, _)| *offset < self.size);
        within
            .map(|(offset, value)| (offset, leaves.leaf_len.min(self.size - offset), DigestKind::ChainingValue, *value))
            .collect()
    }
}
