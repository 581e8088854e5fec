//! Completion records: finished files that a hook is still to be told of. A record is the spool of the upload without
//! its slices.
//!
//! ```text
//! completed/<time>-<random>/upload.json   what the upload was, as in a spool
//!                           digests       the digest of the file, in its head; locked while the notice is worked on
//!                           trials.json   how often the hook failed (replaced by rename); absent before that
//! completed/failed/<time>-<random>/       the same, of those whose trials are used up
//! completed/.gone-…                       notices being removed; swept
//! ```
//! `<time>` is the time at which the file was finished, in nanoseconds since 1970 with 20 digits, so that names sort in
//! the order of finishing. A record appears by one rename, from `tmp/`, and goes by one: at every instant there is a
//! spool or a record until the hook has succeeded.

use crate::protocol::digest::Digest;
use crate::protocol::name::FileName;
use crate::storage::data_dir::{self, DataDir};
use crate::storage::disk::{self, Durability, FileLock, IoContext};
use crate::storage::spool::{
    DIGESTS, LockedSpool, MAX_UPLOAD_JSON, Records, UPLOAD_JSON, UploadRecord, delete, take_away,
};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const TRIALS_JSON: &str = "trials.json";

/// Largest `attempts.json` that is read, in bytes; the file holds one error, which is far shorter.
const MAX_TRIALS_JSON: u64 = 64 << 10;

/// Folder of the records whose attempts are used up, in `completed/`.
const FAILED: &str = "failed";

/// Makes a record of the spool of a file that is finished, and whose publication is recorded.
///
/// # Errors
/// As the system gives them; the spool is still there then.
pub(crate) fn leave(data: &DataDir, locked: LockedSpool) -> io::Result<()> {
    data_dir::create_folder(&data.completed())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    locked.move_to(&data.completed().join(format!("{now:020}-{}", disk::random_suffix())), tidy)
}

/// Removes the rest of a spool in a record. Files that cannot be removed are logged, and go with the record.
fn tidy(path: &Path) {
    let tidied = (|| {
        for entry in std::fs::read_dir(path).at("listing", path)? {
            let entry = entry.at("listing", path)?;
            if [UPLOAD_JSON, DIGESTS, TRIALS_JSON].iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            let is_dir = entry.file_type().at("looking at", &entry.path())?.is_dir();
            match entry.path() {
                folder if is_dir => disk::remove_folder(&folder)?,
                file => std::fs::remove_file(&file).at("removing", &file)?,
            }
        }
        Ok::<(), io::Error>(())
    })();
    if let Err(e) = tidied {
        log::warn!("a file stays in a completion record: {e}");
    }
}

/// The place of a record; it need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompletionRecord {
    id: String,
    path: PathBuf,
}

/// A file that was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Its name.
    pub file_name: FileName,
    /// Its size, in bytes. `None` if not known.
    pub size: Option<u64>,
    /// Its digest. `None` if not known.
    pub digest: Option<Digest>,
    /// Name of the token that its upload was begun with. `None`: without one.
    pub token: Option<String>,
    /// Anything else that its client told. `None` if it told nothing.
    pub metadata: Option<String>,
}

/// Number of times that a hook failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Number of failures.
    pub failed: u32,
    /// Not to be tried before this time, in milliseconds since 1970.
    pub again: u64,
    /// The reason it failed last; for people.
    pub why: String,
}

