//! What finished files hold whose digest is not known for certain: they are read once somebody asks.
//!
//! A small one is read while its asker waits. Of the large ones one at a time is read by a thread of its own, and who asks
//! is told to come back. What was found is written down on the file, and remembered here for file systems that have no
//! place for it. It is a memory that spares reading and nothing else: it is tied to the file's inode and time of change.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::disk::Seen;
use bigup_core::storage::store::{Entry, Finished, Stamp, Store};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Largest file that is read while its asker waits, in bytes.
const SOON: u64 = 64 * MIB;

/// How many files are remembered.
const MOST: usize = 4096;

/// What was read. Shared by all requests.
#[derive(Clone, Debug, Default)]
pub struct Contents(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    known: VecDeque<(Seen, Stamp)>,
    /// A large file is being read.
    is_reading: bool,
}

impl Contents {
    /// What `name` is, which `found` does not say for certain. None: it is being read, or must wait for that.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn read(&self, store: &Arc<Store>, name: &FileName, found: Finished) -> io::Result<Option<Entry>> {
        if let Some(stamp) = self.known(store, name)? {
            return Ok(Some(Entry::File(Finished { stamp: Some(stamp), ..found })));
        }
        if found.size <= SOON {
            return self.read_now(store, name).map(Some);
        }
        let mut state = self.lock();
        if !state.is_reading {
            let (contents, store, name) = (self.clone(), Arc::clone(store), name.clone());
            let reading = move || {
                log::info!(upload = name.as_str(); "{name}: reading all of it, since it may have changed");
                if let Err(e) = contents.read_now(&store, &name) {
                    log::error!("{e}");
                }
                contents.lock().is_reading = false;
            };
            std::thread::Builder::new().name("contents".to_owned()).spawn(reading)?;
            state.is_reading = true;
        }
        Ok(None)
    }

    fn known(&self, store: &Store, name: &FileName) -> io::Result<Option<Stamp>> {
        let Some(seen) = Seen::of(&store.path_of(name))? else { return Ok(None) };
        Ok(self.lock().known.iter().find(|(known, _)| *known == seen).map(|(_, stamp)| stamp.clone()))
    }

    fn read_now(&self, store: &Store, name: &FileName) -> io::Result<Entry> {
        let path = store.path_of(name);
        let before = Seen::of(&path)?;
        let entry = store.confirm(name)?;
        let after = Seen::of(&path)?;
        // Where it was written down on the file its time of change moved, and nobody needs to remember it.
        if let (Entry::File(Finished { stamp: Some(stamp), .. }), Some(seen)) = (&entry, after)
            && before == after
        {
            let mut state = self.lock();
            state.known.push_front((seen, stamp.clone()));
            state.known.truncate(MOST);
        }
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
