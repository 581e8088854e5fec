//! Errors of one round of sending.

use crate::client::error::CallError;
use crate::source::error::SourceError;
use bigup_core::protocol::plan::{MAX_FILE_SIZE, MAX_SLICES};
use bigup_core::protocol::units::show_size;

/// Why a round ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The bytes cannot be read.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// A request without a slice failed.
    #[error("{0}")]
    Call(#[from] CallError),
    /// A slice was not taken.
    #[error("slice {id}: {error}")]
    Slice {
        /// Its number.
        id: u64,
        /// The reason.
        error: CallError,
    },
    /// A slice was refused as if the upload were another push's.
    #[error("slice {id} was refused, another push took over: {error}")]
    Overtaken {
        /// Its number.
        id: u64,
        /// The refusal.
        error: CallError,
    },
    /// A slice has other content than before.
    #[error("slice {0} reads differently than before: the file changed, or the disk fails")]
    SliceChanged(u64),
    /// A slice is not one of the upload's.
    #[error("slice {0} has no place in this upload")]
    NoPlace(u64),
    /// The size of slices does not fit.
    #[error("{0}")]
    SliceSize(#[from] SliceSizeError),
    /// The upload was stopped.
    #[error("stopped")]
    Stopped,
}

/// Why slices of a size cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceSizeError {
    /// The file is larger than any may be.
    #[error("{0} bytes are too many: a file has at most {MAX_FILE_SIZE}")]
    FileTooLarge(u64),
    /// The file would have too many slices.
    #[error("{number} slices of {slice_size} bytes are too many: at most {MAX_SLICES}")]
    TooMany {
        /// Number of slices.
        number: u64,
        /// Bytes of each.
        slice_size: u64,
        /// Bytes of a slice with which there are few enough.
        fitting: u64,
    },
    /// The stream has more bytes than the slices of this size can hold.
    #[error("standard input has more than {MAX_SLICES} slices of {0} bytes")]
    StreamTooLong(u64),
    /// There is no memory for a slice of so many bytes.
    #[error("no memory for a slice of {}", show_size(*.0))]
    NoMemory(u64),
}
