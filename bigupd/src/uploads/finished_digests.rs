//! Content of finished files whose digest is not known for certain: they are read once somebody asks.
//!
//! A small one is read while its asker waits. Of the large ones one at a time is read by a thread of its own, and the
//! asker is told to come back. The digest is written down on the file, and remembered here for file systems that have
//! no place for it. It is a memory that spares reading and nothing else: it is tied to the file's inode and time of
//! change.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::disk::FileVersion;
use bigup_core::storage::store::{Entry, FinishedFile, Store, StoredDigest};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Largest file that is read while its asker waits, in bytes.
const SOON: u64 = 64 * MIB;

/// Number of files that are remembered.
const MOST: usize = 4096;

/// Results of reading. Shared by all requests.
#[derive(Clone, Debug, Default)]
pub struct FinishedDigests(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    known: VecDeque<(FileVersion, StoredDigest)>,
    /// A large file is being read.
    is_reading: bool,
}

impl FinishedDigests {
    /// The entry of `name`, which `found` does not tell for certain. `None` if it is being read, or must wait for that.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn read(&self, store: &Arc<Store>, name: &FileName, found: FinishedFile) -> io::Result<Option<Entry>> {
        if let Some(stored_digest) = self.known(store, name)? {
            return Ok(Some(Entry::File(FinishedFile { stored_digest: Some(stored_digest), ..found })));
        }
        if found.size <= SOON {
            return self.read_now(store, name).map(Some);
        }
        let mut state = self.lock();
        if !state.is_reading {
            let (finished_digests, store, name) = (self.clone(), Arc::clone(store), name.clone());
            let reading = move || {
                log::info!(file_name = name.as_str(); "{name}: reading all of it, since it may have changed");
                if let Err(e) = finished_digests.read_now(&store, &name) {
                    log::error!("{e}");
                }
                finished_digests.lock().is_reading = false;
            };
            std::thread::Builder::new().name("contents".to_owned()).spawn(reading)?;
            state.is_reading = true;
        }
        Ok(None)
    }

    fn known(&self, store: &Store, name: &FileName) -> io::Result<Option<StoredDigest>> {
        let Some(seen) = store.version(name)? else { return Ok(None) };
        Ok(self.remembered(&seen))
    }

    /// The digest of this version of a file, if a read found it out. Reads nothing.
    pub fn remembered(&self, seen: &FileVersion) -> Option<StoredDigest> {
        self.lock().known.iter().find(|(known, _)| known == seen).map(|(_, stored_digest)| stored_digest.clone())
    }

    fn read_now(&self, store: &Store, name: &FileName) -> io::Result<Entry> {
        let before = store.version(name)?;
        let entry = store.confirm(name)?;
        let after = store.version(name)?;
        // If the digest was written down on the file, its time of change moved, and nobody needs to remember it.
        if let (Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }), Some(seen)) = (&entry, after)
            && before == after
        {
            let mut state = self.lock();
            state.known.push_front((seen, stored_digest.clone()));
            state.known.truncate(MOST);
        }
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
