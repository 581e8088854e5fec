//! Keeping memory while it is needed again and again, and giving it back to the system.
//!
//! Bodies come in pieces of [`crate::server::MAX_BUFFER`], each in memory of its own. glibc would ask the system for each
//! and give it back a moment later, a page fault for every 4 KiB of a body; so it is told to keep some (mallopt(3)). The
//! buffers of thousands of connections, though, lie between the little that each of them keeps while it rests, and glibc
//! gives back what lies between only if told to (malloc_trim(3)).
#![allow(unsafe_code)]

use std::time::Duration;
use tokio::sync::Notify;

/// Shortest time between two times of giving back: more buffers become free in it.
const PAUSE: Duration = Duration::from_secs(2);

/// One for the process, as its memory is.
static FREED: Notify = Notify::const_new();

/// Notes that a connection's buffers became free.
pub fn note_freed() {
    FREED.notify_one();
}

/// Gives back what became free, soon after it was noted.
pub async fn give_back_forever() {
    loop {
        FREED.notified().await;
        tokio::time::sleep(PAUSE).await;
        let _ = tokio::task::spawn_blocking(give_back).await;
    }
}

/// Bytes that glibc keeps at the end of what it has: the pieces of some bodies that are on their way to the disk.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;

/// Has memory kept between one piece of a body and the next. For the start of the program.
#[cfg(target_env = "gnu")]
pub fn keep_some() {
    use nix::libc::{M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    for (setting, value) in [(M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, 16 * crate::server::MAX_BUFFER as i32)] {
        // SAFETY: it may be called at any time and from any thread, and changes nothing that is in use.
        let is_set = unsafe { mallopt(setting, value) } == 1;
        if !is_set {
            log::debug!("glibc keeps memory as it likes: setting {setting} cannot be {value}");
        }
    }
}

/// Has memory kept between one piece of a body and the next. For the start of the program.
#[cfg(not(target_env = "gnu"))]
pub fn keep_some() {}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it may be called at any time and from any thread, and changes nothing that is in use.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
