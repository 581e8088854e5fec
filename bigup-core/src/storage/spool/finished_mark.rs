//! The mark of a file that was finished, by which its client learns that it is stored, also where somebody moved it
//! away at once.
//!
//! A mark is a file in `tmp/`, `.finished-HASH`, of one source's upload of one name. It is made before the spool goes,
//! so that there is the one or the other at every instant; and it is not synced, since a power cut that takes it costs
//! another push at most. It counts for [`DONE_TOLD_FOR`] and is swept then, and only for a client that waits for the
//! end of its own upload: a new push of that name begins anew.

use super::Spool;
use super::marks::mark_path;
use crate::protocol::digest::Digest;
use crate::storage::disk::{self, Durability};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};

/// Beginning of the names of marks.
pub const FINISHED: &str = ".finished-";

/// Longest time that a client may take to ask for the end of its upload.
pub const DONE_TOLD_FOR: Duration = Duration::from_secs(600);

/// Largest mark that is read, in bytes.
const MAX_MARK: u64 = 1024;

#[derive(Serialize, Deserialize)]
struct Mark {
    digest: String,
    size: u64,
}

impl Spool {
    /// Digest and size, in bytes, of the file that this source's upload here became a while ago. `None` if it became no
    /// file.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn finished(&self, source: &str) -> io::Result<Option<(Digest, u64)>> {
        let path = mark_path(self, FINISHED, Some(source));
        let age = match std::fs::symlink_metadata(&path).and_then(|found| found.modified()) {
            Ok(when) => SystemTime::now().duration_since(when).ok(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if age.is_none_or(|age| age >= DONE_TOLD_FOR) {
            return Ok(None);
        }
        let bytes = match disk::read_small(&path, MAX_MARK) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let mark: Option<Mark> = serde_json::from_slice(&bytes).ok();
        Ok(mark.and_then(|mark| Some((mark.digest.parse().ok()?, mark.size))))
    }

    /// Removes the mark of this source, if there is one. A failure to remove it is logged.
    pub fn forget_finished(&self, source: &str) {
        match std::fs::remove_file(mark_path(self, FINISHED, Some(source))) {
            Err(e) if e.kind() != ErrorKind::NotFound => log::warn!("{}: {e}", self.folder()),
            _ => {}
        }
    }

    /// Leaves the mark that this source's upload became a file of this digest and size, in bytes. If it cannot be made,
    /// the client may send all of it again: that is logged and no error.
    pub(crate) fn mark_finished(&self, source: &str, digest: Digest, size: u64) {
        let mark = serde_json::to_vec(&Mark { digest: digest.to_string(), size }).expect("it always serialises");
        let path = mark_path(self, FINISHED, Some(source));
        let made = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
        let made = made.map(|(folder, name)| disk::replace_file(folder, name, &mark, Durability::Process));
        if let Some(Err(e)) = made {
            log::warn!("{}: its client cannot be told later that it is stored: {e}", self.folder());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::of_bytes;
    use crate::protocol::name::FileName;
    use crate::storage::data_dir::DataDir;
    use crate::storage::spool::UploadId;

    #[test]
    fn a_mark_is_of_one_source_and_counts_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let spool = Spool::of(&data, &UploadId::of_name(&FileName::new("a/b").unwrap()));
        assert_eq!(spool.finished("s").unwrap(), None);
        spool.mark_finished("s", of_bytes(b"x"), 1);
        assert_eq!(spool.finished("s").unwrap(), Some((of_bytes(b"x"), 1)));
        assert_eq!(spool.finished("t").unwrap(), None);
        let mark = std::fs::File::options().write(true).open(mark_path(&spool, FINISHED, Some("s"))).unwrap();
        mark.set_modified(SystemTime::now() - DONE_TOLD_FOR).unwrap();
        assert_eq!(spool.finished("s").unwrap(), None);
        mark.set_modified(SystemTime::now()).unwrap();
        mark.set_len(3).unwrap();
        assert_eq!(spool.finished("s").unwrap(), None, "it cannot be read");
        spool.mark_finished("s", of_bytes(b"x"), 1);
        spool.forget_finished("s");
        assert_eq!(spool.finished("s").unwrap(), None);
    }
}
