//! Events of an upload, for a program that shows them.

use crate::client::error::CallError;
use bigup_core::protocol::plan::Plan;
use std::time::Duration;

/// Learns what goes on with an upload. Methods are called by several threads at once, and must not wait long: the
/// upload waits for them.
pub trait Observer: Sync {
    /// It is known how the file is cut, and what the server holds of it, in slices and bytes.
    fn started(&self, _plan: &Plan, _slices_held: u64, _bytes_held: u64) {}

    /// The server holds so many slices and bytes by now, whatever was counted before.
    fn corrected(&self, _plan: &Plan, _slices_stored: u64, _bytes_stored: u64) {}

    /// A slice of `len` bytes was sent and taken.
    fn sent(&self, _len: u64) {}

    /// A slice of `len` bytes turned out to be held with our content.
    fn matched(&self, _len: u64) {}

    /// A request failed, and will be sent again.
    fn retrying(&self, _retry: &Retry<'_>) {}

    /// An answer came after all: nothing is waited for.
    fn answered(&self) {}

    /// The present work, in a few words for people.
    fn doing(&self, _text: &str) {}

    /// Something that people should know.
    fn noted(&self, _text: &str) {}
}

/// Tells nobody.
pub struct NoObserver;

impl Observer for NoObserver {}

/// A request that failed and will be sent again.
#[derive(Clone, Copy)]
pub struct Retry<'a> {
    /// The slice that it brings. `None`: it brings none.
    pub slice_id: Option<u64>,
    /// Number of attempts so far; 1 at first.
    pub attempt: u32,
    /// Time until it is sent again.
    pub wait: Duration,
    /// Time after which it is sent no more.
    pub left: Duration,
    /// Why it failed.
    pub error: &'a CallError,
}
