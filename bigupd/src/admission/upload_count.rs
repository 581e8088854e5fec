//! The unfinished uploads, with the numbers that limits and quotas need.
//!
//! Uploads are folders, and come and go by mergers and other daemons too. Each scan lists them all, and reads those
//! that changed since the last scan: every change of an upload's numbers adds a file to its folder or removes one. So
//! an idle upload costs one stat(2). The remembered numbers decide nothing else.

use crate::admission::amount;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::FileVersion;
use bigup_core::storage::spool::{Concat, Spool};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A folder that changed more recently can change again unseen.
const AT_REST_AFTER: Duration = Duration::from_secs(1);

/// An unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedUpload {
    /// Its file's name.
    pub name: FileName,
    /// The token that began it, or has taken it over.
    pub token: Option<String>,
    /// Bytes that it counts for.
    pub bytes: u64,
}

/// All unfinished uploads, as found by one scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadList {
    /// Number of uploads, also of those that cannot be read.
    pub number: u64,
    /// Those that can be read.
    pub uploads: Vec<Arc<CountedUpload>>,
    /// Number of uploads of each token. `None` stands for uploads that were begun without a token.
    of: HashMap<Option<String>, u64>,
}

impl UploadList {
    /// Number of uploads of a token; `None`: of those begun without a token.
    pub fn number_of(&self, token: Option<&str>) -> u64 {
        // A copy of the name, since a map of optional strings cannot be asked by a borrowed one.
        self.of.get(&token.map(str::to_owned)).copied().unwrap_or(0)
    }
}

/// The result of the last scan, by folders.
#[derive(Debug, Default)]
pub struct UploadCount(Mutex<HashMap<String, (FileVersion, Arc<CountedUpload>)>>);

impl UploadCount {
    /// Looks at all uploads of `data`.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn look(&self, data: &DataDir) -> io::Result<UploadList> {
        let mut before = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut listed, mut now) = (UploadList::default(), HashMap::new());
        for spool in Spool::all(data)? {
            listed.number += 1;
            let Ok(Some(seen)) = FileVersion::of(spool.path()) else { continue };
            let known = before.remove(spool.folder()).filter(|(then, _)| *then == seen).map(|(_, known)| known);
            // An upload that cannot be read, or has gone, holds nothing of use.
            let Some(known) = known.or_else(|| read(&spool).map(Arc::new)) else { continue };
            *listed.of.entry(known.token.clone()).or_default() += 1;
            listed.uploads.push(Arc::clone(&known));
            if seen.is_older(AT_REST_AFTER) {
                now.insert(spool.folder().to_owned(), (seen, known));
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(listed)
    }
}

fn read(spool: &Spool) -> Option<CountedUpload> {
    let upload = spool.upload().ok().flatten()?;
    let holdings = spool.holdings(&upload).ok()?;
    // The bytes of a final upload count as those of its partial ones, which go when it does.
    let is_final = upload.concat.as_ref().is_some_and(Concat::is_final);
    let bytes = if is_final { 0 } else { amount::bytes_of(&upload.plan, &holdings) };
    Some(CountedUpload { name: upload.file_name, token: upload.token, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{UploadId, UploadRecord};
    use std::fs;
    use std::time::Instant;

    fn begin(data: &DataDir, name: &str, token: Option<&str>) {
        let plan = Plan::new(None, Some(10_000), None).unwrap();
        let upload = UploadRecord::begin(FileName::new(name).unwrap(), plan, None);
        let upload = UploadRecord { token: token.map(str::to_owned), ..upload };
        assert!(Spool::create(data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(data, 0)).unwrap());
    }

    #[test]
    fn uploads_count_by_token_and_those_beyond_reading_in_all() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::create(folder.path()).unwrap();
        begin(&data, "a", None);
        begin(&data, "b", Some("t"));
        begin(&data, "c", Some("t"));
        fs::create_dir(data.tmp().join("broken")).unwrap();
        let listed = UploadCount::default().look(&data).unwrap();
        assert_eq!((listed.number, listed.uploads.len()), (4, 3));
        assert_eq!([None, Some("t"), Some("u")].map(|token| listed.number_of(token)), [1, 2, 0]);
    }

    #[test]
    fn uploads_at_rest_are_not_read_again_until_their_folder_changes() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::create(folder.path()).unwrap();
        begin(&data, "a", None);
        let upload_count = UploadCount::default();
        let deadline = Instant::now() + 60 * AT_REST_AFTER;
        while upload_count.0.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "it does not come to rest");
            upload_count.look(&data).unwrap();
            std::thread::sleep(AT_REST_AFTER / 10);
        }
        let json = data.tmp().join("a/upload.json");
        // In place, as no program of ours does it.
        fs::write(&json, fs::read_to_string(&json).unwrap().replace("10000", "20000")).unwrap();
        assert_eq!(upload_count.look(&data).unwrap().uploads[0].bytes, amount::BLOCK, "it was not read");
        fs::write(data.tmp().join("a/0"), [0; 10]).unwrap();
        assert_eq!(upload_count.look(&data).unwrap().uploads[0].bytes, 20_000);
        fs::remove_dir_all(data.tmp().join("a")).unwrap();
        assert_eq!(upload_count.look(&data).unwrap(), UploadList::default());
        assert!(upload_count.0.lock().unwrap().is_empty(), "nothing is remembered of what has gone");
    }
}
