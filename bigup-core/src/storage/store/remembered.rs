//! The folder that was walked to last, for further names in it.

use super::StoreError;
use std::fs::{File, Metadata};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Remembers one folder below `files/`, or none.
#[derive(Debug, Default)]
pub(super) struct RememberedFolder(Option<Mutex<Last>>);

/// Facts of the folder of this name.
#[derive(Debug, Default)]
struct Last {
    name: String,
    found: Option<Found>,
    /// The innermost folder on the way to it that is there.
    deepest: Option<Metadata>,
    /// Files can be moved to it.
    is_in_reach: bool,
}

#[derive(Clone, Debug)]
enum Found {
    Opened(Arc<File>),
    Missing,
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

    /// The folder `name`, to which `walk` leads unless it is the last one.
    ///
    /// # Errors
    /// Those of `walk`. That the folder is missing is remembered too.
    pub(super) fn find(
        &self,
        name: &str,
        walk: impl FnOnce() -> Result<File, StoreError>,
    ) -> Result<Arc<File>, StoreError> {
        match self.of(name).and_then(|last| last.found.clone()) {
            Some(Found::Opened(opened)) => return Ok(opened),
            Some(Found::Missing) => return Err(StoreError::Io(io::ErrorKind::NotFound.into())),
            None => {}
        }
        let walked = walk();
        if matches!(&walked, Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound) {
            self.note(name, |last| last.found = Some(Found::Missing));
        }
        let opened = Arc::new(walked?);
        self.note(name, |last| last.found = Some(Found::Opened(Arc::clone(&opened))));
        Ok(opened)
    }

    /// The same, where `walk` makes the folder if it is missing.
    ///
    /// # Errors
    /// Those of `walk`.
    pub(super) fn find_or_make(
        &self,
        name: &str,
        walk: impl FnOnce() -> Result<File, StoreError>,
    ) -> Result<Arc<File>, StoreError> {
        self.note(name, |last| {
            if let Some(Found::Missing) = last.found {
                last.found = None;
            }
        });
        self.find(name, walk)
    }

    /// The innermost folder on the way to `name` that is there, as `look` finds it.
    ///
    /// # Errors
    /// Those of `look`.
    pub(super) fn deepest(&self, name: &str, look: impl FnOnce() -> io::Result<Metadata>) -> io::Result<Metadata> {
        if let Some(deepest) = self.of(name).and_then(|last| last.deepest.clone()) {
            return Ok(deepest);
        }
        let deepest = look()?;
        self.note(name, |last| last.deepest = Some(deepest.clone()));
        Ok(deepest)
    }

    /// The reason no file can be moved to the folder `name`, as `look` finds it. `None`: one can.
    ///
    /// # Errors
    /// Those of `look`.
    pub(super) fn out_of_reach(
        &self,
        name: &str,
        look: impl FnOnce() -> io::Result<Option<String>>,
    ) -> io::Result<Option<String>> {
        if self.of(name).is_some_and(|last| last.is_in_reach) {
            return Ok(None);
        }
        let why = look()?;
        self.note(name, |last| last.is_in_reach = why.is_none());
        Ok(why)
    }

    /// The folder may be gone, or be there.
    pub(super) fn forget(&self) {
        self.lock().into_iter().for_each(|mut last| *last = Last::default());
    }

    /// The remembered facts, if they are those of the folder `name`.
    fn of(&self, name: &str) -> Option<MutexGuard<'_, Last>> {
        self.lock().filter(|last| last.name == name)
    }

    fn note(&self, name: &str, fact: impl FnOnce(&mut Last)) {
        let Some(mut last) = self.lock() else { return };
        if last.name != name {
            *last = Last { name: name.to_owned(), ..Last::default() };
        }
        fact(&mut last);
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
        for (folder, expected) in
            [("", 1), ("", 1), ("a", 2), ("a", 2), ("a/b", 3), ("a/b", 3), ("a", 4), ("", 5), ("", 5)]
        {
            last.find(folder, walk).unwrap();
            assert_eq!(walks.get(), expected, "{folder}");
        }
        last.find_or_make("", walk).unwrap();
        assert_eq!(walks.get(), 5);
        last.forget();
        last.find_or_make("", walk).unwrap();
        assert_eq!(walks.get(), 6);
        let none = RememberedFolder::none();
        (0..2).for_each(|_| drop(none.find("a", walk).unwrap()));
        assert_eq!(walks.get(), 8);
    }

    #[test]
    fn a_missing_folder_is_looked_for_once_until_it_is_made() {
        let missing = || Err(StoreError::Io(io::ErrorKind::NotFound.into()));
        let last = RememberedFolder::last();
        assert!(last.find("a", missing).is_err());
        assert!(last.find("a", || unreachable!("it is known to be missing")).is_err());
        last.find_or_make("a", || Ok(tempfile::tempfile()?)).unwrap();
        last.find("a", missing).unwrap();
        assert!(matches!(last.find("b", || Err(StoreError::Exists)), Err(StoreError::Exists)));
        last.find("b", || Ok(tempfile::tempfile()?)).unwrap();
    }

    #[test]
    fn facts_of_a_folder_are_those_of_the_last_one_alone() {
        let asked = Cell::new(0);
        let last = RememberedFolder::last();
        let ask = |folder: &str, why: Option<&str>| {
            last.out_of_reach(folder, || {
                asked.set(asked.get() + 1);
                Ok(why.map(str::to_owned))
            })
            .unwrap()
        };
        assert_eq!((ask("a", None), ask("a", None), asked.get()), (None, None, 1));
        assert_eq!((ask("b", Some("mount")), ask("b", None), asked.get()), (Some("mount".to_owned()), None, 3));
        assert_eq!((ask("a", None), asked.get()), (None, 4));
        let found = || std::fs::metadata(".");
        last.deepest("a", found).unwrap();
        last.deepest("a", || unreachable!("it is known")).unwrap();
        last.forget();
        last.deepest("a", found).unwrap();
    }
}
