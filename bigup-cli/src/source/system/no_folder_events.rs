//! Events of folders, where the system tells none to us: folders are scanned.

use super::folder_event::{FolderEvent, WatchError};
use std::io;
use std::path::Path;

/// A watched folder: there is none.
pub type FolderId = u64;

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
    pub fn next(&self) -> io::Result<Vec<FolderEvent<FolderId>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
