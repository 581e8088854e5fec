//! An event in a watched folder, and the reason why there are none.

use std::ffi::OsString;
use std::io;

/// An event in a watched folder.
#[derive(Debug, PartialEq, Eq)]
pub struct FolderEvent<Id> {
    /// The folder.
    pub folder: Id,
    /// The name in it. `None`: the event is about the folder itself.
    pub name: Option<OsString>,
    /// The event.
    pub kind: FolderEventKind,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderEventKind {
    /// A file was made, moved here, or closed after writing.
    File,
    /// A folder was made or moved here.
    Folder,
    /// A folder was moved away. Its watch and those below it are still there.
    FolderLeft,
    /// The watched folder was removed, and its watch is gone too.
    Gone,
    /// Events were lost: anything may have happened.
    Lost,
}

/// The reason why a folder is not watched.
#[derive(Debug)]
pub enum WatchError {
    /// No more watches are permitted (`/proc/sys/fs/inotify`), or none at all.
    UsedUp(io::Error),
    /// The folder went, or cannot be read.
    Folder(io::Error),
}
