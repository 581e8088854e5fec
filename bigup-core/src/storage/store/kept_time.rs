//! The time of the client's file, kept as the time of the last write to the finished file.
//!
//! Such a time tells nothing about changes of the finished file: two contents, one after the other under one name, may
//! have the same. So an attribute says that the time is the client's. It holds as long as nobody writes to the file.
//! Whoever compares times takes the time of change (ctime) beside it, which nobody can set.

use crate::protocol::kept::FileTime;
use crate::storage::disk::IoContext;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;
use xattr::FileExt;

/// Name of the extended attribute, in the user's namespace (xattr(7)).
const ATTRIBUTE: &str = "user.bigup.time";

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct TimeJson {
    /// The time of the client's file. The file system may have room for less of it.
    source_modified: String,
    /// The time that the file system gave the file: the attribute holds for a file with this one.
    modified: (i64, i64),
}

/// Gives `file`, which is not finished yet, the time `time` of the client's file. The caller writes its digest down
/// after that, and syncs it.
///
/// The file keeps its own time if the file system has no extended attributes, or cannot set times: that is logged and
/// no error, since the content does not depend on it.
pub fn keep_time(file: &File, path: &Path, time: FileTime) {
    let Some(wanted) = time.to_system() else { return };
    if let Err(e) = file.set_modified(wanted) {
        log::warn!("{}: the time of the client's file is not kept: {e}", path.display());
        return;
    }
    if let Err(e) = note(file, time) {
        log::warn!("{}: the time of the client's file is not kept: {e}", path.display());
        // Without the note it would pass for the time of a change here.
        if let Err(e) = file.set_modified(SystemTime::now()) {
            log::warn!("{}: it keeps the time of the client's file: {e}", path.display());
        }
    }
}

fn note(file: &File, time: FileTime) -> io::Result<()> {
    let found = file.metadata()?;
    let noted = TimeJson { source_modified: time.to_string(), modified: (found.mtime(), found.mtime_nsec()) };
    file.set_xattr(ATTRIBUTE, &serde_json::to_vec(&noted).expect("strings and numbers always serialise"))
}

/// The time of the client's file, if it is kept; `found` are the file's metadata of now.
///
/// # Errors
/// As the system gives them.
pub(super) fn kept_time(file: &File, path: &Path, found: &Metadata) -> io::Result<Option<FileTime>> {
    let value = match file.get_xattr(ATTRIBUTE) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => None,
        value => value.at("reading the time of", path)?,
    };
    let noted: Option<TimeJson> = value.and_then(|value| serde_json::from_slice(&value).ok());
    let holds = |noted: &TimeJson| noted.modified == (found.mtime(), found.mtime_nsec());
    Ok(noted.filter(holds).and_then(|noted| noted.source_modified.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_kept_time_holds_until_somebody_writes_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for text in ["-1", "0", "-86400.5", "1700000000.123456789", "4102444800"] {
            let mut file = fs::File::create(&path).unwrap();
            let time: FileTime = text.parse().unwrap();
            keep_time(&file, &path, time);
            let kept = |file: &File| kept_time(file, &path, &file.metadata().unwrap()).unwrap();
            assert_eq!(kept(&file), Some(time));
            assert_eq!(file.metadata().unwrap().modified().unwrap(), time.to_system().unwrap());
            file.write_all(b"x").unwrap();
            assert_eq!(kept(&file), None, "{text}");
            fs::remove_file(&path).unwrap();
        }
        let file = fs::File::create(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        assert_eq!(kept_time(&file, &path, &file.metadata().unwrap()).unwrap(), None, "set by hand");
    }
}
