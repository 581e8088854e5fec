//! Giving memory back to the system. The buffers of thousands of connections lie between the little that each of them
//! keeps while it rests, and glibc gives back what lies between only if told to (malloc_trim(3)).
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

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it may be called at any time and from any thread, and changes nothing that is in use.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
