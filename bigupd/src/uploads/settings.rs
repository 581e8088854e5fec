//! Treatment of uploads, and their limits.

use crate::uploads::create::ExistingFiles;
use std::time::Duration;

/// The promise of a slice's 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceAck {
    /// It survives the death of any process; after a power cut a damaged one is found and asked for again.
    Written,
    /// It survives a power cut.
    Synced,
}

/// Treatment of uploads, and their limits. Requests over a limit are refused, never dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest slice, in bytes.
    pub slice_size: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Most slices of a file.
    pub slices: u64,
    /// Most unfinished uploads in all.
    pub number: u64,
    /// Most unfinished uploads of one token.
    pub number_per_token: u64,
    /// Largest response, in bytes.
    pub response_size: u64,
    /// Most bytes that all files may take for clients that have no token to push more. `None` if any number may.
    pub anonymous_quota: Option<u64>,
    /// Time that a push must be silent before another source may take its upload over.
    pub takeover_after: Duration,
    /// The promise of a slice's 200.
    pub slice_ack: SliceAck,
    /// The treatment of a file whose name is taken, where its protocol cannot say more.
    pub existing_files: ExistingFiles,
    /// Bytes that uploads leave free on the disk.
    pub reserve: u64,
}