impl CompletionRecord {
    /// All records of a data folder, in the order in which the files were finished.
    ///
    /// # Errors
    /// `completed/` cannot be read. If it does not exist, there are no records.
    pub fn all(data: &DataDir) -> io::Result<Vec<CompletionRecord>> {
        let completed = data.completed();
        let entries = match std::fs::read_dir(&completed) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.at("listing", &completed)?,
        };
        let mut found = vec![];
        for entry in entries {
            let entry = entry.at("listing", &completed)?;
            let is_dir = entry.file_type().is_ok_and(|found| found.is_dir());
            match entry.file_name().into_string() {
                Ok(id) if is_dir && !id.starts_with('.') && id != FAILED => {
                    found.push(CompletionRecord { id, path: entry.path() });
                }
                _ => {}
            }
        }
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Its folder's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the file that it is about. `None` if it is gone.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file_name(&self) -> io::Result<Option<FileName>> {
        match self.upload() {
            Ok(upload) => Ok(Some(upload.file_name)),
            Err(_) if !self.path.exists() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn upload(&self) -> io::Result<UploadRecord> {
        let path = self.path.join(UPLOAD_JSON);
        let upload = UploadRecord::from_json(&disk::read_small(&path, MAX_UPLOAD_JSON)?);
        upload.map_err(|e| io::Error::new(ErrorKind::InvalidData, e)).at("reading", &path)
    }

    /// Number of times that its hook failed. A count that cannot be read is 0: the hook then gets more attempts than it
    /// needs.
    pub fn attempts(&self) -> Attempts {
        let read = disk::read_small(&self.path.join(TRIALS_JSON), MAX_TRIALS_JSON).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Locks the record for work on it. `None` if it is locked already, or gone.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn try_lock(&self) -> io::Result<Option<LockedCompletionRecord>> {
        match FileLock::try_now(&self.path.join(DIGESTS)) {
            Ok(Some(lock)) => {
                // The process that left the record may have died before that.
                tidy(&self.path);
                Ok(Some(LockedCompletionRecord { record: self.clone(), lock }))
            }
            Ok(None) => Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A record under its lock.
pub struct LockedCompletionRecord {
    record: CompletionRecord,
    lock: FileLock,
}

impl LockedCompletionRecord {
    /// Its place.
    pub fn record(&self) -> &CompletionRecord {
        &self.record
    }

    /// The facts that it tells.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn completion(&self) -> io::Result<Completion> {
        let upload = self.record.upload()?;
        let publication = Records(self.lock.file()).publication().at("reading the digest in", &self.record.path)?;
        Ok(Completion {
            file_name: upload.file_name,
            size: upload.plan.file_size,
            digest: publication.map(|publication| publication.digest),
            token: upload.token,
            metadata: upload.metadata,
        })
    }

    /// Writes down how often the hook failed.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn note(&self, attempts: &Attempts) -> io::Result<()> {
        let bytes = serde_json::to_vec(attempts).expect("strings and numbers always serialise");
        disk::replace_file(&self.record.path, TRIALS_JSON, &bytes, Durability::Process)
    }

    /// Removes it: the hook has succeeded. It goes from sight by one rename; a kill after it leaves a hidden folder.
    ///
    /// # Errors
    /// As the system gives them; it is still there then.
    pub fn remove(self) -> io::Result<()> {
        take_away(&self.record.path).map(|gone| delete(&gone))
    }

    /// Moves it to `completed/failed/`, with the reason `why`. A record that an operator moves back gets all its
    /// attempts again.
    ///
    /// # Errors
    /// As the system gives them; it is where it was.
    pub fn give_up(self, why: &str) -> io::Result<()> {
        let path = &self.record.path;
        let failed = path.with_file_name(FAILED);
        data_dir::create_folder(&failed)?;
        self.note(&Attempts { failed: 0, again: 0, why: why.to_owned() })?;
        std::fs::rename(path, failed.join(&self.record.id)).at("setting aside", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::{DigestKind, SliceDigest, of_bytes};
    use crate::protocol::plan::Plan;
    use crate::storage::finish::publish::{Hashed, Outcome, publish};
    use crate::storage::space::DiskSpace;
    use crate::storage::spool::{Publication, Spool, UploadId};
    use crate::storage::store::Store;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    struct Fixture {
        dir: tempfile::TempDir,
        data: DataDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(dir.path()).unwrap().recording_completions().unwrap();
            Fixture { dir, data }
        }

        /// Begins an upload whose only slice is `text`.
        fn begin(&self, name: &str, text: &str) -> Spool {
            let plan = Plan::new(Some(1), None, Some(text.len() as u64)).unwrap();
            let upload = UploadRecord::begin(FileName::new(name).unwrap(), plan.clone(), Some("s".to_owned()));
            let upload = UploadRecord { token: Some("t".to_owned()), ..upload };
            assert!(
                Spool::create(
                    &self.data,
                    &UploadId::of_name(&upload.file_name),
                    &upload,
                    &DiskSpace::new(&self.data, 0)
                )
                .unwrap()
            );
            let spool = Spool::of(&self.data, &UploadId::of_name(&upload.file_name));
            let mut locked = spool.lock().unwrap().unwrap();
            let mut arrival = locked.arrival(0, text.len() as u64, &plan, &DiskSpace::new(&self.data, 0)).unwrap();
            arrival.file().write_all(text.as_bytes()).unwrap();
            let hash = SliceDigest { kind: DigestKind::Hash, digest: of_bytes(text.as_bytes()) };
            locked.commit(&mut arrival, text.len() as u64, Some("s"), &[hash]).unwrap();
            spool
        }

        fn publish(&self, spool: &Spool) -> Outcome {
            let lock = spool.try_merger_lock().unwrap().unwrap();
            publish(&self.data, spool, &lock, Hashed::default()).unwrap()
        }

        fn only(&self) -> CompletionRecord {
            let mut found = CompletionRecord::all(&self.data).unwrap();
            assert_eq!(found.len(), 1);
            found.remove(0)
        }
    }

    #[test]
    fn a_published_file_leaves_a_notice_with_all_that_is_known_of_it() {
        let f = Fixture::new();
        let spool = f.begin("a/b", "text");
        fs::write(spool.path().join("0.x.part"), "left").unwrap();
        assert_eq!(f.publish(&spool), Outcome::Published(of_bytes(b"text")));
        assert!(!spool.path().exists());
        let record = f.only();
        assert_eq!(fs::read_dir(record.path()).unwrap().count(), 2, "what is left of the spool is gone");
        assert_eq!(record.file_name().unwrap().unwrap().as_str(), "a/b");
        let locked = record.try_lock().unwrap().unwrap();
        let expected = Completion {
            file_name: FileName::new("a/b").unwrap(),
            size: Some(4),
            digest: Some(of_bytes(b"text")),
            token: Some("t".to_owned()),
            metadata: None,
        };
        assert_eq!(locked.completion().unwrap(), expected);
        assert!(record.try_lock().unwrap().is_none(), "one at a time");
        locked.remove().unwrap();
        assert!(record.try_lock().unwrap().is_none() && record.file_name().unwrap().is_none());
        assert_eq!(fs::read_dir(f.data.completed()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_there_already_is_a_completion_too() {
        let f = Fixture::new();
        let spool = f.begin("x", "text");
        f.publish(&f.begin("other", "text"));
        fs::rename(f.data.files().join("other"), f.data.files().join("x")).unwrap();
        f.only().try_lock().unwrap().unwrap().remove().unwrap();
        assert_eq!(f.publish(&spool), Outcome::Published(of_bytes(b"text")));
        assert_eq!(f.only().try_lock().unwrap().unwrap().completion().unwrap().digest, Some(of_bytes(b"text")));
    }

    #[test]
    fn who_died_after_the_file_was_there_has_its_notice_left_by_the_next() {
        let f = Fixture::new();
        let spool = f.begin("x", "text");
        let inode = fs::metadata(spool.slice_path(0)).unwrap().ino();
        let publication = Publication { inode, digest: of_bytes(b"text") };
        spool.lock().unwrap().unwrap().records().set_publication(Some(publication)).unwrap();
        Store::new(&f.data).publish(&spool.slice_path(0), &FileName::new("x").unwrap(), false).unwrap();
        assert_eq!(f.publish(&spool), Outcome::Published(of_bytes(b"text")));
        assert_eq!(f.only().try_lock().unwrap().unwrap().completion().unwrap().size, Some(4));
    }

    #[test]
    fn notices_are_in_the_order_of_completion() {
        let f = Fixture::new();
        let names = ["z", "a", "m"];
        names.iter().for_each(|name| drop(f.publish(&f.begin(name, name))));
        let told = CompletionRecord::all(&f.data).unwrap();
        let told: Vec<String> =
            told.iter().map(|record| record.file_name().unwrap().unwrap().as_str().to_owned()).collect();
        assert_eq!(told, names);
        fs::write(f.data.completed().join("file"), "").unwrap();
        fs::create_dir(f.data.completed().join(".gone-1")).unwrap();
        assert_eq!(CompletionRecord::all(&f.data).unwrap().len(), 3);
    }

    #[test]
    fn trials_are_kept_and_begin_anew_for_what_is_moved_back() {
        let f = Fixture::new();
        f.publish(&f.begin("x", "text"));
        let record = f.only();
        assert_eq!(record.attempts(), Attempts::default());
        let attempts = Attempts { failed: 3, again: 5, why: "exit code 1".to_owned() };
        let locked = record.try_lock().unwrap().unwrap();
        locked.note(&attempts).unwrap();
        assert_eq!(record.attempts(), attempts);
        locked.give_up("it never worked").unwrap();
        assert!(CompletionRecord::all(&f.data).unwrap().is_empty());
        let failed = f.dir.path().join("completed/failed").join(record.id());
        fs::rename(failed, record.path()).unwrap();
        assert_eq!(f.only().attempts(), Attempts { failed: 0, again: 0, why: "it never worked".to_owned() });
        assert!(f.only().try_lock().unwrap().unwrap().completion().is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_no_name_and_no_trial() {
        let f = Fixture::new();
        f.publish(&f.begin("x", "text"));
        let record = f.only();
        fs::write(record.path().join(UPLOAD_JSON), "{").unwrap();
        fs::write(record.path().join(TRIALS_JSON), "{").unwrap();
        assert!(record.file_name().unwrap_err().to_string().contains("upload.json"));
        assert_eq!(record.attempts(), Attempts::default());
    }

    #[test]
    fn without_notices_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let f = Fixture { data: DataDir::create(dir.path()).unwrap(), dir };
        f.publish(&f.begin("x", "text"));
        assert!(!f.data.completed().exists() && CompletionRecord::all(&f.data).unwrap().is_empty());
    }
}
