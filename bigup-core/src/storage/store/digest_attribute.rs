//! The digest of a finished file and the time of its client's file, kept on the file itself.

use super::kept_time;
use crate::protocol::digest::{Digest, Leaves};
use crate::protocol::kept::FileTime;
use crate::protocol::sha256::Sha256;
use crate::storage::disk::{IoContext, attribute};
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use xattr::FileExt;

/// Name of the extended attribute, in the user's namespace (xattr(7)).
const ATTRIBUTE: &str = "user.bigup";

/// The same with the digests of the file's leaves: slice size and bytes of a leaf as 8 bytes each, little-endian, then
/// 32 bytes a leaf. It is taken for true if they join to the stored digest.
const LEAVES_ATTRIBUTE: &str = "user.bigup.leaves";

/// Last time of change (ctime) for which the stored digest is certain, in nanoseconds since 1970, as decimal digits.
const SEAL: &str = "user.bigup.seal";

/// Margins, one for each attempt, in nanoseconds: the time of change that setting the seal gives may be so much later
/// than the time that was seen. A change within that margin goes unnoticed.
const SEAL_MARGINS: [i128; 3] = [1_000_000, 20_000_000, 100_000_000];

/// Nanoseconds between the time of change of a file that was just published and our clock, if that gave it the time.
const SAME_CLOCK: i128 = 100_000_000;

/// The known digest of a finished file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDigest {
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// The client's source that it came from, if the client named one.
    pub source: Option<String>,
    /// SHA-256 of the whole file. `None`: it was not computed while the file was uploaded.
    pub sha256: Option<Sha256>,
}

/// The state of the digest that a file in `files/` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestState {
    /// No digest: somebody else put the file there, or the file system keeps no extended attributes.
    Absent,
    /// The file was changed since it was published, so nothing is known of its right content.
    Stale {
        /// The digest that it had.
        stored_digest: StoredDigest,
        /// Bytes that it had.
        size: u64,
    },
    /// The file was not changed since. This is its right digest, and its right size.
    Valid {
        /// Its stored digest.
        stored_digest: StoredDigest,
        /// Bytes that it must have.
        size: u64,
    },
}

/// The form of a stored digest on disk. It holds for a file of this size and time of change only.
#[derive(Serialize, Deserialize)]
struct AttributeJson {
    digest: String,
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    size: u64,
    modified: (i64, i64),
    /// The time of the client's file, of which the file system may have room for less. Empty: it is not kept. `None`: an
    /// attribute of its own tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_modified: Option<String>,
}

/// Gives `file` the time of its client's file, if that is `kept`, and writes down its digest on the file itself. The caller
/// syncs it, and changes its content no more.
///
/// If the file system keeps no such attributes, the digest will not be known later, and the file keeps its own time, as
/// where times cannot be set. That is logged and no error, since the content does not depend on it.
///
/// # Errors
/// As the system gives them.
pub fn stamp(file: &File, path: &Path, stored_digest: &StoredDigest, kept: Option<FileTime>) -> io::Result<()> {
    let kept = kept.filter(|time| kept_time::set(file, path, *time));
    stamp_as(file, path, stored_digest, kept, &file.metadata().at("looking at", path)?)
}

/// Writes down the digest and the kept time of a `file` whose content was read while its metadata were `found`: they do
/// not hold if the file was written to since.
pub(super) fn stamp_as(
    file: &File,
    path: &Path,
    stored_digest: &StoredDigest,
    kept: Option<FileTime>,
    found: &Metadata,
) -> io::Result<()> {
    let stored = AttributeJson {
        digest: stored_digest.digest.to_string(),
        source: stored_digest.source.clone(),
        sha256: stored_digest.sha256.map(|sha256| sha256.to_string()),
        size: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        source_modified: Some(kept.map(|time| time.to_string()).unwrap_or_default()),
    };
    let value = serde_json::to_vec(&stored).expect("strings and numbers always serialise");
    match file.set_xattr(ATTRIBUTE, &value) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            log::warn!("{}: no extended attributes here ({e}), so the digest is not kept", path.display());
            // Without a note the client's time would pass for that of a change here.
            if kept.is_some()
                && let Err(e) = file.set_modified(SystemTime::now())
            {
                log::warn!("{}: it keeps the time of the client's file: {e}", path.display());
            }
            Ok(())
        }
        done => done.at("writing down the digest of", path),
    }
}

