//! Errors of local files and other inputs.

use std::io;
use std::path::PathBuf;

/// Why bytes to be pushed cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system refuses an operation on a file.
    #[error("cannot {action} {path}: {cause}")]
    Io {
        /// The operation, as a verb: `open`, `find`, `look at`, `read`, `start`.
        action: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// A part of a file cannot be read.
    #[error("cannot read {len} bytes at {offset} of {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// First byte of the part.
        offset: u64,
        /// Bytes of the part.
        len: usize,
        /// The system's reason.
        cause: io::Error,
    },
    /// The path leads to a folder, a pipe or a device.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// The size of the file is 0, but reading it gives bytes, as with files of /proc.
    #[error("{0} tells a size of 0 bytes but has content, as files of /proc do")]
    HiddenContent(PathBuf),
    /// Another program changed the file; the text names the difference.
    #[error("changed while it was being pushed ({0}); nothing mixed was stored")]
    Changed(String),
    /// Two reads of the same bytes gave different content.
    #[error("changed while it was being pushed (it reads differently than before); nothing mixed was stored")]
    ReadsDifferently,
    /// The requested bytes lie beyond the end.
    #[error("beyond the end")]
    BeyondTheEnd,
    /// A stream cannot be read.
    #[error("cannot read the input: {0}")]
    Input(io::Error),
    /// The writer of a stream failed, so that its output is not complete.
    #[error("nothing was stored: {0}")]
    Incomplete(io::Error),
    /// The command to run is empty.
    #[error("the command is empty")]
    NoCommand,
    /// The upload was stopped meanwhile.
    #[error("stopped")]
    Stopped,
}

impl SourceError {
    /// True if the bytes changed between two reads. Another upload reads the new bytes.
    pub fn is_change(&self) -> bool {
        matches!(self, SourceError::Changed(_) | SourceError::ReadsDifferently)
    }
}
