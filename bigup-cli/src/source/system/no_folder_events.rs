//! Events of folders, where the system tells none to us: folders are scanned.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A watched folder: there is none.
pub type FolderId = u64;

/// An event in a watched folder.
#[derive(Debug, PartialEq, Eq)]
pub struct FolderEvent {
    /// The folder.
    pub folder: FolderId,
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
    /// A folder was moved away.
    FolderLeft,
    /// The watched folder was removed.
    Gone,
    /// Events were lost: anything may have happened.
    Lost,
}

/// The reason why a folder is not watched.
#[derive(Debug)]
pub enum WatchError {
    /// No more watches are permitted, or none at all.
    UsedUp(io::Error),
    /// The folder went, or cannot be read.
    Folder(io::Error),
}

/// Watched folders: none.
pub struct FolderEvents(());

impl FolderEvents {
    /// There are no events.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<FolderEvents> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never.
    ///
    /// # Errors
    /// Always.
    pub fn watch(&self, _path: &Path) -> Result<FolderId, WatchError> {
        Err(WatchError::UsedUp(io::ErrorKind::Unsupported.into()))
    }

    /// Nothing.
    pub fn forget(&self, _folder: FolderId) {}

    /// Never.
    ///
    /// # Errors
    /// Always.
    pub fn next(&self) -> io::Result<Vec<FolderEvent>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
