//! Removal of a finished file.
//!
//! The file that is removed is the one that was looked at. Nothing unlinks a name only if it still names a certain
//! file. So a removal has an exclusive lock on the folder while it looks and unlinks, and a publication that replaces a
//! file has a shared one while it renames. Publications that replace nothing need none: the name is taken then.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  unlinked            the file is gone; a power cut may bring it back
//! 2  its folder synced   the file is gone for good
//! ```
//! In a store of objects the file is removed by its name: no request of such stores removes a certain version only.
//!
//! Folders stay, also empty ones: an operator may have given them a group, a mode or a quota. A file in the place of
//! empty folders makes them go.

use super::folder::last_component;
use super::{OpenEntry, OpenFile, Store, StoreError, in_objects};
use crate::protocol::name::FileName;
use crate::storage::disk::{FileLock, IoContext};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::io;

/// The result of a removal.
#[derive(Debug)]
pub enum Removal {
    /// The file is gone for good.
    Removed,
    /// The file stays: it is not the one that was meant.
    Kept,
    /// There was no finished file of that name.
    Nothing,
}

impl Store {
    /// Removes the finished file `name`, if it is the one that `is_meant`. It survives no power cut once this returns.
    /// Readers that have it open read on.
    ///
    /// # Errors
    /// As the system gives them; the file may be gone, but not for good.
    pub fn remove(&self, name: &FileName, is_meant: impl FnOnce(OpenFile) -> bool) -> io::Result<Removal> {
        if let Some(objects) = &self.objects {
            return in_objects::remove(objects, name, is_meant);
        }
        let folder = match self.folder_of(name) {
            Ok(folder) => folder,
            Err(StoreError::Io(e)) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => return Ok(Removal::Nothing),
        };
        let removal = self.remove_in(&folder, name, is_meant)?;
        if let Removal::Removed = removal {
            folder.sync_all().at("syncing the folder of", &self.path_of(name))?;
        }
        Ok(removal)
    }

    fn remove_in(
        &self,
        folder: &File,
        name: &FileName,
        is_meant: impl FnOnce(OpenFile) -> bool,
    ) -> io::Result<Removal> {
        let path = self.path_of(name);
        let _lock = FileLock::on(folder.try_clone().at("opening the folder of", &path)?, &path)?;
        let OpenEntry::File(file, found) = self.open_in(folder, name)? else { return Ok(Removal::Nothing) };
        if !is_meant(self.look_at(name, file, &found)?) {
            return Ok(Removal::Kept);
        }
        unlinkat(folder, last_component(name), UnlinkatFlags::NoRemoveDir).at("removing", &path)?;
        Ok(Removal::Removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::data_dir::DataDir;
    use std::fs;
    use std::path::Path;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn store(folder: &Path) -> Store {
        let data = DataDir::create(folder).unwrap();
        fs::create_dir_all(data.files().join("a/b")).unwrap();
        fs::write(data.files().join("a/b/c"), "text").unwrap();
        Store::new(&data)
    }

    #[test]
    fn the_file_that_is_meant_goes_and_its_folders_and_readers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let open = store.open_file(&name("a/b/c")).unwrap().unwrap().content;
        assert!(matches!(store.remove(&name("a/b/c"), |_| false).unwrap(), Removal::Kept));
        let is_meant = |found: OpenFile| found.size == 4;
        assert!(matches!(store.remove(&name("a/b/c"), is_meant).unwrap(), Removal::Removed));
        assert!(matches!(store.remove(&name("a/b/c"), |_| true).unwrap(), Removal::Nothing));
        assert!(dir.path().join("files/a/b").is_dir());
        let mut text = [0; 4];
        open.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"text");
    }

    #[test]
    fn nothing_but_a_finished_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let files = dir.path().join("files");
        fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), files.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), files.join("file-link")).unwrap();
        nix::unistd::mkfifo(&files.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in ["a", "a/b", "link", "link/outside", "file-link", "fifo", "x", "x/y", "a/b/c/d"] {
            let removal = store.remove(&name(other), |_| panic!("{other} is looked at")).unwrap();
            assert!(matches!(removal, Removal::Nothing), "{other}");
        }
        assert!(dir.path().join("outside").exists() && files.join("link").exists() && files.join("fifo").exists());
    }

    #[test]
    fn a_file_that_replaces_the_one_that_is_meant_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let next = dir.path().join("tmp/next");
        for _ in 0..300 {
            fs::write(dir.path().join("files/a/b/c"), "text").unwrap();
            fs::write(&next, "replaced").unwrap();
            std::thread::scope(|threads| {
                threads.spawn(|| store.publish(&next, &name("a/b/c"), true).unwrap());
                threads.spawn(|| store.remove(&name("a/b/c"), |found| found.size == 4).unwrap());
            });
            assert_eq!(fs::read_to_string(dir.path().join("files/a/b/c")).unwrap(), "replaced");
        }
    }

    #[test]
    fn a_replacement_waits_for_a_removal() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let next = dir.path().join("tmp/next");
        fs::write(&next, "replaced").unwrap();
        std::thread::scope(|threads| {
            let removal = store.remove(&name("a/b/c"), |_| {
                threads.spawn(|| store.publish(&next, &name("a/b/c"), true).unwrap());
                // Long enough for the rename, if nothing held it up.
                std::thread::sleep(std::time::Duration::from_millis(200));
                next.exists()
            });
            assert!(matches!(removal.unwrap(), Removal::Removed));
        });
        assert_eq!(fs::read_to_string(dir.path().join("files/a/b/c")).unwrap(), "replaced");
    }
}
