//! Events of folders (inotify(7)): files that appear or are closed after writing, folders that come and go. Linux only.

use super::folder_event::{FolderEvent, FolderEventKind, WatchError};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::io;
use std::path::Path;

/// A watched folder.
pub type FolderId = WatchDescriptor;

/// Watched folders. Shared by threads.
pub struct FolderEvents(Inotify);

/// The events that are asked for. Writes themselves are not: a file is looked at again after a while anyway.
const WANTED: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_ONLYDIR)
    .union(AddWatchFlags::IN_DONT_FOLLOW);

impl FolderEvents {
    /// Watches nothing so far.
    ///
    /// # Errors
    /// No more of these are permitted.
    pub fn new() -> io::Result<FolderEvents> {
        Ok(FolderEvents(Inotify::init(InitFlags::IN_CLOEXEC)?))
    }

    /// Watches the folder `path` from now on; not what is below its folders. Watching it again changes nothing.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn watch(&self, path: &Path) -> Result<FolderId, WatchError> {
        self.0.add_watch(path, WANTED).map_err(|errno| match errno {
            Errno::ENOSPC | Errno::ENOMEM => WatchError::UsedUp(errno.into()),
            errno => WatchError::Folder(errno.into()),
        })
    }

    /// Watches this folder no more.
    pub fn forget(&self, folder: FolderId) {
        // It may have gone.
        let _ = self.0.rm_watch(folder);
    }

    /// Waits for events.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn next(&self) -> io::Result<Vec<FolderEvent<FolderId>>> {
        loop {
            match self.0.read_events() {
                Ok(events) => return Ok(events.into_iter().filter_map(event).collect()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn event(InotifyEvent { wd: folder, mask, name, .. }: InotifyEvent) -> Option<FolderEvent<FolderId>> {
    use AddWatchFlags as Flags;
    let is = |flags: AddWatchFlags| mask.intersects(flags);
    let kind = if is(Flags::IN_Q_OVERFLOW) {
        FolderEventKind::Lost
    } else if is(Flags::IN_IGNORED | Flags::IN_UNMOUNT) {
        FolderEventKind::Gone
    } else if is(Flags::IN_ISDIR) && is(Flags::IN_MOVED_FROM) {
        FolderEventKind::FolderLeft
    } else if is(Flags::IN_ISDIR) && is(Flags::IN_MOVED_TO | Flags::IN_CREATE) {
        FolderEventKind::Folder
    } else if !is(Flags::IN_ISDIR) && is(Flags::IN_MOVED_TO | Flags::IN_CREATE | Flags::IN_CLOSE_WRITE) {
        FolderEventKind::File
    } else {
        return None;
    };
    Some(FolderEvent { folder, name, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_and_folders_that_come_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let events = FolderEvents::new().unwrap();
        let folder = events.watch(dir.path()).unwrap();
        assert_eq!(events.watch(dir.path()).unwrap(), folder);
        fs::write(dir.path().join("a"), "a").unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::rename(dir.path().join("b"), dir.path().join("c")).unwrap();
        let mut told = vec![];
        while told.len() < 5 {
            told.extend(events.next().unwrap());
        }
        let expected = [
            (FolderEventKind::File, "a"),
            (FolderEventKind::File, "a"),
            (FolderEventKind::Folder, "b"),
            (FolderEventKind::FolderLeft, "b"),
            (FolderEventKind::Folder, "c"),
        ];
        let expected: Vec<_> =
            expected.map(|(kind, name)| FolderEvent { folder, name: Some(name.into()), kind }).into_iter().collect();
        assert_eq!(told, expected);
        assert!(matches!(events.watch(&dir.path().join("x")), Err(WatchError::Folder(_))));
    }
}
