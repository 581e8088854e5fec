//! Work that no request asks for: dead mergers are started again, leftovers are swept, abandoned uploads expire.
//!
//! It works on the data folder alone, as any other process could. No request waits for it.

pub mod expiry;
pub mod reconcile;
pub mod sweep;
