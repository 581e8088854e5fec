//! The time of the client's file, kept as the time of the last write to the finished file.
//!
//! Such a time tells nothing about changes of the finished file: two contents, one after the other under one name, may
//! have the same. So the stamp says that the time is the client's. It holds as long as nobody writes to the file.
//! Whoever compares times takes the time of change (ctime) beside it, which nobody can set.

use crate::protocol::kept::FileTime;
use crate::storage::disk::attribute;
use serde::Deserialize;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Name of the extended attribute (xattr(7)) that told the time before the stamp did.
const ATTRIBUTE: &str = "user.bigup.time";

/// Its form.
#[derive(Deserialize)]
struct TimeJson {
    /// The time of the client's file. The file system may have room for less of it.
    source_modified: String,
    /// The time that the file system gave the file: the attribute holds for a file with this one.
    modified: (i64, i64),
}

/// Gives `file`, which is not finished yet, the time `time` of the client's file. False if that is not possible, which is
/// logged.
pub(super) fn set(file: &File, path: &Path, time: FileTime) -> bool {
    let Some(wanted) = time.to_system() else { return false };
    let set = file.set_modified(wanted);
    if let Err(e) = &set {
        log::warn!("{}: the time of the client's file is not kept: {e}", path.display());
    }
    set.is_ok()
}

/// The time of the client's file, if it is kept by an attribute of its own; `found` are the file's metadata of now.
///
/// # Errors
/// As the system gives them.
pub(super) fn of_itself(file: &File, found: &Metadata) -> io::Result<Option<FileTime>> {
    let noted: Option<TimeJson> = attribute(file, ATTRIBUTE)?.and_then(|value| serde_json::from_slice(&value).ok());
    let holds = |noted: &TimeJson| noted.modified == (found.mtime(), found.mtime_nsec());
    Ok(noted.filter(holds).and_then(|noted| noted.source_modified.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::super::digest_attribute::{StoredDigest, stamp, stamp_of};
    use super::*;
    use crate::protocol::digest::of_bytes;
    use std::fs;
    use std::io::Write;
    use std::time::{Duration, UNIX_EPOCH};
    use xattr::FileExt;

    fn kept(file: &File) -> Option<FileTime> {
        stamp_of(file, &file.metadata().unwrap()).unwrap().1
    }

    #[test]
    fn a_kept_time_holds_until_somebody_writes_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let stored = StoredDigest { digest: of_bytes(b""), source: None, sha256: None };
        for text in ["-1", "0", "-86400.5", "1700000000.123456789", "4102444800"] {
            let mut file = fs::File::create(&path).unwrap();
            let time: FileTime = text.parse().unwrap();
            stamp(&file, &path, &stored, Some(time)).unwrap();
            assert_eq!(kept(&file), Some(time));
            assert_eq!(file.metadata().unwrap().modified().unwrap(), time.to_system().unwrap());
            file.write_all(b"x").unwrap();
            assert_eq!(kept(&file), None, "{text}");
            fs::remove_file(&path).unwrap();
        }
        let file = fs::File::create(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        assert_eq!(kept(&file), None, "set by hand");
        stamp(&file, &path, &stored, None).unwrap();
        assert_eq!(kept(&file), None, "not kept");
    }

    #[test]
    fn a_time_that_an_attribute_of_its_own_keeps_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = fs::File::create(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        file.set_xattr(ATTRIBUTE, br#"{"source_modified":"5.000000001","modified":[5,0]}"#).unwrap();
        assert_eq!(kept(&file).unwrap().to_string(), "5.000000001", "without a digest");
        let digest = format!(r#"{{"digest":"{}","source":null,"size":0,"modified":[5,0]}}"#, of_bytes(b""));
        file.set_xattr("user.bigup", digest.as_bytes()).unwrap();
        assert_eq!(kept(&file).unwrap().to_string(), "5.000000001", "beside a digest");
        file.write_all(b"x").unwrap();
        assert_eq!(kept(&file), None);
    }
}
