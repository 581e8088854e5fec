//! The system's own knowledge of files: one file for each system, with the same functions.
//!
//! Opening, identity, times, paths and reading at a place are here. No decision about an upload comes in.

use crate::source::fingerprint::Fingerprint;

#[cfg(target_os = "linux")]
pub mod lease;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::{
    MAY_CHANGE_UNSEEN, fingerprint_at, fingerprint_of, hides_content, is_exact, is_hole, is_regular, machine_id,
    may_have_holes, mode_of, open, open_written, read_exact_at, real_path, settled, shown, unambiguous,
};
#[cfg(windows)]
pub use windows::{
    MAY_CHANGE_UNSEEN, fingerprint_at, fingerprint_of, hides_content, is_exact, is_hole, is_regular, machine_id,
    may_have_holes, mode_of, open, open_written, read_exact_at, real_path, settled, shown, unambiguous,
};

/// The fingerprint of a file, taken so that a change from now on gives it another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledFingerprint {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// True if it can be believed. False: somebody may write to the file through a memory map, which moves no time
    /// there.
    pub is_certain: bool,
}
