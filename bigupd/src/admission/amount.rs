//! Amounts that count against quotas: bytes and files, on disk and in unfinished uploads.

use bigup_core::protocol::plan::Plan;
use bigup_core::storage::spool::Holdings;

/// Bytes that a file, a folder or a slice counts for at least: a block of most file systems.
pub const BLOCK: u64 = 4096;

/// A number of bytes and of files that exist, or are to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes, where a file or a folder has a [`BLOCK`] at least.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
}

impl Amount {
    /// That of one file, or one unfinished upload, of this many bytes.
    pub fn of_file(bytes: u64) -> Amount {
        Amount { bytes: bytes.max(BLOCK), files: 1 }
    }

    /// That of so many folders.
    pub fn of_folders(number: u64) -> Amount {
        Amount { bytes: number.saturating_mul(BLOCK), files: number }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount { bytes: self.bytes.saturating_add(other.bytes), files: self.files.saturating_add(other.files) }
    }

    /// The rest without `other`; zero where `other` is more.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount { bytes: self.bytes.saturating_sub(other.bytes), files: self.files.saturating_sub(other.files) }
    }
}

/// Bytes that an unfinished upload counts for: the size of its file, or the bytes of its held slices while the size is
/// not known. A slice counts as a [`BLOCK`] at least, since it can wait in a file of its own.
pub fn bytes_of(plan: &Plan, holdings: &Holdings) -> u64 {
    let blocks = |slices: u64| slices.saturating_mul(BLOCK);
    let bytes = match plan.file_size {
        Some(size) => size.max(blocks(plan.slice_num.unwrap_or(0))),
        None => holdings.ranges().count().saturating_mul(plan.slice_size.unwrap_or(0).max(BLOCK)),
    };
    bytes.max(BLOCK)
}

/// The same of an upload that is to begin.
pub fn bytes_at_begin(plan: &Plan) -> u64 {
    bytes_of(plan, &Holdings { frontier: 0, waiting: vec![] })
}
