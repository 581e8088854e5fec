//! The folder that was walked to last, for further names in it.

use super::StoreError;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Remembers one folder, or none.
#[derive(Debug, Default)]
pub(super) struct RememberedFolder(Option<Mutex<Last>>);

#[derive(Debug, Default)]
struct Last {
    /// The folder, by the name that it has below `files/`, and opened.
    opened: Option<(String, Arc<File>)>,
    /// The folder to which files can be moved.
    in_reach: Option<String>,
}

impl RememberedFolder {
    /// Each walk is done anew.
    pub(super) fn none() -> RememberedFolder {
        RememberedFolder(None)
    }

    /// The last one is remembered.
    pub(super) fn last() -> RememberedFolder {
        RememberedFolder(Some(Mutex::default()))
    }

    /// The folder of this name, if it is the last one.
    pub(super) fn get(&self, folder: &str) -> Option<Arc<File>> {
        self.lock()?.opened.as_ref().filter(|(name, _)| name == folder).map(|(_, opened)| Arc::clone(opened))
    }

    /// The same, or that to which `walk` leads.
    ///
    /// # Errors
    /// Those of `walk`.
    pub(super) fn get_or_walk(
        &self,
        folder: &str,
        walk: impl FnOnce() -> Result<File, StoreError>,
    ) -> Result<Arc<File>, StoreError> {
        if let Some(opened) = self.get(folder) {
            return Ok(opened);
        }
        let opened = Arc::new(walk()?);
        if let Some(mut last) = self.lock() {
            last.opened = Some((folder.to_owned(), Arc::clone(&opened)));
        }
        Ok(opened)
    }

    /// True if it is known that files can be moved to the folder of this name.
    pub(super) fn is_in_reach(&self, folder: &str) -> bool {
        self.lock().is_some_and(|last| last.in_reach.as_deref() == Some(folder))
    }

    /// Files can be moved to the folder of this name.
    pub(super) fn note_in_reach(&self, folder: &str) {
        if let Some(mut last) = self.lock() {
            last.in_reach = Some(folder.to_owned());
        }
    }

    /// The folder may have gone.
    pub(super) fn forget(&self) {
        if let Some(mut last) = self.lock() {
            *last = Last::default();
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Last>> {
        self.0.as_ref().map(|last| last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_last_folder_is_walked_to_once_and_again_after_it_is_forgotten() {
        let walks = Cell::new(0);
        let walk = || {
            walks.set(walks.get() + 1);
            Ok(tempfile::tempfile()?)
        };
        let last = RememberedFolder::last();
        for (folder, expected) in [("a", 1), ("a", 1), ("a/b", 2), ("a/b", 2), ("a", 3), ("", 4), ("", 4)] {
            last.get_or_walk(folder, walk).unwrap();
            assert_eq!(walks.get(), expected, "{folder}");
        }
        last.note_in_reach("a");
        assert!(last.is_in_reach("a") && !last.is_in_reach("a/b") && last.get("a").is_none());
        last.forget();
        assert!(!last.is_in_reach("a") && last.get("").is_none());
        let none = RememberedFolder::none();
        none.note_in_reach("a");
        (0..2).for_each(|_| drop(none.get_or_walk("a", walk).unwrap()));
        assert!(walks.get() == 6 && !none.is_in_reach("a"));
    }

    #[test]
    fn a_walk_that_fails_is_not_remembered() {
        let last = RememberedFolder::last();
        assert!(matches!(last.get_or_walk("a", || Err(StoreError::Exists)), Err(StoreError::Exists)));
        assert!(last.get("a").is_none());
    }
}
