//! Finding files: by events of folders where the system tells them, and by scans behind that.
//!
//! A folder is watched first, and read then: a file that appears in between is found twice, and none is missed. Where watches
//! are used up, or nobody tells (network file systems, other systems than Linux), folders are only scanned.

use crate::source::fingerprint::Fingerprint;
use crate::source::system;
use crate::source::system::folder_event::{FolderEvent, FolderEventKind, WatchError};
use crate::source::system::folder_events::{FolderEvents, FolderId};
use crate::watch::afterwards::{ASIDE, restore};
use crate::watch::paths::{below, place};
use crate::watch::rules::Rules;
use crossbeam_channel::{Receiver, never};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Batches of events that wait to be looked at; more wait in the system, which tells when it loses some.
const BATCHES: usize = 64;

/// The watched folder, and all below it.
pub struct Seeing {
    root: PathBuf,
    /// `None`: folders are only scanned.
    events: Option<Arc<FolderEvents>>,
    arrived: Receiver<Vec<FolderEvent<FolderId>>>,
    /// Watched folders, by their paths below the root.
    folders: HashMap<FolderId, String>,
}

/// The findings of a scan or of events.
pub trait Finder {
    /// A file that is not left out, and its fingerprint.
    fn found(&mut self, path: &str, fingerprint: Fingerprint);

    /// A file or folder that cannot be looked at, and the reason.
    fn failed(&mut self, path: &Path, message: &str);

    /// From now on folders are only scanned, for this reason.
    fn only_scans(&mut self, reason: &str);
}

impl Seeing {
    /// Looks at `root`; nothing is watched before the first scan. Returns the reason why there are only scans, where there
    /// are.
    pub fn new(root: &Path) -> (Seeing, Option<String>) {
        let scans = |reason: String| {
            let seeing = Seeing { root: root.to_owned(), events: None, arrived: never(), folders: HashMap::new() };
            (seeing, Some(reason))
        };
        match system::is_shared(root) {
            Ok(false) => {}
            Ok(true) => return scans("no events are told of this file system".to_owned()),
            Err(error) => return scans(format!("its file system is not known: {error}")),
        }
        let events = match FolderEvents::new() {
            Ok(events) => Arc::new(events),
            Err(error) => return scans(format!("its folders cannot be watched: {error}")),
        };
        let (tell, arrived) = crossbeam_channel::bounded(BATCHES);
        let source = Arc::clone(&events);
        // It ends with the program: a wait for events cannot be cut short.
        thread::spawn(move || {
            while let Ok(batch) = source.next() {
                if tell.send(batch).is_err() {
                    return;
                }
            }
        });
        (Seeing { root: root.to_owned(), events: Some(events), arrived, folders: HashMap::new() }, None)
    }

    /// True if events are told.
    pub fn has_events(&self) -> bool {
        self.events.is_some()
    }

    /// Number of watched folders.
    pub fn watched(&self) -> usize {
        self.folders.len()
    }

    /// Where events arrive, for [`Seeing::look`].
    pub fn arrived(&self) -> &Receiver<Vec<FolderEvent<FolderId>>> {
        &self.arrived
    }

    /// Looks at what events tell of. True if all must be scanned, since events were lost.
    pub fn look(&mut self, batch: Vec<FolderEvent<FolderId>>, rules: &dyn Rules, finder: &mut dyn Finder) -> bool {
        let mut is_lost = false;
        for FolderEvent { folder, name, kind } in batch {
            match (kind, self.folders.get(&folder)) {
                (FolderEventKind::Lost, _) => is_lost = true,
                (FolderEventKind::Gone, Some(path)) => {
                    is_lost |= path.is_empty();
                    self.folders.remove(&folder);
                }
                (kind, Some(path)) => {
                    let Some(name) = name else { continue };
                    let Some(name) = name.to_str() else {
                        finder.failed(&place(&self.root, path).join(&name), NOT_UTF8);
                        continue;
                    };
                    let path = below(path, name);
                    match kind {
                        FolderEventKind::File => self.one(&path, rules, finder),
                        FolderEventKind::Folder => {
                            self.scan(&path, rules, finder);
                        }
                        _ => self.forget_below(&path),
                    }
                }
                // One that left: its last events.
                (_, None) => {}
            }
        }
        is_lost
    }

    fn one(&self, path: &str, rules: &dyn Rules, finder: &mut dyn Finder) {
        let full = place(&self.root, path);
        // What is gone by now needs no look.
        if fs::symlink_metadata(&full).is_ok_and(|found| found.is_file()) {
            self.file(&full, path, rules, finder);
        }
    }

