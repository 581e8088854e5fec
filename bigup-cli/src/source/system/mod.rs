//! The system's own knowledge of files: one file for each system, with the same functions.
//!
//! Opening, identity, times, paths and reading at a place are here. No decision about an upload comes in.

use crate::source::fingerprint::Fingerprint;

pub mod folder_event;
#[cfg(target_os = "linux")]
pub mod folder_events;
#[cfg(not(target_os = "linux"))]
#[path = "no_folder_events.rs"]
pub mod folder_events;
#[cfg(target_os = "linux")]
pub mod lease;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
#[cfg(target_os = "linux")]
pub mod writing_program;

#[cfg(unix)]
pub use unix::{
    MAY_CHANGE_UNSEEN, fingerprint_at, fingerprint_of, hides_content, is_exact, is_hole, is_regular, is_shared,
    machine_id, may_have_holes, mode_of, open, open_written, read_exact_at, real_path, settled, shown, unambiguous,
    writers_of,
};
#[cfg(windows)]
pub use windows::{
    MAY_CHANGE_UNSEEN, fingerprint_at, fingerprint_of, hides_content, is_exact, is_hole, is_regular, is_shared,
    machine_id, may_have_holes, mode_of, open, open_written, read_exact_at, real_path, settled, shown, unambiguous,
    writers_of,
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

/// The programs that can be writing to a file at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// No program has it open or mapped for writing.
    None,
    /// Some program has.
    Some,
    /// The system cannot tell.
    Unknown,
}

/// The id and the name of a program that has the file at `path` open for writing. `None`: it is not known.
#[cfg(target_os = "linux")]
pub fn writing_program(path: &std::path::Path) -> Option<(u32, String)> {
    writing_program::find(path)
}

/// The id and the name of a program that has the file at `path` open for writing: not known here.
#[cfg(not(target_os = "linux"))]
pub fn writing_program(_path: &std::path::Path) -> Option<(u32, String)> {
    None
}

/// Gives memory that is free back to the system, where its allocator keeps it otherwise.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    memory::trim();
}
