//! Errors of a download.

use crate::client::error::CallError;
use bigup_core::protocol::name::FileName;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not fetched.
///
/// The texts name the cause. They give no advice and name no flag of the command line.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// A request failed.
    #[error("{0}")]
    Call(CallError),
    /// There is no such file.
    #[error("there is no finished file {0} on the server")]
    Absent(FileName),
    /// The server cannot tell the digest, so that nothing can be checked.
    #[error("the server does not know the digest of {0}")]
    NoDigest(FileName),
    /// The file took another content meanwhile.
    #[error("{0} was replaced on the server meanwhile")]
    Replaced(FileName),
    /// Bytes of the server's file are wrong, also when they are fetched again.
    #[error("the bytes {first} to {last} of {name} do not match their digest: the server's file is damaged")]
    Damaged {
        /// The file.
        name: FileName,
        /// The first byte of the wrong part.
        first: u64,
        /// The last byte of the wrong part.
        last: u64,
    },
    /// Pieces are missing, although nothing failed: a fault of this program.
    #[error("pieces of {0} are missing, although nothing failed")]
    Incomplete(FileName),
    /// A file of other content is there.
    #[error("{} exists with other content", .0.display())]
    Exists(PathBuf),
    /// The destination is a folder or a device.
    #[error("{} is there and is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The destination was changed during the download.
    #[error("{} changed meanwhile, and was not replaced", .0.display())]
    Changed(PathBuf),
    /// Another download to the same place is at work.
    #[error("another download is at work on {}", .0.display())]
    Busy(PathBuf),
    /// A local file cannot be used.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// The action that was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The failure.
        cause: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The user stopped the download.
    #[error("stopped")]
    Stopped,
}

impl DownloadError {
    /// A failure of `action` on the file `path`.
    pub fn io(action: &'static str, path: &Path, cause: io::Error) -> DownloadError {
        DownloadError::Io { action, path: path.to_owned(), cause }
    }
}