    fn file(&self, full: &Path, path: &str, rules: &dyn Rules, finder: &mut dyn Finder) {
        match system::fingerprint_at(full) {
            Ok(found) if rules.leaves_out(Path::new(path), found.size) => {}
            Ok(found) => finder.found(path, found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => finder.failed(full, &error.to_string()),
        }
    }

    /// Finds all files at and below the folder `path`, itself below the root, and watches the folders. True if all was seen.
    pub fn scan(&mut self, path: &str, rules: &dyn Rules, finder: &mut dyn Finder) -> bool {
        if !path.is_empty() && (Path::new(path).ends_with(ASIDE) || rules.leaves_out_folder(Path::new(path))) {
            return true;
        }
        let (mut is_complete, mut folders) = (true, vec![path.to_owned()]);
        while let Some(folder) = folders.pop() {
            let full = place(&self.root, &folder);
            self.watch(&full, &folder, finder);
            let result = fs::read_dir(&full).and_then(|entries| {
                entries.into_iter().try_for_each(|entry| self.entry(&entry?, &folder, &mut folders, rules, finder))
            });
            match result {
                Ok(()) => {}
                // One that went meanwhile; but not the watched one itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => {}
                Err(error) => {
                    is_complete = false;
                    finder.failed(&full, &error.to_string());
                }
            }
        }
        is_complete
    }

    fn entry(
        &self,
        entry: &fs::DirEntry,
        folder: &str,
        folders: &mut Vec<String>,
        rules: &dyn Rules,
        finder: &mut dyn Finder,
    ) -> io::Result<()> {
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if !kind.is_dir() && !kind.is_file() {
            return Ok(());
        }
        let Some(name) = name.to_str() else {
            finder.failed(&entry.path(), NOT_UTF8);
            return Ok(());
        };
        let path = below(folder, name);
        if kind.is_file() {
            self.file(&entry.path(), &path, rules, finder);
        } else if name == ASIDE {
            // Of a program that was killed.
            if let Err(error) = restore(&place(&self.root, folder)) {
                finder.failed(&entry.path(), &error.to_string());
            }
        } else if !rules.leaves_out_folder(Path::new(&path)) {
            folders.push(path);
        }
        Ok(())
    }

    fn watch(&mut self, full: &Path, path: &str, finder: &mut dyn Finder) {
        let Some(events) = &self.events else { return };
        match events.watch(full) {
            Ok(id) => {
                self.folders.insert(id, path.to_owned());
            }
            Err(WatchError::UsedUp(error)) => {
                let watched = self.folders.len();
                self.give_up();
                finder.only_scans(&format!(
                    "{watched} folders are watched, and the system permits no more: raise fs.inotify.max_user_watches \
                     (sysctl): {error}"
                ));
            }
            // Reading it tells the reason.
            Err(WatchError::Folder(_)) => {}
        }
    }

    /// Gives all watches back, for others. From now on there are only scans.
    pub fn give_up(&mut self) {
        if let Some(events) = self.events.take() {
            self.folders.drain().for_each(|(id, _)| events.forget(id));
        }
        self.arrived = never();
    }

    fn forget_below(&mut self, path: &str) {
        let Some(events) = &self.events else { return };
        let is_below =
            |folder: &str| folder.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.folders.retain(|id, folder| {
            let goes = is_below(folder);
            if goes {
                events.forget(*id);
            }
            !goes
        });
    }
}

/// The reason why a name cannot be pushed.
const NOT_UTF8: &str = "its name is not UTF-8: rename it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::afterwards::aside;
    use std::collections::BTreeSet;

    struct All;

    impl Rules for All {
        fn leaves_out_folder(&self, path: &Path) -> bool {
            path.ends_with("left-out")
        }

        fn leaves_out(&self, _path: &Path, size: u64) -> bool {
            size > 100
        }

        fn has_units(&self) -> bool {
            false
        }

        fn is_marker(&self, _path: &Path) -> bool {
            false
        }
    }

    #[derive(Default)]
    struct Found(BTreeSet<String>);

    impl Finder for Found {
        fn found(&mut self, path: &str, _fingerprint: Fingerprint) {
            self.0.insert(path.to_owned());
        }

        fn failed(&mut self, path: &Path, message: &str) {
            panic!("{}: {message}", path.display());
        }

        fn only_scans(&mut self, reason: &str) {
            panic!("{reason}");
        }
    }

    fn write(root: &Path, path: &str) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "x").unwrap();
    }

    #[test]
    fn a_scan_finds_all_files_that_are_not_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a", "b/c", "b/d/e", "left-out/f", "b/left-out/g"] {
            write(dir.path(), path);
        }
        fs::write(dir.path().join("large"), [0; 101]).unwrap();
        aside(&dir.path().join("b/c")).unwrap();
        let (mut seeing, _) = Seeing::new(dir.path());
        let mut found = Found::default();
        assert!(seeing.scan("", &All, &mut found));
        // What lies aside is brought back, and found by the next one.
        assert!(seeing.scan("", &All, &mut found));
        assert_eq!(found.0.iter().collect::<Vec<_>>(), ["a", "b/c", "b/d/e"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn events_find_what_appears_also_in_folders_that_are_new_or_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        let (mut seeing, reason) = Seeing::new(&root);
        assert_eq!(reason, None);
        let mut found = Found::default();
        assert!(seeing.scan("", &All, &mut found) && found.0.is_empty());
        let expect = |seeing: &mut Seeing, expected: &[&str]| {
            let mut found = Found::default();
            while !expected.iter().all(|path| found.0.contains(*path)) {
                let batch = seeing.arrived().recv_timeout(std::time::Duration::from_secs(20));
                let batch = batch.unwrap_or_else(|_| panic!("{expected:?}, and only {:?}", found.0));
                assert!(!seeing.look(batch, &All, &mut found));
            }
        };
        write(&root, "a");
        expect(&mut seeing, &["a"]);
        for n in 0..50 {
            write(&root, &format!("new/{n}/x/f"));
        }
        let all: Vec<String> = (0..50).map(|n| format!("new/{n}/x/f")).collect();
        expect(&mut seeing, &all.iter().map(String::as_str).collect::<Vec<_>>());
        fs::rename(root.join("new/7"), root.join("moved")).unwrap();
        expect(&mut seeing, &["moved/x/f"]);
        write(&root, "moved/x/later");
        expect(&mut seeing, &["moved/x/later"]);
        fs::rename(root.join("moved"), &outside).unwrap();
        write(&outside, "x/unseen");
        write(&root, "last");
        expect(&mut seeing, &["last"]);
        assert!(!seeing.folders.values().any(|path| path.starts_with("moved")), "{:?}", seeing.folders);
        write(&dir.path().join("tree"), "b/c");
        fs::rename(dir.path().join("tree"), root.join("tree")).unwrap();
        expect(&mut seeing, &["tree/b/c"]);
    }
}
