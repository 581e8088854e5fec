//! The search for leftovers in the store: of data folders that were lost, and of requests whose answers were lost.

use super::multipart::MultipartRecord;
use super::{Listed, Note, ObjectError, Objects, RESERVED, age};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

impl Objects {
    /// Removes notes that are older than `old` and of no object, together with the multipart uploads that they tell of.
    /// Those of the spools in `folders` stay. Returns the number of removed notes.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn sweep(&self, old: Duration, folders: &[PathBuf]) -> Result<u64, ObjectError> {
        let in_use: HashSet<String> =
            folders.iter().filter_map(|folder| MultipartRecord::read(folder)).map(|record| record.note).collect();
        let root = format!("{}/", self.key_of(RESERVED));
        let mut left = vec![];
        self.pages(&root, "", false, |listed| {
            if let Listed::Object { name, modified, .. } = listed
                && age(modified) >= old
                && let Some(note) = name.strip_prefix(&root).filter(|note| !in_use.contains(*note))
            {
                left.push(note.to_owned());
            }
            ControlFlow::Continue(())
        })?;
        let mut removed = 0;
        for note in left {
            if self.is_of_no_use(&note, old)? {
                self.delete(&self.note_key(&note))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The names of all notes.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn notes(&self) -> Result<Vec<String>, ObjectError> {
        let root = format!("{}/", self.key_of(RESERVED));
        let mut notes = vec![];
        self.pages(&root, "", false, |listed| {
            notes.extend(listed.name().strip_prefix(&root).map(str::to_owned));
            ControlFlow::Continue(())
        })?;
        Ok(notes)
    }

    /// True if no object has this note. Multipart uploads to its key that are old are ended.
    fn is_of_no_use(&self, name: &str, old: Duration) -> Result<bool, ObjectError> {
        let Some(Note { name: file_name, .. }) = self.note(name)? else {
            return Ok(name.starts_with("check-"));
        };
        let key = self.key_of(&file_name);
        if self.head(&key)?.is_some_and(|object| object.note.as_deref() == Some(name)) {
            return Ok(false);
        }
        for id in self.uploads_to(&key, old)? {
            log::info!("ending an upload of parts to {file_name} that nobody goes on with");
            self.abort(&key, &id)?;
        }
        Ok(true)
    }
}