/// Says that the stored digest of `file` is certain as of now. The seal is not synced: if it is lost, the file is read
/// when somebody asks. A failure to set it is no error.
pub(super) fn seal(file: &File, path: &Path) {
    let sealed: io::Result<bool> = (|| {
        if attribute(file, ATTRIBUTE)?.is_none() {
            return Ok(true);
        }
        for margin in SEAL_MARGINS {
            let until = last_moment(changed(&file.metadata()?)) + margin;
            file.set_xattr(SEAL, until.to_string().as_bytes())?;
            if changed(&file.metadata()?) <= until {
                return Ok(true);
            }
        }
        Ok(false)
    })();
    match sealed {
        Ok(true) => {}
        Ok(false) => log::debug!("{}: changes too often to be sealed", path.display()),
        Err(e) => log::debug!("{}: cannot be sealed: {e}", path.display()),
    }
}

/// The time up to now in which a file that was last changed at `changed` got its time of change. Of another machine's clock
/// only that time itself is known.
fn last_moment(changed: i128) -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i128);
    if (changed..changed + SAME_CLOCK).contains(&now) { now } else { changed }
}

/// True if nothing about `file` changed since it was sealed; `found` are its metadata of now.
fn is_sealed(file: &File, found: &Metadata) -> io::Result<bool> {
    let until = attribute(file, SEAL)?.and_then(|value| String::from_utf8(value).ok()?.parse().ok());
    Ok(until.is_some_and(|until: i128| changed(found) <= until))
}

/// The time of the last change of anything, in nanoseconds since 1970.
pub(super) fn changed(found: &Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}

/// Keeps the digests of the leaves of `file`, which has a stored digest, on the file itself, with the size of the
/// slices that it came in. If there is no space for them, damage in the file can be found and not located; that is no
/// error.
pub fn keep_leaves(file: &File, path: &Path, slice_size: u64, leaves: &Leaves) {
    let numbers = [slice_size, leaves.leaf_len].into_iter().flat_map(u64::to_le_bytes);
    let value: Vec<u8> = numbers.chain(leaves.values.iter().flat_map(|value| value.0)).collect();
    if let Err(e) = file.set_xattr(LEAVES_ATTRIBUTE, &value) {
        log::debug!("{}: the digests of its parts are not kept: {e}", path.display());
    }
}

/// The digests of the leaves of a file with this digest and the size of the slices that it came in, in bytes, if they
/// were kept.
pub fn read_leaves(file: &File, digest: Digest) -> Option<(u64, Leaves)> {
    let value = file.get_xattr(LEAVES_ATTRIBUTE).ok()??;
    let (slice_size, rest) = value.split_first_chunk()?;
    let (leaf_len, rest) = rest.split_first_chunk()?;
    let values = rest.as_chunks().0.iter().map(|value| Digest(*value)).collect();
    let leaves = Leaves { leaf_len: u64::from_le_bytes(*leaf_len), values };
    (leaves.root() == Some(digest)).then_some((u64::from_le_bytes(*slice_size), leaves))
}

/// The state of the digest that a file carries; `found` are its metadata of now.
///
/// # Errors
/// The digest cannot be read, which says nothing about it.
pub fn digest_state(file: &File, found: &Metadata) -> io::Result<DigestState> {
    stamp_of(file, found).map(|(state, _)| state)
}

/// The same, and the time of the client's file, if that is kept.
pub(super) fn stamp_of(file: &File, found: &Metadata) -> io::Result<(DigestState, Option<FileTime>)> {
    let stored: Option<AttributeJson> =
        attribute(file, ATTRIBUTE)?.and_then(|value| serde_json::from_slice(&value).ok());
    let known = stored.and_then(|stored| Some((stored.digest.parse().ok()?, stored)));
    let Some((digest, AttributeJson { source, sha256, size, modified, source_modified, .. })) = known else {
        return Ok((DigestState::Absent, kept_time::of_itself(file, found)?));
    };
    let sha256 = sha256.and_then(|text| text.parse().ok());
    let stored_digest = StoredDigest { digest, source, sha256 };
    let is_changed = modified != (found.mtime(), found.mtime_nsec());
    let kept = match source_modified {
        None => kept_time::of_itself(file, found)?,
        Some(_) if is_changed => None,
        Some(text) => text.parse().ok(),
    };
    let state = match is_changed {
        true => DigestState::Stale { stored_digest, size },
        false => DigestState::Valid { stored_digest, size },
    };
    Ok((state, kept))
}

/// The stored digest of a file, if it has one that holds, and the time of the client's file, if that is kept.
pub(super) fn certain_stamp_of(file: &File, found: &Metadata) -> io::Result<(Option<StoredDigest>, Option<FileTime>)> {
    let (state, kept) = stamp_of(file, found)?;
    let certain = match state {
        DigestState::Valid { stored_digest, size } if size == found.len() && is_sealed(file, found)? => {
            Some(stored_digest)
        }
        _ => None,
    };
    Ok((certain, kept))
}
