//! Work that no request asks for: dead mergers are started again, leftovers are swept, abandoned uploads expire.
//!
//! It uses the data folder, as any other process could, and [`mergers`](crate::mergers). Requests do not come in here,
//! and none waits for it.

pub mod expiry;
pub mod reconcile;
pub mod sweep;
